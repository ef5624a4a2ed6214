//! A run of the engine: accepting, writing and syncing batches (`src/commit`), and the jobs of upkeep
//! (`src/upkeep`, `src/segment/factory.rs`). What a crash forgets.
//!
//! A job goes on step by step, and a crash may come between any two. Within one step stands what a crash
//! cannot divide: a write whose sectors are pending afterwards, one sync, one sync of the directory.

use crate::bounds::{Bounds, Mask, bits};
use crate::disk::{Ckpt, Disk, Entry, FILES, Kind, Mark, Part, Pos, Rec, Shape};
use crate::mistakes::Mistake;
use crate::recovery::Todo;
use crate::table::{Table, has_payload};

/// A record that was accepted and not written.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct Queued {
    /// What it is.
    pub kind: Kind,
    /// Its file.
    pub file: u8,
    /// Where it goes.
    pub pos: Pos,
}

/// A sync under way.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct Sync {
    /// It covers what was written before; zero when there is none.
    pub target: Pos,
    /// The files that it syncs.
    pub files: Mask,
    /// Its place, by which its sectors are known.
    pub place: u8,
    /// It has ended well, and an earlier one has not ended.
    pub done: bool,
}

/// A piece of work of upkeep.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub enum Job {
    /// None.
    #[default]
    None,
    /// Makes a segment ready: from a file of the pool, or from a new one.
    Prepare,
    /// Gives the first full segment its footer.
    Seal,
    /// Writes a checkpoint.
    Checkpoint,
    /// Gives retired files back.
    Absorb,
    /// Notes the mark.
    Mark,
}

/// Work that consists of jobs.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub enum Task {
    /// None.
    #[default]
    None,
    /// `Engine::open`, from where the files are read.
    Open,
    /// `Engine::purge`.
    Purge,
    /// `Engine::close`.
    Close,
    /// `Engine::backup`.
    Backup,
}

/// What a run knows.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct Run {
    /// Its number.
    pub number: u8,
    /// Runs with a lower number were followed by an unclean end.
    pub unclean_before: u8,
    /// The regions.
    pub table: Table,
    /// The last record that was written.
    pub chain: Shape,
    /// The end of the last record that was durable when the run began.
    pub before: Pos,
    /// Where this run began.
    pub start: Pos,
    /// The tail of the run before is being copied.
    pub recovering: bool,
    /// The file that is written to, and where.
    pub active: Option<u8>,
    /// Records in it.
    pub offset: u8,
    /// The file that comes next.
    pub ready: Option<u8>,
    /// The file that is being made ready.
    pub preparing: u8,
    /// The lowest number that the next segment may have.
    pub next_id: u8,
    /// The number of the next segment that is made.
    pub next_file: u8,
    /// Accepted, not written.
    pub queue: [Queued; 3],
    /// How many.
    pub queued: u8,
    /// Where the next batch goes, or later.
    pub accepted: Pos,
    /// Everything before is in the system's hands.
    pub written: Pos,
    /// Everything before is on the disk.
    pub durable: Pos,
    /// Files written to since the last sync began.
    pub dirty: Mask,
    /// Syncs under way, in the order in which they began.
    pub syncs: [Sync; 2],
    /// The first error has stopped all writing.
    pub shut: bool,
    /// Files of the store's segments, but for the active one.
    pub segments: Mask,
    /// Those of them with a footer.
    pub sealed: Mask,
    /// Full ones that wait for theirs.
    pub sealing: Mask,
    /// Where each ends.
    pub ends: [u8; FILES],
    /// Checkpoints that are kept, oldest first: number, start of replay, end of what was accepted.
    pub kept: [(u8, u8, Pos); 3],
    /// How many.
    pub kept_len: u8,
    /// The number of the next.
    pub next_seq: u8,
    /// Since when each segment has held nothing that lives; zero while it does.
    pub dead_since: [Pos; FILES],
    /// Files that nobody needs.
    pub retired: Mask,
    /// Those of them that may be used again.
    pub recyclable: Mask,
    /// Files of the pool.
    pub free: Mask,
    /// Those of which it is known that they hold zeros.
    pub blank: Mask,
    /// The number of the next mark.
    pub mark_seq: u8,
    /// What the newest says.
    pub marked: Pos,
    /// What a sync made durable in a segment that no mark leads to yet; zero when there is no such.
    pub entering: Pos,
    /// The job, and its next step.
    pub job: (Job, u8),
    /// The task, and its next stage.
    pub task: (Task, u8),
    /// The checkpoint that is being written.
    pub draft: Ckpt,
    /// The position that a job waits for to be durable.
    pub flush_to: Pos,
    /// What is left to do of an open.
    pub todo: Todo,
    /// How far the copy of the tail is.
    pub copied: u8,
}

