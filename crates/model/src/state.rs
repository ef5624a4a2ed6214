//! The state that the checker explores, its actions, and the properties.

use crate::bounds::{Bounds, bits};
use crate::disk::{Bytes, Ckpt, Entry, FILES, Mark, Name, Part, Pos, Side};
use crate::ghost::{Fault, Harm, Wrong};
use crate::judge::Policy;
use crate::recovery::{Outcome, recover};
use crate::run::{Job, Run, Task};
use crate::world::World;
use stateright::{Model, Property};
use std::sync::atomic::{AtomicU64, Ordering};

/// What may happen, and how often.
#[derive(Clone, Debug)]
pub struct Config {
    /// Its name.
    pub name: &'static str,
    /// Script, sizes and the mistake.
    pub bounds: Bounds,
    /// What has happened before the exploration begins.
    pub prelude: Vec<Do>,
    /// So many crashes, of either kind.
    pub crashes: u8,
    /// Whether processes die while the disk goes on.
    pub kills: bool,
    /// So many syncs fail.
    pub failed_syncs: u8,
    /// So many syncs may be under way at once.
    pub syncs: u8,
    /// The faults that may happen, one in all.
    pub faults: &'static [Harms],
    /// What upkeep may do.
    pub upkeep: &'static [Upkeep],
    /// Batches go on beside jobs.
    pub interleave: bool,
    /// A segment is made ready as soon as the active one has a record, and not when it is full.
    pub eager: bool,
    /// Of more pending changes than this not all subsets are tried: none, all, each one alone, and each one
    /// missing.
    pub subsets: u8,
    /// After a fault the caller may have decided to accept a loss.
    pub policies: bool,
    /// The log may be synced while the tail is being copied.
    pub early_syncs: bool,
    /// A store opens without its only checkpoint wherever its log is there from the first record on.
    pub strict_rebuild: bool,
    /// A file that is missed is missed, whatever it held.
    pub strict_files: bool,
}

/// Kinds of faults.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Harms {
    /// Of a sector with a header and a description.
    Desc(Harm),
    /// Of a payload's sector.
    Payload(Harm),
    /// See [`Fault::Missing`].
    Missing,
    /// See [`Fault::Foot`].
    Foot,
    /// See [`Fault::NewestCkpt`].
    NewestCkpt,
    /// See [`Fault::AllCkpts`].
    AllCkpts,
    /// See [`Fault::MarkSlot`].
    MarkSlot,
    /// See [`Fault::Marks`].
    Marks,
    /// See [`Fault::Newest`].
    Newest,
}

/// Jobs and tasks that begin at any time.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Upkeep {
    /// A footer.
    Seal,
    /// A checkpoint.
    Checkpoint,
    /// Everything that can be given back.
    Purge,
    /// Retired files are given back.
    Absorb,
    /// The mark, once the log is at rest.
    Mark,
    /// The end of the run.
    Close,
    /// A backup.
    Backup,
}

/// A step of a prelude.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Do {
    /// A batch, written and synced.
    Batch,
    /// So many batches, written as one group and synced.
    Group(u8),
    /// Upkeep, to its end.
    Upkeep(Upkeep),
    /// The power goes, and all that was pending is lost; then the store is opened.
    Reopen,
}

/// What may happen next.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Action {
    /// A batch is accepted.
    Accept,
    /// What is queued is written, as one group.
    Write,
    /// A sync begins.
    BeginSync,
    /// The n-th sync under way ends, well or not.
    EndSync(u8, bool),
    /// The mark that leads to a new segment is written, or synced.
    Enter,
    /// A segment is made ready.
    Prepare,
    /// Upkeep begins.
    Upkeep(Upkeep),
    /// The job or task goes on.
    Step,
    /// What was copied of the tail is synced.
    SyncEarly,
    /// The process dies.
    Kill,
    /// The power goes, and of what is pending these changes survive.
    Cut(u32),
    /// The medium fails.
    Fault(Fault),
    /// The files are read, and opening begins.
    Open(Policy),
}

/// What happened at all, over a whole exploration: the reachability properties look here. The state itself
/// does not remember, or it would differ by what led to it.
#[derive(Debug, Default)]
pub struct Seen {
    happened: AtomicU64,
    /// What the checker was told of. Each is told once: it would keep every path.
    told: AtomicU64,
}

