//! Asking again where a write is refused for a reason that passes.

use super::Engine;
use crate::error::{Error, ErrorKind, Result};
use crate::listener::Event;
use crate::types::RegionId;
use std::fmt;
use std::time::Duration;

/// The first pause; each is twice as long as the one before it.
const PAUSE_MIN: Duration = Duration::from_millis(10);

/// No pause is longer: room that was given back is used soon.
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// How often a pause looks whether it is still worth waiting.
const LOOK: Duration = Duration::from_millis(50);

/// Asking again for a write of a region that is refused for a reason that passes: the pauses, and what
/// listeners are notified of. It sleeps and writes nothing itself, so that it serves threads and tasks of any
/// runtime. Nothing of the write should be on its way meanwhile.
///
/// Such reasons are a listener that refuses a [rollback](crate::EventListener::before_rollback) (`Refused`),
/// and want of space (`NoSpace`). Pauses grow from 10 ms to one second. Listeners are notified of the
/// beginning ([`Event::Retrying`](crate::Event::Retrying)), and of the end however it ends
/// ([`Event::RetryingEnded`](crate::Event::RetryingEnded)), also where this is dropped.
///
/// ```
/// use raftwood::{Durability, Engine, EntryId, Error, RegionId, Retry, RetryStep, WriteBatch};
/// use std::time::Duration;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// /// Waits ten seconds at most for a listener that refuses, or for space.
/// fn write(engine: &Engine, region: RegionId, mut batch: WriteBatch) -> Result<(), Error> {
///     let mut retry = Retry::new(engine, region, Duration::from_secs(10));
///     loop {
///         let (error, refused) = match engine.write(batch, Durability::Synced) {
///             Ok(_) => break,
///             Err(e) => e.into_parts(),
///         };
///         let Some(refused) = refused else { return Err(error) };
///         loop {
///             match retry.step(&error)? {
///                 RetryStep::Sleep(time) => std::thread::sleep(time),
///                 RetryStep::AskAgain => break,
///                 RetryStep::GiveUp => return Err(error),
///             }
///         }
///         batch = refused;
///     }
///     retry.accepted();
///     Ok(())
/// }
/// let engine = Engine::open(dir.path())?;
/// let mut batch = engine.batch();
/// batch.region(RegionId(7)).append([(EntryId::new(1, 1), &b"set x 1"[..])])?;
/// write(&engine, RegionId(7), batch)?;
/// # Ok(()) }
/// ```
pub struct Retry {
    engine: Engine,
    region: RegionId,
    bound: Duration,
    /// Listeners were notified, and are to be of the end.
    has_begun: bool,
    /// What was slept, by the caller's clock.
    waited: Duration,
    /// How long the next pause is.
    pause: Duration,
    /// What is left of this one, and how much of it is being slept.
    left: Duration,
    slice: Duration,
    accepted: bool,
}

/// What to do after a refusal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RetryStep {
    /// Sleep for so long, 50 ms at most, and take the next step.
    Sleep(Duration),
    /// Ask for the write again.
    AskAgain,
    /// Answer with the error: it is of another kind, or the time is over.
    GiveUp,
}

impl Retry {
    /// For one write of `region`, which is asked for again for as long as `bound` in all; with zero it is
    /// not.
    pub fn new(engine: &Engine, region: RegionId, bound: Duration) -> Retry {
        Retry {
            engine: engine.clone(),
            region,
            bound,
            has_begun: false,
            waited: Duration::ZERO,
            pause: PAUSE_MIN,
            left: Duration::ZERO,
            slice: Duration::ZERO,
            accepted: false,
        }
    }

    /// What to do next about a write that was refused with `error`. What a step said to sleep counts as slept
    /// when the next one is taken: no clock is looked at.
    ///
    /// # Errors
    /// `Closed`, `Poisoned`: no room, and no consent, would change that.
    pub fn step(&mut self, error: &Error) -> Result<RetryStep> {
        if !matches!(error.kind(), ErrorKind::Refused | ErrorKind::NoSpace) {
            return Ok(RetryStep::GiveUp);
        }
        if self.slice.is_zero() {
            if self.bound.is_zero() {
                return Ok(RetryStep::GiveUp);
            }
            if !std::mem::replace(&mut self.has_begun, true) {
                self.engine.store().listeners.deliver(&Event::Retrying { region: self.region, error });
            }
            self.left = self.pause.min(self.bound.saturating_sub(self.waited));
            self.pause = (self.pause * 2).min(PAUSE_MAX);
            if self.left.is_zero() {
                return Ok(RetryStep::GiveUp);
            }
        } else {
            self.waited += self.slice;
            self.left = self.left.saturating_sub(self.slice);
            self.slice = Duration::ZERO;
            let committer = &self.engine.store().committer;
            committer.gate().check()?;
            committer.check_open()?;
            if self.left.is_zero() {
                return Ok(RetryStep::AskAgain);
            }
        }
        self.slice = self.left.min(LOOK);
        Ok(RetryStep::Sleep(self.slice))
    }

    /// Ends it: the write was accepted. Listeners are notified of that, if it had to be asked for again.
    pub fn accepted(mut self) {
        self.accepted = true;
    }
}

impl Drop for Retry {
    fn drop(&mut self) {
        let Retry { region, has_begun, waited, accepted, .. } = *self;
        if has_begun {
            self.engine.store().listeners.deliver(&Event::RetryingEnded { region, waited, accepted });
        }
    }
}

impl fmt::Debug for Retry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Retry")
            .field("region", &self.region)
            .field("waited", &self.waited)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test")]

    use super::*;

    fn slept(retry: &mut Retry, error: &Error) -> (Duration, RetryStep) {
        let mut slept = Duration::ZERO;
        loop {
            match retry.step(error).unwrap() {
                RetryStep::Sleep(time) => {
                    assert!(time <= LOOK);
                    slept += time;
                }
                other => return (slept, other),
            }
        }
    }

    #[test]
    fn pauses_grow_and_end_with_the_bound_and_only_what_passes_is_asked_for_again() {
        let dir = tempfile::tempdir().unwrap();
        let engine = Engine::open(dir.path()).unwrap();
        let (full, gap) = (Error::new(ErrorKind::NoSpace, "full"), Error::new(ErrorKind::Gap, "gap"));
        let ms = Duration::from_millis;
        let mut retry = Retry::new(&engine, RegionId(7), ms(100));
        assert_eq!(retry.step(&gap).unwrap(), RetryStep::GiveUp);
        for (pause, then) in [
            (10, RetryStep::AskAgain),
            (20, RetryStep::AskAgain),
            (40, RetryStep::AskAgain),
            (30, RetryStep::AskAgain),
            (0, RetryStep::GiveUp),
        ] {
            assert_eq!(slept(&mut retry, &full), (ms(pause), then));
        }
        assert_eq!(retry.step(&gap).unwrap(), RetryStep::GiveUp);
        let mut never = Retry::new(&engine, RegionId(7), Duration::ZERO);
        assert_eq!(never.step(&full).unwrap(), RetryStep::GiveUp);

        let mut retry = Retry::new(&engine, RegionId(7), ms(100));
        assert_eq!(retry.step(&full).unwrap(), RetryStep::Sleep(ms(10)));
        engine.close().unwrap();
        assert_eq!(retry.step(&full).unwrap_err().kind(), ErrorKind::Closed);
    }
}
