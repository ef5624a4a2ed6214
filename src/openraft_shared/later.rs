//! Work done on a thread of the engine while a task waits for it, without a runtime.

use crate::engine::Engine;
use crate::error::{Error, ErrorKind, Result};
use crate::sync::{Arc, Mutex, MutexGuard};
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

/// Runs `work` on an I/O thread of the engine. It is done even when nobody waits for the outcome any more.
pub(super) fn elsewhere<T: Send + 'static>(
    engine: &Engine,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Later<T> {
    let (promise, later) = promise();
    engine.on_io_thread(move || promise.keep(work()));
    later
}

/// As [`elsewhere`], for work that may wait for the device: it holds up no read.
pub(super) fn elsewhere_waiting<T: Send + 'static>(
    engine: &Engine,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Later<T> {
    let (promise, later) = promise();
    engine.on_waiting_thread(move || promise.keep(work()));
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
    use std::task::Wake;
    use std::thread::{self, Thread};

    struct Unpark(Thread);

    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }

    fn wait<T>(mut later: Later<T>) -> Result<T> {
        let waker = Waker::from(Arc::new(Unpark(thread::current())));
        loop {
            match Pin::new(&mut later).poll(&mut Context::from_waker(&waker)) {
                Poll::Ready(outcome) => return outcome,
                Poll::Pending => thread::park(),
            }
        }
    }

    #[test]
    fn work_is_done_on_another_thread() {
        let dir = tempfile::tempdir().unwrap();
        let engine = Engine::open(dir.path()).unwrap();
        let id = wait(elsewhere(&engine, || Ok(thread::current().id()))).unwrap();
        assert_ne!(id, thread::current().id());
    }

    #[test]
    fn a_panic_is_an_error_for_who_waits() {
        let dir = tempfile::tempdir().unwrap();
        let engine = Engine::open(dir.path()).unwrap();
        let outcome = wait(elsewhere::<()>(&engine, || panic!("as if a decoder did")));
        assert_eq!(outcome.unwrap_err().kind(), ErrorKind::Io);
        // And the thread lives on.
        assert_eq!(wait(elsewhere(&engine, || Ok(7))).unwrap(), 7);
    }
}
