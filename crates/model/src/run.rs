//! A run of the engine: accepting, writing and syncing batches (`src/commit`), and the jobs of upkeep
//! (`src/purge`, `src/segment/pool.rs`). What a crash forgets.
//!
//! A job goes on step by step, and a crash may come between any two. Within one step stands what a crash
//! cannot divide: a write whose sectors are pending afterwards, one sync, one sync of the directory.

use crate::disk::{
    Bytes, Change, Ckpt, Disk, Entry, FILES, File, Foot, Header, Kind, Listed, Mark, Name, Part, Pos, Rec,
    Shape,
};
use crate::ghost::Ghost;
use crate::judge::Policy;
use crate::mistakes::Mistake;
use crate::recovery::Todo;
use crate::table::{Batch, Table, has_payload};

/// What cannot change while a configuration is explored.
#[derive(Clone, Debug)]
pub struct Bounds {
    /// The mistake that is made.
    pub mistake: Mistake,
    /// What each batch does, in the order in which they are accepted.
    pub script: Vec<Batch>,
    /// Records that a segment has room for.
    pub slots: u8,
    /// Payloads end in zeros.
    pub own_zeros: bool,
    /// What the engine would do otherwise than it does.
    pub changes: Changes,
}

/// Changes of the protocol, each of which does away with a counterexample.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct Changes {
    /// An open syncs the mark file before it relies on what it read of it, which may stand in the cache only.
    pub mark_synced_at_open: bool,
    /// The mark that says that recovery's copy is whole is written to both slots.
    pub copy_marked_twice: bool,
}

/// More checkpoints than this are not written in one history.
const CKPT_SEQ_MAX: u8 = 16;

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
    pub files: u8,
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
    pub dirty: u8,
    /// Syncs under way, in the order in which they began.
    pub syncs: [Sync; 2],
    /// The first error has stopped all writing.
    pub shut: bool,
    /// Files of the store's segments, but for the active one.
    pub segments: u8,
    /// Those of them with a footer.
    pub sealed: u8,
    /// Full ones that wait for theirs.
    pub sealing: u8,
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
    pub retired: u8,
    /// Those of them that may be used again.
    pub recyclable: u8,
    /// Files of the pool.
    pub free: u8,
    /// Those of which it is known that they hold zeros.
    pub blank: u8,
    /// The number of the next mark.
    pub mark_seq: u8,
    /// What the newest says.
    pub marked: Pos,
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

/// The moving parts: the disk, the run if there is one, and what an observer knows.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct World {
    /// The disk.
    pub disk: Disk,
    /// The run.
    pub run: Option<Run>,
    /// The observer.
    pub ghost: Ghost,
    /// The copy in another directory.
    pub backup: crate::backup::Backup,
}

pub(crate) fn bits(mask: u8) -> impl Iterator<Item = usize> {
    (0..8).filter(move |n| mask >> n & 1 == 1)
}

