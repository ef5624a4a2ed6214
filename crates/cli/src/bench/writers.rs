//! The writing workloads: which batch comes next, and what should be there afterwards.

use super::payload::{Page, fill};
use super::report::Timings;
use super::{Plan, Workload};
use crate::Failure;
use raftwood::{Engine, EntryId, RegionId, WriteBatch};
use std::time::{Duration, Instant};

/// Regions of one raftstore or steady write.
pub(crate) const REGIONS_A_BATCH: usize = 32;

/// Bytes of a hard state: term, vote, commit and some.
const HARD_STATE_BYTES: usize = 40;

/// One writing thread: owns its regions.
pub(crate) struct Writer {
    plan: Plan,
    pages: Vec<Page>,
    /// Regions at the end of `pages` that are not written any more.
    cold: usize,
    next: usize,
    pub(crate) timings: Timings,
    pub(crate) entries: u64,
}

impl Writer {
    /// The writers of a plan, each with its share of the regions.
    pub(crate) fn all(plan: &Plan) -> Vec<Writer> {
        (0..plan.threads as u64)
            .map(|n| {
                let mine = (1..=plan.regions).filter(|r| r % plan.threads as u64 == n);
                let pages: Vec<Page> = mine.map(Page::new).collect();
                let cold = if plan.workload == Workload::Steady { pages.len() / 10 } else { 0 };
                Writer { plan: plan.clone(), pages, cold, next: 0, timings: Timings::new(), entries: 0 }
            })
            .collect()
    }

    /// How many entries of a region are kept.
    fn keep(&self) -> u64 {
        match self.plan.workload {
            Workload::Steady => 100,
            Workload::Raftstore => 1_000,
            _ => 20_000,
        }
    }

    /// Gives the cold regions the entries that then rest.
    pub(crate) fn prepare(&mut self, engine: &Engine) -> Result<(), Failure> {
        for at in self.pages.len() - self.cold..self.pages.len() {
            let mut batch = engine.batch();
            self.append(&mut batch, at, 100)?;
            engine.write(batch, self.plan.durability)?;
        }
        Ok(())
    }

    /// Writes for `time`, and forgets how long it took.
    pub(crate) fn warm_up(&mut self, engine: &Engine, time: Duration) -> Result<(), Failure> {
        self.run(engine, time)?;
        self.timings = Timings::new();
        self.entries = 0;
        Ok(())
    }

    /// Writes for `time`.
    pub(crate) fn run(&mut self, engine: &Engine, time: Duration) -> Result<(), Failure> {
        let began = Instant::now();
        while began.elapsed() < time {
            let one = Instant::now();
            let mut batch = engine.batch();
            let hot = self.pages.len() - self.cold;
            let touched = if self.plan.workload == Workload::Append { 1 } else { REGIONS_A_BATCH.min(hot) };
            for _ in 0..touched {
                let at = self.next % hot;
                self.next += 1;
                self.append(&mut batch, at, self.plan.batch_entries)?;
                if self.plan.workload != Workload::Append {
                    let mut state = [0; HARD_STATE_BYTES];
                    state[..8].copy_from_slice(&self.pages[at].last.to_le_bytes());
                    batch.region(RegionId(self.pages[at].region)).set_hard_state(&state)?;
                }
                self.trim(&mut batch, at)?;
            }
            engine.write(batch, self.plan.durability)?;
            self.timings.record(one.elapsed());
            self.entries += touched as u64 * self.plan.batch_entries;
        }
        self.timings.elapsed += began.elapsed();
        Ok(())
    }

    fn append(&mut self, batch: &mut WriteBatch, at: usize, entries: u64) -> Result<(), Failure> {
        let page = &mut self.pages[at];
        let mut region = batch.region(RegionId(page.region));
        for _ in 0..entries {
            page.last += 1;
            let (seed, r, index, len) = (self.plan.seed, page.region, page.last, self.plan.entry_bytes);
            region.append_with(EntryId::new(1, index), |out| fill(seed, r, index, len, out))?;
        }
        Ok(())
    }

    /// Compacts what is beyond the number to keep, a step at a time.
    fn trim(&mut self, batch: &mut WriteBatch, at: usize) -> Result<(), Failure> {
        let keep = self.keep();
        let page = &mut self.pages[at];
        let step = if keep > 1_000 { keep / 16 } else { self.plan.batch_entries };
        if page.entries() >= keep + step {
            page.first = page.last - keep + 1;
            batch.region(RegionId(page.region)).compact_through(page.first - 1)?;
        }
        Ok(())
    }

    pub(crate) fn pages(&self) -> &[Page] {
        &self.pages
    }

    /// Payload bytes that should be live.
    pub(crate) fn live_bytes(&self) -> u64 {
        self.pages.iter().map(|p| p.entries() * self.plan.entry_bytes as u64).sum()
    }
}
