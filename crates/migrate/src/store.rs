//! What both engines hold, to read and to write; and the copy of one into the other.

use crate::failure::{Failure, Result};
use raft_proto::eraftpb::Entry;

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
}

/// A store that is being made. Regions come one after the other: first their key-values, then their entries.
pub(crate) trait Writes {
    /// A region with these key-values.
    fn begin(&mut self, region: u64, pairs: Vec<Pair>) -> Result<()>;
    /// Its next entries.
    fn append(&mut self, region: u64, entries: &[Entry]) -> Result<()>;
}

/// What was copied.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Report {
    /// Regions.
    pub regions: u64,
    /// Entries.
    pub entries: u64,
    /// Key-values.
    pub pairs: u64,
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
        to.begin(region, pairs)?;
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
