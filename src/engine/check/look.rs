//! The segments of a check, each read once from front to back, by several threads.

use crate::codec::checksum::entry_checksum;
use crate::error::{Error, Result};
use crate::format::batch::Loc;
use crate::format::file_header::SegmentKind;
use crate::index::Part;
use crate::planted::{Bug, planted};
use crate::segment::scan::Scanner;
use crate::segment::{Segment, audit, footer_name, load_footer};
use crate::types::{EntryId, Lsn, RegionId};
use crate::upkeep::verify;
use crate::vfs::{Dir, OpenMode};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;

/// What is looked at, by any number of threads: segment by segment, so that the device is asked once for
/// each.
pub(super) struct Look<'a> {
    pub(super) dir: &'a Dir,
    pub(super) durable: Lsn,
    pub(super) in_use: bool,
    pub(super) segments: Vec<&'a Segment>,
    /// What lives in them.
    pub(super) parts: BTreeMap<u32, Vec<(RegionId, Part)>>,
}

/// What was found in one segment.
#[derive(Default)]
pub(super) struct InSegment {
    pub(super) records: u64,
    pub(super) entries: u64,
    pub(super) bytes: u64,
    pub(super) rot: Vec<Error>,
    pub(super) damage: Vec<Error>,
}

/// What a thread that looks says meanwhile.
enum Said {
    /// It read so many bytes.
    Read(u64),
    /// It is done with the segment of this place.
    Done(usize, Result<InSegment>),
}

/// An entry that lives in a segment, and where.
struct Live {
    loc: Loc,
    /// Which of the segment's parts has it, and where in that.
    part: u32,
    nth: u32,
}

/// The entries of the parts, and the parts of which the index does not say where they are.
fn live(parts: &[(RegionId, Part)]) -> (Vec<Live>, Vec<(RegionId, Part)>) {
    let (mut live, mut unlisted) = (Vec::new(), Vec::new());
    for (n, (region, part)) in parts.iter().enumerate() {
        let (before, mut nth) = (live.len(), 0);
        let push = |loc| {
            live.push(Live { loc, part: n as u32, nth });
            nth += 1;
        };
        if part.stretch().locs_from_file(*region, part.first(), part.last(), push).is_err() {
            live.truncate(before);
            unlisted.push((*region, part.stretch().part(part.first(), part.last())));
        }
    }
    (live, unlisted)
}

/// Whether the entry's bytes are right. The last compressed block is kept in `block` for the next entry of
/// it.
fn is_right(
    scanner: &mut Scanner<'_>,
    segment: &Segment,
    block: &mut Option<(u32, Bytes)>,
    region: RegionId,
    part: &Part,
    index: u64,
    loc: Loc,
) -> Result<bool> {
    let id = EntryId::new(part.term(region, index)?, index);
    if loc.is_raw() {
        let bytes = scanner.read(u64::from(loc.pos), loc.len as usize)?;
        return Ok(bytes.len() == loc.len as usize && entry_checksum(region, id, bytes) == loc.crc);
    }
    if block.as_ref().is_none_or(|(pos, _)| *pos != loc.pos) {
        *block =
            Some((loc.pos, segment.block_of(loc, |pos, len| segment.content.bytes_from_file(pos, len))?));
    }
    let raw = block.as_ref().map_or_else(Bytes::new, |(_, raw)| raw.clone());
    Ok(entry_checksum(region, id, &segment.inside(&raw, loc)?) == loc.crc)
}

/// A thread says what it read in pieces of so many bytes.
const SAID_BYTES: u64 = 256 << 10;

/// So much may be said and not heard: what holds the threads to a rate.
const SAID_MAX: usize = 16;

