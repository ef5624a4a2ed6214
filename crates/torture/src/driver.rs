//! Runs acts against an engine and the model side by side, and keeps what a crash at any moment may leave.

use super::batch::Batch;
use super::model::Model;
use super::oracle;
use super::protocol::Step;
use super::setup::Setup;
use super::workload::{Act, Maker, Workload};
use raftwood::Engine;
use raftwood::Ticket;
use raftwood::internals;
use raftwood::random::Rng;
use raftwood::vfs::sim::{LossPolicy, Moment, SimVfs, Snapshot};
use raftwood::{Durability, Lsn};
use raftwood::{Error, ErrorKind};

/// What a crash may leave at a moment, as positions in the run's list of states.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mark {
    /// The last state that a power cut must leave.
    pub synced: usize,
    /// The last state that the death of the process must leave.
    pub written: usize,
    /// The last state that there can be.
    pub accepted: usize,
}

/// A run.
pub struct Driver {
    /// The disk as it is now; a crash replaces it.
    pub vfs: SimVfs,
    /// How the engine is opened.
    pub setup: Setup,
    /// Runs of the store so far.
    pub run: u64,
    /// Every state there ever was, in order; only its tail is current.
    pub states: Vec<Model>,
    /// What held at each moment; the disk's mark is a position in this list.
    pub marks: Vec<Mark>,
    /// What was done, for people.
    pub trace: Vec<String>,
    /// Recoveries inside the run.
    pub recoveries: u64,
    /// Whether writing has stopped.
    pub poisoned: bool,
    /// Errors are part of the run.
    pub faulty: bool,
    /// Pictures of the disks of all runs, if they were asked for.
    pub snapshots: Vec<Snapshot>,
    photograph: Option<Moment>,
    engine: Option<Engine>,
    regions: Vec<u64>,
    rng: Rng,
    mark: Mark,
    tickets: Vec<(usize, Durability, Ticket)>,
    last_lsn: Lsn,
    /// What was done to the disks and what the engine answered, if it was asked for.
    steps: Option<Vec<Step>>,
    /// After a crash, opens of the store die too, before one comes to its end.
    cuts_opens: bool,
}

impl Driver {
    /// Opens a new store.
    ///
    /// # Errors
    /// A violation, as with all methods.
    pub fn start(
        setup: Setup,
        workload: &Workload,
        faulty: bool,
        vfs: SimVfs,
        photograph: Option<Moment>,
    ) -> Result<Driver, String> {
        vfs.snapshot_every(photograph);
        let mark = Mark { synced: 0, written: 0, accepted: 0 };
        let mut driver = Driver {
            vfs,
            run: 1,
            states: vec![Model::default()],
            marks: vec![mark],
            trace: Vec::new(),
            recoveries: 0,
            poisoned: false,
            faulty,
            snapshots: Vec::new(),
            photograph,
            engine: None,
            regions: workload.region_ids(),
            rng: Rng::new(setup.seed ^ 0xac75),
            mark,
            tickets: Vec::new(),
            last_lsn: Lsn::ZERO,
            steps: None,
            cuts_opens: false,
            setup,
        };
        driver.open()?;
        Ok(driver)
    }

    /// Runs a workload, and returns what was done to the disks and what the engine answered, step by step, up
    /// to the first violation. After a crash, opens die too if it `cuts_opens`.
    pub fn steps_of(setup: Setup, workload: &Workload, cuts_opens: bool) -> (Vec<Step>, Result<(), String>) {
        let vfs = setup.disk();
        vfs.transcript_start();
        let mut driver = match Driver::start(setup, workload, false, vfs, None) {
            Ok(driver) => driver,
            Err(e) => return (Vec::new(), Err(e)),
        };
        driver.steps = Some(Vec::new());
        driver.cuts_opens = cuts_opens;
        driver.step(Step::Opened);
        let acts = workload.acts.iter().try_for_each(|act| driver.act(*act));
        let outcome = acts.and_then(|()| driver.finish());
        driver.step(Step::Killed);
        (driver.steps.take().unwrap_or_default(), outcome)
    }

    /// The calls until now, and then this.
    fn step(&mut self, step: Step) {
        if let Some(steps) = &mut self.steps {
            steps.extend(self.vfs.take_log().into_iter().map(Step::Call));
            steps.push(step);
        }
    }

