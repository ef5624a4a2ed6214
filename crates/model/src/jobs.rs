//! The jobs of upkeep, a step at a time: `src/segment/factory.rs`, `src/upkeep`, `src/checkpoint`,
//! `src/segment/mark_file.rs`.

use crate::bounds::{Bounds, bits};
use crate::disk::{Bytes, Ckpt, Entry, File, Foot, Header, Listed, Mark, Name, Pos};
use crate::mistakes::Mistake;
use crate::run::{Job, Run};
use crate::world::World;

/// More checkpoints than this are not written in one history.
const CKPT_SEQ_MAX: u8 = 16;

impl World {
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
                let stale = run.blank >> f & 1 == 0 && mistake != Mistake::FormerGenerationForgotten;
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

    /// `upkeep::seal`
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

    /// `Checkpoints::take`
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

    /// `RetiredFiles::absorb`, with the sync of the directory that ends it.
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
