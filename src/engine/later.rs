//! Outcomes that a task waits for without a runtime, and work on a thread of its own.

use crate::error::{Error, ErrorKind, Result};
use crate::sync::{Arc, Mutex, MutexGuard, thread};
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

/// Runs `work` on a thread of this name that ends with it. It is done even when nobody waits for the outcome
/// any more.
pub(super) fn on_its_own<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Later<T> {
    let (promise, later) = promise();
    let started = thread::Builder::new().name(name.to_string()).spawn(move || promise.keep(work()));
    if let Err(e) = started {
        let error = Error::new(ErrorKind::Io, format!("starting the thread {name} failed")).caused_by(e);
        // The promise went with the work, and says that it was not kept.
        later.0.lock().outcome = Some(Err(error));
    }
    later
}

/// An outcome that one side will deliver and the other waits for.
pub(super) fn promise<T>() -> (Promise<T>, Later<T>) {
    let slot = Arc::new(Slot(Mutex::new(State { outcome: None, kept: false, waker: None })));
    (Promise(slot.clone()), Later(slot))
}

#[derive(Debug)]
struct Slot<T>(Mutex<State<T>>);

#[derive(Debug)]
struct State<T> {
    outcome: Option<Result<T>>,
    /// There was an outcome; it may have been taken already.
    kept: bool,
    waker: Option<Waker>,
}

impl<T> Slot<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.0.lock()
    }

    /// The first outcome counts.
    fn fill(&self, outcome: impl FnOnce() -> Result<T>) {
        let mut state = self.lock();
        if std::mem::replace(&mut state.kept, true) {
            return;
        }
        state.outcome = Some(outcome());
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// The end that delivers. Dropped without being kept (the work panicked), it says so: a task must
/// not wait forever.
pub(super) struct Promise<T>(Arc<Slot<T>>);

impl<T> Promise<T> {
    pub(super) fn keep(self, outcome: Result<T>) {
        self.0.fill(|| outcome);
    }
}

impl<T> Drop for Promise<T> {
    fn drop(&mut self) {
        self.0.fill(|| Err(Error::new(ErrorKind::Io, "work on a thread of the engine panicked")));
    }
}

/// The task's end.
#[derive(Debug)]
pub(super) struct Later<T>(Arc<Slot<T>>);

impl<T> Future for Later<T> {
    type Output = Result<T>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<T>> {
        let mut state = self.0.lock();
        match state.outcome.take() {
            Some(outcome) => Poll::Ready(outcome),
            None => {
                state.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

    use super::*;
    use std::pin::pin;

    #[test]
    fn work_that_panicked_is_an_error_for_who_waits() {
        let (promise, later) = promise::<()>();
        let work = std::panic::AssertUnwindSafe(move || {
            let _promise = promise;
            panic!("as if a decoder did");
        });
        assert!(std::panic::catch_unwind(work).is_err());
        let polled = pin!(later).poll(&mut Context::from_waker(Waker::noop()));
        assert!(matches!(polled, Poll::Ready(Err(e)) if e.kind() == ErrorKind::Io));
    }
}
