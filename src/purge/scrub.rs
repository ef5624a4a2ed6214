//! Looks for rot before a reader meets it.

use super::seal::mend_footer;
use crate::engine::listener::Event;
use crate::engine::report::{ScrubOptions, ScrubReport};
use crate::error::{Error, ErrorKind, Result};
use crate::index::Extent;
use crate::planted::{Bug, planted};
use crate::store::{Store, lock};
use crate::types::{EntryId, RegionId};
use std::time::{Duration, Instant};

/// Reads and verifies every live entry, and every footer.
pub(crate) fn scrub(store: &Store, options: &ScrubOptions) -> Result<ScrubReport> {
    let mut report = ScrubReport::default();
    for segment in store.shared.segments() {
        if segment.footer().is_none() {
            continue;
        }
        if options.from_device {
            let dropped = segment.file.drop_cache(0..segment.len);
            dropped.map_err(|e| Error::io("dropping a segment from the cache", &segment.path, e))?;
        }
        // A segment may be removed while this looks at it: then nobody needs its footer.
        let _one = lock(&store.upkeep);
        if store.shared.segment(segment.id).is_none() {
            continue;
        }
        match mend_footer(store, &segment) {
            Ok(mended) => report.footers_rebuilt += u64::from(mended),
            // Its entries are looked at one by one below.
            Err(error) if error.kind() == ErrorKind::Damaged => {
                store.shared.tell(&Event::Damage { error: &error });
                report.damage.push(error);
            }
            Err(error) => return Err(error),
        }
    }
    let started = Instant::now();
    for cell in store.table.cells() {
        // Copies of the extents keep their segments; entries that go meanwhile are verified for nothing.
        let extents: Vec<Extent> = cell.read().extents.iter().map(|e| e.part(e.first, e.last)).collect();
        for extent in extents.iter().filter(|e| e.mem.is_none() || !planted(Bug::ScrubSkipsActive)) {
            verify(store, cell.id, extent, &mut report);
            pace(started, report.bytes, options.rate_bytes);
        }
    }
    Ok(report)
}

fn verify(store: &Store, region: RegionId, extent: &Extent, report: &mut ScrubReport) {
    for index in extent.first..=extent.last {
        let read = extent.loc(region, index).and_then(|loc| {
            let id = EntryId::new(extent.term(region, index)?, index);
            extent.segment.entry_from_file(region, id, loc)
        });
        match read {
            Ok(bytes) => {
                report.entries += 1;
                report.bytes += bytes.len() as u64;
            }
            Err(error) => {
                let error = error.of_entry(region, index);
                store.note_damage(region, index, &error);
                report.damage.push(error);
            }
        }
    }
}

fn pace(started: Instant, bytes: u64, rate: u64) {
    if rate > 0 {
        let due = Duration::from_secs_f64(bytes as f64 / rate as f64);
        if let Some(ahead) = due.checked_sub(started.elapsed()) {
            std::thread::sleep(ahead.min(Duration::from_secs(1)));
        }
    }
}
