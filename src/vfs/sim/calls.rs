//! The three traits over the disk: every call is numbered, may be struck by a fault,
//! photographed, and written down.

use super::crash::{Moment, Snapshot};
use super::disk::Disk;
use super::fault::{EIO, Effect, Fault};
use super::file::Landing;
use super::op::{Op, OpKind};
use super::{Hook, Profile, SimVfs, errno, os};
use crate::random::Rng;
use crate::vfs::meaning::if_there;
use crate::vfs::{DirEntry, FileId, FileType, LockMode, Map, OpenMode, Reserved, Vfs, VfsDir, VfsFile};
use rustix::io::Errno;
use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::io::{IoSlice, Result};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// Longer files are refused with EFBIG: the list of pages is not made for them.
const FILE_LEN_MAX: u64 = 1 << 32;

/// A disk and all that is going on with it.
pub(super) struct Shared {
    state: Mutex<State>,
    /// Signalled when the gate opens or the number of waiting syncs changes.
    pub(super) gate: Condvar,
}

pub(super) struct State {
    pub(super) disk: Disk,
    pub(super) ops: u64,
    /// Calls with a higher number fail.
    pub(super) halt_after: u64,
    pub(super) faults: Vec<Fault>,
    pub(super) struck: u64,
    pub(super) short_io: Option<u64>,
    pub(super) short_rng: Rng,
    pub(super) snapshot_at: Vec<(u64, Moment)>,
    pub(super) snapshot_every: Option<Moment>,
    pub(super) snapshots: Vec<Snapshot>,
    pub(super) mark: u64,
    pub(super) log: Option<Vec<Op>>,
    pub(super) gate_closed: bool,
    pub(super) syncs_waiting: usize,
    pub(super) locks: Locks,
    pub(super) hook: Option<Hook>,
}

/// One call under way.
struct Turn {
    op: Op,
    effect: Option<Effect>,
    /// The disk's count of changes as the call began: what a sync must make durable.
    seq: u64,
}

impl Turn {
    fn limit(&self) -> usize {
        if let Some(Effect::Short(n)) = self.effect { n } else { usize::MAX }
    }
}

impl Shared {
    pub(super) fn new(disk: Disk) -> Shared {
        let state = State {
            short_rng: Rng::mixed(disk.seed, 1),
            disk,
            ops: 0,
            halt_after: u64::MAX,
            faults: Vec::new(),
            struck: 0,
            short_io: None,
            snapshot_at: Vec::new(),
            snapshot_every: None,
            snapshots: Vec::new(),
            mark: 0,
            log: None,
            gate_closed: false,
            syncs_waiting: 0,
            locks: Locks::default(),
            hook: None,
        };
        Shared { state: Mutex::new(state), gate: Condvar::new() }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        // A test that panicked under the lock has failed already; the others go on.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes one call: number, hook, power, snapshot, gate, fault, effect, snapshot, log.
    fn call<T>(
        &self,
        mut op: Op,
        ino: Option<u64>,
        body: impl FnOnce(&mut State, &Turn) -> Result<T>,
    ) -> Result<T> {
        // What a call that is struck afterwards made is dropped only when the lock, declared later,
        // is: a handle takes it to close.
        let mut unwanted = None;
        let mut state = self.lock();
        state.ops += 1;
        op.number = state.ops;
        if let Some(file) = ino.and_then(|ino| state.disk.files.get(&ino)) {
            op.path.clone_from(&file.path);
        }
        if let Some(hook) = state.hook.clone() {
            drop(state);
            hook(&op);
            state = self.lock();
        }
        let mut turn = Turn { seq: state.disk.seq, op, effect: None };
        let result = if turn.op.number > state.halt_after {
            Err(errno(EIO))
        } else {
            state.photograph(&turn.op, Moment::Before);
            if turn.op.kind != OpKind::Write {
                state.photograph(&turn.op, Moment::Middle);
            }
            if matches!(turn.op.kind, OpKind::SyncData | OpKind::SyncAll) {
                state = self.pass_gate(state);
            }
            if turn.op.number > state.halt_after {
                Err(errno(EIO))
            } else {
                turn.effect = state.strike(&turn.op);
                let result = match turn.effect {
                    // A failed sync has consequences, which its body knows.
                    Some(Effect::Error(e)) if !turn.op.kind.is_sync() => Err(errno(e)),
                    Some(Effect::ErrorAfter(e)) => match body(&mut state, &turn) {
                        Ok(made) => {
                            unwanted = Some(made);
                            Err(errno(e))
                        }
                        Err(e) => Err(e),
                    },
                    _ => body(&mut state, &turn),
                };
                state.photograph(&turn.op, Moment::After);
                result
            }
        };
        if let Some(log) = &mut state.log {
            turn.op.error = result.as_ref().err().map(|e| e.to_string());
            log.push(turn.op);
        }
        drop(state);
        drop(unwanted);
        result
    }

    fn pass_gate<'a>(&'a self, mut state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        if state.gate_closed {
            state.syncs_waiting += 1;
            self.gate.notify_all();
            while state.gate_closed {
                state = self.gate.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            state.syncs_waiting -= 1;
            self.gate.notify_all();
        }
        state
    }
}

impl State {
    pub(super) fn freeze(&self, op: u64, moment: Moment, call: String) -> Snapshot {
        Snapshot { op, moment, call, mark: self.mark, disk: self.disk.clone() }
    }

