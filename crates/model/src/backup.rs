//! A copy of the store while it is written to: `src/engine/backup.rs`.

use crate::bounds::{Bounds, bits};
use crate::disk::{Bytes, Ckpt, Disk, Entry, FILES, File, Mark, Name, Part, Pos};
use crate::ghost::Wrong;
use crate::judge::Policy;
use crate::mistakes::Mistake;
use crate::recovery::{How, Outcome, recover};
use crate::run::{Job, Task};
use crate::world::World;

impl World {
    /// `Engine::backup`
    pub(crate) fn step_backup(&mut self, bounds: &Bounds) {
        let Some(run) = &mut self.run else { return };
        match run.task.1 {
            0 if run.sealing != 0 => run.job = (Job::Seal, 0),
            0 => {
                self.backup.acked = self.ghost.acked;
                run.task.1 = 1;
                run.job = (Job::Checkpoint, 0);
            }
            _ => {
                run.task = (Task::None, 0);
                let newest = run.kept_len.checked_sub(1).map_or(0, |n| run.kept[n as usize].0);
                let Some(ckpt) = self.disk.ckpts.iter().find(|c| c.seq == newest) else { return };
                self.backup.ckpt = Ckpt { entry: Entry::Durable, ..*ckpt };
                for f in bits(run.segments) {
                    self.disk.files[f].linked = true;
                    self.backup.links[f] = self.disk.files[f].header.seg;
                }
                if let Some(active) = run.active {
                    let file = self.disk.files[active as usize];
                    let mut copy = File {
                        names: [Name::Log(file.header.seg), Name::Gone, Name::Gone, Name::Gone],
                        ..file
                    };
                    copy.renames = 0;
                    let end = match run.durable.seg() == file.header.seg {
                        true => run.durable.slot(),
                        false => 0,
                    };
                    for (at, slot) in (0..).zip(&mut copy.slots) {
                        slot.old = [false; 2];
                        if at >= end {
                            *slot = Default::default();
                        }
                        for part in [&mut slot.desc, &mut slot.payload] {
                            if *part != Part::Base {
                                *part = Part::Disk;
                            }
                        }
                    }
                    self.backup.copy = copy;
                }
                self.backup.done = true;
                if bounds.mistake == Mistake::BackupNotSynced {
                    self.backup.ckpt.bytes = Bytes::Cached;
                    let slots = self.backup.copy.slots.iter_mut();
                    let parts = slots.flat_map(|slot| [&mut slot.desc, &mut slot.payload]);
                    parts.filter(|part| **part == Part::Disk).for_each(|part| *part = Part::Cached);
                }
            }
        }
    }

    /// The power goes: what the backup did not sync is lost.
    pub(crate) fn cut_backup(&mut self) {
        if self.backup.ckpt.bytes == Bytes::Cached {
            self.backup.ckpt.bytes = Bytes::Bad;
        }
        for slot in &mut self.backup.copy.slots {
            for part in [&mut slot.desc, &mut slot.payload] {
                if *part == Part::Cached {
                    *part = Part::Base;
                }
            }
        }
    }

    /// Opens the backup, and compares.
    pub fn backup_is_right(&self, bounds: &Bounds) -> Result<(), Wrong> {
        if !self.backup.done {
            return Ok(());
        }
        let mut disk = Disk::default();
        for f in 0..FILES {
            if self.backup.links[f] > 0 {
                let mut file = self.disk.files[f];
                (file.names, file.renames) =
                    ([Name::Log(self.backup.links[f]), Name::Gone, Name::Gone, Name::Gone], 0);
                // Footers are copied.
                if file.header.seg == self.backup.links[f] && file.foot.end > 0 {
                    file.foot.entry = Entry::Durable;
                }
                disk.files[f] = file;
            }
        }
        if let Some(unused) = disk.files.iter().position(File::is_unused)
            && self.backup.copy.header.seg > 0
        {
            disk.files[unused] = self.backup.copy;
            disk.files[unused].foot = Default::default();
        }
        disk.ckpts[0] = self.backup.ckpt;
        let marks = [1, 2].map(|seq| Mark { seq, durable: Pos::ZERO });
        (disk.marks.cached, disk.marks.on_disk, disk.marks.entry) = (marks, marks, Entry::Durable);
        let how = How { mistake: Mistake::None, ..self.how(bounds, Policy::Prove) };
        let Outcome::Ready(found) = recover(&mut disk, how) else { return Err(Wrong::Backup) };
        let mut table = found.table;
        for record in &found.todo.tail[..found.todo.tail_len as usize] {
            let ops = bounds.script[usize::from(record.batch) - 1];
            table.apply(ops, record.batch, 0, &self.ghost.at);
        }
        let whole =
            table.0.iter().all(|region| region.live().iter().all(|entry| !entry.damaged && !entry.suspect));
        let found = self.ghost.prefix_of(&table, bounds);
        match found {
            Some(count) if whole && count >= self.backup.acked => Ok(()),
            _ => Err(Wrong::Backup),
        }
    }
}
