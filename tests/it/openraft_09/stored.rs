//! What stands in the region, old and new, and that what is acknowledged can be read from it.

use super::{Store, ends, entries, read, text};
use crate::support::machine_09::TypeConfig;
use crate::support::openraft::{R, crashed, open};
use openraft09::entry::RaftEntry;
use openraft09::storage::{RaftLogStorage, RaftLogStorageExt};
use openraft09::testing::log_id;
use openraft09::{Entry, EntryPayload, LogId, Membership, RaftLogReader, Vote};
use raftwood::limits::ENTRY_BYTES_MAX;
use raftwood::openraft_09::{Format, LogStore, Postcard};
use raftwood::vfs::sim::{LossPolicy, SimVfs};
use raftwood::{BoxError, Durability, EntryId, ErrorKind};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::io::Cursor;
use std::sync::atomic::{AtomicBool, Ordering};

/// openraft 0.10 must not lead on after an unclean end; this release may: see `openraft_cluster`.
#[tokio::test]
async fn a_vote_stays_committed_over_any_end() {
    let vfs = SimVfs::new(31);
    let mut store: Store = LogStore::new(&open(&vfs), R);
    store.save_vote(&Vote::new_committed(3, 2)).await.unwrap();
    let vfs = vfs.crash(LossPolicy::LoseAll);
    let mut killed: Store = LogStore::new(&open(&vfs), R);
    assert_eq!(killed.read_vote().await.unwrap(), Some(Vote::new_committed(3, 2)));
}

/// Vote and entries bare, as the first release stored them. They stay readable, and new entries
/// go after them.
#[tokio::test]
async fn what_the_first_release_stored_is_read() {
    let vfs = SimVfs::new(32);
    let engine = open(&vfs);
    let mut batch = engine.batch();
    batch
        .region(R)
        .reset(EntryId::new(2, 4))
        .unwrap()
        .put(b"openraft/purged", &[2, 1, 4])
        .unwrap()
        .put(b"openraft/committed", &[3, 1, 6])
        .unwrap()
        .append([
            (EntryId::new(2, 5), &[2, 1, 5, 0][..]),
            (EntryId::new(3, 6), &[3, 1, 6, 1, 2, b'a', b'b']),
            (EntryId::new(3, 7), &[3, 1, 7, 2, 1, 1, 1, 1, 1, 0]),
        ])
        .unwrap()
        .set_hard_state(&[3, 2, 1])
        .unwrap();
    engine.write(batch, Durability::Synced).unwrap();
    let mut expected = vec![
        Entry::new_blank(log_id(2, 1, 5)),
        text(3, 6, "ab"),
        Entry::new_membership(log_id(3, 1, 7), Membership::new(vec![BTreeSet::from([1])], None)),
    ];
    let mut store: Store = LogStore::new(&engine, R);
    assert_eq!(ends(&mut store).await, (Some(log_id(2, 1, 4)), Some(log_id(3, 1, 7))));
    assert_eq!(store.read_committed().await.unwrap(), Some(log_id(3, 1, 6)));
    assert_eq!(read(&mut store).await, expected);
    assert_eq!(store.read_vote().await.unwrap(), Some(Vote::new_committed(3, 2)));

    store.blocking_append(entries(3, 8..=9)).await.unwrap();
    expected.extend(entries(3, 8..=9));
    assert_eq!(read(&mut store).await, expected);
    store.truncate(log_id(3, 1, 8)).await.unwrap();
    assert_eq!(ends(&mut store).await, (Some(log_id(2, 1, 4)), Some(log_id(3, 1, 7))));
}

#[tokio::test]
async fn the_stored_form_is_the_one_that_is_written_down() {
    let vfs = SimVfs::new(33);
    let engine = open(&vfs);
    let mut store: Store = LogStore::new(&engine, R);
    store.blocking_append([text(2, 1, "ab")]).await.unwrap();
    store.save_vote(&Vote::new_committed(3, 2)).await.unwrap();
    let entry = engine.region(R).entry(1).unwrap();
    assert_eq!(entry.payload[..], [0xff, 0xff, 0xff, 1, 3, 0, 2, 1, 1, 2, 1, 1, 1, 2, b'a', b'b']);
    let mut vote = [0xff; 10].to_vec();
    vote.push(1);
    vote.extend(engine.run().to_le_bytes());
    vote.extend([3, 2, 1]);
    assert_eq!(engine.region(R).hard_state().unwrap()[..], vote);
}