impl Look<'_> {
    /// Looks at all segments; what was found is in their order. `step` is called on this thread.
    pub(super) fn at_all(
        &self,
        threads: usize,
        mut step: impl FnMut(u64) -> Result<()>,
    ) -> Result<Vec<InSegment>> {
        let next = AtomicUsize::new(0);
        let mut found: Vec<InSegment> = self.segments.iter().map(|_| InSegment::default()).collect();
        thread::scope(|scope| {
            let (say, hear) = mpsc::sync_channel(SAID_MAX);
            for _ in 0..threads.clamp(1, self.segments.len().max(1)) {
                let (say, next) = (say.clone(), &next);
                scope.spawn(move || {
                    let place =
                        || Some(next.fetch_add(1, Ordering::Relaxed)).filter(|n| *n < self.segments.len());
                    while let Some(n) = place() {
                        // Nobody hears any more where something failed.
                        if say.send(Said::Done(n, self.at_one(self.segments[n], &say))).is_err() {
                            return;
                        }
                    }
                });
            }
            drop(say);
            for said in hear {
                match said {
                    Said::Read(bytes) => step(bytes)?,
                    Said::Done(n, outcome) => found[n] = outcome?,
                }
            }
            Ok(found)
        })
    }

    /// One segment: its headers, its records with the entries that live in them, and its footer. Each byte is
    /// read once, in the order of the file.
    fn at_one(&self, segment: &Segment, say: &mpsc::SyncSender<Said>) -> Result<InSegment> {
        let mut unsaid = 0;
        let mut found = InSegment::default();
        let parts = self.parts.get(&segment.id).map_or(&[][..], Vec::as_slice);
        let (mut live, mut again) = live(parts);
        live.sort_unstable_by_key(|l| (l.loc.pos, l.loc.inner));
        let mut ahead = live.iter().peekable();
        let mut block = None;
        let end = u64::from(segment.sealed_end()).min(segment.len) as u32;
        let audited = audit(segment, end, |scanner, place| {
            while let Some(l) = ahead.next_if(|l| l.loc.pos < place.end) {
                let (region, part) = &parts[l.part as usize];
                let index = part.first() + u64::from(l.nth);
                match is_right(scanner, segment, &mut block, *region, part, index, l.loc) {
                    Ok(true) => {
                        found.entries += 1;
                        found.bytes += u64::from(l.loc.len);
                    }
                    // Whatever it is, it is looked at once more, by itself.
                    _ => again.push((*region, part.stretch().part(index, index))),
                }
            }
            unsaid += place.len() as u64;
            if unsaid >= SAID_BYTES {
                say.send(Said::Read(std::mem::take(&mut unsaid))).map_err(|_| Error::closed())?;
            }
            Ok(())
        });
        for l in ahead {
            let (region, part) = &parts[l.part as usize];
            let index = part.first() + u64::from(l.nth);
            again.push((*region, part.stretch().part(index, index)));
        }
        // A running engine has given the file back: it was not there any more, or was somebody else's
        // already.
        if !self.in_use || is_there(self.dir, &segment.name()) {
            let audited = audited?;
            (found.records, found.rot) = (audited.records, audited.rot);
            found.rot.extend(self.at_footer(segment));
        }
        again.iter().try_for_each(|(region, part)| self.one_by_one(*region, part, &mut found))?;
        let _ = say.send(Said::Read(unsaid));
        Ok(found)
    }

    fn one_by_one(&self, region: RegionId, part: &Part, found: &mut InSegment) -> Result<()> {
        let segment = part.segment();
        let durable = (self.durable.segment(), u64::from(self.durable.offset()));
        let is_log = segment.kind == SegmentKind::Log && !planted(Bug::BatchInFlightCalledDamage);
        // Beside an engine, a batch of which the description is there and the payload not yet.
        let in_flight = |e: &Error| is_log && e.offset().is_some_and(|at| (segment.id, at) >= durable);
        verify(region, part, |_, outcome| match outcome.map_err(Error::from) {
            Ok(bytes) => {
                found.entries += 1;
                found.bytes += bytes;
                Ok(())
            }
            Err(e) if self.in_use && (in_flight(&e) || !is_there(self.dir, &segment.name())) => Ok(()),
            Err(error) => {
                found.damage.push(error);
                Ok(())
            }
        })
    }

    fn at_footer(&self, segment: &Segment) -> Option<Error> {
        let name = footer_name(segment.id);
        let right = || load_footer(self.dir, segment).is_some_and(|f| f.is_right());
        // Beside a running engine it may go between two looks.
        let is_wrong = is_there(self.dir, &name) && !right() && (!self.in_use || is_there(self.dir, &name));
        let error = || Error::damaged("a footer is damaged: it is a cache, and will be rebuilt");
        is_wrong.then(|| error().at(&self.dir.join(&name), None))
    }
}

/// Whether the directory has a file of this name.
fn is_there(dir: &Dir, name: &str) -> bool {
    dir.open(name, OpenMode::Read).is_ok()
}
