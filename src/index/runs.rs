//! Terms of consecutive entries.

/// The first entry of a term, and the term.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Run {
    pub(super) first: u64,
    pub(super) term: u64,
}

/// The term at `index`, unless it lies before the first of `runs`.
pub(super) fn term_at(runs: &[Run], index: u64) -> Option<u64> {
    let past = runs.partition_point(|run| run.first <= index);
    past.checked_sub(1).map(|at| runs[at].term)
}

/// What is known of the terms of an extent's entries.
#[derive(Clone, Copy, Debug)]
pub(super) enum Terms<R> {
    /// All: the term of the first entry, and the runs after it.
    Runs { first: u64, later: R },
    /// Those at the ends, if even these: the footer knows the others. Trimming must not fail, so it does not
    /// look; the code that asks does.
    Ends { first: Option<u64>, last: Option<u64> },
}

/// Terms that are borrowed.
pub(super) type TermsRef<'a> = Terms<&'a [Run]>;

impl Terms<&[Run]> {
    /// One term for all.
    pub(super) fn one(term: u64) -> Self {
        Terms::Runs { first: term, later: &[] }
    }

    /// As far as the ends say it: terms never fall.
    pub(super) fn between(first: Option<u64>, last: Option<u64>) -> Self {
        match (first, last) {
            (Some(term), Some(same)) if term == same => Terms::one(term),
            _ => Terms::Ends { first, last },
        }
    }

    /// The term at `index`, where `first` and `last` are the ends.
    pub(super) fn at(&self, index: u64, first: u64, last: u64) -> Option<u64> {
        match *self {
            Terms::Runs { first: term, later } => Some(term_at(later, index).unwrap_or(term)),
            Terms::Ends { first: term, .. } if index == first => term,
            Terms::Ends { last: term, .. } if index == last => term,
            Terms::Ends { .. } => None,
        }
    }

    /// A copy for the entries `a..=b` of those between `first` and `last`.
    pub(super) fn part(&self, a: u64, b: u64, first: u64, last: u64) -> Terms<Vec<Run>> {
        match *self {
            Terms::Runs { first: term, later } => {
                let later = if later.is_empty() {
                    Vec::new()
                } else {
                    later.iter().filter(|run| a < run.first && run.first <= b).copied().collect()
                };
                Terms::Runs { first: self.at(a, first, last).unwrap_or(term), later }
            }
            Terms::Ends { .. } => {
                Terms::Ends { first: self.at(a, first, last), last: self.at(b, first, last) }
            }
        }
    }
}

impl Terms<Vec<Run>> {
    pub(super) fn borrowed(&self) -> TermsRef<'_> {
        match self {
            Terms::Runs { first, later } => Terms::Runs { first: *first, later },
            Terms::Ends { first, last } => Terms::between(*first, *last),
        }
    }
}
