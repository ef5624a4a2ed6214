//! Which checkpoints there are.

use crate::types::Lsn;
use std::collections::VecDeque;

/// How many checkpoints are kept: any one of them recovers the store.
pub(crate) const CHECKPOINTS_KEPT: usize = 3;

/// The checkpoints that are kept.
#[derive(Clone, Debug)]
pub(crate) struct Kept {
    pub(crate) next_sequence: u32,
    /// Oldest first, at most [`CHECKPOINTS_KEPT`].
    pub(crate) list: VecDeque<CheckpointInfo>,
}

impl Kept {
    /// Of a store that is being made: the checkpoint of nothing.
    pub(crate) fn of_a_new_store() -> Kept {
        let first =
            CheckpointInfo { sequence: 1, start_segment: 1, accepted: Lsn::ZERO, bytes: 256, log_bytes: 0 };
        Kept { next_sequence: 2, list: [first].into() }
    }

    pub(crate) fn newest(&self) -> Option<CheckpointInfo> {
        self.list.back().copied()
    }

    /// The oldest, if there are as many as are kept.
    pub(crate) fn oldest_of_all(&self) -> Option<CheckpointInfo> {
        self.list.front().copied().filter(|_| self.list.len() == CHECKPOINTS_KEPT)
    }
}

/// One checkpoint.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CheckpointInfo {
    pub(crate) sequence: u32,
    /// Replay starts with this segment.
    pub(crate) start_segment: u32,
    /// Everything accepted before is in it.
    pub(crate) accepted: Lsn,
    pub(crate) bytes: u64,
    /// Bytes of records in the log when it was taken, see [`Checkpoints`](super::Checkpoints).
    pub(crate) log_bytes: u64,
}