    fn answered(&mut self, durability: Durability, lsn: Lsn) {
        self.step(match durability {
            Durability::Synced => Step::Synced(lsn),
            _ => Step::Written(lsn),
        });
    }

    /// The model as it stands.
    pub fn model(&self) -> &Model {
        &self.states[self.states.len() - 1]
    }

    /// The states that a crash may leave that fell on this mark of the disk.
    pub fn candidates(&self, mark: u64, process_only: bool) -> &[Model] {
        let m = self.marks[(mark as usize).min(self.marks.len() - 1)];
        let from = if process_only && !self.faulty { m.written } else { m.synced };
        &self.states[from..=m.accepted.min(self.states.len() - 1)]
    }

    /// The engine, if it is open.
    pub fn engine(&self) -> Option<&Engine> {
        self.engine.as_ref()
    }

    /// Whether there is nothing to go on with: writing has stopped, or the store could not be opened.
    pub fn stuck(&self) -> bool {
        self.poisoned || self.engine.is_none()
    }

    /// Does one act.
    ///
    /// # Errors
    /// A violation.
    pub fn act(&mut self, act: Act) -> Result<(), String> {
        self.trace.push(format!("[op {}] {act:?}", self.vfs.ops()));
        let Some(engine) = self.engine.clone() else { return Ok(()) };
        match act {
            Act::Wait => self.wait(),
            Act::Sync => {
                let accepted = self.mark.accepted;
                match engine.sync() {
                    Ok(lsn) => {
                        self.lsn(lsn, &engine)?;
                        if lsn > Lsn::ZERO {
                            self.answered(Durability::Synced, lsn);
                        }
                        self.acked(accepted, Durability::Synced);
                        Ok(())
                    }
                    Err(e) => self.tolerate("sync", &e),
                }
            }
            Act::Tick => self.outcome("tick", engine.tick()),
            Act::Purge => {
                let outcome = engine.purge();
                let fine = outcome.is_ok();
                self.outcome("purge", outcome.map(drop))?;
                // A ticket that is still held keeps its segment.
                if fine && !self.faulty && self.tickets.is_empty() {
                    oracle::leaks(&self.vfs, &engine)?;
                }
                Ok(())
            }
            Act::Checkpoint => {
                let outcome = internals::checkpoint(&engine);
                self.outcome("checkpoint", outcome)
            }
            Act::Clean => {
                let outcome = internals::clean(&engine);
                self.outcome("clean", outcome.map(drop))
            }
            Act::CloseOpen => {
                drop(engine);
                self.close_and_open()
            }
            Act::Kill => {
                drop(engine);
                self.kill();
                self.cut_opens();
                self.open()
            }
            Act::Crash => {
                drop(engine);
                let policy = match self.rng.below(8) {
                    0 => LossPolicy::LoseAll,
                    1 => LossPolicy::KeepAll,
                    _ => LossPolicy::Random(self.rng.next()),
                };
                self.trace.push(format!("  {policy:?} of {:?}", self.vfs.pending()));
                let disk = self.vfs.crash(policy);
                self.is_cut(&disk);
                self.kill();
                self.go_on_with(disk);
                self.cut_opens();
                self.open()
            }
            _ => {
                let model = self.model().clone();
                let batches =
                    Maker { model: &model, regions: &self.regions, rng: &mut self.rng }.batches(act);
                for batch in batches {
                    if self.poisoned {
                        break;
                    }
                    let (durability, wait) = match act {
                        Act::Submit => (Durability::Synced, false),
                        Act::Written => (Durability::Written, !self.rng.one_in(3)),
                        Act::Append | Act::Rollback | Act::MultiAppend => (Durability::Synced, true),
                        _ => (
                            if self.rng.one_in(4) { Durability::Written } else { Durability::Synced },
                            !self.rng.one_in(4),
                        ),
                    };
                    self.write(&engine, &batch, durability, wait)?;
                }
                Ok(())
            }
        }
    }