impl Run {
    /// The last place that is known to be on the disk: never the start of a segment.
    pub(crate) fn durable_record(&self) -> Pos {
        if self.durable == self.start { self.before } else { self.durable }
    }

    /// `Committer::watermark`
    fn watermark(&self, mistake: Mistake) -> Pos {
        let durable = if mistake == Mistake::WatermarkTooFar { self.accepted } else { self.durable };
        let recovering = self.recovering && mistake != Mistake::WatermarkInsideTheCopy;
        if recovering || durable == self.start || mistake == Mistake::WatermarkStuck {
            self.before
        } else {
            durable
        }
    }

    /// Whether a batch finds a place without a segment being made.
    pub fn has_room(&self, slots: u8) -> bool {
        (self.active.is_some() && self.offset < slots || self.ready.is_some())
            && (self.queued as usize) < self.queue.len()
    }

    /// Whether nothing is on its way (`Pipeline::is_idle`).
    pub fn is_idle(&self) -> bool {
        self.queued == 0 && self.syncs[0].target == Pos::ZERO && self.written == self.durable
    }

    /// Whether a sync would have something to do.
    pub fn can_sync(&self) -> bool {
        let last = self.syncs.iter().map(|sync| sync.target).max().unwrap_or_default();
        self.dirty != 0 && self.written > last.max(self.durable)
    }

    /// `Committer::active_id`
    pub(crate) fn active_id(&self, disk: &Disk) -> u8 {
        self.active.map_or(self.next_id, |f| disk.files[f as usize].header.seg)
    }

    /// The full segment that is sealed first.
    pub(crate) fn first_sealing(&self, disk: &Disk) -> Option<usize> {
        bits(self.sealing).min_by_key(|f| disk.files[*f].header.seg)
    }

    /// `Committer::end_active`
    pub(crate) fn end_active(&mut self) {
        let end = std::mem::take(&mut self.offset);
        if let Some(full) = self.active.take() {
            self.segments |= 1 << full;
            self.sealing |= 1 << full;
            self.ends[full as usize] = end;
        }
    }

    /// `Committer::rotate`, where a segment is ready.
    fn rotate(&mut self, disk: &Disk) -> bool {
        let Some(next) = self.ready.take() else { return false };
        self.end_active();
        self.next_id = disk.files[next as usize].header.seg + 1;
        self.active = Some(next);
        true
    }

    /// Gives a record its place (`Committer::place`). The file that it goes to, and the position.
    pub(crate) fn place(&mut self, disk: &Disk, kind: Kind, slots: u8) -> Option<Pos> {
        let fits = self.active.is_some() && self.offset < slots;
        if !fits && !self.rotate(disk) {
            return None;
        }
        let file = self.active?;
        let pos = Pos::new(disk.files[file as usize].header.seg, self.offset);
        self.offset += 1;
        self.accepted = Pos(pos.0 + 1);
        self.queue[self.queued as usize] = Queued { kind, file, pos };
        self.queued += 1;
        Some(pos)
    }

    /// The write stage: all that is queued, as one group (`src/commit/write_stage.rs`).
    pub(crate) fn write(&mut self, disk: &mut Disk, bounds: &Bounds) {
        let wm = self.watermark(bounds.mistake);
        for n in 0..self.queued as usize {
            let Queued { kind, file, pos } = std::mem::take(&mut self.queue[n]);
            let payload = match kind {
                Kind::Batch(batch) => has_payload(bounds.script[usize::from(batch) - 1]),
                _ => false,
            };
            let at = &mut disk.files[file as usize];
            let copied = self.todo.tail[..self.todo.tail_len as usize].iter();
            let copied = copied.filter(|_| self.recovering);
            let wrong = copied.filter(|t| kind == Kind::Batch(t.batch)).find_map(|t| t.wrong);
            at.write(pos.slot(), Rec { kind, wm, prev: self.chain, wrong }, payload);
            self.chain = Shape { pos, salt: at.header.salt };
            self.dirty |= 1 << file;
            self.written = Pos(pos.0 + 1);
        }
        self.queued = 0;
    }

    pub(crate) fn begin_sync(&mut self, disk: &mut Disk) {
        let n = usize::from(self.syncs[0].target != Pos::ZERO);
        let place = if n == 1 { 1 - self.syncs[0].place } else { 0 };
        self.syncs[n] =
            Sync { target: self.written, files: std::mem::take(&mut self.dirty), place, done: false };
        for f in bits(self.syncs[n].files) {
            disk.files[f].begin_sync(place);
        }
    }

