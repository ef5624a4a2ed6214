//! A simulated disk that can lose, tear, refuse and delay.
//!
//! # The problem
//!
//! A log is correct if it survives every crash, and a crash may leave any of exponentially many disks. No
//! real disk can be asked for them. This one can: it is a value in memory that keeps apart what a program
//! sees and what a power cut would leave, and that can be copied at any moment, for microseconds, into one of
//! the disks that could be found afterwards.
//!
//! # The model
//!
//! ```text
//!              write, set_len, allocate                        create, link, rename, remove
//!                            |                                              |
//!   file    cached bytes  <--+                  directory   cached names <--+
//!           pending       <--+                              pending      <--+
//!              | sync_data                                     | sync_dir
//!           durable bytes                                   durable names
//! ```
//!
//! - What every reader sees is *cached*. What a crash cannot take is *durable*. In between stand the
//!   *pending* changes, in one order over the whole disk: each sector of 512 bytes of each write, each new
//!   length, each reservation or hole, each operation on a directory.
//! - A sync makes durable what was pending in that file, or that directory, when it was called;
//!   nothing else does.
//! - A crash lets any subset of the pending changes survive ([`LossPolicy`]), replayed in order over what is
//!   durable. [`Profile`] says what a disk is like beyond that: kinder, like ext4, or worse, tearing sectors.
//! - A file without a surviving name is gone; a name without surviving bytes is an empty file.
//! - Directories themselves are durable as soon as they are made, as the trait promises.
//!
//! # The invariants
//!
//! - With nothing pending, what is cached is what is durable, unless a fault said otherwise: a lost write, a
//!   misdirected one, a failed sync that cleaned its pages. Then a read shows the cache until
//!   [`drop_cache`](crate::vfs::VfsFile::drop_cache) or a crash shows the truth.
//! - The same seed and the same calls give the same disk, the same order of
//!   [`list`](crate::vfs::VfsDir::list), and the same crashes.
//! - Every call of the three traits has a number, from 1. A fault, a snapshot or a power cut can
//!   be set on any of them.
//! - A crash never disturbs the disk it is taken from: the engine runs on.
//!
//! # Exploring
//!
//! [`explore`] does it in one call. By hand: run a workload once with [`SimVfs::snapshot_every`], then for
//! each [`Snapshot`] try every policy that [`pending_count`](Snapshot::pending_count) leaves room for, and
//! recover from [`Snapshot::crash`]. What was acknowledged by then, the test knows from [`Snapshot::mark`] or
//! [`Snapshot::op`].
//!
//! Deliberately absent: permissions, links that are symbolic, time, and files above 4 GiB. Those are
//! tested on the real file system.

mod calls;
mod content;
mod crash;
mod dir;
mod disk;
mod explore;
mod fault;
mod file;
mod op;
mod raw;
#[cfg(test)]
mod tests;

pub use crash::{LossPolicy, Moment, Snapshot};
pub use explore::{Counterexample, Crashes, Explored, explore};
pub use fault::{EACCES, EDQUOT, EFBIG, EINTR, EIO, EMFILE, ENOSPC, EROFS, Effect, Fault};
pub use op::{Op, OpKind};

use calls::Shared;
use disk::Disk;
use std::fmt;
use std::io::Error;
use std::sync::{Arc, PoisonError};

/// What kind of disk it is.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Profile {
    /// What POSIX leaves open: any subset of unsynced sectors, lengths and names survives. A failed
    /// sync leaves its changes pending.
    #[default]
    Strict,
    /// Like ext4 with `data=ordered`: lengths and names survive as a prefix, and no length without the
    /// bytes that it makes visible.
    Ext4Ordered,
    /// A sector that was being written holds anything in the bytes that were being written. The rest
    /// of it is safe.
    GarbageOnTear,
    /// A sector that was being written holds anything, also in the bytes beside those that were being
    /// written, even if they were synced long ago.
    NoSafePartialSector,
    /// After a failed sync the pages are clean: the cache shows the new bytes, the disk keeps the old ones,
    /// and the next sync returns Ok without having written them. So do Linux's ext4, xfs and btrfs. Lengths
    /// and names are in the journal and stay pending.
    FailedSyncCleansPages,
}

