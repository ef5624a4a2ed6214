//! The description of a batch: everything it does except the payloads themselves.
//!
//! A batch is four flat vectors, not a tree: a section says how many operations are its own, an append how
//! many runs and entries. Encoding, decoding and applying walk the vectors once, side by side, and a batch of
//! a hundred regions costs four allocations.
//!
//! ```text
//!   sections   region 7: 2 ops        region 9: 1 op
//!   ops        Append 4   TruncateFrom        Append 1
//!   runs       term 3 x 1, term 4 x 3         term 8 x 1
//!   entries    e e e e                        e
//!   payloads   (the record's payload area, in the same order)
//! ```
//!
//! A region may occur in more than one section. Order is meaning: operations take effect one after the other.

mod announcement;
mod desc;
mod encoded;
mod install;
mod locate;

pub(crate) use announcement::{ANNOUNCEMENT_TAG, Announcement};
pub(crate) use encoded::Encoded;
pub(crate) use install::{INSTALL_TAG, Install};
pub(crate) use locate::{BLOCK_HEADER_LEN, Block, Loc, locate};

use crate::types::{EntryId, Lsn, RegionId};
use bytes::Bytes;

/// What a list of [copies](super::copies) starts with: see [`INSTALL_TAG`].
pub(crate) const COPIES_TAG: u8 = 3;

/// What one record of the log does, to any number of regions, all or nothing.
#[derive(Default, Clone, PartialEq, Debug)]
pub(crate) struct Batch {
    /// Which regions, and how many of `ops` are theirs.
    pub(crate) sections: Vec<Section>,
    /// The operations of all sections.
    pub(crate) ops: Vec<Op>,
    /// The terms of all appends.
    pub(crate) runs: Vec<TermRun>,
    /// The entries of all appends.
    pub(crate) entries: Vec<EntryMeta>,
    /// What its maker knew to be committed, in the order of the operations: for acceptance alone, and no part
    /// of the record.
    pub(crate) committed: Vec<Committed>,
}

/// From the operation with this number on, the entries of `region` at `index` and below are known to be
/// committed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Committed {
    /// How many operations the batch had when it was named.
    pub(crate) ops_before: usize,
    /// The region.
    pub(crate) region: RegionId,
    /// The last entry that is committed.
    pub(crate) index: u64,
}

/// The next `ops` operations are for this region.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Section {
    /// The region.
    pub(crate) region: RegionId,
    /// How many operations.
    pub(crate) ops: u32,
}

/// One operation on one region.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Op {
    /// The next `entries` entries, at `first` and on, with their terms in the next `runs` runs. Entries that
    /// the region has at `first` or above are discarded.
    Append {
        /// The index of the first entry.
        first: u64,
        /// How many, at least one.
        entries: u32,
        /// In how many terms, at least one.
        runs: u32,
    },
    /// Entries at this index and above are discarded.
    TruncateFrom(u64),
    /// Entries at this index and below are covered by a snapshot and dropped.
    CompactThrough(EntryId),
    /// All entries are discarded; the log goes on after this one, which a snapshot covers.
    Reset(EntryId),
    /// Term, vote and the like: opaque, replaces the former.
    SetHardState(Bytes),
    /// Sets a key of the region.
    Put {
        /// The key.
        key: Bytes,
        /// Its new value.
        value: Bytes,
    },
    /// Removes a key of the region.
    Delete {
        /// The key.
        key: Bytes,
    },
    /// Removes the region with all that it has. A later operation recreates it.
    Destroy,
    /// All entries are discarded, and the base too; what else the region has stays.
    ForgetLog,
    /// As [`CompactThrough`](Op::CompactThrough), with an entry that was chosen when the batch was accepted:
    /// what it needs was not known when it was encoded, so its fields have a fixed width.
    ///
    /// Before that it is what [`compact_request`](Op::compact_request) makes.
    CompactTo {
        /// Which incarnation of the region was meant; 0 when there was none, or nothing to drop: then
        /// it does nothing.
        incarnation: Lsn,
        /// The last entry to drop.
        id: EntryId,
    },
    /// As [`Append`](Op::Append), with a first index that was chosen when the batch was accepted.
    AppendNext {
        /// The index of the first entry.
        first: u64,
        /// How many, at least one.
        entries: u32,
        /// In how many terms, at least one.
        runs: u32,
    },
}

impl Op {
    /// First index, entries and runs, if it appends.
    pub(crate) fn as_append(&self) -> Option<(u64, u32, u32)> {
        match *self {
            Op::Append { first, entries, runs } | Op::AppendNext { first, entries, runs } => {
                Some((first, entries, runs))
            }
            _ => None,
        }
    }

    /// A [`CompactTo`](Op::CompactTo) for which nothing is chosen yet: the index that is asked for, the
    /// identity that the region had when the operation was added, and how many operations its batch had by
    /// then.
    pub(crate) fn compact_request(index: u64, seen: Lsn, ops_before: usize) -> Op {
        Op::CompactTo { incarnation: seen, id: EntryId::new(ops_before as u64, index) }
    }

    /// Whether it is chosen at acceptance what it does.
    pub(crate) fn is_deferred(&self) -> bool {
        matches!(self, Op::CompactTo { .. } | Op::AppendNext { .. })
    }

