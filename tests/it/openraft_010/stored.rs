//! What stands in the region, old and new, and that what is acknowledged can be read from it.

use super::{Entry, Id, Store, Types, Vote, ends, entries, log_id, read, read_vote, text};
use crate::support::openraft::{R, crashed, open};
use openraft_rt_tokio::TokioRuntime;
use openraft010::entry::RaftEntry;
use openraft010::impls::leader_id_std;
use openraft010::storage::{IOFlushed, RaftLogStorage, RaftLogStorageExt};
use openraft010::type_config::TypeConfigExt;
use openraft010::type_config::alias::EntryOf;
use openraft010::{BasicNode, EntryPayload, Membership, RaftLogReader};
use raftwood::limits::ENTRY_BYTES_MAX;
use raftwood::openraft_010::{Format, LogStore, Postcard};
use raftwood::vfs::sim::SimVfs;
use raftwood::{BoxError, Durability, EntryId, ErrorKind};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};

/// Vote and entries bare, as the first release stored them. They stay readable, and new entries
/// go after them.
#[tokio::test]
async fn what_the_first_release_stored_is_read_and_its_votes_are_older_than_any_unclean_end() {
    let vfs = SimVfs::new(32);
    let engine = open(&vfs);
    let nameless = BTreeMap::from([(1, BasicNode::new(""))]);
    let membership = Membership::new(vec![BTreeSet::from([1])], nameless).unwrap();
    let mut batch = engine.batch();
    batch
        .region(R)
        .reset(EntryId::new(2, 4))
        .unwrap()
        .put(b"openraft/purged", &[2, 4])
        .unwrap()
        .put(b"openraft/committed", &[3, 6])
        .unwrap()
        .append([
            (EntryId::new(2, 5), &[2, 5, 0][..]),
            (EntryId::new(3, 6), &[3, 6, 1, 2, b'a', b'b']),
            (EntryId::new(3, 7), &[3, 7, 2, 1, 1, 1, 1, 1, 0]),
        ])
        .unwrap()
        .set_hard_state(&[3, 1, 2, 1])
        .unwrap();
    engine.write(batch, Durability::Synced).unwrap();
    let mut expected = vec![
        Entry::new_blank(log_id(2, 5)),
        text(3, 6, "ab"),
        Entry::new_membership(log_id(3, 7), membership),
    ];
    let mut store: Store = LogStore::new(&engine, R);
    assert_eq!(ends(&mut store).await, (Some(log_id(2, 4)), Some(log_id(3, 7))));
    assert_eq!(store.read_committed().await.unwrap(), Some(log_id(3, 6)));
    assert_eq!(read(&mut store).await, expected);
    assert_eq!(read_vote(&mut store).await, Some(Vote::new_committed(3, 2)));
    assert_eq!(read_vote(&mut LogStore::new(&crashed(&vfs), R)).await, Some(Vote::new(3, 2)));

    store.blocking_append(entries(3, 8..=9)).await.unwrap();
    expected.extend(entries(3, 8..=9));
    assert_eq!(read(&mut store).await, expected);
    store.truncate_after(Some(log_id(3, 7))).await.unwrap();
    assert_eq!(ends(&mut store).await, (Some(log_id(2, 4)), Some(log_id(3, 7))));
}

#[tokio::test]
async fn the_stored_form_is_the_one_that_is_written_down() {
    let vfs = SimVfs::new(33);
    let engine = open(&vfs);
    let mut store: Store = LogStore::new(&engine, R);
    store.blocking_append([text(2, 1, "ab")]).await.unwrap();
    store.save_vote(&Vote::new_committed(3, 2)).await.unwrap();
    let entry = engine.region(R).entry(1).unwrap();
    assert_eq!(entry.payload[..], [0xff, 0xff, 0xff, 1, 2, 0, 2, 1, 2, 1, 1, 2, b'a', b'b']);
    let mut vote = [0xff; 10].to_vec();
    vote.push(1);
    vote.extend(engine.run().to_le_bytes());
    vote.extend([3, 1, 2, 1]);
    assert_eq!(engine.region(R).hard_state().unwrap()[..], vote);
}

#[tokio::test]
async fn a_form_that_is_not_known_yet_is_called_that() {
    let vfs = SimVfs::new(34);
    let engine = open(&vfs);
    let mut batch = engine.batch();
    batch.region(R).append([(EntryId::new(1, 1), &[0xff, 0xff, 0xff, 2, 9, 9][..])]).unwrap();
    let vote = [&[0xff; 10][..], &[2], &[9; 12]].concat();
    batch.region(R).set_hard_state(&vote).unwrap();
    engine.write(batch, Durability::Synced).unwrap();
    let mut store: Store = LogStore::new(&engine, R);
    let mut reader = store.get_log_reader().await;
    for failed in [
        reader.read_vote().await.unwrap_err(),
        reader.try_get_log_entries(..).await.unwrap_err(),
        store.get_log_state().await.unwrap_err(),
    ] {
        assert_eq!(failed.kind(), std::io::ErrorKind::Unsupported, "{failed}");
        assert!(failed.to_string().contains("later release"), "{failed}");
    }
}