    fn wants(&self, op: &Op, moment: Moment) -> bool {
        (op.kind.changes_disk() && self.snapshot_every == Some(moment))
            || self.snapshot_at.contains(&(op.number, moment))
    }

    fn photograph(&mut self, op: &Op, moment: Moment) {
        if self.wants(op, moment) {
            let snapshot = self.freeze(op.number, moment, op.to_string());
            self.snapshots.push(snapshot);
        }
    }

    fn strike(&mut self, op: &Op) -> Option<Effect> {
        if let Some(effect) = self.faults.iter_mut().find_map(|f| f.strike(op)) {
            self.struck += 1;
            return Some(effect);
        }
        let one_in = self.short_io?;
        if matches!(op.kind, OpKind::Read | OpKind::Write) && self.short_rng.below(one_in) == 0 {
            let (start, end) = op.range?;
            return Some(match self.short_rng.below(2) {
                0 => Effect::Error(Errno::INTR.raw_os_error()),
                _ => Effect::Short(1 + self.short_rng.below((end - start).max(1)) as usize),
            });
        }
        None
    }
}

impl Vfs for SimVfs {
    fn open_dir(&self, path: &Path) -> Result<Arc<dyn VfsDir>> {
        let dir = self.dir(path);
        dir.call(OpKind::OpenDir, |s, _| s.disk.dir(path).map(drop))?;
        Ok(Arc::new(dir))
    }

    fn create_dir_all(&self, path: &Path) -> Result<Arc<dyn VfsDir>> {
        let dir = self.dir(path);
        dir.call(OpKind::CreateDirAll, |s, _| s.disk.create_dir_all(path))?;
        Ok(Arc::new(dir))
    }
}

impl SimVfs {
    /// A handle onto a directory that may not be there.
    pub(super) fn dir(&self, path: &Path) -> SimDir {
        SimDir { shared: Arc::clone(&self.shared), path: path.to_path_buf() }
    }
}

/// An open directory.
pub(super) struct SimDir {
    shared: Arc<Shared>,
    path: PathBuf,
}

impl SimDir {
    /// A call on the directory itself.
    fn call<T>(&self, kind: OpKind, body: impl FnOnce(&mut State, &Turn) -> Result<T>) -> Result<T> {
        self.shared.call(Op { path: self.path.clone(), ..Op::new(kind) }, None, body)
    }

    /// A call on a file in it.
    fn call_on<T>(
        &self,
        kind: OpKind,
        name: &str,
        body: impl FnOnce(&mut State, &Path) -> Result<T>,
    ) -> Result<T> {
        let path = self.path.join(name);
        self.shared.call(Op { path: path.clone(), ..Op::new(kind) }, None, |s, _| body(s, &path))
    }

