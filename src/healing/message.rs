//! What replicas say to each other.

use crate::{EntryId, RegionId};

/// Which entries a replica would have back.
#[derive(Clone, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Question {
    /// The group.
    pub region: RegionId,
    /// The term in which a [`DontHave`](Says::DontHave) is to be binding, if it is to be.
    pub term: Option<u64>,
    /// The entries, ascending.
    pub entries: Vec<EntryId>,
}

/// What a peer says of one entry.
#[derive(Clone, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Answer {
    /// The group.
    pub region: RegionId,
    /// The entry that was asked for.
    pub id: EntryId,
    /// What became of it there.
    pub says: Says,
}

/// What became of an entry at a peer.
#[derive(Clone, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Says {
    /// It is there, and this is its payload as the engine keeps it, read and verified.
    Have(Vec<u8>),
    /// It was never acknowledged there, or was discarded.
    DontHave {
        /// The question's term, if the peer had made that term or a later one durable: then it will not take
        /// the entry from a leader of an earlier term any more. Without it, this is a hint.
        term: Option<u64>,
    },
    /// It may have been there.
    Unknown,
}