// ---- what is acknowledged can be read ---------------------------------------------------------------------

openraft09::declare_raft_types!(
    /// Commands of any shape: postcard writes them, and cannot read them.
    Shapeless:
        D = serde_json::Value,
        R = (),
        Node = Place,
);

#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(tag = "kind")]
enum Place {
    #[default]
    Nowhere,
    Rack {
        number: u32,
    },
}

/// A command that its format could write and not read (a `serde_json::Value`, an internally tagged enum) was
/// acknowledged as durable. After that nobody could read the group's log, and it could never be started
/// again: even the log's end was asked of the entry.
#[tokio::test]
async fn a_command_that_cannot_be_read_back_is_refused_and_the_group_lives_on() {
    let vfs = SimVfs::new(35);
    let engine = open(&vfs);
    let mut store = LogStore::<Shapeless>::new(&engine, R);
    let blank = |index| Entry::<Shapeless>::new_blank(log_id(1, 1, index));
    store.blocking_append([blank(1)]).await.unwrap();
    let payload = EntryPayload::Normal(serde_json::json!({ "set": 1 }));
    let command = Entry { log_id: log_id(1, 1, 3), payload };
    let placed = BTreeMap::from([(1, Place::Rack { number: 4 })]);
    let membership = Membership::new(vec![BTreeSet::from([1])], placed);
    for (what, refused) in [
        ("a command", vec![blank(2), command]),
        ("a membership", vec![Entry::new_membership(log_id(1, 1, 2), membership)]),
    ] {
        let error = store.blocking_append(refused).await.unwrap_err().to_string();
        for part in ["region 7", "cannot be read back"] {
            assert!(error.contains(part), "{what}: {part} in: {error}");
        }
    }
    engine.sync().unwrap();
    let engine = crashed(&vfs);
    let mut store = LogStore::<Shapeless>::new(&engine, R);
    assert_eq!(store.get_log_state().await.unwrap().last_log_id, Some(log_id(1, 1, 1)));
    store.blocking_append([blank(2)]).await.unwrap();
    assert_eq!(store.try_get_log_entries(..).await.unwrap(), [blank(1), blank(2)]);
}

/// As postcard, but for what it writes of votes and log ids: the ones are too short, the others are
/// of other entries.
struct Forgetful;

as_postcard!(Forgetful: Entry<TypeConfig>);

impl Format<Vote<u64>> for Forgetful {
    fn encode(value: &Vote<u64>, out: &mut Vec<u8>) -> Result<(), BoxError> {
        Postcard::encode(value, out)?;
        out.pop();
        Ok(())
    }

    fn decode(bytes: &[u8]) -> Result<Vote<u64>, BoxError> {
        Postcard::decode(bytes)
    }
}

impl Format<LogId<u64>> for Forgetful {
    fn encode(value: &LogId<u64>, out: &mut Vec<u8>) -> Result<(), BoxError> {
        Postcard::encode(&log_id::<u64>(value.leader_id.term, 1, value.index + 1), out)
    }

    fn decode(bytes: &[u8]) -> Result<LogId<u64>, BoxError> {
        Postcard::decode(bytes)
    }
}

#[tokio::test]
async fn votes_and_log_ids_that_do_not_come_back_as_they_were_are_refused() {
    let vfs = SimVfs::new(36);
    let engine = open(&vfs);
    LogStore::<TypeConfig>::new(&engine, R).blocking_append(entries(1, 1..=3)).await.unwrap();
    let mut store = LogStore::<TypeConfig, Forgetful>::with_format(&engine, R);
    for (what, refused) in [
        ("a vote", store.save_vote(&Vote::new(1, 1)).await),
        ("a committed id", store.save_committed(Some(log_id(1, 1, 2))).await),
        ("a purged id", store.purge(log_id(1, 1, 2)).await),
        ("an entry's log id", store.blocking_append(entries(1, 4..=4)).await),
    ] {
        let error = refused.unwrap_err().to_string();
        assert!(error.contains("cannot be read back"), "{what}: {error}");
    }
    drop(store);
    let mut store: Store = LogStore::new(&engine, R);
    assert_eq!(store.read_vote().await.unwrap(), None);
    assert_eq!(store.read_committed().await.unwrap(), None);
    assert_eq!(ends(&mut store).await, (None, Some(log_id(1, 1, 3))));
}

