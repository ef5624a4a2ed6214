//! The order in which the engine has to do things to its disk, and whether it did: every call of a run is
//! held to it, one after the other, with nothing to go by but names, ranges, and what the engine answered.
//!
//! It knows no bytes and no engine. The steps are those of the model (`crates/model`): a batch is written and
//! synced before it is acknowledged, a mark leads to each segment, a footer and a checkpoint get their names
//! when what they speak of is durable, a file is given back when a checkpoint needs it no more, and nothing
//! is written over what was acknowledged. What the model explores, this looks for in the engine: a rule that
//! the engine breaks is found in the first run that comes along there, crash or not.

use raftwood::Lsn;
use raftwood::vfs::sim::{Op, OpKind};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// One step of a run.
#[derive(Clone, PartialEq, Debug)]
pub enum Step {
    /// A call of the disk, as it came back.
    Call(Op),
    /// The engine said that everything before is on the device.
    Synced(Lsn),
    /// The engine said that everything before is in the operating system's hands.
    Written(Lsn),
    /// The store is open: recovery has ended.
    Opened,
    /// The store is closed: nothing is left to be replayed.
    Closed,
    /// The process is gone; what it wrote is in the operating system's hands.
    Killed,
    /// The power went: of what was not synced anything may be there. These files are.
    Cut(Vec<String>),
}

/// Where records begin in a segment: past its headers, which take a page.
const RECORDS_AT: u64 = 4096;

/// Names of the store's files.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Log(u32),
    Footer(u32),
    /// Of the cleaner.
    Cold,
    Checkpoint,
    Free,
    Mark,
    /// The lock, and the directory.
    Lock,
    Other,
}

fn kind(path: &Path) -> Kind {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let number = |digits: &str| digits.parse::<u32>().ok();
    match name.split_once('.') {
        Some((digits, "log")) => number(digits).map_or(Kind::Other, Kind::Log),
        Some((digits, "foot")) => number(digits).map_or(Kind::Other, Kind::Footer),
        Some((_, "cold")) => Kind::Cold,
        Some((_, "ckpt")) => Kind::Checkpoint,
        Some((_, "free")) => Kind::Free,
        None if name == "MARK" => Kind::Mark,
        None if matches!(name, "LOCK" | "db") => Kind::Lock,
        _ => Kind::Other,
    }
}

/// What is known of one file.
#[derive(Clone, Default, Debug)]
struct File {
    /// Written and not synced.
    pending: Vec<(u64, u64)>,
    was_synced: bool,
    /// It got its name, and the directory was not synced since.
    is_named_lately: bool,
    /// Where the last write began, and where it ended. A write goes on with zeros to the end of its page, and
    /// the next one begins somewhere in it.
    last_at: u64,
    end: u64,
    /// Records before this were acknowledged as synced.
    acked: u64,
    /// Steps at which its last record was written.
    last_record: u64,
    /// When its draft was begun.
    began: u64,
    /// It was given its length, and that is durable.
    is_allocated: bool,
    is_allocated_durably: bool,
    /// It was begun by the open that goes on.
    is_of_open: bool,
    /// It was begun by an open that died, and no open since has taken it for the log's end.
    is_abandoned: bool,
    /// An open has copied all that it holds.
    is_superseded: bool,
    /// What was written of its present generation, in order of places.
    written: Vec<(u64, u64)>,
}

impl File {
    /// Whether it was written from its start to there, or to its end.
    fn is_written(&self, until: u64) -> bool {
        let mut written = self.written.clone();
        written.sort_unstable();
        let mut at = 0;
        for (from, to) in written {
            if from > at {
                return false;
            }
            at = at.max(to);
            if at >= until {
                return true;
            }
        }
        until == u64::MAX && at > 0
    }

    fn has_pending_before(&self, end: u64) -> bool {
        self.pending.iter().any(|(from, _)| *from < end)
    }
}

