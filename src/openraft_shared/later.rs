//! Work done on a thread of the engine while a task waits for it, without a runtime.

use crate::engine::Engine;
use crate::error::{Error, ErrorKind, Result};
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

/// Runs `work` on an I/O thread of the engine. It is done even when nobody waits for the outcome any more.
pub(super) fn elsewhere<T: Send + 'static>(
    engine: &Engine,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Later<T> {
    let slot = Arc::new(Slot(Mutex::new(State { outcome: None, waker: None })));
    let promise = Promise(slot.clone());
    engine.on_io_thread(move || promise.keep(work()));
    Later(slot)
}

struct Slot<T>(Mutex<State<T>>);

struct State<T> {
    outcome: Option<Result<T>>,
    waker: Option<Waker>,
}

impl<T> Slot<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fill(&self, outcome: Result<T>) {
        let mut state = self.lock();
        if state.outcome.is_some() {
            return;
        }
        state.outcome = Some(outcome);
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// The worker's end. Dropped without being kept (the work panicked), it says so: a task must not wait for ever.
struct Promise<T>(Arc<Slot<T>>);

impl<T> Promise<T> {
    fn keep(self, outcome: Result<T>) {
        self.0.fill(outcome);
    }
}

impl<T> Drop for Promise<T> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        // An outcome that was kept may have been taken already; nobody polls again then.
        if state.outcome.is_none() {
            state.outcome = Some(Err(Error::new(ErrorKind::Io, "a read on a thread of the engine panicked")));
            if let Some(waker) = state.waker.take() {
                drop(state);
                waker.wake();
            }
        }
    }
}

/// The task's end.
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
