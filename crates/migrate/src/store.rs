//! What both engines hold, to read and to write; and the copy of one into the other.

use crate::failure::{Failure, Result};
use raft_proto::eraftpb::Entry;
use raftwood::EntryId;
use std::fmt;
use std::path::PathBuf;

/// About so many bytes of entries are in memory at once.
pub(crate) const CHUNK_BYTES: usize = 4 << 20;

/// At most so many entries are asked for at once.
pub(crate) const CHUNK_ENTRIES: u64 = 4096;

/// A key and its value.
pub(crate) type Pair = (Vec<u8>, Vec<u8>);

/// A store that nobody writes to.
pub(crate) trait Reads {
    /// Its regions, sorted.
    fn regions(&self) -> Vec<u64>;
    /// First and last index of a region's log, if there is an entry.
    fn span(&self, region: u64) -> Option<(u64, u64)>;
    /// The entries from `from` on and before `to`: one at least, [`CHUNK_BYTES`] at most.
    fn entries(&self, region: u64, from: u64, to: u64) -> Result<Vec<Entry>>;
    /// A region's key-values, sorted.
    fn pairs(&self, region: u64) -> Result<Vec<Pair>>;
    /// The last entry that was compacted away, where it is known and a copy has a place for it.
    fn base(&self, region: u64) -> Option<EntryId>;
}

/// A store that is being made. Regions come one after the other: first their key-values, then their entries.
pub(crate) trait Writes {
    /// A region with these key-values, whose log begins after `base`.
    fn begin(&mut self, region: u64, pairs: Vec<Pair>, base: Option<EntryId>) -> Result<()>;
    /// Its next entries.
    fn append(&mut self, region: u64, entries: &[Entry]) -> Result<()>;
}

/// What was copied.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Report {
    /// Regions.
    pub regions: u64,
    /// Entries.
    pub entries: u64,
    /// Key-values.
    pub pairs: u64,
    /// Ends of the source's log that are not in the copy, since it was allowed to leave them out.
    pub dropped: Vec<Dropped>,
}

/// The end of a file of the source's log, from the first record that cannot be read. Records in it are not in
/// the copy, whole ones that follow the damage included.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Dropped {
    /// The file.
    pub file: PathBuf,
    /// Where the end begins.
    pub offset: u64,
    /// Its bytes up to the last that is not zero.
    pub bytes: u64,
    /// The zeros after them: room that raft-engine allocates ahead.
    pub zeros: u64,
}

impl fmt::Display for Dropped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Dropped { file, offset, bytes, zeros } = self;
        write!(f, "{}, offset {offset}: ", file.display())?;
        match (bytes, zeros) {
            (0, _) => write!(f, "{zeros} zeros, as raft-engine allocates them ahead"),
            (_, 0) => write!(f, "{bytes} bytes that begin with no whole record"),
            _ => write!(f, "{bytes} bytes that begin with no whole record, then {zeros} zeros"),
        }
    }
}

/// How far it has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Progress {
    /// Whether the copy is being compared now.
    pub is_verifying: bool,
    /// Entries copied, or compared.
    pub done: u64,
    /// Entries that there are.
    pub total: u64,
}

/// Is notified of progress.
pub(crate) type Watch<'a> = &'a mut dyn FnMut(Progress);

fn total(from: &dyn Reads, regions: &[u64]) -> u64 {
    regions.iter().filter_map(|&region| from.span(region)).map(|(first, last)| last - first + 1).sum()
}

/// Copies everything.
pub(crate) fn copy(from: &dyn Reads, to: &mut dyn Writes, watch: Watch<'_>) -> Result<Report> {
    let regions = from.regions();
    let total = total(from, &regions);
    let mut report = Report::default();
    for region in regions {
        let pairs = from.pairs(region)?;
        report.regions += 1;
        report.pairs += pairs.len() as u64;
        to.begin(region, pairs, from.base(region))?;
        let Some((first, last)) = from.span(region) else { continue };
        let mut next = first;
        while next <= last {
            let entries = chunk(from, region, next, last)?;
            to.append(region, &entries)?;
            next += entries.len() as u64;
            report.entries += entries.len() as u64;
            watch(Progress { is_verifying: false, done: report.entries, total });
        }
    }
    Ok(report)
}

/// The next entries, with the indexes that they are due at.
fn chunk(from: &dyn Reads, region: u64, next: u64, last: u64) -> Result<Vec<Entry>> {
    let entries = from.entries(region, next, (last + 1).min(next + CHUNK_ENTRIES))?;
    if entries.is_empty() || entries.iter().zip(next..).any(|(entry, index)| entry.index != index) {
        return Err(Failure::in_region(region, format!("entry {next} is not where it is due")));
    }
    Ok(entries)
}

