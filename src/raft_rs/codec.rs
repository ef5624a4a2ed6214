//! Raft's types as bytes of our own: no protobuf library is needed to read them back.

use super::varint::{Cursor, put_varint};
use crate::{Entry, EntryId, Error, ErrorKind, Result};
use bytes::Bytes;
use raft::prelude::{ConfState, Entry as RaftEntry, EntryType, HardState};

/// What raft counts of an entry at least beside what is stored as its payload: term and index, each a
/// tag and a number.
pub(super) const RAFT_OVERHEAD: u64 = 4;

const TYPE_BITS: u8 = 0b11;
const HAS_CONTEXT: u8 = 0b100;
const SYNC_LOG: u8 = 0b1000;

/// The version of hard and conf states.
const VERSION: u8 = 1;

/// Appends what is stored of an entry: type, context and data. Term and index stand beside the payload.
pub fn encode_entry(entry: &RaftEntry, out: &mut Vec<u8>) {
    let kind = match entry.get_entry_type() {
        EntryType::EntryNormal => 0,
        EntryType::EntryConfChange => 1,
        EntryType::EntryConfChangeV2 => 2,
    };
    let (context, data): (&[u8], &[u8]) = (entry.get_context(), entry.get_data());
    let context_bit = if context.is_empty() { 0 } else { HAS_CONTEXT };
    let sync_bit = if entry.get_sync_log() { SYNC_LOG } else { 0 };
    let head = kind | context_bit | sync_bit;
    if head == 0 && data.is_empty() {
        return;
    }
    out.push(head);
    if !context.is_empty() {
        put_varint(out, context.len() as u64);
        out.extend_from_slice(context);
    }
    out.extend_from_slice(data);
}

/// Back from [`encode_entry`]. Context and data borrow the payload where the codec's type can.
///
/// # Errors
/// `Damaged` for a payload that was not made by [`encode_entry`].
pub fn decode_entry(entry: &Entry) -> Result<RaftEntry> {
    let mut out = RaftEntry::default();
    out.set_term(entry.id.term);
    out.set_index(entry.id.index);
    let payload = &entry.payload;
    if payload.is_empty() {
        return Ok(out);
    }
    let foreign = |why: &str| {
        Error::new(
            ErrorKind::Damaged,
            format!("entry {} was not written by the raft-rs adapter: {why}", entry.id.index),
        )
    };
    let mut r = Cursor::new(payload);
    let head = r.u8().map_err(foreign)?;
    if head & !(TYPE_BITS | HAS_CONTEXT | SYNC_LOG) != 0 {
        return Err(foreign("unknown bits in its first byte"));
    }
    out.set_entry_type(match head & TYPE_BITS {
        0 => EntryType::EntryNormal,
        1 => EntryType::EntryConfChange,
        2 => EntryType::EntryConfChangeV2,
        _ => return Err(foreign("unknown type")),
    });
    out.set_sync_log(head & SYNC_LOG != 0);
    if head & HAS_CONTEXT != 0 {
        let len = r.count().map_err(foreign)?;
        let start = r.position();
        r.skip(len).map_err(foreign)?;
        out.set_context(borrow(payload, start, start + len));
    }
    out.set_data(borrow(payload, r.position(), payload.len()));
    Ok(out)
}

/// A part of the payload as whatever the codec calls bytes: `Bytes` or `Vec<u8>`.
fn borrow<T: From<Bytes>>(payload: &Bytes, from: usize, to: usize) -> T {
    payload.slice(from..to).into()
}

/// The id of a raft entry.
pub(super) fn id_of(entry: &RaftEntry) -> EntryId {
    EntryId::new(entry.get_term(), entry.get_index())
}

/// The bytes for [`set_hard_state`](crate::RegionBatch::set_hard_state).
pub fn encode_hard_state(state: &HardState) -> Vec<u8> {
    let mut out = vec![VERSION];
    put_varint(&mut out, state.get_term());
    put_varint(&mut out, state.get_vote());
    put_varint(&mut out, state.get_commit());
    out
}

