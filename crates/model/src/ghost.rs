//! What an observer knows, and the promises that it holds the store to.
//!
//! The observer sees what was accepted and acknowledged, what was synced, and which sector a fault hit. It
//! knows nothing of watermarks and marks as they stand on the disk: only when there ought to be one.

use crate::bounds::Bounds;
use crate::disk::{Disk, Kind, Name, Part, Pos, Side, View};
use crate::recovery::Why;
use crate::run::Run;
use crate::table::{BATCHES, Indexes, Table, has_payload};

/// A promise that was broken.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub enum Wrong {
    /// None.
    #[default]
    Nothing,
    /// Something acknowledged is missing, and nothing says so.
    Lost,
    /// What is there is no prefix of what was accepted: something came back, or is there in part.
    NoPrefix,
    /// An open was refused, and no fault had been there.
    RefusedForNothing(Why),
    /// An open was refused for a fault that should have affected less.
    RefusedTooMuch(Why),
    /// Damage or a doubt was reported, and no fault had been there.
    Alarm,
    /// What was found suspect once is not suspect any more, or is called damaged.
    DoubtForgotten,
    /// A loss was accepted, and hard states are answered that may be older than one that was acknowledged.
    VoteBelieved,
    /// A run that was killed is not known for one.
    UncleanForgotten,
    /// Two recoveries of the same files differ.
    Differs,
    /// Opening goes on without end, or cannot go on.
    Endless,
    /// A backup lacks something that was acknowledged before it was made.
    Backup,
}

/// What a fault does to a sector.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Harm {
    /// The write to it is lost after all: what stood there before shows again.
    Lost,
    /// One bit flips.
    Flip,
    /// It holds anything.
    Garbage,
    /// The header stays right, and the description does not.
    DescWrong,
    /// The device cannot read it.
    Unreadable,
}

/// A fault of the medium.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Fault {
    /// It hits one sector of a record.
    Sector(u8, u8, Side, Harm),
    /// A file of the log is gone.
    Missing(u8),
    /// A footer is gone, or wrong.
    Foot(u8),
    /// The newest checkpoint is wrong.
    NewestCkpt,
    /// All checkpoints are wrong.
    AllCkpts,
    /// A slot of the mark file is wrong.
    MarkSlot(u8),
    /// The mark file is gone.
    Marks,
    /// The mark file is gone, and with it the newest file of the log: the store is an unfinished copy.
    Newest,
}

/// The observer.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Ghost {
    /// The log: batches in the order in which they were accepted. What a crash cut off is not in it.
    pub log: [u8; BATCHES],
    /// How many.
    pub len: u8,
    /// So many of them were acknowledged.
    pub acked: u8,
    /// Of so many there is a proof, other than their own bytes, that they were.
    pub proven: u8,
    /// Of so many the proof stands in another file.
    pub proven_elsewhere: u8,
    /// A fault hit this one, in a way that leaves nothing to tell it from one that was never written.
    pub excused_from: u8,
    /// The next batch of the script.
    pub next: u8,
    /// Where each batch of the log ends, if this run wrote it.
    pub ends: [Pos; BATCHES],
    /// How many were acknowledged when it was written.
    pub at_write: [u8; BATCHES],
    /// The indexes in each batch.
    pub at: Indexes,
    /// Batches with an entry that was found suspect, one bit each.
    pub doubts: u8,
    /// The log does not reach back to the first record of the first segment any more.
    pub given_back: bool,
    /// Another checkpoint than the first was written.
    pub two_ckpts: bool,
    /// A fault was there.
    pub faulty: bool,
    /// It may make an open refuse.
    pub may_refuse: bool,
    /// The store was closed and not opened since.
    pub is_closed: bool,
    /// The run that wrote each batch of the log.
    pub writers: [u8; BATCHES],
    /// A run ended uncleanly, and the store was not opened since.
    pub unclean: bool,
    /// What runs with a lower number wrote was followed by an unclean end.
    pub unclean_before: u8,
    /// The last open was refused.
    pub refused: bool,
    /// The caller has decided to accept one.
    pub accepts_loss: bool,
    /// A loss was accepted: nothing is looked at after that.
    pub lossy: bool,
    /// The first promise that was broken.
    pub wrong: Wrong,
    /// There is no room to go on in this model.
    pub out_of_bounds: bool,
}

const NOT_EXCUSED: u8 = u8::MAX;

impl Default for Ghost {
    fn default() -> Ghost {
        Ghost {
            log: [0; BATCHES],
            len: 0,
            acked: 0,
            proven: 0,
            proven_elsewhere: 0,
            excused_from: NOT_EXCUSED,
            next: 1,
            ends: [Pos::ZERO; BATCHES],
            at_write: [0; BATCHES],
            at: Indexes::default(),
            doubts: 0,
            given_back: false,
            two_ckpts: false,
            faulty: false,
            may_refuse: false,
            is_closed: false,
            writers: [0; BATCHES],
            unclean: false,
            unclean_before: 0,
            refused: false,
            accepts_loss: false,
            lossy: false,
            wrong: Wrong::Nothing,
            out_of_bounds: false,
        }
    }
}