/// Compares everything, entry by entry.
pub(crate) fn verify(from: &dyn Reads, copy: &dyn Reads, watch: Watch<'_>) -> Result<()> {
    let regions = from.regions();
    let copied = copy.regions();
    if regions != copied {
        let (there, here) = (regions.len(), copied.len());
        return Err(Failure::Wrong(format!("the copy has other regions: {here} instead of {there}")));
    }
    let total = total(from, &regions);
    let mut done = 0;
    for region in regions {
        let differs = |what: String| Err(Failure::in_region(region, format!("the copy differs: {what}")));
        if from.pairs(region)? != copy.pairs(region)? {
            return differs("its key-values".to_owned());
        }
        let (base, copied) = (from.base(region), copy.base(region));
        if base != copied {
            return differs(format!("its log begins after {copied:?} instead of {base:?}"));
        }
        let (span, copied) = (from.span(region), copy.span(region));
        if span != copied {
            return differs(format!("its entries are {copied:?} instead of {span:?}"));
        }
        let Some((first, last)) = span else { continue };
        let mut next = first;
        while next <= last {
            let entries = chunk(from, region, next, last)?;
            let end = next + entries.len() as u64;
            let mut rest = entries.as_slice();
            while let [entry, ..] = rest {
                let copied = chunk(copy, region, entry.index, end - 1)?;
                let (part, others) = rest.split_at(copied.len().min(rest.len()));
                if let Some((entry, _)) = part.iter().zip(&copied).find(|(entry, copied)| entry != copied) {
                    return differs(format!("entry {}", entry.index));
                }
                rest = others;
            }
            done += end - next;
            next = end;
            watch(Progress { is_verifying: true, done, total });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    /// A store in memory, which gives few entries at once.
    #[derive(Clone, Default)]
    struct Memory(BTreeMap<u64, Held>);

    #[derive(Clone, Default, PartialEq, Debug)]
    struct Held {
        pairs: Vec<Pair>,
        entries: Vec<Entry>,
        base: Option<EntryId>,
    }

    impl Reads for Memory {
        fn regions(&self) -> Vec<u64> {
            self.0.keys().copied().collect()
        }

        fn span(&self, region: u64) -> Option<(u64, u64)> {
            let entries = &self.0[&region].entries;
            entries.first().zip(entries.last()).map(|(first, last)| (first.index, last.index))
        }

        fn entries(&self, region: u64, from: u64, to: u64) -> Result<Vec<Entry>> {
            let entries = self.0[&region].entries.iter();
            let at_once = 1 + (from % 3) as usize;
            Ok(entries.filter(|e| (from..to).contains(&e.index)).take(at_once).cloned().collect())
        }

        fn pairs(&self, region: u64) -> Result<Vec<Pair>> {
            Ok(self.0[&region].pairs.clone())
        }

        fn base(&self, region: u64) -> Option<EntryId> {
            self.0[&region].base
        }
    }

    impl Writes for Memory {
        fn begin(&mut self, region: u64, pairs: Vec<Pair>, base: Option<EntryId>) -> Result<()> {
            self.0.insert(region, Held { pairs, base, ..Held::default() });
            Ok(())
        }

        fn append(&mut self, region: u64, entries: &[Entry]) -> Result<()> {
            self.0.get_mut(&region).unwrap().entries.extend_from_slice(entries);
            Ok(())
        }
    }

    fn store() -> Memory {
        let entry = |index| Entry { term: 1, index, data: vec![1].into(), ..Entry::default() };
        let pair = (b"k".to_vec(), b"v".to_vec());
        let (base, entries) = (Some(EntryId::new(1, 4)), (5..=30).map(entry).collect());
        let regions = [(7, Held { pairs: vec![pair], entries, base }), (8, Held::default())];
        Memory(BTreeMap::from(regions))
    }

    #[test]
    fn a_copy_has_everything_and_is_verified() {
        let (from, mut to) = (store(), Memory::default());
        let report = copy(&from, &mut to, &mut |_| {}).unwrap();
        assert_eq!(report, Report { regions: 2, entries: 26, pairs: 1, ..Report::default() });
        assert_eq!(from.0, to.0);
        let mut last = None;
        verify(&from, &to, &mut |progress| last = Some(progress)).unwrap();
        assert_eq!(last, Some(Progress { is_verifying: true, done: 26, total: 26 }));
    }

    /// What is changed in a copy.
    type Change = fn(&mut Memory);

    #[test]
    fn every_difference_of_a_copy_is_found() {
        let changes: [(Change, &str); 12] = [
            (|copy| drop(copy.0.remove(&8)), "regions"),
            (|copy| drop(copy.0.insert(9, Default::default())), "regions"),
            (|copy| drop(copy.0.get_mut(&7).unwrap().pairs.pop()), "key-values"),
            (|copy| copy.0.get_mut(&8).unwrap().pairs.push((b"k".to_vec(), b"v".to_vec())), "key-values"),
            (|copy| copy.0.get_mut(&7).unwrap().pairs[0].1[0] ^= 1, "key-values"),
            (|copy| drop(copy.0.get_mut(&7).unwrap().entries.remove(0)), "its entries"),
            (|copy| drop(copy.0.get_mut(&7).unwrap().entries.pop()), "its entries"),
            (|copy| drop(copy.0.get_mut(&7).unwrap().entries.remove(9)), "not where it is due"),
            (|copy| copy.0.get_mut(&7).unwrap().entries[25].term = 2, "entry 30"),
            (|copy| copy.0.get_mut(&7).unwrap().entries[14].data = vec![2].into(), "entry 19"),
            (|copy| copy.0.get_mut(&7).unwrap().base = None, "begins after"),
            (|copy| copy.0.get_mut(&8).unwrap().base = Some(EntryId::new(1, 4)), "begins after"),
        ];
        for (change, text) in changes {
            let mut copy = store();
            change(&mut copy);
            match verify(&store(), &copy, &mut |_| {}) {
                Err(Failure::Wrong(why)) => assert!(why.contains(text), "{text}: {why}"),
                other => panic!("{text}: {other:?}"),
            }
        }
    }
}
