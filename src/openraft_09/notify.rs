//! The two ways in which openraft is told that an append is durable.

use crate::Result;
use crate::openraft_shared::{OnAnyThread, OnThisThread, Sealed, Turn, io_error};
use openraft09::storage::LogFlushed;
use openraft09::{AsyncRuntime, RaftTypeConfig};

/// Who calls openraft back: [`OnAnyThread`], or [`OnThisThread`] where that cannot be.
pub trait Notify<C: RaftTypeConfig>: Sealed + 'static {
    /// Takes the callback, and returns what calls it, from any thread.
    #[doc(hidden)]
    fn hand_over(callback: LogFlushed<C>, turn: &mut Turn) -> impl FnOnce(Result<()>) + Send + 'static;
}

impl<C: RaftTypeConfig> Notify<C> for OnAnyThread
where
    LogFlushed<C>: Send,
{
    fn hand_over(callback: LogFlushed<C>, _: &mut Turn) -> impl FnOnce(Result<()>) + Send + 'static {
        |outcome| callback.log_io_completed(outcome.map_err(io_error))
    }
}

impl<C: RaftTypeConfig> Notify<C> for OnThisThread {
    fn hand_over(callback: LogFlushed<C>, turn: &mut Turn) -> impl FnOnce(Result<()>) + Send + 'static {
        let (durable, task) =
            turn.next(|outcome: Result<()>| callback.log_io_completed(outcome.map_err(io_error)));
        drop(C::AsyncRuntime::spawn(task));
        durable
    }
}