/// Back from [`encode_hard_state`].
///
/// # Errors
/// `Damaged` for bytes that it did not make.
pub fn decode_hard_state(bytes: &[u8]) -> Result<HardState> {
    let read = || {
        let mut r = versioned(bytes)?;
        let mut state = HardState::default();
        state.set_term(r.varint()?);
        state.set_vote(r.varint()?);
        state.set_commit(r.varint()?);
        r.finish()?;
        Ok(state)
    };
    read().map_err(|why: &str| foreign_state("hard state", why))
}

/// The bytes of a conf state as of an index: the last entry, or snapshot, that is counted in it.
pub fn encode_conf_state(index: u64, state: &ConfState) -> Vec<u8> {
    let mut out = vec![VERSION];
    put_varint(&mut out, index);
    for ids in
        [state.get_voters(), state.get_learners(), state.get_voters_outgoing(), state.get_learners_next()]
    {
        put_varint(&mut out, ids.len() as u64);
        ids.iter().for_each(|&id| put_varint(&mut out, id));
    }
    out.push(u8::from(state.get_auto_leave()));
    out
}

/// Back from [`encode_conf_state`].
///
/// # Errors
/// `Damaged` for bytes that it did not make.
pub fn decode_conf_state(bytes: &[u8]) -> Result<(u64, ConfState)> {
    let read = || {
        let mut r = versioned(bytes)?;
        let index = r.varint()?;
        let mut lists = [const { Vec::new() }; 4];
        for list in &mut lists {
            let count = r.count()?;
            for _ in 0..count {
                list.push(r.varint()?);
            }
        }
        let auto_leave = match r.u8()? {
            0 => false,
            1 => true,
            _ => return Err("a flag that is neither 0 nor 1"),
        };
        r.finish()?;
        let [voters, learners, outgoing, next] = lists;
        let mut state = ConfState::default();
        state.set_voters(voters);
        state.set_learners(learners);
        state.set_voters_outgoing(outgoing);
        state.set_learners_next(next);
        state.set_auto_leave(auto_leave);
        Ok((index, state))
    };
    read().map_err(|why: &str| foreign_state("conf state", why))
}

/// The bytes of a peer id in a region's metadata.
pub(super) fn encode_peer(peer: u64) -> Vec<u8> {
    let mut out = vec![VERSION];
    put_varint(&mut out, peer);
    out
}

/// Back from [`encode_peer`].
pub(super) fn decode_peer(bytes: &[u8]) -> Result<u64> {
    let read = || {
        let mut r = versioned(bytes)?;
        let peer = r.varint()?;
        r.finish()?;
        Ok(peer)
    };
    read().map_err(|why: &str| foreign_state("peer id", why))
}

fn versioned(bytes: &[u8]) -> Result<Cursor<'_>, &'static str> {
    let mut r = Cursor::new(bytes);
    match r.u8() {
        Ok(VERSION) => Ok(r),
        Ok(_) => Err("its version is not 1"),
        Err(why) => Err(why),
    }
}

