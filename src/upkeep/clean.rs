//! Moves what lives in mostly dead segments elsewhere, so that their files can go.

use super::Store;
use super::pace::Pace;
use super::sealing::{Mending, mend_footer};
use crate::codec::checksum::{crc32, entry_checksum};
use crate::commit::Accept;
use crate::error::Error;
use crate::format::batch::{Batch, Encoded, EntryMeta, Install, Op, Section, TermRun};
use crate::format::file_header::SEGMENT_HEADER_LEN;
use crate::format::footer::{FooterBuilder, Tail};
use crate::format::record::{RECORD_HEADER_LEN, RecordHeader, RecordKind, Shape, record_len};
use crate::format::zeros::Zeros;
use crate::index::{Damage, Part};
use crate::listener::Event;
use crate::planted::{Bug, planted};
use crate::report::PurgeReport;
use crate::segment::factory::SegmentFactory;
use crate::segment::scan::FIRST_RECORD;
use crate::segment::{ColdFile, Segment, Unreadable, Unwritten, load_footer, open_built, write_footer};
use crate::sync::atomic::Ordering;
use crate::trace;
use crate::types::{Durability, EntryId, Lsn, RegionId};
use crate::vfs::io::write_parts_at;
use bytes::Bytes;
use std::sync::Arc;

/// Records of a cold segment are cut at about this many bytes.
const RECORD_BYTES: usize = 1 << 20;

/// A segment is not worth moving while more than this share of it lives, in percent.
const LIVE_PERCENT_MAX: u64 = 80;

/// Whether the sealed segments hold more garbage than they should.
pub(crate) fn needed(store: &Store) -> bool {
    let (total, live) = weigh(store);
    let allowed = live * 100 / u64::from(100 - store.options.purge.garbage_percent_max);
    total > allowed + 2 * store.options.segment_bytes && !victims(store).is_empty()
}

/// Bytes of the sealed segments that are not dead, and what lives in them.
fn weigh(store: &Store) -> (u64, u64) {
    let sealed = store.segments.all();
    sealed
        .iter()
        .filter(|s| s.footer().is_some() && s.live.entries() > 0)
        .fold((0, 0), |(total, live), s| (total + s.len, live + s.live.bytes()))
}

/// Segments worth cleaning, best first, for about one segment's worth of live bytes.
///
/// The order is by benefit for cost, as in a log-structured file system: what is old and mostly garbage
/// first; what is young will lose more by itself.
fn victims(store: &Store) -> Vec<Arc<Segment>> {
    let newest = store.committer.active_id();
    let mut worth: Vec<(f64, Arc<Segment>)> = store
        .segments
        .all()
        .into_iter()
        .filter(|s| s.footer().is_some() && s.live.entries() > 0)
        .filter(|s| s.live.bytes() * 100 <= s.len * LIVE_PERCENT_MAX)
        .map(|s| {
            let live = s.live.bytes() as f64 / s.len as f64;
            let age = f64::from(newest.saturating_sub(s.id)) + 1.0;
            ((1.0 - live) * age / (1.0 + live), s)
        })
        .collect();
    worth.sort_by(|a, b| b.0.total_cmp(&a.0));
    let mut budget = store.options.segment_bytes;
    worth
        .into_iter()
        .map_while(|(_, s)| {
            let take = budget > 0;
            budget = budget.saturating_sub(s.live.bytes().max(1));
            take.then_some(s)
        })
        .collect()
}

/// A piece of a region that still lies in a victim.
pub(super) struct Piece {
    region: RegionId,
    part: Part,
    /// What is known to be damaged of the region.
    damage: Option<Box<Damage>>,
}

impl Piece {
    /// Bytes that it takes in a cold segment at most: a description takes 9 bytes an entry and
    /// some for the section. The bytes of trimmed extents are estimates: a file that turns out
    /// larger than was reserved grows.
    pub(super) fn bound(&self) -> u64 {
        self.part.bytes() + self.part.count() * 9 + 128
    }
}