    /// A call on two names.
    fn call_on_both(
        &self,
        kind: OpKind,
        from: &str,
        to: PathBuf,
        body: impl FnOnce(&mut State, &Path, &Path) -> Result<()>,
    ) -> Result<()> {
        let from = self.path.join(from);
        let op = Op { path: from.clone(), to: Some(to.clone()), ..Op::new(kind) };
        self.shared.call(op, None, |s, _| body(s, &from, &to))
    }
}

impl VfsDir for SimDir {
    fn list(&self) -> Result<Vec<DirEntry>> {
        self.call(OpKind::List, |s, _| {
            let mut entries = Vec::new();
            for (name, ino) in Arc::clone(&s.disk.dir(&self.path)?.cached).iter() {
                let len = s.disk.file(*ino)?.cached.len();
                entries.push(DirEntry { name: name.to_string(), file_type: FileType::File, len });
            }
            for inner in s.disk.dirs.keys().filter(|d| d.parent() == Some(&self.path)) {
                let name = inner.file_name().unwrap_or_default().to_string_lossy().into_owned();
                entries.push(DirEntry { name, file_type: FileType::Dir, len: 0 });
            }
            // "In any order": so that nobody comes to rely on one.
            s.disk.rng.shuffle(&mut entries);
            Ok(entries)
        })
    }

    fn open(&self, name: &str, mode: OpenMode) -> Result<Arc<dyn VfsFile>> {
        let kind = if mode == OpenMode::CreateNew { OpKind::Create } else { OpKind::Open };
        self.call_on(kind, name, |s, path| {
            let ino = match mode {
                OpenMode::CreateNew => s.disk.create(path)?,
                OpenMode::Read | OpenMode::ReadWrite => s.disk.lookup(path)?,
            };
            let file = s.disk.file(ino)?;
            file.handles += 1;
            let errors_seen = AtomicU64::new(file.sync_errors);
            let shared = Arc::clone(&self.shared);
            let file = SimFile { shared, ino, writable: mode != OpenMode::Read, errors_seen };
            Ok(file)
        })
        .map(|file| Arc::new(file) as Arc<dyn VfsFile>)
    }

    fn remove(&self, name: &str) -> Result<()> {
        self.call_on(OpKind::Remove, name, |s, path| s.disk.remove(path))
    }

    fn rename(&self, from: &str, to: &str) -> Result<()> {
        self.call_on_both(OpKind::Rename, from, self.path.join(to), |s, from, to| s.disk.rename(from, to))
    }

    fn rename_new(&self, from: &str, to: &str) -> Result<()> {
        self.call_on_both(OpKind::Rename, from, self.path.join(to), |s, from, to| {
            s.disk.nothing_at(to)?;
            s.disk.rename(from, to)
        })
    }

    fn hard_link(&self, name: &str, to: &dyn VfsDir, new: &str) -> Result<()> {
        let to: &dyn Any = to;
        let same_disk = |to: &&SimDir| Arc::ptr_eq(&to.shared, &self.shared);
        let to = to.downcast_ref::<SimDir>().filter(same_disk).ok_or_else(|| os(Errno::XDEV))?;
        self.call_on_both(OpKind::HardLink, name, to.path.join(new), |s, from, to| s.disk.hard_link(from, to))
    }

    fn sync(&self) -> Result<()> {
        self.call(OpKind::SyncDir, |s, turn| match turn.effect {
            // Names are in the journal: they stay pending, also where the pages of files do not. (On a real
            // disk a journal that cannot be written lets nothing succeed any more.)
            Some(Effect::Error(e)) => Err(errno(e)),
            Some(Effect::LieSync) => s.disk.dir(&self.path).map(drop),
            _ => s.disk.sync_dir(&self.path),
        })
    }

    fn lock(&self, mode: LockMode) -> Result<Box<dyn Send + Sync>> {
        self.call(OpKind::LockDir, |s, _| {
            s.disk.dir(&self.path)?;
            s.locks.take(Locked::Dir(self.path.clone()), mode, &self.shared)
        })
        .map(|lock| Box::new(lock) as Box<dyn Send + Sync>)
    }

