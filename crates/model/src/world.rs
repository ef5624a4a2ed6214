//! All that moves: the disk, the run, the observer and the backup; and the steps of writing, which concern
//! more than one of them.

use crate::bounds::Bounds;
use crate::disk::{Ckpt, Disk, FILES, File, Kind, Pos};
use crate::ghost::Ghost;
use crate::judge::Policy;
use crate::mistakes::Mistake;
use crate::recovery::How;
use crate::run::{Run, Task};

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
    pub backup: Backup,
}

/// A backup.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct Backup {
    /// It was answered for.
    pub done: bool,
    /// Files that it has as links, and the segment that each was then.
    pub links: [u8; FILES],
    /// The file that was being written to, copied up to where it was durable.
    pub copy: File,
    /// Its checkpoint.
    pub ckpt: Ckpt,
    /// Batches that were acknowledged before the call.
    pub acked: u8,
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
        if run.end_sync(&mut self.disk, n, ok, bounds) && !run.recovering {
            self.ghost.acknowledged(run.durable);
        }
    }

    /// Whether a mark is on its way that the end of a sync waits for.
    pub fn is_entering(&self) -> bool {
        self.run.is_some_and(|run| run.entering != Pos::ZERO)
    }

    /// The next step of that mark.
    pub fn enter(&mut self, bounds: &Bounds) {
        let Some(run) = &mut self.run else { return };
        if run.enter(&mut self.disk, bounds.mistake) {
            self.ghost.acknowledged(run.durable);
            self.ghost.proven_to(run.marked);
        }
    }

    /// Writes and syncs until everything before `flush_to` is durable, a step at a time. True when it is.
    pub(crate) fn flush(&mut self, bounds: &Bounds) -> bool {
        let Some(run) = &mut self.run else { return true };
        if run.durable >= run.flush_to || run.shut {
            return true;
        }
        if run.entering != Pos::ZERO {
            self.enter(bounds);
        } else if run.queued > 0 {
            self.write(bounds);
        } else if run.syncs[0].target != Pos::ZERO {
            self.end_sync(0, true, bounds);
        } else {
            run.begin_sync(&mut self.disk);
            self.end_sync(0, true, bounds);
        }
        false
    }

    /// Whether a run is opening the store.
    pub fn is_opening(&self) -> bool {
        self.run.is_some_and(|run| run.task.0 == Task::Open)
    }

    /// What an open has to know besides the disk.
    pub fn how<'a>(&'a self, bounds: &'a Bounds, policy: Policy) -> How<'a> {
        How {
            mistake: bounds.mistake,
            policy,
            slots: bounds.slots,
            script: &bounds.script,
            at: &self.ghost.at,
            own_zeros: bounds.own_zeros,
        }
    }
}
