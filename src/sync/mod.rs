//! Locks, atomics and threads: the standard library's, with one policy for what a panic leaves.
//!
//! With `--cfg shuttle` they are shuttle's, whose scheduler tries one interleaving of the threads after
//! another (`tests/interleavings`). What never makes a thread wait for another stays the standard library's
//! in both: shared ownership, cells that are set once, flags that only save work, and the inside of the
//! simulated disk, whose operations are then one step each.

mod lock;
mod signal;

pub(crate) use lock::{Condvar, Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard};
pub(crate) use signal::Signal;

pub(crate) use std::sync::{Arc, OnceLock, Weak};

#[cfg(not(shuttle))]
pub(crate) use std::{
    sync::{atomic, mpsc},
    thread,
};

#[cfg(shuttle)]
pub(crate) use shuttle::{
    sync::{atomic, mpsc},
    thread,
};