impl Run {
    /// The last place that is known to be on the disk: never the start of a segment.
    fn durable_record(&self) -> Pos {
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
    fn active_id(&self, disk: &Disk) -> u8 {
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
    fn place(&mut self, disk: &Disk, kind: Kind, slots: u8) -> Option<Pos> {
        if !(self.active.is_some() && self.offset < slots) && !self.rotate(disk) {
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

    /// The write stage: all that is queued, as one group (`src/commit/stages.rs`).
    fn write(&mut self, disk: &mut Disk, bounds: &Bounds) {
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

    fn begin_sync(&mut self, disk: &mut Disk) {
        let n = usize::from(self.syncs[0].target != Pos::ZERO);
        let place = if n == 1 { 1 - self.syncs[0].place } else { 0 };
        self.syncs[n] =
            Sync { target: self.written, files: std::mem::take(&mut self.dirty), place, done: false };
        for f in bits(self.syncs[n].files) {
            disk.files[f].begin_sync(place);
        }
    }

    /// The end of a sync. Whether anything is acknowledged by it.
    fn end_sync(&mut self, disk: &mut Disk, n: usize, ok: bool, mistake: Mistake) -> bool {
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

    /// Notes since when segments have held nothing that lives (`purge::mark_dead`).
    fn mark_dead(&mut self, disk: &Disk) {
        for f in bits(self.sealed) {
            let dead = !self.table.lives_in(disk.files[f].header.seg);
            if dead && self.dead_since[f] == Pos::ZERO {
                self.dead_since[f] = self.accepted;
            }
        }
    }

    /// `purge::reclaim`
    fn reclaim(&mut self, disk: &Disk, mistake: Mistake, given_back: &mut bool) {
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

impl World {
    /// Accepts the next batch of the script. False when it has to wait for a segment.
    pub fn accept(&mut self, bounds: &Bounds) -> bool {
        let Some(run) = &mut self.run else { return false };
        let batch = self.ghost.next;
        let ops = bounds.script[usize::from(batch) - 1];
        let Some(pos) = run.place(&self.disk, Kind::Batch(batch), bounds.slots) else { return false };
        run.table.accept(ops, batch, pos.seg(), &mut self.ghost.at);
        self.ghost.accepted(batch, Pos(pos.0 + 1), run.number);
        true
    }

    /// Writes what is queued.
    pub fn write(&mut self, bounds: &Bounds) {
        let Some(run) = &mut self.run else { return };
        run.write(&mut self.disk, bounds);
        self.ghost.written(run.written);
        if bounds.mistake == Mistake::AckBeforeSync {
            self.ghost.acknowledged(run.written);
        }
    }

    /// A sync begins.
    pub fn begin_sync(&mut self) {
        if let Some(run) = &mut self.run {
            run.begin_sync(&mut self.disk);
        }
    }

    /// A sync ends.
    pub fn end_sync(&mut self, n: usize, ok: bool, bounds: &Bounds) {
        let Some(run) = &mut self.run else { return };
        if run.end_sync(&mut self.disk, n, ok, bounds.mistake) && !run.recovering {
            self.ghost.acknowledged(run.durable);
        }
        if run.shut {
            // Whether it is durable is not known; nobody was told that it is.
            self.ghost.refused_from(run.durable);
        }
    }

    /// Writes and syncs until everything before `flush_to` is durable, a step at a time. True when it is.
    fn flush(&mut self, bounds: &Bounds) -> bool {
        let Some(run) = &mut self.run else { return true };
        if run.durable >= run.flush_to || run.shut {
            return true;
        }
        if run.queued > 0 {
            self.write(bounds);
        } else if run.syncs[0].target != Pos::ZERO {
            self.end_sync(0, true, bounds);
        } else {
            run.begin_sync(&mut self.disk);
            self.end_sync(0, true, bounds);
        }
        false
    }

    /// One step of the job. What it is about to do has to be possible.
    pub fn step_job(&mut self, bounds: &Bounds) {
        let Some(run) = &self.run else { return };
        let done = match run.job.0 {
            Job::None => return,
            Job::Prepare => self.prepare(bounds),
            Job::Seal => self.seal(bounds),
            Job::Checkpoint => self.checkpoint(bounds),
            Job::Absorb => self.absorb(bounds),
            Job::Mark => self.note_mark(bounds),
        };
        if let (true, Some(run)) = (done, &mut self.run) {
            run.job = (Job::None, 0);
        }
    }

    /// `SegmentFactory::prepare`
    fn prepare(&mut self, bounds: &Bounds) -> bool {
        let (Some(run), disk, mistake) = (&mut self.run, &mut self.disk, bounds.mistake) else { return true };
        run.job.1 += 1;
        match run.job.1 {
            1 => {
                let free = bits(run.free).next();
                let Some(f) = free.or_else(|| disk.files.iter().position(File::is_unused)) else {
                    self.ghost.out_of_bounds = true;
                    return true;
                };
                if free.is_none() {
                    disk.files[f] = File::default();
                    disk.files[f].rename(Name::Free);
                    run.blank |= 1 << f;
                }
                run.free &= !(1 << f);
                disk.salts += 1;
                let stale = run.blank >> f & 1 == 0 && mistake != Mistake::FormerLifeForgotten;
                run.blank &= !(1 << f);
                let header = Header { seg: run.next_file, salt: disk.salts, stale };
                run.next_file += 1;
                disk.files[f].format(header, mistake != Mistake::HeaderNotSynced);
                disk.files[f].unfinished = run.recovering;
                run.preparing = f as u8;
                false
            }
            2 => {
                let file = &mut disk.files[run.preparing as usize];
                file.rename(Name::Log(file.header.seg));
                false
            }
            _ => {
                if mistake != Mistake::NameNotSynced {
                    disk.sync_dir();
                }
                run.ready = Some(std::mem::take(&mut run.preparing));
                true
            }
        }
    }

    /// `purge::seal`
    fn seal(&mut self, bounds: &Bounds) -> bool {
        let Some(run) = &mut self.run else { return true };
        let Some(f) = run.first_sealing(&self.disk) else { return true };
        let (seg, end) = (self.disk.files[f].header.seg, run.ends[f]);
        match run.job.1 {
            0 => {
                run.flush_to = Pos::new(seg, end);
                let waits = bounds.mistake != Mistake::SealedBeforeSync;
                if !waits || self.flush(bounds) {
                    let Some(run) = &mut self.run else { return true };
                    if waits && run.durable < run.flush_to {
                        return true;
                    }
                    run.job.1 = 1;
                }
                false
            }
            1 => {
                run.job.1 = 2;
                let file = &mut self.disk.files[f];
                let slots = &file.slots[..end as usize];
                let wm = slots.iter().map(|slot| slot.rec.wm).max().unwrap_or_default();
                file.foot = Foot { entry: Entry::Made, end, wm };
                false
            }
            _ => {
                self.disk.sync_dir();
                run.sealing &= !(1 << f);
                run.sealed |= 1 << f;
                self.ghost.proven_to(Pos::new(seg, end));
                true
            }
        }
    }

    /// `purge::checkpoint`
    fn checkpoint(&mut self, bounds: &Bounds) -> bool {
        let mistake = bounds.mistake;
        let (Some(run), disk) = (&mut self.run, &mut self.disk) else { return true };
        run.job.1 += 1;
        if run.next_seq > CKPT_SEQ_MAX {
            self.ghost.out_of_bounds = true;
            return true;
        }
        match run.job.1 {
            1 => {
                let mut draft = Ckpt {
                    seq: run.next_seq,
                    start: run.active_id(disk),
                    // Where accepting was when it began; `synced` is set once it is known.
                    synced: run.accepted,
                    next_file: run.next_file,
                    unclean_before: run.unclean_before,
                    ..Ckpt::default()
                };
                let mut listed: Vec<usize> = bits(run.segments).collect();
                listed.extend(run.active.map(usize::from));
                listed.sort_by_key(|f| disk.files[*f].header.seg);
                if listed.len() > draft.listed.len() {
                    self.ghost.out_of_bounds = true;
                    return true;
                }
                for (to, f) in draft.listed.iter_mut().zip(listed) {
                    let Header { seg, salt, .. } = disk.files[f].header;
                    let end = if run.active == Some(f as u8) { 0 } else { run.ends[f] };
                    *to = Listed { seg, salt, end };
                }
                run.draft = draft;
                capture(run, 0, mistake);
                false
            }
            2 => {
                capture(run, 1, mistake);
                run.flush_to = run.accepted;
                false
            }
            3 => {
                // The log is synced beyond what was captured.
                let began = run.draft.synced;
                if mistake != Mistake::CheckpointBeforeLogSync && !self.flush(bounds) {
                    let Some(run) = &mut self.run else { return true };
                    run.job.1 -= 1;
                    return false;
                }
                let Some(run) = &mut self.run else { return true };
                if (run.shut || run.durable < run.flush_to) && mistake != Mistake::CheckpointBeforeLogSync {
                    run.draft = Ckpt::default();
                    return true;
                }
                let Some(free) = self.disk.ckpts.iter().position(|c| c.entry == Entry::None) else {
                    self.ghost.out_of_bounds = true;
                    return true;
                };
                // In between, where the checkpoint began is remembered in place of `synced`.
                run.flush_to = began;
                run.draft.synced = run.durable_record();
                run.draft.entry = Entry::Made;
                if mistake == Mistake::CheckpointNotSynced {
                    run.draft.bytes = Bytes::Cached;
                }
                self.disk.ckpts[free] = run.draft;
                false
            }
            _ => {
                disk.sync_dir();
                let draft = run.draft;
                self.ghost.proven_to(draft.synced);
                self.ghost.two_ckpts = true;
                run.next_seq += 1;
                let keep = if mistake == Mistake::OneCheckpointKept { 1 } else { 3 };
                let mut kept: Vec<_> = run.kept[..run.kept_len as usize].to_vec();
                kept.push((draft.seq, draft.start, run.flush_to));
                while kept.len() > keep {
                    let old = kept.remove(0).0;
                    for ckpt in disk.ckpts.iter_mut().filter(|c| c.seq == old && c.entry != Entry::None) {
                        ckpt.entry.remove();
                    }
                }
                run.kept = Default::default();
                run.kept[..kept.len()].copy_from_slice(&kept);
                run.kept_len = kept.len() as u8;
                for region in &mut run.table.0 {
                    if !region.exists && region.touched < draft.start {
                        *region = Default::default();
                    }
                }
                run.draft = Ckpt::default();
                true
            }
        }
    }

    /// `SegmentFactory::absorb_retired`, with the sync of the directory that ends it.
    fn absorb(&mut self, bounds: &Bounds) -> bool {
        let (Some(run), disk) = (&mut self.run, &mut self.disk) else { return true };
        run.job.1 += 1;
        match run.job.1 {
            1 => {
                for f in bits(run.retired) {
                    disk.files[f].foot.entry.remove();
                    let again = run.recyclable >> f & 1 == 1;
                    disk.files[f].rename(if again { Name::Free } else { Name::Gone });
                }
                bounds.mistake == Mistake::FreeNameNotSynced && {
                    run.free |= std::mem::take(&mut run.recyclable);
                    run.retired = 0;
                    true
                }
            }
            _ => {
                disk.sync_dir();
                run.free |= std::mem::take(&mut run.recyclable);
                run.retired = 0;
                true
            }
        }
    }

    /// `MarkFile::note`
    fn note_mark(&mut self, bounds: &Bounds) -> bool {
        let (Some(run), disk) = (&mut self.run, &mut self.disk) else { return true };
        run.job.1 += 1;
        let slot = usize::from(run.mark_seq % 2);
        match run.job.1 {
            1 => {
                let says = if run.recovering { run.accepted } else { run.durable };
                if says <= run.marked {
                    return true;
                }
                run.marked = says;
                disk.marks.cached[slot] = Mark { seq: run.mark_seq, durable: says };
                if disk.marks.entry == Entry::None {
                    disk.marks.entry = Entry::Made;
                }
                false
            }
            _ => {
                if bounds.mistake != Mistake::MarkNotSynced {
                    disk.marks.on_disk = disk.marks.cached;
                    disk.marks.entry = Entry::Durable;
                }
                if !run.recovering {
                    self.ghost.proven_to(run.marked);
                }
                run.mark_seq += 1;
                if run.recovering && bounds.changes.copy_marked_twice && run.job.1 == 2 {
                    let mark = Mark { seq: run.mark_seq, durable: run.marked };
                    disk.marks.cached[usize::from(run.mark_seq % 2)] = mark;
                    return false;
                }
                true
            }
        }
    }

    /// One step of the task, when no job is under way.
    pub fn step_task(&mut self, bounds: &Bounds) {
        let Some(run) = &self.run else { return };
        match run.task.0 {
            Task::None => {}
            Task::Open => self.step_open(bounds),
            Task::Purge => self.step_purge(bounds),
            Task::Close => self.step_close(bounds),
            Task::Backup => self.step_backup(bounds),
        }
    }

    /// Whether the task is at this stage, and waits for a flush.
    fn waits_at(&mut self, stage: u8, bounds: &Bounds) -> bool {
        self.run.is_some_and(|run| run.task.1 == stage) && !self.flush(bounds)
    }

    /// Begins a job that the task needs.
    fn first(&mut self, job: Job) {
        if let Some(run) = &mut self.run {
            run.job = (job, 0);
        }
    }

    /// `purge::reclaim_all`
    fn step_purge(&mut self, bounds: &Bounds) {
        if self.waits_at(1, bounds) {
            return;
        }
        let Some(run) = &mut self.run else { return };
        let stage = run.task.1;
        match stage {
            0 => {
                run.flush_to = run.accepted;
                run.task.1 = 1;
            }
            1 => {
                run.reclaim(&self.disk, bounds.mistake, &mut self.ghost.given_back);
                run.task.1 = 2;
            }
            2 if run.retired != 0 => self.first(Job::Absorb),
            2 if run.sealing != 0 => self.first(Job::Seal),
            2 => {
                run.mark_dead(&self.disk);
                run.task.1 = 3;
            }
            3..=8 if stage % 2 == 1 => {
                run.task.1 += 1;
                if run.dead_since.iter().any(|since| *since > Pos::ZERO) {
                    self.first(Job::Checkpoint);
                }
            }
            4..=8 => {
                run.reclaim(&self.disk, bounds.mistake, &mut self.ghost.given_back);
                run.task.1 += 1;
            }
            9 if run.retired != 0 => self.first(Job::Absorb),
            _ => run.task = (Task::None, 0),
        }
    }

    /// `purge::close`
    fn step_close(&mut self, bounds: &Bounds) {
        if self.waits_at(1, bounds) {
            return;
        }
        let Some(run) = &mut self.run else { return };
        match run.task.1 {
            0 => {
                run.flush_to = run.accepted;
                run.task.1 = 1;
            }
            1 => {
                run.end_active();
                if let Some(ready) = run.ready.take() {
                    run.retired |= 1 << ready;
                    run.recyclable |= 1 << ready;
                }
                run.next_id = run.next_file;
                run.task.1 = 2;
            }
            2 if run.sealing != 0 => self.first(Job::Seal),
            2 => {
                run.task.1 = 3;
                let start = run.kept_len.checked_sub(1).map_or(0, |n| run.kept[n as usize].1);
                if bits(run.segments).any(|f| self.disk.files[f].header.seg >= start) {
                    self.first(Job::Checkpoint);
                }
            }
            3 => {
                run.task.1 = 4;
                if run.durable > run.start && run.durable > run.marked {
                    self.first(Job::Mark);
                }
            }
            4 => {
                run.reclaim(&self.disk, bounds.mistake, &mut self.ghost.given_back);
                run.task.1 = 5;
            }
            5 if run.retired != 0 => self.first(Job::Absorb),
            _ => {
                self.run = None;
                self.ghost.closed(&self.disk);
            }
        }
    }

    /// `Engine::open`, from where the files are read (`src/engine/open.rs`).
    fn step_open(&mut self, bounds: &Bounds) {
        let mistake = bounds.mistake;
        if self.waits_at(5, bounds) {
            return;
        }
        let (Some(run), disk) = (&mut self.run, &mut self.disk) else { return };
        let todo = run.todo;
        match run.task.1 {
            0 => {
                if mistake != Mistake::DirectoryNotSyncedAtOpen {
                    disk.sync_dir();
                }
                if bounds.changes.mark_synced_at_open && disk.marks.entry.is_there() {
                    disk.marks.on_disk = disk.marks.cached;
                }
                run.task.1 = 1;
            }
            1 => {
                if todo.unmarked {
                    // ensure: both slots, synced, and the name.
                    let marks = [1, 2].map(|seq| Mark { seq, durable: run.marked });
                    disk.marks.cached = [marks[1], marks[0]];
                    disk.marks.on_disk = disk.marks.cached;
                    disk.marks.entry = Entry::Made;
                    disk.sync_dir();
                    run.mark_seq = 3;
                }
                run.task.1 = 2;
            }
            // The announcement, then the copy.
            2 | 3 => {
                let announces = todo.cut || todo.votes_lost;
                let next = match run.task.1 {
                    2 if announces && mistake != Mistake::CopyNotAnnounced => Some(Kind::Announcement),
                    3 if run.copied < todo.tail_len => {
                        Some(Kind::Batch(todo.tail[run.copied as usize].batch))
                    }
                    _ => None,
                };
                let Some(kind) = next else {
                    run.task.1 += 1;
                    return;
                };
                if !run.has_room(bounds.slots) {
                    return self.first(Job::Prepare);
                }
                let Some(pos) = run.place(disk, kind, bounds.slots) else { return };
                if let Kind::Batch(batch) = kind {
                    run.copied += 1;
                    let ops = bounds.script[usize::from(batch) - 1];
                    if !run.table.apply(ops, batch, pos.seg(), &self.ghost.at) {
                        self.ghost.wrong_now(crate::ghost::Wrong::NoPrefix);
                    }
                    self.ghost.copied(batch, Pos(pos.0 + 1));
                } else {
                    run.task.1 += 1;
                }
                // What the first record should have announced, whether or not it does.
                let file = &mut disk.files[run.active.unwrap_or_default() as usize];
                let first = kind == Kind::Announcement || run.copied == 1 && run.chain.pos.seg() < run.number;
                let whole = todo.tail[..todo.tail_len as usize].iter().filter(|t| !t.suspect && first);
                for (to, record) in file.announced.iter_mut().zip(whole) {
                    *to = record.original;
                }
                run.write(disk, bounds);
            }
            4 => {
                let suspects = todo.tail[..todo.tail_len as usize].iter().any(|t| t.suspect);
                run.task.1 = if suspects || todo.votes_lost { 5 } else { 7 };
                // note_doubts: roll.
                if run.task.1 == 5 {
                    run.end_active();
                    run.flush_to = run.accepted;
                }
            }
            5 => {
                self.note_doubts(bounds);
                self.first(Job::Checkpoint);
            }
            // end_recovery: sync, then the mark.
            7 | 9 if (run.task.1 == 7) != (mistake == Mistake::MarkBeforeSync) => {
                let cut = (todo.cut || todo.votes_lost) && mistake != Mistake::CopyNotSealed;
                if cut && run.durable < run.accepted {
                    if run.written == run.accepted && run.queued == 0 && run.flush_to != run.accepted {
                        if !run.has_room(bounds.slots) {
                            return self.first(Job::Prepare);
                        }
                        run.place(disk, Kind::Watermark, bounds.slots);
                        run.flush_to = run.accepted;
                    }
                    self.flush(bounds);
                    return;
                }
                run.task.1 += 1;
            }
            7 | 9 => {
                run.task.1 += 1;
                let cut = (todo.cut || todo.votes_lost) && mistake != Mistake::CopyNotSealed;
                if cut {
                    self.first(Job::Mark);
                }
            }
            8 => run.task.1 = 9,
            10 => {
                run.recovering = false;
                disk.files.iter_mut().for_each(|file| file.unfinished = false);
                run.task.1 = 11;
                if todo.last_witness && mistake != Mistake::UncleanEndForgotten {
                    self.first(Job::Checkpoint);
                }
            }
            11 => {
                run.retired |= todo.unused;
                for f in bits(todo.unused) {
                    // Blank where the first sector past the header is.
                    let slot = &disk.files[f].slots[0];
                    if slot.view(crate::disk::Side::Desc, true) == crate::disk::View::Zero {
                        run.recyclable |= 1 << f;
                    }
                }
                for f in bits(todo.leftovers) {
                    disk.files[f].rename(Name::Gone);
                }
                for f in 0..FILES {
                    if disk.files[f].name() == Name::Free {
                        disk.files[f].foot.entry.remove();
                    }
                }
                for c in bits(todo.old_ckpts) {
                    disk.ckpts[c].entry.remove();
                }
                run.sealing = run.segments & !run.sealed;
                run.task.1 = 12;
                if todo.bad_ckpts != 0 || todo.votes_lost || todo.rebuilt {
                    self.first(Job::Checkpoint);
                }
            }
            12 => {
                for c in bits(todo.bad_ckpts) {
                    disk.ckpts[c].entry.remove();
                }
                run.task = (Task::None, 0);
                let Some(run) = &self.run else { return };
                let answers = *run;
                self.ghost.opened(&answers, &self.disk, bounds);
                if let Some(run) = &mut self.run {
                    (run.todo, run.copied) = (Todo::default(), 0);
                }
            }
            _ => run.task.1 += 1,
        }
    }

    /// `note_doubts`, but for the roll before it and the checkpoint after it.
    fn note_doubts(&mut self, _: &Bounds) {
        let Some(run) = &mut self.run else { return };
        let as_of = run.active_id(&self.disk);
        for record in &run.todo.tail[..run.todo.tail_len as usize] {
            for region in &mut run.table.0 {
                let count = region.count as usize;
                for entry in &mut region.entries[..count] {
                    if record.suspect && entry.batch == record.batch {
                        entry.suspect = true;
                        region.touched = as_of;
                    }
                }
            }
        }
        if run.todo.votes_lost {
            for region in run.table.0.iter_mut().filter(|region| region.exists) {
                (region.hard_state_lost, region.touched) = (true, as_of);
            }
        }
        run.task.1 = 7;
    }

    /// What a power cut could take now.
    pub fn pending(&self) -> Vec<Change> {
        self.disk.pending()
    }

    /// Whether a run is opening the store.
    pub fn is_opening(&self) -> bool {
        self.run.is_some_and(|run| run.task.0 == Task::Open)
    }

    /// What an open has to know besides the disk.
    pub fn how<'a>(&'a self, bounds: &'a Bounds, policy: Policy) -> crate::recovery::How<'a> {
        crate::recovery::How {
            mistake: bounds.mistake,
            policy,
            slots: bounds.slots,
            script: &bounds.script,
            at: &self.ghost.at,
            own_zeros: bounds.own_zeros,
        }
    }
}

/// Takes a region into the checkpoint that is being written.
fn capture(run: &mut Run, n: usize, mistake: Mistake) {
    let mut region = run.table.0[n];
    if !region.exists && region.touched < run.draft.start {
        region = Default::default();
    }
    if mistake == Mistake::SuspectForgotten {
        region.entries.iter_mut().for_each(|entry| entry.suspect = false);
    }
    run.draft.table.0[n] = region;
}