/// Moves what lives in the best victims into one cold segment. False when there was nothing to move.
pub(crate) fn clean(store: &Store, report: &mut PurgeReport, pace: &mut Pace<'_>) -> Result<bool, Unwritten> {
    // What is being copied must not be copied elsewhere meanwhile. That it dies, is backed up or
    // loses its file is fine.
    let _copying = store.turns.copying.lock().map_err(Unwritten::Failed)?;
    let one = store.turns.upkeep.lock().map_err(Unwritten::Failed)?;
    let victims = victims(store);
    for victim in &victims {
        // A row of its index that rotted would look like a damaged entry.
        match mend_footer(store, victim) {
            Ok(Mending::Damaged(error)) => store.listeners.deliver(&Event::DamageFound { error: &error }),
            mended => store.listeners.report(mended.map(drop)),
        }
    }
    let pieces = live_pieces(store, &victims);
    let mut one = Some(one).filter(|_| planted(Bug::CopiesInUpkeep));
    if pieces.is_empty() {
        return Ok(false);
    }
    let _span = trace::clean(victims.len());
    let bound = pieces.iter().map(Piece::bound).sum();
    let mut moved = 0;
    let cold = write_cold(store, bound, |w| {
        pieces.iter().try_for_each(|p| w.piece(store, p, pace))?;
        moved = w.moved;
        Ok(())
    })?;
    drop(pieces);
    let Some(cold) = cold else { return Ok(false) };
    report.moved_bytes += moved;
    report.segments_cleaned += victims.len() as u64;
    store.done.cleaned_bytes.fetch_add(moved, Ordering::Relaxed);
    if one.is_none() {
        one = Some(store.turns.upkeep.lock().map_err(Unwritten::Failed)?);
    }
    install(store, &cold, &victims)?;
    drop(one);
    Ok(true)
}

/// What lives in these segments, sorted by region and index.
pub(super) fn live_pieces(store: &Store, victims: &[Arc<Segment>]) -> Vec<Piece> {
    let mut pieces = Vec::new();
    for victim in victims {
        for region in regions_in(store, victim) {
            let Some(cell) = store.table.get(region) else { continue };
            let state = cell.read();
            let here = state.extents.iter().filter(|e| e.segment_id() == victim.id);
            pieces.extend(here.map(|e| Piece { region, part: e.whole(), damage: state.damage.clone() }));
        }
    }
    pieces.sort_by_key(|p| (p.region, p.part.first()));
    pieces
}

/// The regions that a segment may hold entries of: those that its footer names, all where it has none.
fn regions_in(store: &Store, segment: &Segment) -> Vec<RegionId> {
    let Some(footer) = segment.footer() else { return store.table.cells().map(|c| c.id).collect() };
    let mut regions: Vec<RegionId> = footer.ranges().map(|range| range.region()).collect();
    regions.dedup();
    regions
}

/// A cold segment being written.
pub(crate) struct ColdWriter<'a> {
    factory: &'a SegmentFactory,
    cold: &'a ColdFile,
    seed: u32,
    offset: u64,
    chain: Shape,
    footer: FooterBuilder,
    batch: Batch,
    payload: Vec<u8>,
    moved: u64,
}