macro_rules! reached {
    ($($name:literal,)+) => {
        /// What ought to be reached by one configuration or another: actions, and the rows of the decision
        /// table.
        pub const REACHED: &[&str] = &[$($name),+];

        fn reachable() -> Vec<Property<Log>> {
            vec![$(Property::sometimes($name, |model: &Log, _: &State| model.seen.tells($name))),+]
        }
    };
}

reached! {
    "accept", "write a group", "sync", "sync that fails", "prepare", "recycle", "roll", "seal", "checkpoint",
    "purge", "give back", "mark", "mark of a new segment", "close", "backup", "kill", "power cut", "crash inside recovery", "fault",
    "open", "copy of the tail", "refusal", "loss accepted", "sync of half a copy",
    "row 1: right, keep",
    "row 2: payload torn",
    "row 3: payload of an older generation, torn",
    "row 4: payload with one flip in a recycled file, fence",
    "row 5: payload wrong, fence",
    "row 6: as 4, loss accepted",
    "row 7: as 5, loss accepted",
    "row 8: as 4, assumed torn, lose",
    "row 9: as 5, assumed torn, lose",
    "row 10: header or description torn",
    "row 11: header or description of an older generation, torn",
    "row 12: header or description wrong, refuse",
    "row 13: as 12, assumed torn, lose",
    "row 14: as 12, loss accepted, lose",
}

/// Where the rows begin among [`REACHED`].
const ROWS_AT: usize = 24;

const fn place_of(what: &str) -> u64 {
    let mut n = 0;
    while n < REACHED.len() {
        if is_same(REACHED[n].as_bytes(), what.as_bytes()) {
            return 1 << n;
        }
        n += 1;
    }
    0
}

const fn is_same(a: &[u8], b: &[u8]) -> bool {
    let mut n = 0;
    while n < a.len() && n < b.len() && a[n] == b[n] {
        n += 1;
    }
    n == a.len() && n == b.len()
}

impl Seen {
    fn note(&self, what: &str) {
        let bit = place_of(what);
        if self.happened.load(Ordering::Relaxed) & bit == 0 {
            self.happened.fetch_or(bit, Ordering::Relaxed);
        }
    }

    fn note_rows(&self, rows: u16) {
        self.happened.fetch_or(u64::from(rows) << ROWS_AT, Ordering::Relaxed);
    }

    /// Whether it has happened, once.
    fn tells(&self, what: &str) -> bool {
        let bit = place_of(what);
        let news = self.happened.load(Ordering::Relaxed) & !self.told.load(Ordering::Relaxed);
        news & bit != 0 && self.told.fetch_or(bit, Ordering::Relaxed) & bit == 0
    }
}

/// The model: a configuration, and what was seen of it.
#[derive(Clone, Debug)]
pub struct Log {
    /// The configuration.
    pub config: Config,
    /// What happened.
    pub seen: std::sync::Arc<Seen>,
}

/// A state.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct State {
    /// The moving parts.
    pub world: World,
    /// Crashes that may still come.
    pub crashes: u8,
    /// Syncs that may still fail.
    pub failed_syncs: u8,
    /// Steps of the open under way.
    pub steps: u8,
}

/// An open takes fewer steps than this, or it does not end.
const STEPS_MAX: u8 = 120;

impl Log {
    /// A model of a configuration.
    pub fn new(config: Config) -> Log {
        Log { config, seen: Default::default() }
    }

    fn bounds(&self) -> &Bounds {
        &self.config.bounds
    }

    /// A store that was just made, and opened: its mark, then its first checkpoint (`src/engine/open.rs`).
    fn fresh(&self) -> State {
        let mut world = World::default();
        let disk = &mut world.disk;
        disk.marks.entry = Entry::Durable;
        disk.marks.cached = [2, 1].map(|seq| Mark { seq, durable: Pos::ZERO });
        disk.marks.on_disk = disk.marks.cached;
        disk.ckpts[0] = Ckpt { seq: 1, entry: Entry::Durable, start: 1, next_file: 1, ..Ckpt::default() };
        let mut state =
            State { world, crashes: self.config.crashes, failed_syncs: self.config.failed_syncs, steps: 0 };
        self.open(&mut state, Policy::Prove);
        self.finish(&mut state.world);
        state
    }

    /// Jobs and tasks to their end.
    fn finish(&self, world: &mut World) {
        for _ in 0..200 {
            let Some(run) = &world.run else { return };
            if run.job.0 == Job::None && run.task.0 == Task::None {
                return;
            }
            self.step(world);
        }
    }

