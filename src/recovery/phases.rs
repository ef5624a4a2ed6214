//! The phases of a recovery. Each takes the one before, and nothing else can be made of it: what a later
//! phase knows, it knows because the earlier ones have ended.
//!
//! ```text
//!  Listed ──▶ Served ──▶ Opened ──▶ Followed ──▶ Indexed ──▶ Replayed ──▶ Recovered
//!  names,     which      files of   where the    footers of  the table    what to keep,
//!  marks      checkpoint segments   log ends     all         as it was    remove, rewrite
//! ```

use super::chain::{self, Chain, Evidence};
use super::files::{self, Listing};
use super::judge::refuse;
use super::recognise::{SegmentFiles, open_segments};
use super::replay::{give_up_before_gap, load, replay, truncate_what_was_lost};
use super::serving::{
    self, Serving, all_but_the_mark_is_missing, has_mark, is_closed, is_ours_and_bad, is_rebuilt,
    known_durable, mark_is_missing, read_file,
};
use super::{Purpose, Recovered, Unfinished, Unrecovered, tail};
use crate::checkpoint::Run;
use crate::clock;
use crate::error::{Error, Result};
use crate::format::checkpoint::CheckpointHeader;
use crate::format::file_header::{FileHeader, SegmentKind};
use crate::format::footer::Footer;
use crate::format::mark::Mark;
use crate::format::names::FileName;
use crate::index::Table;
use crate::limits::SECTOR;
use crate::options::Options;
use crate::planted::{Bug, planted};
use crate::report::{OpenReport, Proof};
use crate::segment::mark_file::{read_marks, settle_marks};
use crate::segment::scan::{FIRST_RECORD, Scanner};
use crate::segment::{RetiredFile, Segment, Unreadable, rebuild_footer};
use crate::sync::Arc;
use crate::sync::atomic::Ordering;
use crate::types::Lsn;
use crate::vfs::{Dir, VfsFile};
use std::collections::BTreeMap;
use std::time::Instant;

/// What all phases know.
pub(super) struct Recovery<'a> {
    pub(super) dir: &'a Dir,
    pub(super) options: &'a Options,
    pub(super) purpose: Purpose,
    pub(super) report: OpenReport,
}

/// What is there, by name, and what the mark says.
pub(super) struct Listed {
    began: Instant,
    marks: Vec<Mark>,
    listing: Listing,
}

impl Listed {
    pub(super) fn read(dir: &Dir) -> Result<Listed> {
        let began = clock::now();
        // Before the list, and that before the log: a running engine may go on beside an inspection.
        let marks = read_marks(dir)?;
        Ok(Listed { began, marks, listing: files::list(dir)? })
    }

    /// `None` if there is no store.
    pub(super) fn choose_checkpoint(self, r: &mut Recovery<'_>) -> Result<Option<Served>, Unrecovered> {
        let Listed { began, marks, listing } = self;
        let Some(serving) = serving::choose(r.dir, &listing, &mut r.report)? else {
            // A mark is all that a crash leaves of a store that was being made, and it proves nothing then.
            return match marks.iter().any(|mark| mark.durable > Lsn::ZERO) {
                true => Err(Unrecovered::Damaged(all_but_the_mark_is_missing(r.dir))),
                false => Ok(None),
            };
        };
        r.report.times.checkpoint = clock::since(began);
        Ok(Some(Served { marks, listing, serving }))
    }
}

/// It is known which checkpoint recovery begins with.
pub(super) struct Served {
    marks: Vec<Mark>,
    listing: Listing,
    serving: Serving,
}

impl Served {
    pub(super) fn open_segments(self, r: &mut Recovery<'_>) -> Result<Opened, Unrecovered> {
        let began = clock::now();
        let Served { mut marks, mut listing, serving } = self;
        let header = &serving.header;
        // Of a store that was closed the mark says nothing that the checkpoint does not.
        if r.purpose == Purpose::Write && !is_closed(header, &listing) {
            settle_marks(r.dir)?;
            marks = read_marks(r.dir)?;
        }
        let files = open_segments(r.dir, r.options, &mut listing, header, &mut r.report)?;
        if let Some(error) = missing_beside_its_footer(r.dir, &listing, &files, header) {
            refuse(Unrecovered::Damaged(error), r.options, &mut r.report)?;
        }
        let id = header.identity.store;
        let is_marked = |marks: &[Mark]| marks.iter().any(|mark| mark.store == id);
        if !is_marked(&marks) && has_mark(header, &listing) {
            // It is the first file of all, but an inspection may have looked before that was there.
            marks = read_marks(r.dir)?;
            if !is_marked(&marks) && !planted(Bug::MissingMarkUnheeded) {
                refuse(Unrecovered::Damaged(mark_is_missing(r.dir)), r.options, &mut r.report)?;
            }
        }
        let marked = is_marked(&marks);
        Ok(Opened { began, marks, marked, listing, serving, files })
    }
}