/// How far a run has come.
#[derive(Clone, Default, Debug)]
pub struct Protocol {
    files: BTreeMap<String, File>,
    steps: u64,
    is_locked: bool,
    is_open: bool,
    /// A name was made, changed or removed, and the directory was not synced since.
    is_dir_changed: bool,
    /// Log segments with records that were synced, and no mark was written since.
    to_mark: BTreeSet<u32>,
    /// The same, with a mark that was written and not synced.
    marking: BTreeSet<u32>,
    /// Segments of this run to which a mark leads.
    marked: BTreeSet<u32>,
    /// Recovery has written records, and marks into these slots.
    is_copied: bool,
    slots: BTreeSet<u64>,
    /// When the last checkpoint began that has its name, and the last one whose name is durable.
    named: Option<u64>,
    checkpoint: Option<u64>,
    /// The last acknowledged position of this run.
    last: Option<Lsn>,
}

impl Protocol {
    /// Takes the next step.
    ///
    /// # Errors
    /// The rule that it breaks.
    pub fn step(&mut self, step: &Step) -> Result<(), String> {
        self.steps += 1;
        match step {
            Step::Call(op) => self.call(op).map_err(|rule| format!("{rule}: {op}")),
            Step::Synced(lsn) => self.synced(*lsn).map_err(|rule| format!("{rule}: acknowledged {lsn}")),
            Step::Written(lsn) => self.written(*lsn).map_err(|rule| format!("{rule}: written {lsn}")),
            Step::Opened => self.opened(),
            Step::Closed => {
                let closed = self.closed();
                self.end_run();
                closed
            }
            Step::Killed => {
                self.end_run();
                Ok(())
            }
            Step::Cut(names) => {
                self.end_run();
                self.cut(names);
                Ok(())
            }
        }
    }

    fn end_run(&mut self) {
        if !self.is_open && self.is_copied {
            self.supersede();
        }
        for (name, file) in &mut self.files {
            if std::mem::take(&mut file.is_of_open) {
                file.is_abandoned = !self.is_open;
            }
            // What one holds that was being made a segment of means nothing to the next run, which takes it
            // with the length that it has: a sync of its header covers that.
            if kind(Path::new(name)) == Kind::Free {
                file.is_allocated_durably = file.is_allocated;
                file.pending.clear();
                file.written.clear();
            }
        }
        (self.is_locked, self.is_open, self.last) = (false, false, None);
        self.named = None;
        self.is_copied = false;
        self.slots.clear();
        self.to_mark.clear();
        self.marking.clear();
        self.marked.clear();
    }

    /// An open that copies takes along all that was not acknowledged.
    fn supersede(&mut self) {
        for (name, file) in &mut self.files {
            let is_log = matches!(kind(Path::new(name)), Kind::Log(_));
            file.is_superseded |= is_log && !file.is_of_open && file.acked == 0;
        }
    }

    /// Of a file under a name that is not known, or known again, nothing is expected but that it is there.
    fn cut(&mut self, names: &[String]) {
        let mut before = std::mem::take(&mut self.files);
        for name in names {
            let of_old = File {
                end: RECORDS_AT,
                was_synced: true,
                is_allocated: true,
                is_allocated_durably: true,
                ..File::default()
            };
            let mut file = before.remove(name).unwrap_or(of_old);
            if !file.pending.is_empty() && file.acked == 0 {
                // Of its records none may be left.
                file.last_record = 0;
            }
            file.pending.clear();
            file.is_named_lately = false;
            self.files.insert(name.clone(), file);
        }
    }

    // ---- calls --------------------------------------------------------------------------------------------

