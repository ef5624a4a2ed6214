//! Locks, atomics and threads: the standard library's.
//!
//! With `--cfg shuttle` they are shuttle's, whose scheduler tries one interleaving of the threads after
//! another (`tests/interleavings`). What never makes a thread wait for another stays the standard library's
//! in both: shared ownership, cells that are set once, flags that only save work, and the inside of the
//! simulated disk, whose operations are then one step each.

#[cfg(not(shuttle))]
pub(crate) use std::{
    sync::{
        Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        Weak, atomic, mpsc,
    },
    thread,
};

#[cfg(shuttle)]
pub(crate) use {
    shuttle::sync::{Condvar, Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard, atomic, mpsc},
    shuttle::thread,
    std::sync::{Arc, OnceLock, PoisonError, Weak},
};