impl Ghost {
    /// Notes a broken promise, if it is the first.
    pub fn wrong_now(&mut self, wrong: Wrong) {
        if self.wrong == Wrong::Nothing {
            self.wrong = wrong;
        }
    }

    pub(crate) fn accepted(&mut self, batch: u8, end: Pos, run: u8) {
        self.writers[self.len as usize] = run;
        self.log[self.len as usize] = batch;
        self.ends[self.len as usize] = end;
        self.at_write[self.len as usize] = u8::MAX;
        self.len += 1;
        self.next += 1;
    }

    fn count_before(&self, pos: Pos) -> u8 {
        self.ends[..self.len as usize].iter().filter(|end| **end <= pos).count() as u8
    }

    pub(crate) fn written(&mut self, to: Pos) {
        for n in 0..self.count_before(to) as usize {
            if self.at_write[n] == u8::MAX {
                self.at_write[n] = self.acked;
            }
        }
    }

    pub(crate) fn acknowledged(&mut self, to: Pos) {
        for n in self.acked..self.count_before(to) {
            self.acked = n + 1;
            let before = self.at_write[n as usize];
            if before != u8::MAX {
                self.proven = self.proven.max(before);
                let seg = self.ends[n as usize].seg();
                let older = self.ends[..before as usize].iter().filter(|end| end.seg() < seg).count();
                self.proven_elsewhere = self.proven_elsewhere.max(older as u8);
            }
        }
    }

    /// Something that was synced says that the log is durable up to there.
    pub(crate) fn proven_to(&mut self, to: Pos) {
        self.proven = self.proven.max(self.count_before(to).min(self.acked));
        self.proven_elsewhere = self.proven_elsewhere.max(self.count_before(to).min(self.acked));
    }

    pub(crate) fn copied(&mut self, batch: u8, end: Pos) {
        if let Some(n) = self.log[..self.len as usize].iter().position(|b| *b == batch) {
            self.ends[n] = end;
        }
    }

    /// The process died, or the power went.
    pub(crate) fn crashed(&mut self, run: &Run) {
        // Where everything was acknowledged, nothing that a reader may have seen is lost.
        if self.len > self.acked && run.task.0 != crate::run::Task::Open {
            self.unclean = true;
        }
        self.ends = [Pos::ZERO; BATCHES];
        self.at_write = [0; BATCHES];
        for n in self.len as usize..BATCHES {
            self.log[n] = 0;
        }
    }

    pub(crate) fn closed(&mut self) {
        (self.is_closed, self.acked) = (true, self.len);
        (self.proven, self.proven_elsewhere) = (self.len, self.len);
        self.ends = [Pos::ZERO; BATCHES];
        self.at_write = [0; BATCHES];
    }

    /// The table after the first batches of the log.
    fn table_after(&self, count: u8, bounds: &Bounds) -> Table {
        let mut table = Table::default();
        for &batch in &self.log[..count as usize] {
            table.apply(bounds.script[usize::from(batch) - 1], batch, 0, &self.at);
        }
        table
    }

    /// After how many batches of the log the regions look like this, if after any.
    pub fn prefix_of(&self, table: &Table, bounds: &Bounds) -> Option<u8> {
        (0..=self.len).rev().find(|count| self.table_after(*count, bounds).same_content(table))
    }

    /// The store is open again, and its first answer is given.
    pub(crate) fn opened(&mut self, run: &Run, disk: &Disk, bounds: &Bounds) {
        self.is_closed = false;
        let found = self.prefix_of(&run.table, bounds);
        // A crash may have come after what was lost was cut off.
        let cut_off =
            self.accepts_loss && found.is_none_or(|count| count < self.acked.min(self.excused_from));
        if run.todo.votes_lost || cut_off {
            let told = run.table.0.iter().all(|region| !region.exists || region.hard_state_lost);
            let known = |batch: &u8| self.log[..self.len as usize].contains(batch);
            let ours = run.table.0.iter().all(|region| region.live().iter().all(|e| known(&e.batch)));
            if !told {
                self.wrong_now(Wrong::VoteBelieved);
            }
            if !ours {
                self.wrong_now(Wrong::NoPrefix);
            }
            self.lossy = true;
            return;
        }
        let Some(count) = found else { return self.wrong_now(Wrong::NoPrefix) };
        if count < self.acked.min(self.excused_from) {
            self.wrong_now(Wrong::Lost);
        }
        self.check_entries(run, disk, bounds);
        if std::mem::take(&mut self.unclean) && count > 0 {
            let last = self.writers[count as usize - 1];
            self.unclean_before = self.unclean_before.max(last + 1);
        }
        if run.unclean_before < self.unclean_before {
            self.wrong_now(Wrong::UncleanForgotten);
        }
        // A copy of the whole log, and a log after nothing, do not begin where the first one did.
        let todo = &run.todo;
        self.given_back |= match count {
            0 => run.next_file > 1,
            _ => todo.tail_len > 0 && todo.tail[0].batch == self.log[0],
        };
        self.len = count;
        self.log[count as usize..].fill(0);
        self.writers[count as usize..].fill(0);
        self.ends = [Pos::ZERO; BATCHES];
        self.at_write = [0; BATCHES];
        (self.acked, self.excused_from) = (count, NOT_EXCUSED);
        (self.proven, self.proven_elsewhere) = (count, count);
    }

