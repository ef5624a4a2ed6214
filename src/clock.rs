//! The one place where the engine asks for the time or goes to sleep.
//!
//! Time decides nothing about what is on disk or what is answered: it measures, it paces, it says how long
//! something has been stuck. `clippy.toml` keeps the standard library's own calls out of the rest of `src`.
#![allow(clippy::disallowed_methods)]

use crate::sync::thread;
use std::time::{Duration, Instant, SystemTime};

/// The present, on the clock that never goes back.
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// How long ago it was.
pub(crate) fn since(then: Instant) -> Duration {
    then.elapsed()
}

/// The time since 1970; zero if the machine's clock stands before it.
pub(crate) fn since_epoch() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

/// Sleeps, and cannot be woken: what must end with the engine sleeps in `Pauses`.
pub(crate) fn sleep(time: Duration) {
    thread::sleep(time);
}
