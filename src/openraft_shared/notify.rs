//! Who calls openraft back when an append is durable.

use crate::Result;
use futures_channel::oneshot::{Receiver, channel};
use std::future::Future;

/// The thread of the engine that saw the sync end: nothing is handed over once more. The default; openraft's
/// callback has to be `Send`, as it is unless the runtime is one of a single thread.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OnAnyThread;

/// A task on the thread that openraft runs on. For openraft's feature `singlethreaded` (0.9) or
/// `single-threaded` (0.10) with a runtime whose channels do not leave their thread, as those of monoio and
/// compio.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OnThisThread;

/// Keeps the callbacks of one store in the order of its appends.
#[derive(Debug, Default)]
pub struct Turn(Option<Receiver<()>>);

impl Turn {
    /// What takes the outcome of an append, on whatever thread, and the task that calls back with it: after
    /// the callbacks of all appends before. An append that was not accepted is not called back.
    pub(crate) fn next<F: FnOnce(Result<()>)>(
        &mut self,
        callback: F,
    ) -> (impl FnOnce(Result<()>) + Send + 'static + use<F>, impl Future<Output = ()> + use<F>) {
        let (durable, outcome) = channel::<Result<()>>();
        let (done, next) = channel();
        let before = self.0.replace(next);
        let task = async move {
            if let Some(before) = before {
                // However it ended, it is over.
                let _ = before.await;
            }
            if let Ok(outcome) = outcome.await {
                callback(outcome);
            }
            let _ = done.send(());
        };
        (move |outcome| drop(durable.send(outcome)), task)
    }
}

/// Keeps [`Notify`](crate::openraft_shared) to the two that there are.
pub trait Sealed {}

impl Sealed for OnAnyThread {}
impl Sealed for OnThisThread {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Error, ErrorKind};
    use std::cell::RefCell;
    use std::pin::pin;
    use std::rc::Rc;
    use std::task::{Context, Poll, Waker};

    #[test]
    fn callbacks_come_in_the_order_of_the_appends_and_only_of_those_that_were_accepted() {
        let called = Rc::new(RefCell::new(Vec::new()));
        let callback = |name: &'static str| {
            let called = called.clone();
            move |outcome: Result<()>| called.borrow_mut().push((name, outcome.is_ok()))
        };
        let mut turn = Turn::default();
        let (first, first_task) = turn.next(callback("first"));
        let (refused, refused_task) = turn.next(callback("refused"));
        let (second, second_task) = turn.next(callback("second"));
        let (third, third_task) = turn.next(callback("third"));
        let (mut a, mut b, mut c, mut d) =
            (pin!(first_task), pin!(refused_task), pin!(second_task), pin!(third_task));
        let cx = &mut Context::from_waker(Waker::noop());

        second(Ok(()));
        drop(refused);
        assert!(c.as_mut().poll(cx).is_pending() && b.as_mut().poll(cx).is_pending());
        assert_eq!(*called.borrow(), []);
        // On another thread, as the engine does it.
        std::thread::spawn(move || {
            first(Err(Error::new(ErrorKind::InvalidArgument, "as if the device failed")))
        })
        .join()
        .unwrap();
        for task in [&mut d as &mut dyn Step, &mut a, &mut b, &mut c] {
            let _ = task.step(cx);
        }
        assert_eq!(*called.borrow(), [("first", false), ("second", true)]);
        third(Ok(()));
        assert_eq!(d.step(cx), Poll::Ready(()));
        assert_eq!(called.borrow().last(), Some(&("third", true)));
    }

    /// Futures of unlike types, polled through one.
    trait Step {
        fn step(&mut self, cx: &mut Context<'_>) -> Poll<()>;
    }

    impl<F: Future<Output = ()>> Step for std::pin::Pin<&mut F> {
        fn step(&mut self, cx: &mut Context<'_>) -> Poll<()> {
            self.as_mut().poll(cx)
        }
    }
}