    /// The power went, and this is what it left.
    fn is_cut(&mut self, disk: &SimVfs) {
        if self.steps.is_some() {
            let names = disk.list().into_iter().map(|(path, _)| path.to_string_lossy().into_owned());
            self.step(Step::Cut(names.collect()));
            disk.transcript_start();
        }
    }

    fn go_on_with(&mut self, disk: SimVfs) {
        self.snapshots.extend(self.vfs.take_snapshots());
        disk.snapshot_every(self.photograph);
        self.vfs = disk;
        self.mark.written = self.mark.synced;
    }

    /// Opens the store once or twice, and dies amidst that, if the run is to.
    fn cut_opens(&mut self) {
        let times = if self.cuts_opens { 1 + self.rng.below(2) } else { 0 };
        for _ in 0..times {
            // How many calls one takes that is let to its end.
            let whole = self.vfs.crash(LossPolicy::KeepAll);
            let begin = whole.ops();
            let opened = self.setup.open(&whole, self.run);
            let calls = (whole.ops() - begin).max(1);
            whole.halt_after(0);
            drop(opened);

            let begin = self.vfs.ops();
            self.vfs.halt_after(begin + self.rng.below(calls));
            drop(self.setup.open(&self.vfs, self.run));
            self.vfs.halt_after(u64::MAX);
            self.run += 1;
            self.trace.push(format!("  an open dies after {} of {calls} calls", self.vfs.ops() - begin));
            if self.rng.one_in(3) {
                self.step(Step::Killed);
            } else {
                let disk = self.vfs.crash(LossPolicy::Random(self.rng.next()));
                self.is_cut(&disk);
                self.go_on_with(disk);
            }
        }
    }

    /// The process dies: what was accepted and not written is gone, the rest is in the operating
    /// system's hands.
    pub fn kill(&mut self) {
        let tickets = std::mem::take(&mut self.tickets);
        self.vfs.halt_after(0);
        drop(tickets);
        self.engine = None;
        self.vfs.halt_after(u64::MAX);
        self.step(Step::Killed);
        if self.faulty {
            self.mark.written = self.mark.synced;
        }
        self.note();
    }

    /// Ends the run: what is waited for is collected.
    ///
    /// # Errors
    /// A violation.
    pub fn finish(&mut self) -> Result<(), String> {
        if self.engine.is_some() {
            self.wait()?;
            self.compare()?;
        }
        if self.photograph.is_some() {
            self.snapshots.extend(self.vfs.take_snapshots());
            self.snapshots.push(self.vfs.freeze());
        }
        Ok(())
    }

    /// Compares the open engine with the model.
    ///
    /// # Errors
    /// A violation.
    pub fn compare(&self) -> Result<(), String> {
        match &self.engine {
            Some(engine) if !self.poisoned => oracle::compare(engine, self.model()),
            _ => Ok(()),
        }
    }

    /// After the first error: no ack, the same cause for all, and what is durable can be read.
    ///
    /// # Errors
    /// A violation.
    pub fn check_poisoned(&mut self) -> Result<(), String> {
        let Some(engine) = self.engine.clone() else { return Ok(()) };
        for (at, durability, ticket) in std::mem::take(&mut self.tickets) {
            match ticket.wait() {
                // It may have been durable before the error.
                Ok(lsn) if lsn <= engine.durable_lsn() => self.acked(at, Durability::Synced),
                Ok(_) if durability == Durability::Synced => {
                    return Err("a ticket completed with Ok after writing had stopped".to_string());
                }
                Err(e) if e.kind() != ErrorKind::Poisoned => {
                    return Err(format!("a waiter got {e:?} instead of the poison"));
                }
                _ => {}
            }
        }
        let durable = engine.durable_lsn();
        for _ in 0..2 {
            let mut b = Batch::default();
            b.add(3, super::batch::Op::HardState(bytes::Bytes::from_static(b"too late")));
            let built = b.build(&engine).map_err(|e| format!("building after poison: {e:?}"))?;
            match engine.write(built, Durability::Written) {
                Err(e) if e.kind() == ErrorKind::Poisoned => {}
                other => return Err(format!("a write after poison gave {other:?}")),
            }
        }
        if engine.sync().is_ok() {
            return Err("a sync after poison gave Ok".to_string());
        }
        if engine.durable_lsn() != durable {
            return Err("the durable position moved after poison".to_string());
        }
        // Reads go on, of all that was accepted: the last batch may have been, or not. (Unless
        // they fail themselves.)
        self.vfs.clear_faults();
        let last = self.states.len() - 1;
        let from = last.saturating_sub(1);
        oracle::matching(&engine, &self.states[from..])
            .map(drop)
            .map_err(|e| format!("reading after poison: {e}"))
    }