    fn lock_file(&self, name: &str, mode: LockMode) -> Result<Box<dyn Send + Sync>> {
        self.call_on(OpKind::Lock, name, |s, path| {
            let found = s.disk.lookup(path);
            let ino = match mode {
                LockMode::Shared => found?,
                LockMode::Exclusive => match if_there(found)? {
                    Some(ino) => ino,
                    None => s.disk.create(path)?,
                },
            };
            s.locks.take(Locked::File(ino), mode, &self.shared)
        })
        .map(|lock| Box::new(lock) as Box<dyn Send + Sync>)
    }

    fn free_space(&self) -> Result<u64> {
        self.call(OpKind::FreeSpace, |s, _| {
            s.disk.dir(&self.path)?;
            Ok(s.disk.room())
        })
    }

    fn id_of(&self, name: &str) -> Result<Option<FileId>> {
        self.call_on(OpKind::IdOf, name, |s, path| s.disk.lookup(path).map(file_id))
    }
}

impl fmt::Debug for SimDir {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimDir").field("path", &self.path).finish_non_exhaustive()
    }
}

fn file_id(ino: u64) -> Option<FileId> {
    Some(FileId { device: 0, inode: ino })
}

/// What is locked.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Locked {
    Dir(PathBuf),
    File(u64),
}

/// The locks that are held, and by how many who share it; `None` stands for one that does not.
#[derive(Default)]
pub(super) struct Locks(BTreeMap<Locked, Option<usize>>);

impl Locks {
    fn take(&mut self, what: Locked, mode: LockMode, shared: &Arc<Shared>) -> Result<SimLock> {
        let held = match (mode, self.0.get(&what)) {
            (LockMode::Exclusive, None) => None,
            (LockMode::Shared, None) => Some(1),
            (LockMode::Shared, Some(Some(holders))) => Some(holders + 1),
            _ => return Err(os(Errno::AGAIN)),
        };
        self.0.insert(what.clone(), held);
        Ok(SimLock { shared: Arc::clone(shared), what })
    }

    fn release(&mut self, what: &Locked) {
        match self.0.get_mut(what) {
            Some(Some(holders)) if *holders > 1 => *holders -= 1,
            _ => drop(self.0.remove(what)),
        }
    }
}

struct SimLock {
    shared: Arc<Shared>,
    what: Locked,
}

impl Drop for SimLock {
    fn drop(&mut self) {
        self.shared.lock().locks.release(&self.what);
    }
}

/// A handle.
struct SimFile {
    shared: Arc<Shared>,
    ino: u64,
    writable: bool,
    /// How many of the file's failed syncs were reported on this handle. A plain count: the lock orders it.
    errors_seen: AtomicU64,
}

impl SimFile {
    fn call<T>(
        &self,
        kind: OpKind,
        range: Option<(u64, u64)>,
        body: impl FnOnce(&mut State, &Turn) -> Result<T>,
    ) -> Result<T> {
        self.shared.call(Op { range, ..Op::new(kind) }, Some(self.ino), body)
    }

    fn change<T>(
        &self,
        kind: OpKind,
        range: (u64, u64),
        body: impl FnOnce(&mut State, &Turn) -> Result<T>,
    ) -> Result<T> {
        self.call(kind, Some(range), |s, turn| {
            if !self.writable {
                return Err(os(Errno::BADF));
            }
            if range.1 > FILE_LEN_MAX {
                return Err(os(Errno::FBIG));
            }
            body(s, turn)
        })
    }

    fn sync(&self, kind: OpKind) -> Result<()> {
        self.call(kind, None, |s, turn| {
            let cleans = s.disk.profile == Profile::FailedSyncCleansPages;
            let file = s.disk.file(self.ino)?;
            match turn.effect {
                Some(Effect::Error(e)) => {
                    file.fail_sync(cleans);
                    self.errors_seen.store(file.sync_errors, Ordering::Relaxed);
                    Err(errno(e))
                }
                _ if self.errors_seen.swap(file.sync_errors, Ordering::Relaxed) < file.sync_errors => {
                    Err(errno(EIO))
                }
                Some(Effect::LieSync) => Ok(()),
                _ => {
                    file.sync(turn.seq);
                    Ok(())
                }
            }
        })
    }
}