    fn check_entries(&mut self, run: &Run, disk: &Disk, bounds: &Bounds) {
        let (mut alarm, mut forgotten) = (false, false);
        for region in &run.table.0 {
            alarm |= region.hard_state_lost;
            for entry in region.live() {
                let slot = disk.find(entry.seg).and_then(|f| {
                    let slots = disk.files[f].slots.iter();
                    slots.copied().find(|slot| slot.rec.kind == Kind::Batch(entry.batch))
                });
                let payload = !has_payload(bounds.script[usize::from(entry.batch) - 1]);
                let right = payload || slot.is_some_and(|s| s.view(Side::Payload, false) == View::Right);
                alarm |= entry.suspect || entry.damaged || !right;
                forgotten |= !right && self.doubts >> entry.batch & 1 == 1 && !entry.suspect;
                if entry.suspect {
                    self.doubts |= 1 << entry.batch;
                }
            }
        }
        if alarm && !self.faulty {
            self.wrong_now(Wrong::Alarm);
        }
        if forgotten {
            self.wrong_now(Wrong::DoubtForgotten);
        }
    }

    pub(crate) fn refuses(&mut self, why: Why) {
        self.refused = true;
        if !self.faulty {
            self.wrong_now(Wrong::RefusedForNothing(why));
        } else if !self.may_refuse {
            self.wrong_now(Wrong::RefusedTooMuch(why));
        }
    }

    /// A fault is about to happen.
    ///
    /// A batch that was acknowledged, and of which nothing but its own bytes says so, may be lost without a
    /// word if these look as if they had never been written: that is what `docs/crash-safety.md` says
    /// remains.
    pub(crate) fn hit(&mut self, fault: Fault, disk: &Disk, strict_rebuild: bool, strict_files: bool) {
        self.faulty = true;
        self.may_refuse = match fault {
            Fault::Sector(.., Side::Payload, harm) => harm == Harm::Unreadable,
            Fault::Sector(..) | Fault::Missing(_) | Fault::Marks | Fault::Newest => true,
            // Where the log is whole, the regions are rebuilt from it. One that holds nothing is not known to
            // be.
            Fault::AllCkpts => self.given_back || self.acked == 0,
            // Of a young store it is the only one.
            Fault::NewestCkpt => !self.two_ckpts && (!strict_rebuild || self.given_back || self.acked == 0),
            Fault::Foot(_) | Fault::MarkSlot(_) => false,
        };
        if matches!(fault, Fault::Missing(_) | Fault::Newest) {
            // The name may have been all that showed the unclean end.
            (self.unclean, self.unclean_before) = (false, 0);
        }
        if self.is_closed {
            // A closed store has nothing to replay.
            self.may_refuse &= matches!(fault, Fault::AllCkpts | Fault::NewestCkpt);
        }
        let (f, slots) = match fault {
            Fault::Sector(f, s, _, harm) => {
                let stale = disk.files[f as usize].header.stale;
                let looks_unwritten = match harm {
                    Harm::Lost => true,
                    Harm::Garbage | Harm::DescWrong => stale,
                    Harm::Flip | Harm::Unreadable => false,
                };
                if !looks_unwritten {
                    return;
                }
                (f as usize, s as usize..s as usize + 1)
            }
            Fault::Missing(f) => (f as usize, 0..disk.files[f as usize].slots.len()),
            Fault::Newest => {
                // Without its mark a store opens only if it looks like one that was closed.
                let newest = disk.ckpts.iter().filter(|c| c.entry.is_there()).max_by_key(|c| c.seq);
                let start = newest.map_or(0, |ckpt| ckpt.start);
                let logs = disk.files.iter().filter(|f| matches!(f.name(), Name::Log(seg) if seg >= start));
                if logs.count() <= 1 {
                    self.excused_from = 0;
                }
                return;
            }
            _ => return,
        };
        let file = &disk.files[f];
        let Name::Log(seg) = file.name() else { return };
        if file.unfinished {
            return;
        }
        for s in slots {
            let Kind::Batch(batch) = file.slots[s].rec.kind else { continue };
            let Some(n) = self.log[..self.len as usize].iter().position(|b| *b == batch) else { continue };
            let announced = disk.files.iter().any(|copy| {
                copy.unfinished
                    && copy.slots[0].desc == Part::Disk
                    && copy.announced.contains(&Pos::new(seg, s as u8))
            });
            let proven = match fault {
                // A mark leads to each file.
                Fault::Missing(_) if strict_files => self.acked,
                Fault::Missing(_) => self.proven_elsewhere,
                _ => self.proven,
            };
            if n as u8 >= proven && !announced {
                self.excused_from = self.excused_from.min(n as u8);
            }
        }
    }
}