    // ---- inside -------------------------------------------------------------------------------------------

    fn write(
        &mut self,
        engine: &Engine,
        batch: &Batch,
        durability: Durability,
        wait: bool,
    ) -> Result<(), String> {
        let how = if wait { "write" } else { "submit" };
        self.trace.push(format!(
            "  [op {}] {how} {durability:?} #{}: {batch:?}",
            self.vfs.ops(),
            self.states.len()
        ));
        let predicted = self.model().after(batch);
        let built = match batch.build(engine) {
            Ok(built) => built,
            Err(e) => return self.refused(&predicted, &e, batch),
        };
        let before = self.mark.accepted;
        if let Ok(next) = &predicted {
            self.states.push(next.clone());
            self.mark.accepted = self.states.len() - 1;
            self.note();
        }
        let at = self.mark.accepted;
        let len = built.encoded_len();
        let outcome = match wait {
            true => engine.write(built, durability).map(|lsn| (lsn, None)),
            false => engine.submit(built, durability).map(|t| (t.lsn(), Some(t))),
        };
        match outcome {
            Ok((lsn, ticket)) => {
                if let Err(kinds) = predicted {
                    return Err(format!("accepted what should be refused as {kinds:?}: {batch:?}"));
                }
                self.lsn(lsn, engine)?;
                match ticket {
                    Some(ticket) => self.tickets.push((at, durability, ticket)),
                    None => {
                        if durability == Durability::Synced && engine.durable_lsn() < lsn {
                            return Err(format!("acked {lsn} with only {} durable", engine.durable_lsn()));
                        }
                        self.answered(durability, lsn);
                        self.acked(at, durability);
                    }
                }
                Ok(())
            }
            Err(e) => {
                let kind = e.kind();
                let error = e.error().clone();
                let back = e.into_batch();
                if kind == ErrorKind::Poisoned {
                    // It may have been accepted, or not.
                    self.poisoned = true;
                    return self.tolerate(how, &error);
                }
                match &back {
                    Some(b) if b.encoded_len() == len => {}
                    other => return Err(format!("a refused batch came back as {other:?}: {error:?}")),
                }
                if predicted.is_ok() {
                    self.states.pop();
                    self.mark.accepted = before;
                    self.note();
                }
                self.refused(&predicted, &error, batch)
            }
        }
    }

    fn refused(
        &mut self,
        predicted: &Result<Model, Vec<ErrorKind>>,
        error: &Error,
        batch: &Batch,
    ) -> Result<(), String> {
        match predicted {
            Err(kinds) if kinds.contains(&error.kind()) => {
                if error.region().is_none() {
                    return Err(format!("the refusal names no region: {error:?}"));
                }
                Ok(())
            }
            Err(kinds) if !self.faulty => {
                Err(format!("refused as {error:?} instead of {kinds:?}: {batch:?}"))
            }
            _ => self.tolerate("a batch", error),
        }
    }

    fn wait(&mut self) -> Result<(), String> {
        let mut error = None;
        for (at, durability, ticket) in std::mem::take(&mut self.tickets) {
            match ticket.wait() {
                Ok(_) if error.is_some() => {
                    // A batch that was only to be written may have been so before the error.
                    if durability == Durability::Synced {
                        return Err(
                            "a later ticket completed with Ok after an earlier one failed".to_string()
                        );
                    }
                }
                Ok(lsn) => {
                    self.answered(durability, lsn);
                    self.acked(at, durability);
                }
                Err(e) => error = Some(e),
            }
        }
        match error {
            Some(e) => self.tolerate("wait", &e),
            None => Ok(()),
        }
    }

    fn acked(&mut self, at: usize, durability: Durability) {
        self.mark.written = self.mark.written.max(at);
        if durability == Durability::Synced {
            self.mark.synced = self.mark.synced.max(at);
        }
        self.note();
    }