impl Profile {
    fn tears(self) -> bool {
        matches!(self, Profile::GarbageOnTear | Profile::NoSafePartialSector)
    }
}

/// Called with each operation before it is carried out, outside of all locks: a place to sleep, or
/// to take a crash.
pub type Hook = Arc<dyn Fn(&Op) + Send + Sync>;

/// A handle onto a simulated disk. Clones are handles onto the same one.
///
/// ```
/// use raftwood::vfs::sim::{EIO, Fault, LossPolicy, OpKind, SimVfs};
/// use raftwood::{Background, Durability, Engine, Options, RegionId};
/// use std::sync::Arc;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// fn open(disk: &SimVfs) -> raftwood::Result<Engine> {
///     Options::new().background(Background::Manual).vfs(Arc::new(disk.clone())).open("/db")
/// }
/// let disk = SimVfs::new(1);
/// let engine = open(&disk)?;
/// engine.append_next(RegionId(7), ["acknowledged"], Durability::Synced)?;
/// engine.append_next(RegionId(7), ["only written"], Durability::Written)?;
///
/// // The power is cut, and takes all that it can; here the engine runs on.
/// let cut = disk.crash(LossPolicy::LoseAll);
/// assert_eq!(open(&cut)?.region(RegionId(7)).last_index(), 1);
///
/// // A device that fails a sync stops all writing.
/// disk.set_fault(Fault::error(EIO).on(OpKind::SyncData));
/// assert!(engine.append_next(RegionId(7), ["lost?"], Durability::Synced).is_err());
/// assert!(engine.is_poisoned());
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct SimVfs {
    shared: Arc<Shared>,
}

impl SimVfs {
    /// An empty disk with nothing but the root directory.
    pub fn new(seed: u64) -> SimVfs {
        let mut disk = Disk::new(seed);
        disk.dirs.insert("/".into(), dir::Dir::default());
        SimVfs::from_disk(disk)
    }

    fn from_disk(disk: Disk) -> SimVfs {
        SimVfs { shared: Arc::new(Shared::new(disk)) }
    }

    /// The same disk, of another kind from now on; also for the disks that crashes of it leave.
    pub fn with_profile(self, profile: Profile) -> SimVfs {
        self.set_profile(profile);
        self
    }

    /// Changes the kind of the disk.
    pub fn set_profile(&self, profile: Profile) {
        self.shared.lock().disk.profile = profile;
    }