    /// The end of a sync. Whether anything is acknowledged by it.
    pub(crate) fn end_sync(&mut self, disk: &mut Disk, n: usize, ok: bool, bounds: &Bounds) -> bool {
        let mistake = bounds.mistake;
        let sync = self.syncs[n];
        let mut files: Vec<usize> = bits(sync.files).collect();
        files.sort_by_key(|f| disk.files[*f].header.seg);
        let skipped = match mistake {
            Mistake::SyncForgotten => files.len(),
            Mistake::OlderSegmentNotSynced => files.len().saturating_sub(1),
            _ => 0,
        };
        for (nth, f) in files.into_iter().enumerate() {
            let to = match ok {
                _ if nth < skipped => Part::Cached,
                true => Part::Disk,
                false => Part::CacheOnly,
            };
            disk.files[f].end_sync(sync.place, to);
        }
        let ok = ok || mistake == Mistake::FailedSyncRetried;
        if !ok || self.shut && mistake != Mistake::AckAfterError {
            self.syncs[n] = Sync::default();
            self.syncs.sort_by_key(|sync| sync.target == Pos::ZERO);
            self.shut |= !ok && mistake != Mistake::GateLeftOpen;
            if !ok {
                // fail_all
                (self.queue, self.queued) = (Default::default(), 0);
            }
            return false;
        }
        self.syncs[n].done = true;
        let target = self.syncs[0].target;
        if bounds.changes.entry_marked
            && mistake != Mistake::EntryNotMarked
            && !self.recovering
            && self.syncs[0].done
            && self.marked.seg() < target.seg()
        {
            self.entering = target;
            return false;
        }
        self.reach(mistake)
    }

    /// What the syncs that have ended made durable. Whether anything is acknowledged by it.
    fn reach(&mut self, mistake: Mistake) -> bool {
        let mut reached = false;
        while self.syncs[0].done {
            self.durable = self.syncs[0].target;
            self.syncs = [self.syncs[1], Sync::default()];
            reached = true;
        }
        if reached && mistake == Mistake::SyncCoversLaterWrites {
            self.durable = self.written;
        }
        reached
    }

    /// The next step of the mark that leads to a new segment (`MarkFile::enter`): it is written, or synced.
    /// Whether anything is acknowledged by it.
    pub(crate) fn enter(&mut self, disk: &mut Disk, mistake: Mistake) -> bool {
        if self.marked < self.entering {
            self.marked = self.entering;
            disk.marks.cached[usize::from(self.mark_seq % 2)] =
                Mark { seq: self.mark_seq, durable: self.marked };
            if disk.marks.entry == Entry::None {
                disk.marks.entry = Entry::Made;
            }
            return false;
        }
        if mistake != Mistake::MarkNotSynced {
            disk.marks.on_disk = disk.marks.cached;
            disk.marks.entry = Entry::Durable;
        }
        self.mark_seq += 1;
        self.entering = Pos::ZERO;
        self.reach(mistake)
    }

    /// Notes since when segments have held nothing that lives (`upkeep::mark_dead`).
    pub(crate) fn mark_dead(&mut self, disk: &Disk) {
        for f in bits(self.sealed) {
            let dead = !self.table.lives_in(disk.files[f].header.seg);
            if dead && self.dead_since[f] == Pos::ZERO {
                self.dead_since[f] = self.accepted;
            }
        }
    }

    /// `upkeep::reclaim`
    pub(crate) fn reclaim(&mut self, disk: &Disk, mistake: Mistake, given_back: &mut bool) {
        self.mark_dead(disk);
        let trusted = match (self.kept_len, mistake) {
            (_, Mistake::UnlinkBeforeCheckpoint) => (0, u8::MAX, Pos(u8::MAX)),
            (3, Mistake::OlderCheckpointUnheeded) => self.kept[2],
            (3, _) => self.kept[0],
            _ => return,
        };
        for f in bits(self.sealed) {
            let dead = self.dead_since[f] != Pos::ZERO && self.dead_since[f] <= trusted.2;
            if dead && disk.files[f].header.seg < trusted.1 {
                let file = 1 << f;
                self.segments &= !file;
                self.sealed &= !file;
                self.dead_since[f] = Pos::ZERO;
                self.ends[f] = 0;
                self.retired |= file;
                *given_back = true;
                if !disk.files[f].linked || mistake == Mistake::LinkedFileReused {
                    self.recyclable |= file;
                }
            }
        }
    }
}