    fn lsn(&mut self, lsn: Lsn, engine: &Engine) -> Result<(), String> {
        if lsn < self.last_lsn {
            return Err(format!("positions went back from {} to {lsn}", self.last_lsn));
        }
        self.last_lsn = lsn;
        if engine.durable_lsn() > engine.stats().accepted {
            return Err("more is durable than accepted".to_string());
        }
        Ok(())
    }

    fn outcome(&mut self, what: &str, outcome: Result<(), Error>) -> Result<(), String> {
        match outcome {
            Ok(()) => Ok(()),
            Err(e) => self.tolerate(what, &e),
        }
    }

    /// An error is a violation unless errors were asked for.
    fn tolerate(&mut self, what: &str, e: &Error) -> Result<(), String> {
        self.trace.push(format!("  {what} failed: {e:?}"));
        self.poisoned |= e.kind() == ErrorKind::Poisoned;
        match (self.faulty, e.kind()) {
            (false, _) => Err(format!("{what} failed on a healthy disk: {e:?}")),
            (true, ErrorKind::Io | ErrorKind::NoSpace | ErrorKind::Poisoned | ErrorKind::Damaged) => Ok(()),
            (true, _) => Err(format!("{what} failed with a strange error: {e:?}")),
        }
    }

    fn close_and_open(&mut self) -> Result<(), String> {
        let tickets = std::mem::take(&mut self.tickets);
        if let Some(engine) = self.engine.take() {
            let outcome = engine.close();
            let closed = outcome.is_ok();
            self.step(if closed { Step::Closed } else { Step::Killed });
            self.outcome("close", outcome)?;
            if closed {
                self.acked(self.mark.accepted, Durability::Synced);
            }
            if engine.close().is_ok() != closed {
                return Err("closing twice is not what closing once was".to_string());
            }
            if !self.faulty {
                oracle::compare(&engine, self.model()).map_err(|e| format!("closed: {e}"))?;
            }
        }
        for (_, _, ticket) in tickets {
            if let Err(e) = ticket.wait() {
                self.tolerate("a ticket over close", &e)?;
            }
        }
        self.open()
    }

    /// Opens what the last run left.
    fn open(&mut self) -> Result<(), String> {
        self.note();
        self.poisoned = false;
        self.last_lsn = Lsn::ZERO;
        let candidates = &self.states[self.mark.written..=self.mark.accepted];
        let opened = if self.faulty {
            match self.setup.open(&self.vfs, self.run) {
                Ok(engine) => {
                    oracle::matching(&engine, candidates)
                        .or_else(|_| {
                            // A read may be what the error strikes; the store is open all the same.
                            self.vfs.clear_faults();
                            oracle::matching(&engine, candidates)
                        })
                        .map(|at| (engine.clone(), at))
                        .inspect_err(|_| oracle::kill(&self.vfs, engine))
                }
                Err(e) => {
                    self.run += 1;
                    return self.tolerate("open", &e);
                }
            }
        } else {
            oracle::open_and_match(&self.vfs, &self.setup, self.run, candidates)
        };
        let (engine, at) = match opened {
            // Bytes that could not be read were judged damage, as they must: the healthy disk decides.
            Err(e) if self.faulty && e.error().is_some_and(|e| e.kind() == ErrorKind::Damaged) => {
                self.trace.push(format!("  in run {}: {e}", self.run));
                self.run += 1;
                return Ok(());
            }
            opened => opened.map_err(|e| format!("in run {}: {e}", self.run))?,
        };
        self.recoveries += 1;
        self.run += 1;
        let found = self.states[self.mark.written + at].clone();
        self.trace.push(format!("  opened, with state #{} of #{:?}", self.mark.written + at, self.mark));
        self.states.push(found);
        let now = self.states.len() - 1;
        self.mark = Mark { synced: now, written: now, accepted: now };
        self.engine = Some(engine);
        self.step(Step::Opened);
        self.note();
        Ok(())
    }

    fn note(&mut self) {
        if self.marks.last() != Some(&self.mark) {
            self.marks.push(self.mark);
        }
        self.vfs.set_mark(self.marks.len() as u64 - 1);
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.kill();
    }
}