    /// Limits the bytes that can be allocated, in pages of 4 KiB; beyond, writes fall short and
    /// then fail with ENOSPC.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.shared.lock().disk.capacity = bytes;
    }

    /// Bytes that the files take, in pages of 4 KiB: what counts against the capacity.
    pub fn allocated(&self) -> u64 {
        self.shared.lock().disk.allocated()
    }

    /// Makes one in so many reads and writes short or interrupted, by chance.
    pub fn set_short_io(&self, one_in: Option<u64>) {
        self.shared.lock().short_io = one_in;
    }

    /// How many calls were made. The next one has this number plus one.
    pub fn ops(&self) -> u64 {
        self.shared.lock().ops
    }

    /// Sets a fault, beside those set before. Of several that match, the first one set strikes.
    pub fn set_fault(&self, fault: Fault) {
        self.shared.lock().faults.push(fault);
    }

    /// Takes all faults away; those that came true stay true.
    pub fn clear_faults(&self) {
        self.shared.lock().faults.clear();
    }

    /// How often a fault struck.
    pub fn faults_struck(&self) -> u64 {
        self.shared.lock().struck
    }

    /// The power goes off after the call of this number: all later ones do nothing and return EIO.
    pub fn halt_after(&self, number: u64) {
        self.shared.lock().halt_after = number;
    }

    /// The power goes off now, also for syncs that are waiting at the gate, which opens.
    pub fn power_off(&self) {
        let mut state = self.shared.lock();
        state.halt_after = 0;
        state.gate_closed = false;
        self.shared.gate.notify_all();
    }

    /// A new disk as a crash now would leave it: nothing pending, nobody holding a lock, no faults set.
    pub fn crash(&self, policy: LossPolicy) -> SimVfs {
        let crashed = self.shared.lock().disk.crash(policy);
        SimVfs::from_disk(crashed)
    }

    /// The disk as it is now, to be crashed later, in any number of ways.
    pub fn freeze(&self) -> Snapshot {
        let state = self.shared.lock();
        state.freeze(state.ops, Moment::After, String::new())
    }

    /// How many changes are pending: those that a crash now may take.
    pub fn pending_count(&self) -> usize {
        self.shared.lock().disk.pending_order().len()
    }

    /// The pending changes in their order, for people.
    pub fn pending(&self) -> Vec<String> {
        self.shared.lock().disk.pending_lines()
    }

    /// Takes a snapshot around the call of this number, to be fetched with
    /// [`take_snapshots`](SimVfs::take_snapshots).
    pub fn snapshot_at(&self, number: u64, moment: Moment) {
        self.shared.lock().snapshot_at.push((number, moment));
    }

    /// Takes a snapshot around every call that [can change the disk](OpKind::changes_disk).
    pub fn snapshot_every(&self, moment: Option<Moment>) {
        self.shared.lock().snapshot_every = moment;
    }

    /// The snapshots taken since the last time.
    pub fn take_snapshots(&self) -> Vec<Snapshot> {
        std::mem::take(&mut self.shared.lock().snapshots)
    }

    /// A number for the test's own use, kept with every snapshot: how much is acknowledged, say.
    pub fn set_mark(&self, mark: u64) {
        self.shared.lock().mark = mark;
    }

    /// Starts to write down all calls.
    pub fn transcript_start(&self) {
        self.shared.lock().log = Some(Vec::new());
    }

    /// The calls since the start or the last time, one line each.
    pub fn take_transcript(&self) -> Vec<String> {
        self.take_log().iter().map(Op::to_string).collect()
    }

    /// The same, in parts.
    pub fn take_log(&self) -> Vec<Op> {
        self.shared.lock().log.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Closes the gate: `sync_data` and `sync_all` begin, and wait. What is written meanwhile is not
    /// covered by them.
    pub fn block_syncs(&self) {
        self.shared.lock().gate_closed = true;
    }

    /// Opens the gate.
    pub fn release_syncs(&self) {
        self.shared.lock().gate_closed = false;
        self.shared.gate.notify_all();
    }

    /// How many syncs wait at the gate.
    pub fn syncs_waiting(&self) -> usize {
        self.shared.lock().syncs_waiting
    }

    /// Returns once at least so many syncs wait at the gate.
    pub fn wait_for_syncs(&self, count: usize) {
        let mut state = self.shared.lock();
        while state.syncs_waiting < count {
            state = self.shared.gate.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Sets or takes away the hook: latency, for one. A hook that holds a `SimVfs` of its own disk
    /// keeps it forever.
    pub fn set_hook(&self, hook: Option<Hook>) {
        // The old one may hold the last handle of an engine, whose end goes to this disk: it is
        // dropped without the lock.
        let old = std::mem::replace(&mut self.shared.lock().hook, hook);
        drop(old);
    }
}

impl fmt::Debug for SimVfs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimVfs").finish_non_exhaustive()
    }
}

fn os(errno: rustix::io::Errno) -> Error {
    errno.into()
}

fn errno(number: i32) -> Error {
    Error::from_raw_os_error(number)
}
