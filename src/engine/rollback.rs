//! Listeners are asked what a batch may discard.

use super::Engine;
use super::write_batch::{RegionBatch, WriteBatch};
use crate::error::{Error, ErrorKind, Result};
use crate::format::batch::Encoded;
use crate::index::Discard;
use crate::limits::{BATCH_BYTES_MAX, DESC_BYTES_MAX};
use crate::listener::{Collect, Evidence, Rollback};
use crate::options::Compression;
use crate::planted::{Bug, planted};
use crate::types::{Durability, RegionId};

impl Engine {
    /// Asks each listener about each of the discards. Returns what they add to the batch that would discard
    /// them, which is `encoded`, if they add anything.
    pub(super) fn before_rollback(&self, discards: &[Discard], encoded: &Encoded) -> Result<Option<Encoded>> {
        let asked_about = &self.store().listeners.asked_about;
        let _asking = asked_about.begin(discards.iter().map(|d| d.region).collect());
        let mut collected = Collected::new(self.batch(), discards, encoded);
        for d in discards {
            let region = self.region(d.region);
            let entry = move |index| region.entry(index);
            let rollback = Rollback {
                region: d.region,
                incarnation: d.incarnation,
                first: d.first,
                last: d.last,
                cause: d.cause,
                entry: &entry,
            };
            for listener in self.store().listeners.iter() {
                let asked = listener.before_rollback_with(&rollback, &mut Evidence::new(&mut collected));
                asked.map_err(|e| {
                    Error::new(
                        ErrorKind::Refused,
                        format!(
                            "a listener refused to discard entries {}..={}; nothing was written",
                            d.first, d.last
                        ),
                    )
                    .in_region(d.region)
                    .naming(d.first..=d.last)
                    .caused_by(e)
                })?;
            }
        }
        let evidence = collected.batch;
        if planted(Bug::EvidenceApart) && !evidence.is_empty() {
            self.write(evidence, Durability::Synced)?;
            return Ok(None);
        }
        Ok((!evidence.is_empty()).then(|| evidence.encode(Compression::None).0))
    }

    /// Refuses a batch that a listener writes to a region about which it is being asked.
    pub(super) fn check_not_asked_about(&self, batch: &WriteBatch) -> Result<()> {
        let regions = batch.batch.sections.iter().map(|section| section.region);
        let its_own = self.store().listeners.asked_about.find(regions);
        its_own.map_or(Ok(()), |region| Err(not_its_own(region)))
    }
}

/// What listeners add to the batch.
struct Collected<'a> {
    batch: WriteBatch,
    discards: &'a [Discard],
    /// What there is room for beside the batch that they are asked about.
    desc_bytes_max: usize,
    bytes_max: usize,
}

impl<'a> Collected<'a> {
    fn new(batch: WriteBatch, discards: &'a [Discard], beside: &Encoded) -> Collected<'a> {
        let record_len = usize::try_from(beside.record_len()).unwrap_or(usize::MAX);
        Collected {
            batch,
            discards,
            // A block of its own, where the others are compressed.
            desc_bytes_max: DESC_BYTES_MAX.saturating_sub(beside.desc.len() + 16),
            bytes_max: BATCH_BYTES_MAX.saturating_sub(record_len + 16),
        }
    }

    fn add(&mut self, region: RegionId, add: impl FnOnce(&mut RegionBatch<'_>) -> Result<()>) -> Result<()> {
        if self.discards.iter().any(|d| d.region == region) {
            return Err(not_its_own(region));
        }
        let undo = self.batch.mark();
        let added = add(&mut self.batch.region(region)).and_then(|()| self.check_fits(region));
        if added.is_err() {
            self.batch.rewind(undo);
        }
        added
    }

    fn check_fits(&self, region: RegionId) -> Result<()> {
        let (desc, all) = (self.batch.desc_len_max(), self.batch.encoded_len());
        for (what, len, max, name) in [
            ("a description", desc, self.desc_bytes_max, "DESC_BYTES_MAX"),
            ("evidence", all, self.bytes_max, "BATCH_BYTES_MAX"),
        ] {
            if len > max {
                let text = format!(
                    "{what} of {len} bytes refused: beside the batch that rolls back there is room for {max} ({name}); \
                     write it by itself, to another region"
                );
                return Err(Error::new(ErrorKind::TooLarge, text).in_region(region));
            }
        }
        Ok(())
    }
}

impl Collect for Collected<'_> {
    fn put(&mut self, region: RegionId, key: &[u8], value: &[u8]) -> Result<()> {
        self.add(region, |batch| batch.put(key, value).map(drop))
    }

    fn append_next(&mut self, region: RegionId, payload: &[u8], term: u64) -> Result<()> {
        self.add(region, |batch| batch.append_next([payload], term).map(drop))
    }
}

fn not_its_own(region: RegionId) -> Error {
    Error::invalid(
        "a listener that is asked what this region may discard (before_rollback) does not write to it: what it \
         is asked about would change under it; write to another region",
    )
    .in_region(region)
}