/// Writes a cold segment of about `bytes` of entries, durably, and leaves no trace of one that fails.
/// `None` when there was nothing to write. The caller holds the turn of copying, and not that of
/// upkeep: this takes its time.
pub(super) fn write_cold(
    store: &Store,
    bytes: u64,
    fill: impl FnOnce(&mut ColdWriter<'_>) -> Result<(), Unwritten>,
) -> Result<Option<Arc<Segment>>, Unwritten> {
    let written = write_cold_of(&store.factory, bytes, fill)?;
    let footer_bytes = written.as_ref().map_or(0, |(_, footer_bytes)| *footer_bytes);
    store.done.footer_bytes.fetch_add(footer_bytes, Ordering::Relaxed);
    Ok(written.map(|(cold, _)| cold))
}

/// The same for a store that nobody has open. Returns the length of the footer too.
pub(crate) fn write_cold_of(
    factory: &SegmentFactory,
    bytes: u64,
    fill: impl FnOnce(&mut ColdWriter<'_>) -> Result<(), Unwritten>,
) -> Result<Option<(Arc<Segment>, u64)>, Unwritten> {
    let cold = ColdFile::create(factory, u64::from(FIRST_RECORD) + bytes + u64::from(SEGMENT_HEADER_LEN))?;
    let mut w = ColdWriter {
        factory,
        cold: &cold,
        seed: cold.identity.seed(),
        offset: u64::from(FIRST_RECORD),
        chain: Shape::default(),
        footer: FooterBuilder::new_cold(cold.identity),
        batch: Batch::default(),
        payload: Vec::with_capacity(RECORD_BYTES.min(bytes as usize)),
        moved: 0,
    };
    let filled = fill(&mut w);
    let empty = w.offset == u64::from(FIRST_RECORD) && w.batch.entries.is_empty();
    let written = filled.and_then(|()| if empty { Ok(None) } else { w.finish().map(Some) });
    if !matches!(written, Ok(Some(_))) {
        cold.give_up(factory);
    }
    written
}

impl ColdWriter<'_> {
    /// Bytes of the file so far, with those that wait to be written.
    pub(crate) fn len(&self) -> u64 {
        self.offset + self.payload.len() as u64 + self.batch.entries.len() as u64 * 9
    }

    /// Makes it a segment with a name and a footer.
    fn finish(mut self) -> Result<(Arc<Segment>, u64), Unwritten> {
        self.flush()?;
        let factory = self.factory;
        let end = u32::try_from(self.offset).map_err(|_| too_large())?;
        let footer = self.footer.finish(Tail { end, last: self.chain, ..Tail::default() });
        let (watch, footer_bytes) = (&factory.watch, footer.len() as u64);
        let segment = watch.during("finishing a cold segment", || self.cold.finish(factory, end))?;
        watch.during("writing a footer", || write_footer(&factory.files.dir, segment.id, &footer))?;
        let view = match load_footer(&factory.files.dir, &segment) {
            Some(view) => view,
            None => open_built(&segment, footer).map_err(|e| Unwritten::Failed(e.into()))?,
        };
        segment.set_footer(view);
        segment.record_bytes.store(u64::from(end - FIRST_RECORD), Ordering::Relaxed);
        Ok((segment, footer_bytes))
    }

    /// Adds the entries of a piece. Damaged ones stay where they are, so that a repair or an older copy of
    /// the file can still bring them back.
    pub(super) fn piece(
        &mut self,
        store: &Store,
        piece: &Piece,
        pace: &mut Pace<'_>,
    ) -> Result<(), Unwritten> {
        let (region, e) = (piece.region, &piece.part);
        for index in e.first()..=e.last() {
            if piece.damage.as_ref().is_some_and(|d| d.covers(index)) {
                continue;
            }
            let read = e.loc_from_file(region, index).and_then(|loc| {
                let id = EntryId::new(e.term(region, index)?, index);
                if planted(Bug::CleanerLaundersRot) {
                    let bytes = e.segment().unverified(loc)?;
                    return Ok((id, entry_checksum(region, id, &bytes), bytes));
                }
                Ok((id, loc.crc, e.segment().entry_from_file(region, id, loc)?))
            });
            match read {
                Ok((id, crc, bytes)) => {
                    self.push(region, id, crc, &bytes)?;
                    pace.spend(bytes.len() as u64).map_err(Unwritten::Failed)?;
                }
                Err(Unreadable::Failed(error)) => return Err(Unwritten::Failed(error)),
                Err(damage) => store.reads.note_damage(region, index, &damage.of_entry(region, index)),
            }
        }
        Ok(())
    }

    /// Adds an entry with the checksum it has had since its caller handed it over.
    pub(crate) fn push(
        &mut self,
        region: RegionId,
        id: EntryId,
        crc: u32,
        payload: &[u8],
    ) -> Result<(), Unwritten> {
        debug_assert_eq!(crc, entry_checksum(region, id, payload));
        if !self.payload.is_empty() && self.payload.len() + payload.len() > RECORD_BYTES {
            self.flush()?;
        }
        let b = &mut self.batch;
        let same = b.sections.last().is_some_and(|s| s.region == region);
        let joins = same
            && matches!(b.ops.last(), Some(Op::Append { first, entries, .. }) if first + u64::from(*entries) == id.index);
        if joins {
            let new_run = b.runs.last().is_none_or(|r| r.term != id.term);
            if let Some(Op::Append { entries, runs, .. }) = b.ops.last_mut() {
                *entries += 1;
                *runs += u32::from(new_run);
            }
            match b.runs.last_mut() {
                Some(run) if !new_run => run.entries += 1,
                _ => b.runs.push(TermRun { term: id.term, entries: 1 }),
            }
        } else {
            match b.sections.last_mut() {
                Some(s) if same => s.ops += 1,
                _ => b.sections.push(Section { region, ops: 1 }),
            }
            b.ops.push(Op::Append { first: id.index, entries: 1, runs: 1 });
            b.runs.push(TermRun { term: id.term, entries: 1 });
        }
        b.entries.push(EntryMeta { len: payload.len() as u32, crc });
        self.payload.extend_from_slice(payload);
        self.moved += payload.len() as u64;
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Unwritten> {
        if self.batch.entries.is_empty() {
            return Ok(());
        }
        let mut desc = Vec::new();
        self.batch.encode_desc(&[], &mut desc);
        let (desc_len, payload_len) = (desc.len() as u32, self.payload.len() as u32);
        let offset = u32::try_from(self.offset).map_err(|_| too_large())?;
        let header = RecordHeader {
            kind: RecordKind::Batch,
            position: Lsn::new(self.cold.identity.file, offset),
            desc_len,
            payload_len,
            desc_crc: crc32(0, &desc),
            watermark: Lsn::ZERO,
            zeros: Zeros::of(self.offset + u64::from(RECORD_HEADER_LEN), [&desc, &self.payload]),
            previous: self.chain,
        };
        let (head, shape) = header.encode(self.seed);
        let write = || write_parts_at(&*self.cold.file, &[&head, &desc, &self.payload], self.offset);
        let written = self.factory.watch.during("writing a cold segment", write);
        let path = || self.factory.files.dir.join(&self.cold.temp);
        written.map_err(|e| Unwritten::io("writing a cold segment", &path(), e))?;
        self.footer
            .batch(
                &self.batch,
                &[],
                offset + RECORD_HEADER_LEN + desc_len,
                shape.end().map_or(0, Lsn::offset),
            )
            .map_err(|e| {
                Unwritten::Failed(Error::invalid(format!("a batch of moved entries is malformed: {e}")))
            })?;
        self.chain = shape;
        self.offset += record_len(desc_len, payload_len);
        self.batch = Batch::default();
        self.payload.clear();
        Ok(())
    }
}

fn too_large() -> Unwritten {
    Unwritten::Failed(Error::invalid("a cold segment came out larger than 4 GiB"))
}

/// Makes the copy the place to read from: durably in the log first, then in the table. The
/// caller holds the turn of upkeep.
pub(super) fn install(store: &Store, cold: &Arc<Segment>, victims: &[Arc<Segment>]) -> Result<(), Unwritten> {
    let sources: Vec<u32> = victims.iter().map(|v| v.id).collect();
    store.segments.add(cold.clone());
    let mut desc = Vec::new();
    Install { cold: cold.id, sources: sources.clone() }.encode(&mut desc);
    let mut record = Encoded {
        kind: RecordKind::Install,
        batch: Batch::default(),
        blocks: Vec::new(),
        desc_crc: crc32(0, &desc),
        desc: Bytes::from(desc),
        payload: Bytes::new(),
    };
    let durability = if planted(Bug::InstallNotSynced) { Durability::Written } else { Durability::Synced };
    store.committer.write(&mut record, &Accept::internal(durability))?;
    store.table.relocate(cold, &sources);
    Ok(())
}