// ---- what is acknowledged can be read ---------------------------------------------------------------------

openraft010::declare_raft_types!(
    /// Commands of any shape: postcard writes them, and cannot read them.
    Shapeless:
        D = serde_json::Value,
        R = (),
        Node = Place,
        LeaderId = leader_id_std::LeaderId<u64, u64>,
        AsyncRuntime = TokioRuntime,
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
    type Entry = EntryOf<Shapeless>;
    let vfs = SimVfs::new(35);
    let engine = open(&vfs);
    let mut store = LogStore::<Shapeless>::new(&engine, R);
    let first = || Entry::new_blank(log_id(1, 1));
    store.blocking_append([first()]).await.unwrap();
    let command = || EntryPayload::Normal(serde_json::json!({ "set": 1 }));
    let placed = BTreeMap::from([(1, Place::Rack { number: 4 })]);
    let membership = Membership::new(vec![BTreeSet::from([1])], placed).unwrap();
    for (what, refused) in [
        ("a command", vec![Entry::new_blank(log_id(1, 2)), Entry::new(log_id(1, 3), command())]),
        ("a membership", vec![Entry::new_membership(log_id(1, 2), membership)]),
    ] {
        let (told, mut flushed) = Shapeless::oneshot();
        let error = store.append(refused, IOFlushed::signal(told)).await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput, "{what}: {error}");
        for part in ["region 7", "cannot be read back"] {
            assert!(error.to_string().contains(part), "{what}: {part} in: {error}");
        }
        assert!(!matches!(flushed.try_recv(), Ok(Ok(()))), "{what}: called back as durable");
    }
    engine.sync().unwrap();
    let engine = crashed(&vfs);
    let mut store = LogStore::<Shapeless>::new(&engine, R);
    assert_eq!(store.get_log_state().await.unwrap().last_log_id, Some(log_id(1, 1)));
    store.blocking_append([Entry::new_blank(log_id(1, 2))]).await.unwrap();
    let read = store.get_log_reader().await.try_get_log_entries(..).await.unwrap();
    assert_eq!(read, [first(), Entry::new_blank(log_id(1, 2))]);
}

/// As postcard, but for what it writes of votes and log ids: the ones are too short, the others are
/// of other entries.
struct Forgetful;

as_postcard!(Forgetful: Entry);

impl Format<Vote> for Forgetful {
    fn encode(value: &Vote, out: &mut Vec<u8>) -> Result<(), BoxError> {
        Postcard::encode(value, out)?;
        out.pop();
        Ok(())
    }

    fn decode(bytes: &[u8]) -> Result<Vote, BoxError> {
        Postcard::decode(bytes)
    }
}

impl Format<Id> for Forgetful {
    fn encode(value: &Id, out: &mut Vec<u8>) -> Result<(), BoxError> {
        Postcard::encode(&log_id(value.leader_id.term, value.index + 1), out)
    }

    fn decode(bytes: &[u8]) -> Result<Id, BoxError> {
        Postcard::decode(bytes)
    }
}

#[tokio::test]
async fn votes_and_log_ids_that_do_not_come_back_as_they_were_are_refused() {
    let vfs = SimVfs::new(36);
    let engine = open(&vfs);
    LogStore::<Types>::new(&engine, R).blocking_append(entries(1, 1..=3)).await.unwrap();
    let mut store = LogStore::<Types, Forgetful>::with_format(&engine, R);
    for (what, refused) in [
        ("a vote", store.save_vote(&Vote::new(1, 1)).await),
        ("a committed id", store.save_committed(Some(log_id(1, 2))).await),
        ("a purged id", store.purge(log_id(1, 2)).await),
        ("an entry's log id", store.append(entries(1, 4..=4), IOFlushed::noop()).await),
    ] {
        let error = refused.unwrap_err().to_string();
        assert!(error.contains("cannot be read back"), "{what}: {error}");
    }
    drop(store);
    let mut store: Store = LogStore::new(&engine, R);
    assert_eq!(read_vote(&mut store).await, None);
    assert_eq!(store.read_committed().await.unwrap(), None);
    assert_eq!(ends(&mut store).await, (None, Some(log_id(1, 3))));
}

