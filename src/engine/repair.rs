//! What a replica has of entries that are damaged here.

use super::Engine;
use super::reader::Reader;
use crate::error::{Error, ErrorKind, Result};
use crate::report::{Health, RepairReport};
use crate::types::{Entry, RegionId};
use crate::upkeep;
use std::ops::RangeInclusive;

/// How much is put back at once: so much is in memory, and goes into a segment of its own.
const BATCH_BYTES: u64 = 4 << 20;
const BATCH_ENTRIES: usize = 4096;

impl Engine {
    /// Puts back what a replica has of the entries that are known to be damaged or suspect here, as
    /// [`Region::repair`](crate::Region::repair) does for one: only those whose term, length and checksum are
    /// the ones that were recorded here. Nothing else is taken: no hard state, no key, no compaction point,
    /// and nothing past the last entry here. What was put back is durable on return.
    ///
    /// A [`scrub`](Engine::scrub) before finds all that is damaged. The replica is read as it lies in its
    /// files, beside an engine that may have it open.
    ///
    /// # Errors
    /// `Closed`, `Poisoned`, `NoSpace`, `Io` of this store. That the replica does not have an entry, or has
    /// another in its place, is no error: the report says so.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use raftwood::{Engine, Options, ScrubOptions};
    /// # let root = tempfile::tempdir()?;
    /// # Engine::open(root.path().join("other"))?.close()?;
    /// # let engine = Engine::open(root.path().join("store"))?;
    /// engine.scrub(&ScrubOptions::default().rate_bytes(0))?;
    /// let replica = Options::new().open_read_only(root.path().join("other"))?;
    /// let report = engine.repair_from(&replica)?;
    /// report.left.iter().for_each(|error| eprintln!("ask another replica: {error}"));
    /// # Ok(()) }
    /// ```
    pub fn repair_from(&self, replica: &Reader) -> Result<RepairReport> {
        self.store().check_process()?;
        self.store().committer.check_open()?;
        let mut report = RepairReport::default();
        let mut copies = Copies::default();
        for region in self.regions() {
            let ranges = match self.region(region).health() {
                Health::Damaged { ranges, .. } | Health::Suspect { ranges } => ranges,
                Health::Healthy => continue,
            };
            let mut recorded = Vec::new();
            for range in ranges {
                recorded.extend(self.recorded(region, range, &mut report.left));
            }
            for index in recorded.into_iter().flatten() {
                match replica.entry(region, index) {
                    Ok(entry) => copies.push(region, entry),
                    Err(e) => report.left.push(not_there(region, index, e)),
                }
                if copies.is_full() {
                    copies.put_back(self, &mut report)?;
                }
            }
        }
        copies.put_back(self, &mut report)?;
        Ok(report)
    }

    /// The indexes of a range of which something is recorded. Of a segment that is gone nothing is, and one
    /// error says so.
    fn recorded(
        &self,
        region: RegionId,
        range: RangeInclusive<u64>,
        left: &mut Vec<Error>,
    ) -> Vec<RangeInclusive<u64>> {
        let Some(cell) = self.store().table.get(region) else { return Vec::new() };
        let state = cell.read();
        let mut recorded = Vec::new();
        for e in state.extents.iter() {
            let (first, last) = (e.first().max(*range.start()), e.last().min(*range.end()));
            match first <= last {
                true if e.segment().is_hole() => {
                    let says = format!(
                        "entries {first}..={last} are gone with their segment, and with them what a copy could be compared with"
                    );
                    let lost = Error::new(ErrorKind::Unavailable, says);
                    left.push(lost.in_region(region).naming(first..=last).at(&e.segment().path, None));
                }
                true => recorded.push(first..=last),
                false => {}
            }
        }
        recorded
    }
}

fn not_there(region: RegionId, index: u64, e: Error) -> Error {
    let says = format!("the replica has no entry {index} to give");
    Error::new(ErrorKind::Unavailable, says).in_region(region).naming(index..=index).caused_by(e)
}

/// What a replica gave and is to be put back.
#[derive(Default)]
struct Copies {
    entries: Vec<(RegionId, Entry)>,
    bytes: u64,
}

impl Copies {
    fn push(&mut self, region: RegionId, entry: Entry) {
        self.bytes += entry.payload.len() as u64;
        self.entries.push((region, entry));
    }

    fn is_full(&self) -> bool {
        self.bytes >= BATCH_BYTES || self.entries.len() >= BATCH_ENTRIES
    }

    fn put_back(&mut self, engine: &Engine, report: &mut RepairReport) -> Result<()> {
        let Copies { entries, .. } = std::mem::take(self);
        let refused = upkeep::repair_all(engine.store(), &entries)?;
        report.repaired += (entries.len() - refused.len()) as u64;
        report.left.extend(refused);
        Ok(())
    }
}
