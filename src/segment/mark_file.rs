//! The file that says up to where the log is durable: see [`crate::format::mark`].
//!
//! Made with the store, before its first checkpoint. Written after the sync of what it proves, when
//! nobody waits for it: once the store is idle, once recovery's copy is whole, and at close; and before the
//! first group in a segment is acknowledged, whose file would otherwise be all that knows of it. A slot
//! that is lost proves nothing; without either, a store that was not closed is refused, as the end
//! of its log may be missing too.

use super::Unwritten;
use crate::error::{Error, ErrorKind, Result};
use crate::format::file_header::{HeaderError, StoreId};
use crate::format::mark::{MARK_LEN, MARK_SLOT_LEN, Mark};
use crate::format::names::FileName;
use crate::format::record::Shape;
use crate::planted::{Bug, planted};
use crate::sync::Mutex;
use crate::types::Lsn;
use crate::vfs::io::{read_up_to, write_parts_at};
use crate::vfs::meaning::if_there;
use crate::vfs::{Dir, OpenMode};
use bytes::Bytes;

/// Where the log came to rest.
#[derive(Clone, Default, Debug)]
pub(crate) struct Rest {
    /// It is durable up to here.
    pub(crate) durable: Lsn,
    /// The record that ends there; the default when it is not known.
    pub(crate) last: Shape,
    /// Copies of the last records, which no record has: at most
    /// [`MARK_COPIES_MAX`](crate::format::mark::MARK_COPIES_MAX) bytes.
    pub(crate) copies: Bytes,
}

/// Writes marks.
#[derive(Debug)]
pub(crate) struct MarkFile {
    dir: Dir,
    store: StoreId,
    run: u32,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// The number of the next mark.
    sequence: u64,
    /// What the last one says.
    durable: Lsn,
    /// What the last one says that was written at rest.
    rested: Lsn,
    /// There is a file with a mark of this store.
    exists: bool,
    /// A write or sync of it failed: what the file holds is not known, and the same pages are
    /// not synced again.
    failed: bool,
    /// Where the log was durable when it was last seen at rest.
    seen_at: Lsn,
    /// What a write failed with that nobody was in a position to say.
    unsaid: Option<Error>,
}

impl State {
    /// A mark that leads to a segment has no copies, and the log may come to rest where it leads to.
    fn lacks(&self, rest: &Rest) -> bool {
        let is_further = rest.durable > self.durable;
        is_further || rest.durable == self.durable && !rest.copies.is_empty() && self.rested < rest.durable
    }
}

impl MarkFile {
    /// Goes on from the marks that were found.
    pub(crate) fn new(dir: Dir, store: StoreId, run: u32, found: &[Mark]) -> MarkFile {
        let ours = || found.iter().filter(|mark| mark.store == store);
        let state = State {
            sequence: ours().map(|mark| mark.sequence.saturating_add(1)).max().unwrap_or(0),
            durable: ours().map(|mark| mark.durable).max().unwrap_or(Lsn::ZERO),
            rested: Lsn::ZERO,
            exists: ours().next().is_some(),
            failed: false,
            seen_at: Lsn::ZERO,
            unsaid: None,
        };
        MarkFile { dir, store, run, state: Mutex::new(state) }
    }

    /// Makes the file, durably, if no mark of the store is there: in both slots, and proving nothing yet.
    /// That it is missing later says that something was lost.
    ///
    /// # Errors
    /// Of the operating system: then there is none, and the next call tries again.
    pub(crate) fn ensure(&self) -> Result<(), Unwritten> {
        let mut state = self.state.lock();
        if state.exists {
            return Ok(());
        }
        let mark = |sequence| Mark {
            store: self.store,
            sequence,
            durable: state.durable,
            run: self.run,
            last: Shape::default(),
            copies: Bytes::new(),
        };
        let made = self.write(&[mark(0), mark(1)]);
        if let Err(e) = made {
            // Its pages are not to be synced again.
            let name = FileName::Mark.to_string();
            state.failed |= self.dir.remove_if_there(&name).is_err();
            return Err(Unwritten::io("making the mark", &self.dir.join(name), e));
        }
        (state.exists, state.sequence) = (true, 2);
        Ok(())
    }

    /// Whether noting it would say something new.
    pub(crate) fn lacks(&self, rest: &Rest) -> bool {
        let state = self.state.lock();
        state.lacks(rest) && !state.failed
    }

    /// Whether the log, which is at rest at `durable`, was so when this was asked last.
    pub(crate) fn is_still_at(&self, durable: Lsn) -> bool {
        let mut state = self.state.lock();
        std::mem::replace(&mut state.seen_at, durable) == durable
    }

    /// The length of the file.
    pub(crate) fn bytes(&self) -> u64 {
        let state = self.state.lock();
        if state.exists { MARK_LEN } else { 0 }
    }

    /// Notes, durably, how the log came to rest.
    ///
    /// # Errors
    /// Of the operating system. Then this run notes nothing any more; the log is as durable as it was.
    pub(crate) fn note(&self, rest: Rest) -> Result<()> {
        self.note_in(1, rest, || {})
    }

