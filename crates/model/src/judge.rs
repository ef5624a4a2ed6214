//! The decision table of `src/recovery/judge.rs`, and which of its rows were needed.

/// What an open does about a record that is wrong and that nothing proves to be torn or acknowledged.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Policy {
    /// The default: refuse, or fence.
    Prove,
    /// Drop it.
    AssumeTorn,
    /// Drop it, and acknowledged records too.
    AcceptLoss,
}

/// How much of a record can be believed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RecordIs {
    /// Every byte matches.
    Right,
    /// It says what it is, and some of its payloads do not match.
    WrongInPayload,
    /// It does not even say what it is.
    Unreadable,
}

/// What becomes of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// It is written again.
    Keep,
    /// It and what follows are dropped.
    Torn,
    /// It is kept, and its entries are suspect.
    Fence,
    /// Open refuses.
    Refuse,
    /// It is dropped because the caller said so.
    Lose,
}

/// What is known of a record past the watermark.
#[derive(Clone, Copy, Debug)]
pub struct Facts {
    /// How much of it can be believed.
    pub record: RecordIs,
    /// It shows sectors that were never written.
    pub tear: bool,
    /// Bytes of an older generation are possible.
    pub stale: bool,
    /// One flipped bit explains it.
    pub rot: bool,
    /// What the caller decided.
    pub policy: Policy,
}

/// A row: "-" is `None`.
pub struct Row(RecordIs, Option<bool>, Option<bool>, Option<bool>, Option<Policy>, Verdict);

const YES: Option<bool> = Some(true);
const NO: Option<bool> = Some(false);

/// The rows, in the order of the engine's documentation.
pub const TABLE: [Row; 14] = [
    Row(RecordIs::Right, None, None, None, None, Verdict::Keep),
    Row(RecordIs::WrongInPayload, YES, None, None, None, Verdict::Torn),
    Row(RecordIs::WrongInPayload, NO, YES, NO, None, Verdict::Torn),
    Row(RecordIs::WrongInPayload, NO, YES, YES, Some(Policy::Prove), Verdict::Fence),
    Row(RecordIs::WrongInPayload, NO, NO, None, Some(Policy::Prove), Verdict::Fence),
    Row(RecordIs::WrongInPayload, NO, YES, YES, Some(Policy::AcceptLoss), Verdict::Fence),
    Row(RecordIs::WrongInPayload, NO, NO, None, Some(Policy::AcceptLoss), Verdict::Fence),
    Row(RecordIs::WrongInPayload, NO, YES, YES, Some(Policy::AssumeTorn), Verdict::Lose),
    Row(RecordIs::WrongInPayload, NO, NO, None, Some(Policy::AssumeTorn), Verdict::Lose),
    Row(RecordIs::Unreadable, YES, None, None, None, Verdict::Torn),
    Row(RecordIs::Unreadable, NO, YES, None, None, Verdict::Torn),
    Row(RecordIs::Unreadable, NO, NO, None, Some(Policy::Prove), Verdict::Refuse),
    Row(RecordIs::Unreadable, NO, NO, None, Some(Policy::AssumeTorn), Verdict::Lose),
    Row(RecordIs::Unreadable, NO, NO, None, Some(Policy::AcceptLoss), Verdict::Lose),
];

impl Row {
    fn covers(&self, f: &Facts) -> bool {
        self.0 == f.record
            && self.1.is_none_or(|tear| tear == f.tear)
            && self.2.is_none_or(|stale| stale == f.stale)
            && self.3.is_none_or(|rot| rot == f.rot)
            && self.4.is_none_or(|policy| policy == f.policy)
    }
}

/// Decides, and says by which row.
pub fn judge(facts: Facts) -> (Verdict, usize) {
    let row = TABLE.iter().position(|row| row.covers(&facts)).unwrap_or(0);
    (TABLE[row].5, row)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_case_is_decided_by_exactly_one_row() {
        for n in 0..3 * 3 * 2 * 2 * 2 {
            let facts = Facts {
                record: [RecordIs::Right, RecordIs::WrongInPayload, RecordIs::Unreadable][n / 24],
                policy: [Policy::Prove, Policy::AssumeTorn, Policy::AcceptLoss][n / 8 % 3],
                tear: n & 4 != 0,
                stale: n & 2 != 0,
                rot: n & 1 != 0,
            };
            assert_eq!(TABLE.iter().filter(|row| row.covers(&facts)).count(), 1, "{facts:?}");
        }
    }
}