/// The files of the segments are open, and their headers are right.
pub(super) struct Opened {
    began: Instant,
    marks: Vec<Mark>,
    /// One of them is this store's.
    marked: bool,
    listing: Listing,
    serving: Serving,
    files: SegmentFiles,
}

impl Opened {
    /// Follows the log to its end.
    pub(super) fn follow(self, r: &mut Recovery<'_>) -> Result<Followed, Unrecovered> {
        let Opened { began, marks, marked, listing, mut serving, mut files } = self;
        let durable = known_durable(&serving.header, &marks);
        r.report.trail.proven(serving.header.synced, Proof::Checkpoint);
        r.report.trail.proven(durable, Proof::Mark);
        let evidence = Evidence { durable, marked, marks: &marks, unread: serving.unread.take() };
        let chain =
            chain::follow(r.dir, &mut files, &serving.header, evidence, r.options, r.purpose, &mut r.report)?;
        Ok(Followed { began, marks, listing, serving, files, chain })
    }
}

/// It is known where the log ends.
pub(super) struct Followed {
    began: Instant,
    marks: Vec<Mark>,
    listing: Listing,
    serving: Serving,
    files: SegmentFiles,
    chain: Chain,
}

impl Followed {
    /// Builds the footers that are missing, on the heap.
    pub(super) fn give_footers(self, r: &mut Recovery<'_>) -> Result<Indexed, Unrecovered> {
        let Followed { began, marks, listing, serving, files, chain } = self;
        let replayed_from = chain.gap.unwrap_or(serving.header.start_segment);
        let mut unsealed = Vec::new();
        let mut unsealable = Vec::new();
        let mut failed: Option<Unreadable> = None;
        for segment in files.segments.values().filter(|s| s.footer().is_none() && !s.is_hole()) {
            match give_footer(segment, &mut r.report) {
                Ok(()) => unsealed.push(segment.clone()),
                // Its entries answer with an error, one by one; the rest of the store goes on.
                Err(e) if segment.id < replayed_from || segment.kind == SegmentKind::Cold => {
                    segment.unsealable.store(true, Ordering::Release);
                    unsealable.push((segment.clone(), e.into()));
                }
                Err(e) => {
                    failed.get_or_insert(e);
                }
            }
        }
        if let Some(unreadable) = failed {
            return Err(unreadable.into());
        }
        r.report.times.segments = clock::since(began);
        Ok(Indexed { marks, listing, serving, files, chain, unsealed, unsealable })
    }
}

/// Every segment of the log has a footer, on disk or on the heap.
pub(super) struct Indexed {
    marks: Vec<Mark>,
    listing: Listing,
    serving: Serving,
    files: SegmentFiles,
    chain: Chain,
    /// Those whose footer is to be written.
    unsealed: Vec<Arc<Segment>>,
    /// Those that cannot have one, and why.
    unsealable: Vec<(Arc<Segment>, Error)>,
}

