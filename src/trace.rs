//! Spans and events for the crate `tracing`, with the feature of that name; without it nothing is left of
//! this.
//!
//! A span is entered on the thread that does the work, and never with the lock of the pipeline or of a region
//! held: what a subscriber does at its beginning and end is other people's code. Fields are numbers that are
//! at hand.

use std::fmt;

/// Whether anything comes of it.
pub(crate) const IS_ON: bool = cfg!(feature = "tracing");

/// How much an event is worth looking at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Gravity {
    /// Somebody has to do something.
    Error,
    /// Somebody should look.
    Warn,
    Info,
    /// The ordinary course of upkeep.
    Debug,
}

/// A span that ends when this is dropped.
#[must_use = "it ends when it is dropped"]
pub(crate) struct Span {
    #[cfg(feature = "tracing")]
    _entered: tracing::span::EnteredSpan,
}

macro_rules! span {
    ($name:literal, $($field:ident = $value:expr),*) => {{
        #[cfg(feature = "tracing")]
        let span = Span { _entered: tracing::debug_span!(target: "raftwood", $name, $($field = $value),*).entered() };
        #[cfg(not(feature = "tracing"))]
        let span = {
            let _ = ($($value,)*);
            Span {}
        };
        span
    }};
}

/// One write of a commit group to the log.
pub(crate) fn group(batches: usize, bytes: usize) -> Span {
    span!("group", batches = batches as u64, bytes = bytes as u64)
}

/// One sync of the log.
pub(crate) fn sync(bytes: u64) -> Span {
    span!("sync", bytes = bytes)
}

/// Preparing the segment that the log goes on to when it rotates.
pub(crate) fn rotate(bytes: u64) -> Span {
    span!("rotate", bytes = bytes)
}

/// Giving a full segment its footer.
pub(crate) fn seal(segment: u32) -> Span {
    span!("seal", segment = segment)
}

/// Writing a checkpoint.
pub(crate) fn checkpoint(sequence: u32) -> Span {
    span!("checkpoint", sequence = sequence)
}

/// Moving what lives in mostly dead segments.
pub(crate) fn clean(segments: usize) -> Span {
    span!("clean", segments = segments as u64)
}

/// Opening a store, until it can be written to.
pub(crate) fn recover() -> Span {
    span!("recover",)
}

/// Something happened: one line.
pub(crate) fn event(gravity: Gravity, line: &dyn fmt::Display) {
    #[cfg(feature = "tracing")]
    match gravity {
        Gravity::Error => tracing::error!(target: "raftwood", "{line}"),
        Gravity::Warn => tracing::warn!(target: "raftwood", "{line}"),
        Gravity::Info => tracing::info!(target: "raftwood", "{line}"),
        Gravity::Debug => tracing::debug!(target: "raftwood", "{line}"),
    }
    #[cfg(not(feature = "tracing"))]
    let _ = (gravity, line);
}