    /// Whether it does nothing, and does not make a region exist either.
    pub(crate) fn is_void(&self) -> bool {
        matches!(self, Op::CompactTo { incarnation: Lsn::ZERO, .. })
    }
}

/// `entries` entries in a row of one term.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct TermRun {
    /// The term.
    pub(crate) term: u64,
    /// How many entries, at least one.
    pub(crate) entries: u32,
}

/// What the description says about one entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct EntryMeta {
    /// The length of its payload.
    pub(crate) len: u32,
    /// Its [`entry_checksum`](crate::codec::checksum::entry_checksum).
    pub(crate) crc: u32,
}

/// One operation with all that belongs to it.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Step<'a> {
    /// The region that it is for.
    pub(crate) region: RegionId,
    /// The operation.
    pub(crate) op: &'a Op,
    /// The terms of an append; empty otherwise.
    pub(crate) runs: &'a [TermRun],
    /// The entries of an append; empty otherwise.
    pub(crate) entries: &'a [EntryMeta],
    /// Where `entries` start in the batch's: the ordinal of their locations.
    pub(crate) entries_at: usize,
}

impl Batch {
    /// The operations in order. A batch that was decoded has consistent counts; for any other,
    /// what is missing is left out.
    pub(crate) fn steps(&self) -> Steps<'_> {
        Steps {
            sections: &self.sections,
            region: RegionId(0),
            ops_left: 0,
            ops: &self.ops,
            runs: &self.runs,
            entries: &self.entries,
            entries_at: 0,
        }
    }

    /// The first region that it appends entries to, if there is one.
    pub(crate) fn appends_to(&self) -> Option<RegionId> {
        let appends = |step: &Step<'_>| matches!(step.op, Op::Append { .. } | Op::AppendNext { .. });
        self.steps().find(appends).map(|step| step.region)
    }

    /// Bytes of all payloads, uncompressed.
    pub(crate) fn payload_bytes(&self) -> u64 {
        self.entries.iter().map(|e| u64::from(e.len)).sum()
    }
}

/// See [`Batch::steps`].
#[derive(Clone, Debug)]
pub(crate) struct Steps<'a> {
    sections: &'a [Section],
    region: RegionId,
    ops_left: u32,
    ops: &'a [Op],
    runs: &'a [TermRun],
    entries: &'a [EntryMeta],
    entries_at: usize,
}

impl<'a> Iterator for Steps<'a> {
    type Item = Step<'a>;

    fn next(&mut self) -> Option<Step<'a>> {
        while self.ops_left == 0 {
            let (section, rest) = self.sections.split_first()?;
            self.sections = rest;
            self.region = section.region;
            self.ops_left = section.ops;
        }
        let (op, rest) = self.ops.split_first()?;
        self.ops = rest;
        self.ops_left -= 1;
        let (runs, entries) =
            op.as_append().map_or((0, 0), |(_, entries, runs)| (runs as usize, entries as usize));
        let entries_at = self.entries_at;
        self.entries_at += entries;
        let runs = take(&mut self.runs, runs);
        let entries = take(&mut self.entries, entries);
        Some(Step { region: self.region, op, runs, entries, entries_at })
    }
}

/// Cuts the first `n` items off, or all when there are fewer.
fn take<'a, T>(from: &mut &'a [T], n: usize) -> &'a [T] {
    let (head, rest) = from.split_at(n.min(from.len()));
    *from = rest;
    head
}

#[cfg(test)]
pub(crate) mod testing;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_hand_each_append_its_own_runs_and_entries() {
        let append = |first, entries, runs| Op::Append { first, entries, runs };
        let batch = Batch {
            sections: vec![
                Section { region: RegionId(7), ops: 2 },
                Section { region: RegionId(8), ops: 0 },
                Section { region: RegionId(9), ops: 1 },
            ],
            ops: vec![append(5, 3, 2), Op::Destroy, append(1, 1, 1)],
            runs: [(3, 1), (4, 2), (8, 1)].map(|(term, entries)| TermRun { term, entries }).to_vec(),
            entries: (0..4).map(|i| EntryMeta { len: i, crc: i }).collect(),
            ..Batch::default()
        };
        let seen: Vec<_> = batch
            .steps()
            .map(|s| {
                (s.region.0, s.runs.iter().map(|r| r.term).collect::<Vec<_>>(), s.entries.len(), s.entries_at)
            })
            .collect();
        assert_eq!(seen, [(7, vec![3, 4], 3, 0), (7, vec![], 0, 3), (9, vec![8], 1, 3)]);
    }

    #[test]
    fn steps_of_inconsistent_counts_leave_out_what_is_missing() {
        let batch = Batch {
            sections: vec![Section { region: RegionId(1), ops: u32::MAX }],
            ops: vec![Op::Append { first: 1, entries: u32::MAX, runs: u32::MAX }],
            ..Batch::default()
        };
        let steps: Vec<_> = batch.steps().collect();
        assert_eq!(steps.len(), 1);
        assert!(steps[0].runs.is_empty() && steps[0].entries.is_empty());
    }
}