    fn step(&self, world: &mut World) {
        let Some(run) = &world.run else { return };
        match run.job.0 {
            Job::None => world.step_task(self.bounds()),
            _ => world.step_job(self.bounds()),
        }
    }

    fn begin(&self, world: &mut World, upkeep: Upkeep) {
        let Some(run) = &mut world.run else { return };
        match upkeep {
            Upkeep::Seal => run.job = (Job::Seal, 0),
            Upkeep::Checkpoint => run.job = (Job::Checkpoint, 0),
            Upkeep::Absorb => run.job = (Job::Absorb, 0),
            Upkeep::Mark => run.job = (Job::Mark, 0),
            Upkeep::Purge => run.task = (Task::Purge, 0),
            Upkeep::Close => run.task = (Task::Close, 0),
            Upkeep::Backup => run.task = (Task::Backup, 0),
        }
    }

    fn prelude(&self, state: &mut State, step: Do) {
        let world = &mut state.world;
        match step {
            Do::Batch => self.prelude(state, Do::Group(1)),
            Do::Group(n) => {
                for _ in 0..n {
                    if world.run.is_some_and(|run| !run.has_room(self.bounds().slots)) {
                        if let Some(run) = &mut world.run {
                            run.job = (Job::Prepare, 0);
                        }
                        self.finish(world);
                    }
                    world.accept(self.bounds());
                }
                world.write(self.bounds());
                world.begin_sync();
                world.end_sync(0, true, self.bounds());
                while world.is_entering() {
                    world.enter(self.bounds());
                }
            }
            Do::Upkeep(upkeep) => {
                self.begin(world, upkeep);
                self.finish(world);
                if world.run.is_none() {
                    self.open(state, Policy::Prove);
                    self.finish(&mut state.world);
                }
            }
            Do::Reopen => {
                if let Some(run) = world.run.take() {
                    world.ghost.crashed(&run);
                }
                world.disk.cut(0);
                self.open(state, Policy::Prove);
                self.finish(&mut state.world);
            }
        }
    }

    /// Reads the files, twice, and begins to open the store.
    fn open(&self, state: &mut State, policy: Policy) {
        let world = &mut state.world;
        let mut disk = world.disk;
        let first = recover(&mut disk, world.how(self.bounds(), policy));
        let mut again = disk;
        let second = recover(&mut again, world.how(self.bounds(), policy));
        // What a first recovery dropped from the cache, a second one does not see: so it may have less to go
        // by, and copies more.
        let whole = |found: &crate::recovery::Recovered| {
            let (mut table, todo) = (found.table, &found.todo);
            for record in &todo.tail[..todo.tail_len as usize] {
                let ops = self.bounds().script[usize::from(record.batch) - 1];
                table.apply(ops, record.batch, 0, &world.ghost.at);
            }
            table
        };
        let same = match (&first, &second) {
            (Outcome::Ready(a), Outcome::Ready(b)) => whole(a).same_content(&whole(b)),
            (Outcome::Refused(..), Outcome::Refused(..)) => true,
            (a, b) => a == b,
        };
        if !same {
            world.ghost.wrong_now(Wrong::Differs);
        }
        world.disk = disk;
        world.ghost.refused = false;
        world.ghost.accepts_loss |= policy != Policy::Prove;
        state.steps = 0;
        match first {
            Outcome::Fresh => world.ghost.wrong_now(Wrong::Lost),
            Outcome::Refused(why, rows) => {
                self.seen.note_rows(rows);
                self.seen.note("refusal");
                match policy {
                    Policy::Prove => world.ghost.refuses(why),
                    // Some refusals no policy helps with.
                    _ => world.ghost.lossy = true,
                }
            }
            Outcome::Ready(found) => {
                self.seen.note_rows(found.rows);
                if found.todo.tail_len > 0 {
                    self.seen.note("copy of the tail");
                }
                if found.todo.votes_lost {
                    self.seen.note("loss accepted");
                }
                let start = Pos::new(found.next_file, 0);
                let free = world.disk.files.iter().enumerate();
                let free = free.filter(|(_, file)| file.name() == Name::Free);
                let free = free.fold(0, |mask, (f, _)| mask | 1 << f);
                world.run = Some(Run {
                    number: found.next_file,
                    unclean_before: found.unclean_before,
                    table: found.table,
                    chain: found.chain,
                    before: found.chain.end().unwrap_or_default(),
                    start,
                    recovering: true,
                    next_id: found.next_file,
                    next_file: found.next_file,
                    accepted: start,
                    written: start,
                    durable: start,
                    segments: found.segments,
                    sealed: found.sealed,
                    ends: found.ends,
                    kept: found.kept,
                    kept_len: found.kept_len,
                    next_seq: found.next_seq,
                    free,
                    mark_seq: found.mark.0,
                    marked: found.mark.1,
                    task: (Task::Open, 0),
                    todo: found.todo,
                    ..Run::default()
                });
            }
        }
    }