/// Whether commands have become unreadable: their type was changed. One test uses it.
static TYPE_CHANGED: AtomicBool = AtomicBool::new(false);

struct Changing;

as_postcard!(Changing: Vote<u64>, LogId<u64>);

impl Format<Entry<TypeConfig>> for Changing {
    fn encode(value: &Entry<TypeConfig>, out: &mut Vec<u8>) -> Result<(), BoxError> {
        Postcard::encode(value, out)
    }

    fn decode(bytes: &[u8]) -> Result<Entry<TypeConfig>, BoxError> {
        match TYPE_CHANGED.load(Ordering::Relaxed) {
            true => Err("it is of another type".into()),
            false => Postcard::decode(bytes),
        }
    }
}

#[tokio::test]
async fn where_the_log_ends_does_not_depend_on_the_payload() {
    let vfs = SimVfs::new(37);
    let engine = open(&vfs);
    let mut store = LogStore::<TypeConfig, Changing>::with_format(&engine, R);
    store.blocking_append(entries(1, 1..=3)).await.unwrap();
    TYPE_CHANGED.store(true, Ordering::Relaxed);
    assert_eq!(store.get_log_state().await.unwrap().last_log_id, Some(log_id(1, 1, 3)));
    let error = store.try_get_log_entries(3..).await.unwrap_err().to_string();
    assert!(error.contains("entry 3 cannot be decoded"), "{error}");
    let error = store.blocking_append(entries(1, 4..=4)).await.unwrap_err().to_string();
    assert!(error.contains("entry 4 cannot be read back"), "{error}");
}

/// As postcard, but a command that is a number stands for so many bytes.
struct Bulky;

as_postcard!(Bulky: Vote<u64>, LogId<u64>);

impl Format<Entry<TypeConfig>> for Bulky {
    fn encode(entry: &Entry<TypeConfig>, out: &mut Vec<u8>) -> Result<(), BoxError> {
        Postcard::encode(entry, out)?;
        if let EntryPayload::Normal(command) = &entry.payload {
            out.resize(out.len() + command.parse::<usize>()?, 0);
        }
        Ok(())
    }

    fn decode(bytes: &[u8]) -> Result<Entry<TypeConfig>, BoxError> {
        Ok(postcard::take_from_bytes(bytes)?.0)
    }
}

#[test]
fn an_entry_that_an_append_would_refuse_is_refused_before_it_is_proposed() {
    let check = |command: &str| LogStore::<TypeConfig, Bulky>::check_entry(&text(0, 0, command));
    check("17").unwrap();
    let error = check(&ENTRY_BYTES_MAX.to_string()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooLarge);
    assert!(error.to_string().contains("268435456"), "{error}");
    assert_eq!(check("many").unwrap_err().kind(), ErrorKind::InvalidArgument);
}

/// One record of all of it could be larger than a record may be, and openraft ends a group on an error.
#[tokio::test]
async fn a_large_append_is_written_in_parts_and_one_that_is_refused_leaves_its_first_entries() {
    let vfs = SimVfs::new(43);
    let engine = open(&vfs);
    let mut store = LogStore::<TypeConfig, Bulky>::with_format(&engine, R);
    let large: Vec<_> = (1..=6).map(|index| text(1, index, &(6 << 20).to_string())).collect();
    vfs.set_capacity(Some(24 << 20));
    store.blocking_append(large.clone()).await.unwrap_err();
    assert_eq!(store.get_log_state().await.unwrap().last_log_id, Some(log_id(1, 1, 3)));
    vfs.set_capacity(None);
    store.blocking_append(large[3..].to_vec()).await.unwrap();
    store.blocking_append((7..=12).map(|index| text(1, index, &(6 << 20).to_string()))).await.unwrap();
    let mut after = LogStore::<TypeConfig, Bulky>::with_format(&crashed(&vfs), R);
    assert_eq!(after.get_log_state().await.unwrap().last_log_id, Some(log_id(1, 1, 12)));
    assert_eq!(after.try_get_log_entries(1..=6).await.unwrap(), large);
}