fn foreign_state(what: &str, why: &str) -> Error {
    Error::new(
        ErrorKind::Damaged,
        format!(
            "the {what} was not written by the raft-rs adapter of this version: {why}; is the region another library's?"
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn stored(entry: &RaftEntry) -> Entry {
        let mut payload = Vec::new();
        encode_entry(entry, &mut payload);
        Entry { id: id_of(entry), payload: payload.into() }
    }

    #[test]
    fn an_empty_entry_takes_no_bytes() {
        let mut entry = RaftEntry::default();
        entry.set_term(3);
        entry.set_index(9);
        let stored = stored(&entry);
        assert_eq!(stored.payload.len(), 0);
        assert_eq!(decode_entry(&stored).unwrap(), entry);
    }

    #[test]
    fn what_is_stored_is_what_the_documentation_says() {
        let payload = |kind, context: &'static str, sync, data: &'static str| {
            let mut entry = RaftEntry::default();
            entry.set_entry_type(kind);
            entry.set_context(context.into());
            entry.set_sync_log(sync);
            entry.set_data(data.into());
            stored(&entry).payload
        };
        assert_eq!(payload(EntryType::EntryNormal, "", false, "data"), "\0data");
        assert_eq!(payload(EntryType::EntryConfChange, "", false, ""), "\x01");
        assert_eq!(payload(EntryType::EntryConfChangeV2, "ctx", false, "d"), "\x06\x03ctxd");
        assert_eq!(payload(EntryType::EntryNormal, "", true, ""), "\x08");
        let mut hard = HardState::default();
        hard.set_term(300);
        hard.set_vote(2);
        hard.set_commit(7);
        assert_eq!(encode_hard_state(&hard), [1, 0xac, 2, 2, 7]);
        let mut conf = ConfState::from((vec![1, 2], vec![3]));
        conf.set_voters_outgoing(vec![4]);
        conf.set_learners_next(vec![5]);
        conf.set_auto_leave(true);
        assert_eq!(encode_conf_state(9, &conf), [1, 9, 2, 1, 2, 1, 3, 1, 4, 1, 5, 1]);
        // What is cut short, too long, or of a later version is refused, not guessed at.
        for bytes in [&[][..], &[1], &[1, 1, 1], &[1, 1, 1, 1, 1], &[2, 1, 1, 1]] {
            assert!(decode_hard_state(bytes).is_err(), "{bytes:?}");
        }
        for bytes in
            [&[][..], &[1, 9, 0, 0, 0, 0], &[1, 9, 0, 0, 0, 0, 2], &[2, 9, 0, 0, 0, 0, 0], &[1, 9, 255]]
        {
            assert!(decode_conf_state(bytes).is_err(), "{bytes:?}");
        }
        for bytes in [&[0x10][..], &[3], &[4], &[4, 2, 0], &[4, 255, 255, 255]] {
            let entry = Entry { id: EntryId::new(1, 1), payload: bytes.into() };
            assert!(decode_entry(&entry).is_err(), "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn every_entry_survives_the_round_trip_in_no_more_bytes_than_protobuf(
            term in 1u64.., index in 1u64.., kind in 0..3, sync: bool,
            data in proptest::collection::vec(any::<u8>(), 0..200),
            context in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            let mut entry = RaftEntry::default();
            entry.set_term(term);
            entry.set_index(index);
            entry.set_sync_log(sync);
            entry.set_entry_type(match kind {
                0 => EntryType::EntryNormal,
                1 => EntryType::EntryConfChange,
                _ => EntryType::EntryConfChangeV2,
            });
            entry.set_data(data.into());
            entry.set_context(context.into());
            let stored = stored(&entry);
            prop_assert_eq!(&decode_entry(&stored).unwrap(), &entry);
            // What `entries` relies on when it bounds its read by raft's limit.
            let overhead = super::RAFT_OVERHEAD as usize;
            prop_assert!(stored.payload.len() + overhead <= raft_size(&entry) as usize);
        }

        #[test]
        fn states_survive_the_round_trip(
            numbers: [u64; 4], voters: Vec<u64>, learners: Vec<u64>, outgoing: Vec<u64>, next: Vec<u64>, leave: bool,
        ) {
            let mut hard = HardState::default();
            hard.set_term(numbers[0]);
            hard.set_vote(numbers[1]);
            hard.set_commit(numbers[2]);
            prop_assert_eq!(decode_hard_state(&encode_hard_state(&hard)).unwrap(), hard);
            let mut conf = ConfState::default();
            conf.set_voters(voters);
            conf.set_learners(learners);
            conf.set_voters_outgoing(outgoing);
            conf.set_learners_next(next);
            conf.set_auto_leave(leave);
            let (index, back) = decode_conf_state(&encode_conf_state(numbers[3], &conf)).unwrap();
            prop_assert_eq!(index, numbers[3]);
            prop_assert_eq!(back, conf);
        }

        #[test]
        fn no_bytes_make_the_decoders_panic(bytes: Vec<u8>) {
            let _ = decode_hard_state(&bytes);
            let _ = decode_conf_state(&bytes);
            let _ = decode_entry(&Entry { id: EntryId::new(1, 1), payload: bytes.into() });
        }
    }

    fn raft_size(entry: &RaftEntry) -> u32 {
        protobuf::Message::compute_size(entry)
    }
}