/// Whether commands have become unreadable: their type was changed. One test uses it.
static TYPE_CHANGED: AtomicBool = AtomicBool::new(false);

struct Changing;

impl Format<Entry> for Changing {
    fn encode(value: &Entry, out: &mut Vec<u8>) -> Result<(), BoxError> {
        Postcard::encode(value, out)
    }

    fn decode(bytes: &[u8]) -> Result<Entry, BoxError> {
        match TYPE_CHANGED.load(Ordering::Relaxed) {
            true => Err("it is of another type".into()),
            false => Postcard::decode(bytes),
        }
    }
}

as_postcard!(Changing: Vote, Id);

#[tokio::test]
async fn where_the_log_ends_does_not_depend_on_the_payload() {
    let vfs = SimVfs::new(37);
    let engine = open(&vfs);
    let mut store = LogStore::<Types, Changing>::with_format(&engine, R);
    store.blocking_append(entries(1, 1..=3)).await.unwrap();
    TYPE_CHANGED.store(true, Ordering::Relaxed);
    assert_eq!(store.get_log_state().await.unwrap().last_log_id, Some(log_id(1, 3)));
    let error = store.get_log_reader().await.try_get_log_entries(3..).await.unwrap_err();
    assert!(error.to_string().contains("entry 3 cannot be decoded"), "{error}");
    let error = store.append(entries(1, 4..=4), IOFlushed::noop()).await.unwrap_err();
    assert!(error.to_string().contains("entry 4 cannot be read back"), "{error}");
}

/// As postcard, but a command that is a number stands for so many bytes.
struct Bulky;

as_postcard!(Bulky: Vote, Id);

impl Format<Entry> for Bulky {
    fn encode(entry: &Entry, out: &mut Vec<u8>) -> Result<(), BoxError> {
        Postcard::encode(entry, out)?;
        if let EntryPayload::Normal(command) = &entry.payload {
            out.resize(out.len() + command.parse::<usize>()?, 0);
        }
        Ok(())
    }

    fn decode(bytes: &[u8]) -> Result<Entry, BoxError> {
        Ok(postcard::take_from_bytes(bytes)?.0)
    }
}

#[tokio::test]
async fn an_entry_that_an_append_would_refuse_is_refused_before_it_is_proposed() {
    type Checked = LogStore<Types, Bulky>;
    let check = |command: &str| Checked::check_entry(&text(0, 0, command));
    check("17").unwrap();
    // What the log id that it will have may take more is left free.
    let room = ENTRY_BYTES_MAX - 1024;
    let fits = (room - 64..room).rev().find(|bytes| check(&bytes.to_string()).is_ok()).unwrap();
    let error = check(&(fits + 1).to_string()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooLarge);
    assert!(error.to_string().contains("268435456"), "{error}");
    // So is what cannot be written.
    assert_eq!(check("many").unwrap_err().kind(), ErrorKind::InvalidArgument);

    let engine = open(&SimVfs::new(41));
    let mut store: Checked = LogStore::with_format(&engine, R);
    let too_large = text(u64::MAX - 1, 1, &ENTRY_BYTES_MAX.to_string());
    let error = store.blocking_append([too_large]).await.unwrap_err();
    assert!(error.to_string().contains("268435456"), "{error}");
    // The longest log id there is does not make it too large.
    store.blocking_append([text(u64::MAX - 1, 1, &fits.to_string())]).await.unwrap();
}

/// One record of all of it could be larger than a record may be, and openraft ends a group on an error.
#[tokio::test]
async fn a_large_append_is_written_in_parts_and_one_that_is_refused_leaves_its_first_entries() {
    let vfs = SimVfs::new(43);
    let engine = open(&vfs);
    let mut store = LogStore::<Types, Bulky>::with_format(&engine, R);
    let large: Vec<_> = (1..=6).map(|index| text(1, index, &(6 << 20).to_string())).collect();
    vfs.set_capacity(Some(24 << 20));
    store.blocking_append(large.clone()).await.unwrap_err();
    assert_eq!(store.get_log_state().await.unwrap().last_log_id, Some(log_id(1, 3)));
    vfs.set_capacity(None);
    store.blocking_append(large[3..].to_vec()).await.unwrap();
    store.blocking_append((7..=12).map(|index| text(1, index, &(6 << 20).to_string()))).await.unwrap();
    let mut after = LogStore::<Types, Bulky>::with_format(&crashed(&vfs), R);
    assert_eq!(after.get_log_state().await.unwrap().last_log_id, Some(log_id(1, 12)));
    assert_eq!(after.get_log_reader().await.try_get_log_entries(1..=6).await.unwrap(), large);
}