impl Indexed {
    /// Fills the table: the checkpoint, and what the log did since.
    pub(super) fn replay(self, r: &mut Recovery<'_>) -> Result<Replayed, Unrecovered> {
        let began = clock::now();
        let Indexed { marks, listing, mut serving, mut files, chain, unsealed, unsealable } = self;
        let report = &mut r.report;
        let table = Arc::new(Table::default());
        let loaded = load(&table, std::mem::take(&mut serving.bytes), &files.segments, r.dir.path())
            .map_err(Unrecovered::Damaged)?;
        let mut installed = Vec::new();
        if let Some(gap) = chain.gap {
            let before = files.segments.range(serving.header.start_segment..gap);
            installed =
                replay(&table, before, &files.segments, true, report).map_err(Unrecovered::Damaged)?;
            give_up_before_gap(&table, &files.segments, gap, report);
            serving.header.start_segment = gap;
        }
        let rest = files.segments.range(serving.header.start_segment..);
        let replayed = replay(&table, rest, &files.segments, chain.gap.is_some(), report);
        installed.extend(replayed.map_err(Unrecovered::Damaged)?);
        if report.accepted_loss {
            truncate_what_was_lost(&table, report);
        }
        for (region, entries) in chain.suspects.iter().filter_map(|e| e.region().zip(e.entries())) {
            table.change(&table.get_or_create(region)).suspect(*entries.start(), Lsn::ZERO);
        }
        report.suspects.extend(chain.suspects.iter().cloned());
        report.times.replay = clock::since(began);

        let harmed = unsealable.into_iter().filter(|(segment, _)| segment.live.entries() > 0);
        report.damage.extend(harmed.map(|(_, e)| e));
        // What is gone and held nothing that lives had been given back: a crash undid no more than the
        // removal of its name from the list.
        for (id, error) in std::mem::take(&mut files.lost) {
            match files.segments.get(&id).is_some_and(|s| s.live.entries() > 0) {
                true => report.damage.push(error),
                false => drop(files.segments.remove(&id)),
            }
        }
        report.regions = match report.replayed_segments {
            0 if chain.gap.is_none() => loaded,
            _ => table.figures().existing,
        };
        Ok(Replayed { marks, listing, serving, segments: files.segments, chain, unsealed, table, installed })
    }
}

/// The table is as it was durable.
pub(super) struct Replayed {
    marks: Vec<Mark>,
    listing: Listing,
    serving: Serving,
    segments: BTreeMap<u32, Arc<Segment>>,
    chain: Chain,
    unsealed: Vec<Arc<Segment>>,
    table: Arc<Table>,
    /// The cold segments that install records named.
    installed: Vec<u32>,
}

impl Replayed {
    /// Which files are kept, given back, or removed.
    pub(super) fn sort_out(mut self, r: &mut Recovery<'_>) -> Recovered {
        self.drop_orphans();
        let Replayed { marks, mut listing, serving, mut segments, chain, mut unsealed, table, .. } = self;
        let header = &serving.header;
        let newest_file = segments.keys().next_back().copied().unwrap_or(0).max(listing.highest);
        let unclean_before = unclean_before(header, &segments, &listing);
        let unused = take_unused(&mut segments, header);
        let is_log = |s: &Arc<Segment>| s.kind == SegmentKind::Log;
        let last_witness = header.unclean_before != Some(unclean_before)
            && !unused.is_empty()
            && !segments.range(header.start_segment..).any(|(_, s)| is_log(s));
        unsealed.retain(|s| segments.contains_key(&s.id));
        files::stray_footers(&mut listing, &segments);
        let newer = listing.checkpoints.iter().filter(|s| **s > header.identity.file);
        let names = newer.map(|sequence| FileName::Checkpoint(*sequence).to_string());
        let id = header.identity.store;
        let bad_checkpoints = names.filter(|name| is_ours_and_bad(r.dir, name, id)).collect();
        // A checkpoint older than those that are kept: its removal was lost in a crash.
        let oldest = serving.kept.list.front().map_or(0, |c| c.sequence);
        for &sequence in listing.checkpoints.iter().filter(|s| **s < oldest) {
            listing.leftovers.push(FileName::Checkpoint(sequence).to_string());
        }
        r.report.segments = segments.len() as u64;
        r.report.foreign = std::mem::take(&mut listing.foreign);
        Recovered {
            run: Run {
                store: id,
                number: header.next_file.max(newest_file.saturating_add(1)),
                unclean_before,
            },
            table,
            segments,
            chain: chain.last,
            durable: chain.durable,
            marks,
            checkpoints: serving.kept,
            report: std::mem::take(&mut r.report),
            unfinished: Unfinished {
                last_witness,
                rebuilt: is_rebuilt(header),
                bad_checkpoints,
                unsealed,
                tail: chain.tail,
                cut: chain.cut,
                unused,
                free: listing.free,
                leftovers: listing.leftovers,
            },
        }
    }