    fn call(&mut self, op: &Op) -> Result<(), String> {
        let name = op.path.to_string_lossy().into_owned();
        let at = kind(&op.path);
        if op.error.is_some() {
            let is_missing = op.error.as_ref().is_some_and(|error| error.contains("No such file"));
            return match is_missing && op.to.is_none() && self.files.contains_key(&name) {
                true => Err("a file is not found that is there".into()),
                false => Ok(()),
            };
        }
        if op.kind.changes_disk() && !self.is_locked && at != Kind::Lock {
            return Err("something is changed before the store is locked".into());
        }
        if matches!(op.kind, OpKind::Create | OpKind::Write | OpKind::Rename) {
            self.names_are_durable(&name)?;
        }
        match op.kind {
            OpKind::Lock => self.is_locked = true,
            OpKind::Allocate => {
                let Some(file) = self.files.get_mut(&name) else {
                    return Err("a file is allocated that nobody made".into());
                };
                if file.is_allocated {
                    return Err("a file gets its length twice".into());
                }
                file.is_allocated = true;
            }
            OpKind::Create => {
                if self.files.contains_key(&name) {
                    return Err("a file is made that is there".into());
                }
                let began = self.steps;
                let file = File { is_named_lately: true, end: RECORDS_AT, began, ..File::default() };
                self.files.insert(name, file);
                self.is_dir_changed |= at == Kind::Mark;
            }
            OpKind::Write => {
                let Some(range) = op.range else { return Ok(()) };
                self.write(&name, at, range)?;
            }
            OpKind::SyncData | OpKind::SyncAll => self.sync(&name, at)?,
            OpKind::SyncDir => {
                if self.is_open && !self.is_dir_changed {
                    return Err("the directory is synced, and nothing in it has changed".into());
                }
                self.is_dir_changed = false;
                if let Some((name, _)) = self.files.iter().find(|(name, file)| {
                    file.is_named_lately && !file.pending.is_empty() && kind(Path::new(name)) != Kind::Other
                }) {
                    return Err(format!("the name {name} is made durable before what it holds"));
                }
                self.files.values_mut().for_each(|file| file.is_named_lately = false);
                self.checkpoint = self.named.take().or(self.checkpoint);
            }
            OpKind::Rename => {
                let Some(to) = &op.to else { return Ok(()) };
                let to_name = to.to_string_lossy().into_owned();
                self.rename(&name, at, &to_name, kind(to))?;
            }
            OpKind::Remove => {
                self.give_back(&name, at)?;
                if at == Kind::Checkpoint && self.named.is_some() {
                    return Err("a checkpoint is removed before the next one's name is durable".into());
                }
                self.is_dir_changed = true;
                if self.files.remove(&name).is_none() {
                    return Err("a file is removed that is not there".into());
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn write(&mut self, name: &str, at: Kind, (from, to): (u64, u64)) -> Result<(), String> {
        let steps = self.steps;
        let is_half = self.files.get(name).is_some_and(|file| !file.pending.is_empty());
        if matches!(at, Kind::Log(_)) {
            self.no_mark_half_written()?;
        }
        let Some(file) = self.files.get_mut(name) else {
            return Err("a file is written that nobody made".into());
        };
        match at {
            Kind::Log(_) if from < RECORDS_AT => {
                return Err("the header of a segment is written again".into());
            }
            Kind::Log(_) if self.is_open && from < file.acked => {
                return Err("what was acknowledged is written over".into());
            }
            Kind::Log(_) if from <= file.last_at => return Err("records are written over".into()),
            Kind::Log(_) if from > file.end => return Err("a record leaves a gap".into()),
            Kind::Log(_) => (file.last_at, file.end, file.last_record) = (from, to, steps),
            Kind::Free if file.is_allocated && !file.is_allocated_durably => {
                return Err("a header is written before the length of its file is durable".into());
            }
            Kind::Free if file.is_named_lately && file.acked > 0 => {
                return Err("a file is used again before its new name is durable".into());
            }
            Kind::Free => {
                (file.last_at, file.end, file.acked, file.last_record) = (0, RECORDS_AT, 0, 0);
            }
            Kind::Mark if file.pending.contains(&(from, to)) => {
                return Err("a slot of the mark is written twice".into());
            }
            Kind::Mark if is_half && file.was_synced => {
                return Err("the mark before is not synced yet".into());
            }
            Kind::Mark => self.marking.append(&mut self.to_mark),
            _ => {}
        }
        if !self.is_open {
            self.is_copied |= matches!(at, Kind::Log(_));
            self.slots.extend((at == Kind::Mark).then_some(from));
        }
        if !matches!(at, Kind::Log(_) | Kind::Mark) {
            if file.written.iter().any(|w| w.0 < to && from < w.1) {
                return Err("the same place is written twice".into());
            }
            file.written.push((from, to));
        }
        file.pending.push((from, to));
        Ok(())
    }

    fn sync(&mut self, name: &str, at: Kind) -> Result<(), String> {
        let Some(file) = self.files.get_mut(name) else { return Ok(()) };
        let allocates = file.is_allocated && !file.is_allocated_durably;
        if self.is_open && file.pending.is_empty() && !allocates {
            return Err("a file is synced, and nothing in it has changed".into());
        }
        file.is_allocated_durably = file.is_allocated;
        if at == Kind::Mark && !file.was_synced && file.pending.len() != 2 {
            return Err("a mark is made in one slot".into());
        }
        match at {
            Kind::Log(id) if !file.pending.is_empty() => drop(self.to_mark.insert(id)),
            Kind::Mark => self.marked.append(&mut self.marking),
            _ => {}
        }
        file.pending.clear();
        file.was_synced = true;
        Ok(())
    }

    /// Nothing else goes on before a name is durable that was given.
    fn names_are_durable(&self, but: &str) -> Result<(), String> {
        let counts = |name: &str| !matches!(kind(Path::new(name)), Kind::Free | Kind::Other | Kind::Lock);
        let lately = |(name, file): &(&String, &File)| file.is_named_lately && counts(name) && *name != but;
        match self.files.iter().find(lately) {
            Some((name, _)) => Err(format!("the name {name} is not durable yet")),
            None => Ok(()),
        }
    }

    /// Nothing goes on beside a mark.
    fn no_mark_half_written(&self) -> Result<(), String> {
        let half =
            |(name, file): (&String, &File)| kind(Path::new(name)) == Kind::Mark && !file.pending.is_empty();
        match self.files.iter().any(half) {
            true => Err("a mark is written and not synced".into()),
            false => Ok(()),
        }
    }

    fn rename(&mut self, from: &str, at: Kind, to: &str, becomes: Kind) -> Result<(), String> {
        let Some(file) = self.files.get(from) else { return Err("a file is named that nobody made".into()) };
        let is_synced = file.pending.is_empty();
        match becomes {
            Kind::Log(_) | Kind::Cold | Kind::Footer(_) | Kind::Checkpoint if !is_synced => {
                return Err("a name is given to what is not synced".into());
            }
            Kind::Log(_) if !file.is_allocated_durably || !file.is_written(RECORDS_AT) => {
                return Err("a segment gets its name without a length or a header".into());
            }
            Kind::Footer(_) | Kind::Checkpoint if !file.is_written(u64::MAX) => {
                return Err("a name is given to what was not all written".into());
            }
            Kind::Footer(id) if self.log(id).is_some_and(|log| !log.pending.is_empty()) => {
                return Err("a footer speaks of records that are not synced".into());
            }
            Kind::Checkpoint => {
                let began = file.began;
                let late = |f: &&File| f.last_record < began && f.end > RECORDS_AT && !f.pending.is_empty();
                let logs =
                    self.files.iter().filter(|(name, _)| matches!(kind(Path::new(name)), Kind::Log(_)));
                if logs.map(|(_, file)| file).any(|file| late(&file)) {
                    return Err("a checkpoint knows of records that are not synced".into());
                }
                self.named = Some(began);
            }
            _ => {}
        }
        if matches!(becomes, Kind::Free | Kind::Other) {
            self.give_back(from, at)?;
        }
        let Some(mut file) = self.files.remove(from) else { return Ok(()) };
        file.is_named_lately = true;
        file.is_of_open = matches!(becomes, Kind::Log(_)) && !self.is_open;
        (file.is_abandoned, file.is_superseded) = (false, false);
        if becomes == Kind::Free {
            file.written.clear();
        }
        self.is_dir_changed = true;
        self.files.insert(to.to_string(), file);
        Ok(())
    }

    /// A segment goes: what was in it is in no replay any more.
    fn give_back(&self, name: &str, at: Kind) -> Result<(), String> {
        let Kind::Log(id) = at else { return Ok(()) };
        if self.files.keys().any(|name| kind(Path::new(name)) == Kind::Footer(id)) {
            return Err(format!("segment {id} is given back before its footer"));
        }
        let Some(file) =
            self.files.get(name).filter(|file| file.acked > 0 && !file.is_abandoned && !file.is_superseded)
        else {
            return Ok(());
        };
        let kept = self.files.iter().filter(|(name, _)| kind(Path::new(name)) == Kind::Checkpoint);
        let is_needed = self.checkpoint.is_none_or(|began| began < file.last_record)
            || kept.map(|(_, checkpoint)| checkpoint.began).any(|began| began < file.last_record);
        if self.is_open && is_needed {
            return Err(format!("segment {id} is given back, and a checkpoint may need it"));
        }
        Ok(())
    }

    fn log(&self, id: u32) -> Option<&File> {
        let logs = self.files.iter().find(|(name, _)| kind(Path::new(name)) == Kind::Log(id));
        logs.map(|(_, file)| file)
    }

    // ---- answers ------------------------------------------------------------------------------------------

    fn written(&self, lsn: Lsn) -> Result<(), String> {
        if self.last.is_some_and(|last| lsn <= last) {
            return Ok(());
        }
        self.no_mark_half_written()?;
        match self.log(lsn.segment()) {
            Some(log) if log.end >= u64::from(lsn.offset()) => Ok(()),
            Some(_) => Err("not all of it was written".into()),
            None => Err("its segment is not there".into()),
        }
    }

    fn synced(&mut self, lsn: Lsn) -> Result<(), String> {
        if self.last.is_some_and(|last| lsn <= last) || u64::from(lsn.offset()) <= RECORDS_AT {
            // It was acknowledged before, for another, or there is nothing before it in this run.
            return Ok(());
        }
        self.names_are_durable("")?;
        self.written(lsn)?;
        let end = u64::from(lsn.offset());
        for (name, file) in &self.files {
            let Kind::Log(id) = kind(Path::new(name)) else { continue };
            let until = if id == lsn.segment() { end } else { u64::MAX };
            if id <= lsn.segment() && file.has_pending_before(until) {
                return Err(format!("segment {id} is not synced"));
            }
        }
        if !self.marked.contains(&lsn.segment()) {
            return Err(format!("no mark leads to segment {}", lsn.segment()));
        }
        self.last = Some(lsn);
        for (name, file) in &mut self.files {
            if let Kind::Log(id) = kind(Path::new(name))
                && id <= lsn.segment()
            {
                file.acked = if id == lsn.segment() { end } else { file.last_at + 1 };
            }
        }
        Ok(())
    }

    fn opened(&mut self) -> Result<(), String> {
        self.is_open = true;
        match self.is_copied {
            // A copy that an open before had begun is nothing then, durable or not.
            true => {
                self.supersede();
                let abandoned = self.files.values_mut().filter(|file| file.is_abandoned);
                abandoned.for_each(|file| file.pending.clear());
            }
            // There was nothing to copy, or the copy that an open before had made was whole.
            false => self.files.values_mut().for_each(|file| file.is_abandoned = false),
        }
        if self.is_copied && self.slots.len() < 2 {
            return Err("one slot of the mark is all that says that recovery's copy is whole".into());
        }
        match self.pending_log() {
            Some(name) => Err(format!("{name} is not synced, and the store is open")),
            None => Ok(()),
        }
    }

    fn closed(&self) -> Result<(), String> {
        if let Some(name) = self.pending_log() {
            return Err(format!("{name} is not synced, and the store is closed"));
        }
        let last = self.files.values().map(|file| file.last_record).max().unwrap_or(0);
        match last == 0 || self.checkpoint.is_some_and(|began| began > last) {
            true => Ok(()),
            false => {
                Err("the store is closed, and no checkpoint is durable that is newer than its log".into())
            }
        }
    }

    fn pending_log(&self) -> Option<&String> {
        let is_log = |name: &str| matches!(kind(Path::new(name)), Kind::Log(_));
        self.files.iter().find(|(name, file)| is_log(name) && !file.pending.is_empty()).map(|(name, _)| name)
    }
}
