//! The commit groups, counted from 1.

use crate::types::Durability;
use std::ops::RangeInclusive;

/// Which group is accepted into, and which are settled.
pub(super) struct Turns {
    /// The group that is accepted into.
    now: u64,
    /// Something of it is written already, beside a sync.
    half_written: bool,
    /// The last group of which a sync that began covers anything. Each sync that begins raises it, so that
    /// threads whose batches it does not cover sleep with a later group.
    syncing: u64,
    /// The last group of which something is settled when written, and when synced.
    written: u64,
    synced: u64,
}

impl Turns {
    pub(super) fn new() -> Turns {
        Turns { now: 1, half_written: false, syncing: 0, written: 0, synced: 0 }
    }

    /// The group that is accepted into.
    pub(super) fn now(&self) -> u64 {
        self.now
    }

    /// The last group that is settled as far as this durability goes.
    pub(super) fn settled(&self, durability: Durability) -> u64 {
        match durability {
            Durability::Written => self.written,
            Durability::Synced => self.synced,
        }
    }

    /// The groups of which threads may still sleep.
    pub(super) fn unsettled(&self, durability: Durability) -> RangeInclusive<u64> {
        self.settled(durability) + 1..=self.now
    }

    /// A write begins. Beside a sync the group goes on: what is accepted until the next sync is settled by
    /// that, and sleeps in one place. Returns the last group that takes no more.
    pub(super) fn begin_write(&mut self, ends_group: bool) -> u64 {
        self.now += u64::from(ends_group);
        self.half_written &= !ends_group;
        self.now - 1
    }

    pub(super) fn end_write(&mut self, ended_group: bool) {
        self.half_written |= !ended_group;
    }

    /// A sync begins. Returns the last group of which it covers anything.
    pub(super) fn begin_sync(&mut self) -> u64 {
        if std::mem::take(&mut self.half_written) || self.now - 1 == self.syncing {
            self.now += 1;
        }
        self.syncing = self.now - 1;
        self.syncing
    }

    /// All groups up to `turn` are settled. Returns those that were not before.
    pub(super) fn settle(&mut self, durability: Durability, turn: u64) -> RangeInclusive<u64> {
        let settled = match durability {
            Durability::Written => &mut self.written,
            Durability::Synced => &mut self.synced,
        };
        std::mem::replace(settled, turn) + 1..=turn
    }

    /// The group that is accepted into takes no more. Returns it.
    pub(super) fn end_group(&mut self) -> u64 {
        self.now += 1;
        self.now - 1
    }
}