    /// The same in both slots, one after the other: for what nothing else says, and may therefore not be lost
    /// with one slot.
    ///
    /// # Errors
    /// As [`note`](MarkFile::note).
    pub(crate) fn note_twice(&self, rest: Rest, between: impl FnOnce()) -> Result<()> {
        self.note_in(if planted(Bug::MarkInOneSlot) { 1 } else { 2 }, rest, between)
    }

    /// Notes that the log is durable up to `durable`, unless a mark leads to that segment already.
    ///
    /// # Errors
    /// As [`note`](MarkFile::note); it is kept for [`take_failure`](MarkFile::take_failure) too.
    pub(crate) fn enter(&self, durable: Lsn) -> Result<()> {
        let rest = Rest { durable, ..Rest::default() };
        if self.state.lock().durable.segment() >= durable.segment() || !self.lacks(&rest) {
            return Ok(());
        }
        self.note(rest).inspect_err(|e| self.state.lock().unsaid = Some(e.clone()))
    }

    /// What a mark failed with that was noted in passing, once.
    pub(crate) fn take_failure(&self) -> Option<Error> {
        self.state.lock().unsaid.take()
    }

    fn note_in(&self, slots: u32, rest: Rest, between: impl FnOnce()) -> Result<()> {
        let mut between = Some(between);
        let mut state = self.state.lock();
        if !state.lacks(&rest) {
            return Ok(());
        }
        let Rest { durable, last, copies } = rest;
        let path = self.dir.join(FileName::Mark.to_string());
        if state.failed {
            return Err(Error::new(ErrorKind::Io, "an earlier write of the mark failed").at(&path, None));
        }
        let last = if last.end() == Some(durable) { last } else { Shape::default() };
        for _ in 0..slots {
            let (store, run, copies) = (self.store, self.run, copies.clone());
            let mark = Mark { store, sequence: state.sequence, durable, run, last, copies };
            // Each slot is synced before the other is touched: a crash leaves one that is whole.
            if let Err(e) = self.write(&[mark]) {
                state.failed = true;
                return Err(Error::io("writing the mark", &path, e));
            }
            state.exists = true;
            state.sequence = state.sequence.saturating_add(1);
            if let Some(between) = between.take() {
                between();
            }
        }
        state.durable = durable;
        if !copies.is_empty() {
            state.rested = durable;
        }
        Ok(())
    }

    fn write(&self, marks: &[Mark]) -> std::io::Result<()> {
        let name = FileName::Mark.to_string();
        let (file, is_new) = match if_there(self.dir.open(&name, OpenMode::ReadWrite))? {
            Some(file) => (file, false),
            None => (self.dir.open(&name, OpenMode::CreateNew)?, true),
        };
        if file.len()? < MARK_LEN {
            file.set_len(MARK_LEN)?;
        }
        for mark in marks {
            write_parts_at(&*file, &[&mark.encode()], mark.offset())?;
        }
        file.sync_all()?;
        if is_new { self.dir.sync() } else { Ok(()) }
    }
}

/// Makes what the mark file shows durable, or shows what is: a process that died between the write of a mark
/// and its sync leaves one that only the page cache has. What it proves would be acted upon, and be gone with
/// the next power cut.
///
/// # Errors
/// Of the operating system: then nothing that the file shows can be relied upon.
pub(crate) fn settle_marks(dir: &Dir) -> Result<()> {
    let name = FileName::Mark.to_string();
    let Ok(file) = dir.open(&name, OpenMode::Read) else { return Ok(()) };
    file.sync_data().map_err(|e| Error::io("syncing the mark", &dir.join(&name), e))?;
    file.drop_cache(0..MARK_LEN)
        .map_err(|e| Error::io("dropping the mark from the cache", &dir.join(&name), e))
}

/// The marks that stand in `dir`, of whatever store. One that is bad or cannot be read proves
/// nothing, and is no error.
///
/// # Errors
/// `Unsupported` when a newer release wrote it: nothing may be written to such a store.
pub(crate) fn read_marks(dir: &Dir) -> Result<Vec<Mark>> {
    let name = FileName::Mark.to_string();
    let path = dir.join(&name);
    let Ok(file) = dir.open(&name, OpenMode::Read) else { return Ok(Vec::new()) };
    let mut marks = Vec::new();
    for offset in [0, MARK_SLOT_LEN as u64] {
        let mut slot = vec![0; MARK_SLOT_LEN];
        let got = read_up_to(&*file, &mut slot, offset).unwrap_or(0);
        match Mark::decode(&slot[..got], offset) {
            Ok(mark) => marks.push(mark),
            Err(HeaderError::Malformed(_)) => {}
            Err(e) => {
                let newer =
                    format!("the store was written by a newer release: {e}; open it with that release");
                return Err(Error::new(ErrorKind::Unsupported, newer).at(&path, Some(offset)));
            }
        }
    }
    Ok(marks)
}