    fn faults(&self, state: &State, actions: &mut Vec<Action>) {
        let disk = &state.world.disk;
        for harms in self.config.faults {
            let mut push = |fault| actions.push(Action::Fault(fault));
            match *harms {
                Harms::Desc(harm) | Harms::Payload(harm) => {
                    let side = if matches!(harms, Harms::Desc(_)) { Side::Desc } else { Side::Payload };
                    for (f, file) in (0..).zip(&disk.files) {
                        let is_log = matches!(file.name(), Name::Log(_));
                        let hit = (0..).zip(&file.slots).filter(|(_, s)| s.part(side) == Part::Disk);
                        hit.filter(|_| is_log).for_each(|(s, _)| push(Fault::Sector(f, s, side, harm)));
                    }
                }
                Harms::Missing => {
                    let is_log = |f: &usize| matches!(disk.files[*f].name(), Name::Log(_));
                    (0..FILES).filter(is_log).for_each(|f| push(Fault::Missing(f as u8)));
                }
                Harms::Foot => {
                    let has = |f: &usize| disk.files[*f].foot.entry.is_there();
                    (0..FILES).filter(has).for_each(|f| push(Fault::Foot(f as u8)));
                }
                Harms::NewestCkpt => push(Fault::NewestCkpt),
                Harms::AllCkpts => push(Fault::AllCkpts),
                Harms::MarkSlot => (0..2).for_each(|slot| push(Fault::MarkSlot(slot))),
                Harms::Marks => push(Fault::Marks),
                Harms::Newest => push(Fault::Newest),
            }
        }
    }

    fn harm(&self, world: &mut World, fault: Fault) {
        world.ghost.hit(fault, &world.disk, self.config.strict_rebuild, self.config.strict_files);
        let disk = &mut world.disk;
        match fault {
            Fault::Sector(f, s, side, harm) => {
                let slot = &mut disk.files[f as usize].slots[s as usize];
                let part = if side == Side::Desc { &mut slot.desc } else { &mut slot.payload };
                *part = match harm {
                    Harm::Lost => Part::Base,
                    Harm::Flip => Part::Flipped,
                    Harm::Garbage => Part::Garbage,
                    Harm::DescWrong => Part::DescWrong,
                    Harm::Unreadable => Part::Unreadable,
                };
            }
            Fault::Missing(f) => {
                let foot = disk.files[f as usize].foot;
                let header = disk.files[f as usize].header;
                disk.files[f as usize] = Default::default();
                // Its footer stays where it is.
                if foot.entry.is_there() {
                    let file = &mut disk.files[f as usize];
                    (file.foot, file.header, file.header_on_disk, file.linked) = (foot, header, header, true);
                }
            }
            Fault::Foot(f) => disk.files[f as usize].foot = Default::default(),
            Fault::NewestCkpt => {
                let there = disk.ckpts.iter_mut().filter(|c| c.entry.is_there());
                if let Some(newest) = there.max_by_key(|c| c.seq) {
                    newest.bytes = Bytes::Bad;
                }
            }
            Fault::AllCkpts => disk.ckpts.iter_mut().for_each(|ckpt| ckpt.bytes = Bytes::Bad),
            Fault::MarkSlot(slot) => {
                disk.marks.on_disk[slot as usize] = Mark::default();
                disk.marks.cached = disk.marks.on_disk;
            }
            Fault::Marks => disk.marks = Default::default(),
            Fault::Newest => {
                disk.marks = Default::default();
                let logs = disk.files.iter().enumerate();
                let logs = logs.filter_map(|(f, file)| match file.name() {
                    Name::Log(seg) => Some((seg, f)),
                    _ => None,
                });
                if let Some((_, f)) = logs.max() {
                    disk.files[f] = Default::default();
                }
            }
        }
    }

