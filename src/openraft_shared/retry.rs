//! Asking again where a write is refused for a reason that passes.

use crate::engine::Engine;
use crate::error::{Error, ErrorKind, Result};
use crate::listener::Event;
use crate::types::RegionId;
use std::time::Duration;

/// The first pause; each is twice as long as the one before it.
const PAUSE_MIN: Duration = Duration::from_millis(10);

/// No pause is longer: room that was given back is used soon.
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// How often a pause looks whether it is still worth waiting.
const LOOK: Duration = Duration::from_millis(50);

/// Whether the listener, or the disk, may think otherwise a moment later.
pub(super) fn passes(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Refused | ErrorKind::NoSpace)
}

/// A write that waits to be asked again. Listeners are notified of its beginning, and of its end however it
/// ends: a task that is dropped ends it too.
pub(super) struct Retrying<'a> {
    engine: &'a Engine,
    region: RegionId,
    /// What was slept, by the runtime's clock.
    waited: Duration,
    pause: Duration,
    accepted: bool,
}

impl<'a> Retrying<'a> {
    pub(super) fn begin(engine: &'a Engine, region: RegionId, error: &Error) -> Retrying<'a> {
        engine.store().listeners.deliver(&Event::Retrying { region, error });
        Retrying { engine, region, waited: Duration::ZERO, pause: PAUSE_MIN, accepted: false }
    }

    /// Waits until it is time to ask again. False if `bound` is over.
    ///
    /// # Errors
    /// `Closed`, `Poisoned`, and what `may_write` says: no room, and no consent, would change that.
    pub(super) async fn pause<W: Future<Output = ()>>(
        &mut self,
        bound: Duration,
        sleep: &impl Fn(Duration) -> W,
        may_write: impl Fn() -> Result<()>,
    ) -> Result<bool> {
        let mut left = self.pause.min(bound.saturating_sub(self.waited));
        self.pause = (self.pause * 2).min(PAUSE_MAX);
        if left.is_zero() {
            return Ok(false);
        }
        while !left.is_zero() {
            let slice = left.min(LOOK);
            sleep(slice).await;
            self.waited += slice;
            left = left.saturating_sub(slice);
            let committer = &self.engine.store().committer;
            committer.gate().check()?;
            committer.check_open()?;
            may_write()?;
        }
        Ok(true)
    }

    pub(super) fn accepted(mut self) {
        self.accepted = true;
    }
}

impl Drop for Retrying<'_> {
    fn drop(&mut self) {
        let Retrying { region, waited, accepted, .. } = *self;
        self.engine.store().listeners.deliver(&Event::RetryingEnded { region, waited, accepted });
    }
}
