//! `src/engine/open.rs` and `src/recovery/finish.rs`: what an open does once the files are read.

use crate::bounds::{Bounds, bits};
use crate::disk::{Entry, FILES, Kind, Mark, Name, Pos, Side, View};
use crate::ghost::Wrong;
use crate::mistakes::Mistake;
use crate::recovery::Todo;
use crate::run::{Job, Task};
use crate::world::World;

impl World {
    /// `Engine::open`, from where the files are read (`Unfinished::finish`).
    pub(crate) fn step_open(&mut self, bounds: &Bounds) {
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
                        self.ghost.wrong_now(Wrong::NoPrefix);
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
                self.note_doubts();
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
                    if slot.view(Side::Desc, true) == View::Zero {
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
    fn note_doubts(&mut self) {
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
}
