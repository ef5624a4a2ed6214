//! What consists of jobs: `purge` and `close` of `src/upkeep/mod.rs`.

use crate::bounds::{Bounds, bits};
use crate::disk::Pos;
use crate::run::{Job, Task};
use crate::world::World;

impl World {
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
    pub(crate) fn waits_at(&mut self, stage: u8, bounds: &Bounds) -> bool {
        self.run.is_some_and(|run| run.task.1 == stage) && !self.flush(bounds)
    }

    /// Begins a job that the task needs.
    pub(crate) fn first(&mut self, job: Job) {
        if let Some(run) = &mut self.run {
            run.job = (job, 0);
        }
    }

    /// `upkeep::reclaim_all`
    pub(crate) fn step_purge(&mut self, bounds: &Bounds) {
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

    /// `upkeep::close`
    pub(crate) fn step_close(&mut self, bounds: &Bounds) {
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
                self.ghost.closed();
            }
        }
    }
}