    /// A cold segment that neither the checkpoint nor an install record names was never installed.
    fn drop_orphans(&mut self) {
        let named = &self.serving.header.segments;
        let awaited: Vec<u32> = self.chain.tail.iter().filter_map(tail::installs).map(|i| i.cold).collect();
        let is_known = |id: &u32| {
            named.iter().any(|s| s.id == *id) || self.installed.contains(id) || awaited.contains(id)
        };
        let colds = self.segments.values().filter(|s| s.kind == SegmentKind::Cold);
        let orphans: Vec<u32> = colds.map(|s| s.id).filter(|id| !is_known(id)).collect();
        for id in orphans {
            if let Some(segment) = self.segments.remove(&id) {
                self.listing.leftovers.push(segment.name());
                self.unsealed.retain(|s| s.id != id);
            }
        }
    }
}

/// The number of the first run that no unclean end came after. A close leaves a checkpoint whose replay
/// begins past all segments. A segment, even an empty one, or a newer checkpoint that is no good, says that
/// the run after it was not closed: a batch is accepted only once the name of its segment is durable.
fn unclean_before(
    checkpoint: &CheckpointHeader,
    segments: &BTreeMap<u32, Arc<Segment>>,
    listing: &Listing,
) -> u32 {
    let replayed = segments.range(checkpoint.start_segment..).any(|(_, s)| s.kind == SegmentKind::Log);
    let newer = listing.checkpoints.iter().any(|sequence| *sequence > checkpoint.identity.file);
    match checkpoint.unclean_before {
        Some(before) if !replayed && !newer => before,
        _ => checkpoint.next_file.max(listing.highest.saturating_add(1)),
    }
}

/// Takes out the log segments that were prepared and hold nothing, or nothing but what was cut off. Those
/// that the checkpoint names stay until the next one does not.
fn take_unused(
    segments: &mut BTreeMap<u32, Arc<Segment>>,
    checkpoint: &CheckpointHeader,
) -> Vec<RetiredFile> {
    let named = |id: u32| checkpoint.segments.iter().any(|s| s.id == id);
    let empty =
        |s: &&Arc<Segment>| s.kind == SegmentKind::Log && s.sealed_end() == FIRST_RECORD && !s.is_hole();
    let ids: Vec<u32> = segments.values().filter(empty).map(|s| s.id).filter(|id| !named(*id)).collect();
    let taken = ids.iter().filter_map(|id| segments.remove(id));
    taken
        .map(|s| {
            // Bytes that were accepted and never acknowledged may have been handed out by an engine
            // of this process.
            let is_blank = |file: &Arc<dyn VfsFile>| {
                let mut scanner = Scanner::new(&**file, &s.path, &s.identity, s.len);
                scanner
                    .read(u64::from(FIRST_RECORD), SECTOR as usize)
                    .is_ok_and(|b| b.iter().all(|b| *b == 0))
            };
            let blank = s.file().is_ok_and(is_blank);
            RetiredFile {
                name: s.name(),
                len: s.len,
                salt: s.identity.salt,
                recyclable: blank,
                map: None,
                has_footer: false,
            }
        })
        .collect()
}

/// Finds a log whose segment is gone while its footer is there: what nothing else names was acknowledged all
/// the same. A segment is given back only once no replay needs it.
fn missing_beside_its_footer(
    dir: &Dir,
    listing: &Listing,
    opened: &SegmentFiles,
    checkpoint: &CheckpointHeader,
) -> Option<Error> {
    let replayed = listing.footers.iter().filter(|id| **id >= checkpoint.start_segment);
    for &id in replayed.filter(|id| !opened.segments.contains_key(id)) {
        let Ok(bytes) = read_file(dir, &FileName::Footer(id).to_string()) else { continue };
        let Ok(header) = FileHeader::decode(&bytes) else { continue };
        let ours = header.identity.store == checkpoint.identity.store && header.identity.file == id;
        let Some(footer) = Footer::open(bytes, &header.identity).ok().filter(|_| ours) else { continue };
        // A cold segment has no operations, and goes when it is dead.
        if footer.has_deltas().is_ok_and(|any| any) {
            let error = Error::damaged("a segment is missing, and its footer is there; put the file back");
            return Some(error.at(&dir.join(FileName::Log(id).to_string()), None));
        }
    }
    None
}

/// Builds the footer of a segment that has none, on the heap; it is written later.
fn give_footer(segment: &Arc<Segment>, report: &mut OpenReport) -> Result<(), Unreadable> {
    let end = segment.sealed_end();
    rebuild_footer(segment)?;
    report.scanned_segments += 1;
    report.scanned_bytes += u64::from(end);
    Ok(())
}
