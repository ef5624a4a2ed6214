//! Work done on a thread of the engine while a task waits for it, without a runtime.

use crate::engine::Engine;
use crate::engine::later::{Later, promise};
use crate::error::Result;

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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

    use super::*;
    use crate::error::ErrorKind;
    use crate::sync::Arc;
    use std::pin::Pin;
    use std::task::Wake;
    use std::task::{Context, Poll, Waker};
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
