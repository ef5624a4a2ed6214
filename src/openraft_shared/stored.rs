//! The bytes that stand in the region for an entry and for a vote.
//!
//! ```text
//! entry   ff ff ff   1   length (2)   log id   the whole entry
//! vote    ff x 10    1   run (8)      vote
//! ```
//!
//! Numbers are little-endian; log id, entry and vote are in the application's [`Format`]. The one
//! after the mark is the version.
//!
//! - The log id stands alone in front: what is asked of it must not depend on a payload that may have
//!   changed its type.
//! - The run is the engine's at the time of saving: a vote that is older than an unclean end is not what it
//!   was ([`SavedVote::before_unclean_end`]).
//!
//! At first, entry and vote were stored bare. Those are told apart: no vote begins with ten bytes of `ff`,
//! neither in postcard (where a number ends before) nor in JSON, CBOR or protobuf, and as a fixed-width term
//! they would be the last term that there is. An entry of the present form begins with its own log id, which
//! the engine knows; one that does not is taken as bare.

use super::format::Format;
use crate::{BoxError, EntryId, Result};

const ENTRY_MARK: [u8; 3] = [0xff; 3];
const VOTE_MARK: [u8; 10] = [0xff; 10];
const VERSION: u8 = 1;

/// The run of a vote that does not say in which it was saved: before all others.
const FIRST_RUN: u64 = 0;

/// One release's entries and log ids, and what the engine needs to know of them.
pub(crate) trait Ids: 'static {
    type Entry: 'static;
    type LogId: PartialEq + 'static;

    fn log_id(entry: &Self::Entry) -> Self::LogId;

    /// Index and term.
    fn id(log_id: &Self::LogId) -> Result<EntryId>;
}

/// Adds the entry's stored form to `out`.
pub(super) fn put_entry<I: Ids, F>(entry: &I::Entry, out: &mut Vec<u8>) -> Result<(), BoxError>
where
    F: Format<I::Entry> + Format<I::LogId>,
{
    out.extend(ENTRY_MARK);
    out.push(VERSION);
    let length_at = out.len();
    out.extend([0; 2]);
    F::encode(&I::log_id(entry), out)?;
    let length = out.len().saturating_sub(length_at + 2);
    let length =
        u16::try_from(length).map_err(|_| format!("its log id has {length} bytes, at most 65535 fit"))?;
    match out.get_mut(length_at..length_at + 2) {
        Some(place) => place.copy_from_slice(&length.to_le_bytes()),
        None => return Err("the format took away bytes that were there before".into()),
    }
    F::encode(entry, out)
}

/// The log id of entry `id` if it stands alone, and the bytes of the whole entry.
pub(super) fn split_entry<I: Ids, F: Format<I::LogId>>(
    stored: &[u8],
    id: EntryId,
) -> (Option<I::LogId>, &[u8]) {
    let alone = || {
        let rest = stored.strip_prefix(&ENTRY_MARK)?.strip_prefix(&[VERSION])?;
        let (length, rest) = rest.split_first_chunk()?;
        let (log_id, entry) = rest.split_at_checked(u16::from_le_bytes(*length).into())?;
        let log_id = F::decode(log_id).ok()?;
        (I::id(&log_id).ok()? == id).then_some((log_id, entry))
    };
    match alone() {
        Some((log_id, entry)) => (Some(log_id), entry),
        None => (None, stored),
    }
}

/// The stored form of a vote that is saved in `run`, without the vote: its bytes follow.
pub(super) fn vote_head(run: u64) -> Vec<u8> {
    [&VOTE_MARK[..], &[VERSION], &run.to_le_bytes()].concat()
}

/// The run in which the vote was saved, and the vote's bytes.
pub(super) fn split_vote(stored: &[u8]) -> (u64, &[u8]) {
    let marked = || {
        let rest = stored.strip_prefix(&VOTE_MARK)?.strip_prefix(&[VERSION])?;
        let (run, vote) = rest.split_first_chunk()?;
        Some((u64::from_le_bytes(*run), vote))
    };
    marked().unwrap_or((FIRST_RUN, stored))
}

/// Whether bytes that cannot be read look like what a later release stores.
pub(super) fn is_newer(stored: &[u8]) -> bool {
    let version = |mark: &[u8]| stored.strip_prefix(mark).and_then(|rest| rest.first());
    // The longer mark begins with the shorter one.
    let version = version(&VOTE_MARK).or_else(|| version(&ENTRY_MARK));
    version.is_some_and(|version| (VERSION + 1..0xff).contains(version))
}

/// A vote as last saved.
pub(crate) struct SavedVote<V> {
    pub(crate) vote: V,
    /// It was saved before the last unclean end of the store: entries that its holder had accepted since, and
    /// that were not yet durable, may be gone.
    #[cfg_attr(
        not(feature = "openraft-010-bare"),
        allow(dead_code, reason = "openraft 0.9 has no use for it")
    )]
    pub(crate) before_unclean_end: bool,
}
