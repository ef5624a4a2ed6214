//! The two ways in which openraft is told that an append is durable.

use crate::Result;
use crate::openraft_shared::{OnAnyThread, OnThisThread, Sealed, Turn, io_error};
use openraft010::storage::IOFlushed;
use openraft010::{AsyncRuntime, RaftTypeConfig};

/// Who calls openraft back: [`OnAnyThread`], or [`OnThisThread`] where that cannot be.
pub trait Notify<C: RaftTypeConfig>: Sealed + 'static {
    /// Takes the callback, and returns what calls it, from any thread.
    #[doc(hidden)]
    fn hand_over(callback: IOFlushed<C>, turn: &mut Turn) -> impl FnOnce(Result<()>) + Send + 'static;
}

impl<C: RaftTypeConfig> Notify<C> for OnAnyThread
where
    IOFlushed<C>: Send,
{
    fn hand_over(callback: IOFlushed<C>, _: &mut Turn) -> impl FnOnce(Result<()>) + Send + 'static {
        |outcome| callback.io_completed(outcome.map_err(io_error))
    }
}

impl<C: RaftTypeConfig> Notify<C> for OnThisThread {
    fn hand_over(callback: IOFlushed<C>, turn: &mut Turn) -> impl FnOnce(Result<()>) + Send + 'static {
        let (durable, task) =
            turn.next(|outcome: Result<()>| callback.io_completed(outcome.map_err(io_error)));
        drop(C::AsyncRuntime::spawn(task));
        durable
    }
}
