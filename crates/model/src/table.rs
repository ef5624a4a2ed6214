//! Batches, regions, and what replay makes of them: `src/index` in small.

use crate::mistakes::Mistake;

/// Regions.
pub const REGIONS: usize = 2;
/// Entries that a region holds at once, at most.
pub const ENTRIES: usize = 3;
/// Batches of a history, at most.
pub const BATCHES: usize = 7;

/// What a batch does to a region. Each operation but [`Op::Leave`] and [`Op::Destroy`] also sets the hard
/// state.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Op {
    /// Nothing.
    Leave,
    /// Appends an entry.
    Append,
    /// Replaces the last entry by another one: a rollback.
    Over,
    /// Drops all entries.
    Compact,
    /// Removes the region.
    Destroy,
}

/// A batch: what it does to each region.
pub type Batch = [Op; REGIONS];

/// Whether a batch has payloads.
pub fn has_payload(batch: Batch) -> bool {
    batch.iter().any(|op| matches!(op, Op::Append | Op::Over))
}

/// The index that each operation of each batch was accepted at: a batch says it in its record.
pub type Indexes = [[u8; REGIONS]; BATCHES];

/// An entry: the batch that wrote it, and the segment that it stands in.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct Entry {
    /// The batch, from 1.
    pub batch: u8,
    /// The segment.
    pub seg: u8,
    /// It is fenced as suspect.
    pub suspect: bool,
    /// It is fenced as damaged.
    pub damaged: bool,
}

/// A region of the table.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct Region {
    /// It is there.
    pub exists: bool,
    /// The index before the first entry.
    pub base: u8,
    /// How many entries it has.
    pub count: u8,
    /// Its entries, from `base + 1` on.
    pub entries: [Entry; ENTRIES],
    /// The batch that set the hard state last.
    pub hard_state: u8,
    /// A newer hard state may have been lost.
    pub hard_state_lost: bool,
    /// The segment of its latest batch.
    pub touched: u8,
}

impl Region {
    /// The index of the last entry, or the base.
    pub fn last(&self) -> u8 {
        self.base + self.count
    }

    /// The entries.
    pub fn live(&self) -> &[Entry] {
        &self.entries[..self.count as usize]
    }

    /// The index that an operation is accepted at.
    pub fn index(&self, op: Op) -> u8 {
        match op {
            Op::Append => self.last() + 1,
            Op::Over if self.count > 0 => self.last(),
            Op::Over => self.base + 1,
            Op::Leave | Op::Compact | Op::Destroy => self.last(),
        }
    }

    /// What a reader would see of it.
    pub fn content(&self) -> (bool, u8, u8, [u8; ENTRIES], u8) {
        if !self.exists {
            return (false, 0, 0, [0; ENTRIES], 0);
        }
        let mut batches = [0; ENTRIES];
        for (to, entry) in batches.iter_mut().zip(self.live()) {
            *to = entry.batch;
        }
        (true, self.base, self.count, batches, self.hard_state)
    }

    fn truncate(&mut self, from: u8) {
        while self.count > 0 && self.last() >= from {
            self.count -= 1;
            self.entries[self.count as usize] = Entry::default();
        }
    }

    fn compact(&mut self, through: u8) {
        while self.count > 0 && self.base < through {
            self.entries.copy_within(1.., 0);
            self.entries[ENTRIES - 1] = Entry::default();
            self.base += 1;
            self.count -= 1;
        }
        self.base = self.base.max(through);
    }

    /// Applies an operation of batch `batch` that stands in segment `seg`. False when it leaves a gap.
    ///
    /// Operations say their index, so that applying a segment to a state that was taken inside it is harmless
    /// (`src/format/footer/delta.rs`).
    pub fn apply(&mut self, op: Op, index: u8, batch: u8, seg: u8) -> bool {
        match op {
            Op::Leave => return true,
            Op::Append | Op::Over => {
                if index > self.base {
                    self.truncate(index);
                    if index != self.last() + 1 || self.count as usize == ENTRIES {
                        return false;
                    }
                    self.entries[self.count as usize] = Entry { batch, seg, ..Entry::default() };
                    self.count += 1;
                }
            }
            Op::Compact => self.compact(index),
            Op::Destroy => {
                *self = Region { touched: seg, ..Region::default() };
                return true;
            }
        }
        (self.exists, self.hard_state, self.touched, self.hard_state_lost) = (true, batch, seg, false);
        true
    }

    /// The same at replay, where a mistake may be made.
    pub fn replay(&mut self, op: Op, index: u8, batch: u8, seg: u8, mistake: Mistake) -> bool {
        let before = *self;
        let done = match (op, mistake) {
            (Op::Destroy, Mistake::DestroyLost) | (Op::Compact, Mistake::CompactionLost) => true,
            (Op::Over, Mistake::TruncationLost) if self.count > 0 && index <= self.last() => true,
            _ => self.apply(op, index, batch, seg),
        };
        if mistake == Mistake::OldHardStateWins && before.exists && self.exists {
            self.hard_state = before.hard_state;
        }
        done
    }
}

/// All regions.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct Table(pub [Region; REGIONS]);

impl Table {
    /// Accepts a batch, and notes the indexes that it was given.
    pub fn accept(&mut self, ops: Batch, batch: u8, seg: u8, at: &mut Indexes) -> bool {
        let indexes = &mut at[usize::from(batch) - 1];
        let mut done = true;
        for (n, region) in self.0.iter_mut().enumerate() {
            indexes[n] = region.index(ops[n]);
            done &= region.apply(ops[n], indexes[n], batch, seg);
        }
        done
    }

    /// Applies a batch that was accepted before.
    pub fn apply(&mut self, ops: Batch, batch: u8, seg: u8, at: &Indexes) -> bool {
        let regions = self.0.iter_mut().enumerate();
        regions.fold(true, |done, (n, region)| {
            done & region.apply(ops[n], at[usize::from(batch) - 1][n], batch, seg)
        })
    }

    /// What readers would see.
    pub fn same_content(&self, other: &Table) -> bool {
        self.0.iter().zip(&other.0).all(|(a, b)| a.content() == b.content())
    }

    /// Whether an entry lives in a segment.
    pub fn lives_in(&self, seg: u8) -> bool {
        self.0.iter().any(|region| region.live().iter().any(|entry| entry.seg == seg))
    }
}