    fn crashes(&self, state: &State, actions: &mut Vec<Action>) {
        if state.crashes == 0 {
            return;
        }
        if self.config.kills {
            actions.push(Action::Kill);
        }
        let pending = state.world.disk.pending().len() as u32;
        if pending <= u32::from(self.config.subsets) {
            actions.extend((0..1 << pending).map(Action::Cut));
        } else {
            let all = (1u32 << pending) - 1;
            actions.extend([Action::Cut(0), Action::Cut(all)]);
            actions.extend((0..pending).flat_map(|n| [Action::Cut(1 << n), Action::Cut(all & !(1 << n))]));
        }
    }
}

impl Model for Log {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let mut state = self.fresh();
        for step in &self.config.prelude {
            self.prelude(&mut state, *step);
        }
        vec![state]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        let (world, config) = (&state.world, &self.config);
        let ghost = &world.ghost;
        if ghost.wrong != Wrong::Nothing || ghost.lossy || ghost.out_of_bounds {
            return;
        }
        let Some(run) = &world.run else {
            if !ghost.faulty {
                self.faults(state, actions);
            }
            if !ghost.refused {
                actions.push(Action::Open(Policy::Prove));
            }
            if config.policies && ghost.faulty {
                actions.extend([Action::Open(Policy::AssumeTorn), Action::Open(Policy::AcceptLoss)]);
            }
            return;
        };
        let busy = run.job.0 != Job::None || run.task.0 != Task::None;
        if state.crashes == 0 && !busy {
            // Nothing that comes now is looked at any more.
            return;
        }
        self.crashes(state, actions);
        if busy {
            actions.push(Action::Step);
            let half = run.recovering && run.task.1 == 3 && run.job.0 == Job::None;
            if config.early_syncs && half && run.can_sync() {
                actions.push(Action::SyncEarly);
            }
        }
        let closing = matches!(run.task.0, Task::Open | Task::Close);
        if state.world.is_entering() {
            actions.push(Action::Enter);
        }
        for n in 0..2 {
            if run.syncs[n].target != Pos::ZERO && !run.syncs[n].done {
                actions.push(Action::EndSync(n as u8, true));
                if state.failed_syncs > 0 {
                    actions.push(Action::EndSync(n as u8, false));
                }
            }
        }
        if run.shut || closing || busy && !config.interleave {
            return;
        }
        if usize::from(ghost.next) <= config.bounds.script.len() && run.has_room(config.bounds.slots) {
            actions.push(Action::Accept);
        }
        if run.queued > 0 {
            actions.push(Action::Write);
        }
        let under_way = run.syncs.iter().filter(|sync| sync.target != Pos::ZERO).count();
        if run.can_sync() && under_way < config.syncs as usize {
            actions.push(Action::BeginSync);
        }
        if busy {
            return;
        }
        let more = usize::from(ghost.next) <= config.bounds.script.len();
        let wanted = if config.eager { 1 } else { config.bounds.slots };
        if more && run.ready.is_none() && (run.active.is_none() || run.offset >= wanted) {
            actions.push(Action::Prepare);
        }
        for upkeep in config.upkeep {
            let due = match upkeep {
                Upkeep::Seal => run.sealing != 0,
                // `upkeep::upkeep` seals first.
                Upkeep::Absorb => run.retired != 0 && run.sealing == 0,
                Upkeep::Mark => run.is_idle() && run.durable > run.start && run.durable > run.marked,
                Upkeep::Checkpoint => {
                    run.kept_len == 0 || run.accepted > run.kept[run.kept_len as usize - 1].2
                }
                Upkeep::Purge => {
                    let is_dead = |f: usize| !run.table.lives_in(world.disk.files[f].header.seg);
                    run.retired != 0 || bits(run.sealed | run.sealing).any(is_dead)
                }
                Upkeep::Close => true,
                Upkeep::Backup => !world.backup.done,
            };
            if due {
                actions.push(Action::Upkeep(*upkeep));
            }
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = *last;
        let (world, seen) = (&mut state.world, &self.seen);
        let bounds = self.bounds();
        let opening = world.is_opening();
        match action {
            Action::Accept => {
                let before = world.run.map(|run| run.active);
                world.accept(bounds);
                let after = world.run.map(|run| run.active);
                seen.note(if before == after || before == Some(None) { "accept" } else { "roll" });
            }
            Action::Write => {
                if world.run.is_some_and(|run| run.queued > 1) {
                    seen.note("write a group");
                }
                world.write(bounds);
            }
            Action::BeginSync => world.begin_sync(),
            Action::EndSync(n, ok) => {
                seen.note(if ok { "sync" } else { "sync that fails" });
                state.failed_syncs -= u8::from(!ok);
                world.end_sync(n as usize, ok, bounds);
            }
            Action::Enter => {
                seen.note("mark of a new segment");
                world.enter(bounds);
            }
            Action::Prepare => {
                let run = world.run.as_mut()?;
                seen.note(if run.free == 0 { "prepare" } else { "recycle" });
                run.job = (Job::Prepare, 0);
                world.step_job(bounds);
            }
            Action::Upkeep(upkeep) => {
                seen.note(match upkeep {
                    Upkeep::Seal => "seal",
                    Upkeep::Checkpoint => "checkpoint",
                    Upkeep::Purge => "purge",
                    Upkeep::Absorb => "give back",
                    Upkeep::Mark => "mark",
                    Upkeep::Close => "close",
                    Upkeep::Backup => "backup",
                });
                // A close ends a run as a crash does, and counts as one.
                state.crashes -= u8::from(upkeep == Upkeep::Close);
                self.begin(world, upkeep);
                self.step(world);
            }
            Action::Step => {
                self.step(world);
                if opening {
                    state.steps += 1;
                    if state.steps >= STEPS_MAX {
                        state.world.ghost.wrong_now(Wrong::Endless);
                    }
                }
            }
            Action::SyncEarly => {
                seen.note("sync of half a copy");
                world.begin_sync();
                world.end_sync(0, true, bounds);
            }
            Action::Kill | Action::Cut(_) => {
                let run = world.run.take()?;
                seen.note(if opening { "crash inside recovery" } else { "kill" });
                world.ghost.crashed(&run);
                state.crashes -= 1;
                if let Action::Cut(mask) = action {
                    seen.note("power cut");
                    world.disk.cut(mask);
                    world.cut_backup();
                } else {
                    // What a sync under way had begun to write is still written, some time.
                    for file in &mut world.disk.files {
                        (0..2).for_each(|place| file.end_sync(place, Part::Cached));
                    }
                }
            }
            Action::Fault(fault) => {
                seen.note("fault");
                self.harm(world, fault);
            }
            Action::Open(policy) => {
                seen.note("open");
                self.open(&mut state, policy);
            }
        }
        // With no crash left, what opening does in between is of no interest.
        if state.crashes == 0 && state.world.is_opening() {
            let stuck = |ghost: &crate::ghost::Ghost| ghost.wrong != Wrong::Nothing || ghost.out_of_bounds;
            while state.world.is_opening() && !stuck(&state.world.ghost) {
                self.step(&mut state.world);
                state.steps += 1;
                if state.steps >= STEPS_MAX {
                    state.world.ghost.wrong_now(Wrong::Endless);
                }
            }
        }
        if !state.world.is_opening() {
            state.steps = 0;
        }
        if self.config.upkeep.contains(&Upkeep::Backup)
            && let Err(wrong) = state.world.backup_is_right(bounds)
        {
            state.world.ghost.wrong_now(wrong);
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut properties = vec![
            Property::always("what was acknowledged is there, or named", |_: &Log, s: &State| {
                !matches!(
                    s.world.ghost.wrong,
                    Wrong::Lost | Wrong::DoubtForgotten | Wrong::VoteBelieved | Wrong::UncleanForgotten
                )
            }),
            Property::always("nothing comes back", |_: &Log, s: &State| {
                s.world.ghost.wrong != Wrong::NoPrefix
            }),
            Property::always("recovery ends, and ends the same", |_: &Log, s: &State| {
                !matches!(s.world.ghost.wrong, Wrong::Endless | Wrong::Differs)
            }),
            Property::always("crashes alone refuse nothing and raise no alarm", |_: &Log, s: &State| {
                !matches!(s.world.ghost.wrong, Wrong::RefusedForNothing(_) | Wrong::Alarm)
            }),
            Property::always("one fault affects what it hit", |_: &Log, s: &State| {
                !matches!(s.world.ghost.wrong, Wrong::RefusedTooMuch(_))
            }),
            Property::always("a backup is a store", |_: &Log, s: &State| {
                s.world.ghost.wrong != Wrong::Backup
            }),
            Property::always("the bounds are wide enough", |_: &Log, s: &State| !s.world.ghost.out_of_bounds),
        ];
        properties.extend(reachable());
        properties
    }
}