impl VfsFile for SimFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<usize> {
        let end = offset.saturating_add(buf.len() as u64);
        self.call(OpKind::Read, Some((offset, end)), |s, turn| {
            let file = s.disk.file(self.ino)?;
            let there = file.cached.len().saturating_sub(offset);
            let wanted = there.min(buf.len() as u64).min(turn.limit() as u64);
            let readable = file.readable(offset, wanted);
            if readable == 0 && wanted > 0 {
                return Err(errno(EIO));
            }
            Ok(file.cached.read(&mut buf[..readable as usize], offset))
        })
    }

    fn write_at(&self, bufs: &[IoSlice<'_>], offset: u64) -> Result<usize> {
        let len: usize = bufs.iter().map(|b| b.len()).sum();
        let range = (offset, offset.saturating_add(len as u64));
        self.change(OpKind::Write, range, |s, turn| {
            let n = (len as u64).min(turn.limit() as u64);
            let room = s.disk.room();
            let fitting = s.disk.file(self.ino)?.cached.fitting(offset, n, room);
            if fitting == 0 && n > 0 {
                return Err(os(Errno::NOSPC));
            }
            if fitting == 0 {
                // A write of nothing makes no file longer.
                return Ok(0);
            }
            let mut bytes = Vec::with_capacity(fitting as usize);
            for buf in bufs {
                let left = fitting as usize - bytes.len();
                bytes.extend_from_slice(&buf[..buf.len().min(left)]);
            }
            let landing = match turn.effect {
                Some(Effect::LoseWrite) => Landing::Nowhere,
                Some(Effect::Misdirect(by)) => Landing::Away(by),
                _ => Landing::Home,
            };
            if s.wants(&turn.op, Moment::Middle) {
                let mut half = s.freeze(turn.op.number, Moment::Middle, turn.op.to_string());
                let (file, seq) = half.disk.file_and_seq(self.ino)?;
                file.write(&bytes[..bytes.len() / 2], offset, landing, seq);
                s.snapshots.push(half);
            }
            let (file, seq) = s.disk.file_and_seq(self.ino)?;
            file.write(&bytes, offset, landing, seq);
            Ok(bytes.len())
        })
    }

    fn allocate(&self, len: u64) -> Result<Reserved> {
        self.change(OpKind::Allocate, (0, len), |s, _| {
            let room = s.disk.room();
            let (file, seq) = s.disk.file_and_seq(self.ino)?;
            if file.cached.fitting(0, len, room) < len {
                return Err(os(Errno::NOSPC));
            }
            file.allocate(len, seq);
            Ok(Reserved::Blocks)
        })
    }

    fn set_len(&self, len: u64) -> Result<()> {
        self.change(OpKind::SetLen, (0, len), |s, _| {
            let (file, seq) = s.disk.file_and_seq(self.ino)?;
            file.set_len(len, seq);
            Ok(())
        })
    }

    fn sync_data(&self) -> Result<()> {
        self.sync(OpKind::SyncData)
    }

    fn sync_all(&self) -> Result<()> {
        self.sync(OpKind::SyncAll)
    }

    fn len(&self) -> Result<u64> {
        self.call(OpKind::Len, None, |s, _| Ok(s.disk.file(self.ino)?.cached.len()))
    }

    fn drop_cache(&self, range: Range<u64>) -> Result<()> {
        self.call(OpKind::DropCache, Some((range.start, range.end)), |s, _| {
            s.disk.file(self.ino)?.drop_cache(range);
            Ok(())
        })
    }

    fn map(&self, len: u64) -> Result<Option<Arc<Map>>> {
        // Reads go through read_at, where faults can strike them.
        self.call(OpKind::Map, Some((0, len)), |_, _| Ok(None))
    }

    fn id(&self) -> Result<Option<FileId>> {
        self.call(OpKind::Id, None, |s, _| s.disk.file(self.ino).map(|_| file_id(self.ino)))
    }
}

impl Drop for SimFile {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        if let Ok(file) = state.disk.file(self.ino) {
            file.handles = file.handles.saturating_sub(1);
        }
        state.disk.collect(self.ino);
    }
}

impl fmt::Debug for SimFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimFile").field("ino", &self.ino).finish_non_exhaustive()
    }
}
