//! The two stores behind one interface.

use crate::support::engines::on;
use raft::prelude::{ConfState, Entry, HardState, Snapshot};
use raft::storage::MemStorage;
use raft::{Config, Error, GetEntriesContext, RawNode, Ready, Storage, StorageError};
use raftwood::raft_rs::{RegionStorage, encode_conf_state, encode_entry, encode_hard_state};
use raftwood::vfs::sim::SimVfs;
use raftwood::{Background, Durability, Engine, EntryId, Options, RegionBatch, RegionId};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, channel};

pub(crate) const REGION: RegionId = RegionId(1);

/// What the suite needs to bring a store into a state, and what it may expect beyond the contract.
pub(crate) trait Store {
    type Storage: Storage + Clone;
    fn fresh() -> Self;
    fn storage(&self) -> Self::Storage;
    fn append(&self, entries: &[Entry]);
    fn set_hard_state(&self, state: &HardState);
    fn set_conf_state(&self, state: &ConfState);
    /// Entries up to and including this one go.
    fn compact_through(&self, index: u64);
    fn apply_snapshot(&self, snapshot: &Snapshot);
    /// Entries 1 to 200, and a storage that has to fetch those up to 100. What is fetched is
    /// reported on the channel.
    fn far(&self) -> (Self::Storage, Receiver<GetEntriesContext>);
    /// A storage that has snapshots, if it is `ready`, at this index and term.
    fn with_snapshot(&self, index: u64, term: u64, ready: bool) -> Self::Storage;
    /// The contract asks for it, and `MemStorage` (which says of itself that it is incomplete) does not do
    /// it: it forgets the term below the first index when it compacts, and panics for reads of an empty
    /// log and beyond the last entry.
    const IS_COMPLETE: bool;
}

pub(crate) struct Mem(MemStorage);

impl Store for Mem {
    type Storage = MemStorage;
    const IS_COMPLETE: bool = false;
    fn fresh() -> Mem {
        Mem(MemStorage::new())
    }
    fn storage(&self) -> MemStorage {
        self.0.clone()
    }
    fn append(&self, entries: &[Entry]) {
        self.0.wl().append(entries).unwrap();
    }
    fn set_hard_state(&self, state: &HardState) {
        self.0.wl().set_hardstate(state.clone());
    }
    fn set_conf_state(&self, state: &ConfState) {
        self.0.wl().set_conf_state(state.clone());
    }
    fn compact_through(&self, index: u64) {
        self.0.wl().compact(index + 1).unwrap();
    }
    fn apply_snapshot(&self, snapshot: &Snapshot) {
        self.0.wl().apply_snapshot(snapshot.clone()).unwrap();
    }
    fn far(&self) -> (MemStorage, Receiver<GetEntriesContext>) {
        self.append(&(1..=200).map(|i| filled(i, 1, 1024)).collect::<Vec<_>>());
        self.0.wl().trigger_log_unavailable(true);
        let (tell, told) = channel();
        let store = self.0.clone();
        std::thread::spawn(move || {
            // The one that has asked is notified, and finds it there.
            let context = loop {
                match store.wl().take_get_entries_context() {
                    Some(context) => break context,
                    None => std::thread::yield_now(),
                }
            };
            store.wl().trigger_log_unavailable(false);
            let _ = tell.send(context);
        });
        (self.0.clone(), told)
    }
    fn with_snapshot(&self, index: u64, term: u64, ready: bool) -> MemStorage {
        self.set_hard_state(&hard_state(term, 0, index));
        if !ready {
            self.0.wl().trigger_snap_unavailable();
        }
        self.0.clone()
    }
}

pub(crate) struct Ours {
    pub(crate) engine: Engine,
    pub(crate) disk: SimVfs,
}

impl Store for Ours {
    type Storage = RegionStorage;
    const IS_COMPLETE: bool = true;
    fn fresh() -> Ours {
        Ours::open(SimVfs::new(1), Background::Manual)
    }
    fn storage(&self) -> RegionStorage {
        RegionStorage::new(&self.engine, REGION)
    }
    fn append(&self, entries: &[Entry]) {
        self.write(|region| {
            for e in entries {
                region.append_with(EntryId::new(e.term, e.index), |out| encode_entry(e, out)).unwrap();
            }
        });
    }
    fn set_hard_state(&self, state: &HardState) {
        self.write(|region| {
            region.set_hard_state(&encode_hard_state(state)).unwrap();
        });
    }
    fn set_conf_state(&self, state: &ConfState) {
        self.write(|region| {
            region.put(b"raft/conf_state", &encode_conf_state(0, state)).unwrap();
        });
    }
    fn compact_through(&self, index: u64) {
        self.write(|region| {
            region.compact_through(index).unwrap();
        });
    }
    fn apply_snapshot(&self, snapshot: &Snapshot) {
        let meta = snapshot.get_metadata();
        self.write(|region| {
            region.reset(EntryId::new(meta.term, meta.index)).unwrap();
            let conf_state = encode_conf_state(meta.index, meta.get_conf_state());
            region.put(b"raft/conf_state", &conf_state).unwrap();
        });
    }
    fn far(&self) -> (RegionStorage, Receiver<GetEntriesContext>) {
        for i in 1..=200 {
            self.append(&[filled(i, 1, 1024)]);
            self.engine.tick().unwrap();
        }
        let (tell, told) = channel();
        let tell = Mutex::new(tell);
        let storage = self.storage().fetch_far(1, move |_, context| {
            let _ = tell.lock().unwrap().send(context);
        });
        (storage, told)
    }
    fn with_snapshot(&self, index: u64, term: u64, ready: bool) -> RegionStorage {
        let last = self.engine.region(REGION).last_index();
        let newest = self.engine.region(REGION).term(last).unwrap();
        self.set_hard_state(&hard_state(newest.max(term), 0, index));
        let conf_state = self.storage().initial_state().unwrap().conf_state;
        self.storage()
            .snapshots(move |_: u64, _: u64| ready.then(|| snapshot(index, term, &conf_state.voters)))
    }
}

impl Ours {
    pub(crate) fn open(disk: SimVfs, background: Background) -> Ours {
        Ours { engine: options(&disk).background(background).open("/db").unwrap(), disk }
    }

    pub(crate) fn write(&self, fill: impl FnOnce(&mut RegionBatch<'_>)) {
        let mut batch = self.engine.batch();
        fill(&mut batch.region(REGION));
        self.engine.write(batch, Durability::Synced).unwrap();
    }
}

pub(crate) fn options(disk: &SimVfs) -> Options {
    on(disk).background(Background::Manual)
}

pub(crate) fn entry(index: u64, term: u64) -> Entry {
    let mut e = Entry::default();
    e.set_index(index);
    e.set_term(term);
    e
}

pub(crate) fn filled(index: u64, term: u64, bytes: usize) -> Entry {
    let mut e = entry(index, term);
    e.set_data(vec![index as u8; bytes].into());
    e
}

pub(crate) fn snapshot(index: u64, term: u64, voters: &[u64]) -> Snapshot {
    let mut s = Snapshot::default();
    s.mut_metadata().set_index(index);
    s.mut_metadata().set_term(term);
    s.mut_metadata().set_conf_state(ConfState::from((voters.to_vec(), vec![])));
    s
}

pub(crate) fn here() -> GetEntriesContext {
    GetEntriesContext::empty(false)
}

pub(crate) fn hard_state(term: u64, vote: u64, commit: u64) -> HardState {
    let mut state = HardState::default();
    (state.term, state.vote, state.commit) = (term, vote, commit);
    state
}

pub(crate) fn store_error<T: std::fmt::Debug>(got: raft::Result<T>) -> StorageError {
    match got {
        Err(Error::Store(e)) => e,
        other => panic!("{other:?} where an error of the store was due"),
    }
}

pub(crate) fn logger() -> slog::Logger {
    slog::Logger::root(slog::Discard, slog::o!())
}

pub(crate) fn group(store: &Ours, id: u64) -> RawNode<RegionStorage> {
    let storage = RegionStorage::new(&store.engine, RegionId(id));
    storage.bootstrap(&ConfState::from((vec![1], vec![]))).unwrap();
    let config = Config { id: 1, election_tick: 10, heartbeat_tick: 1, ..Config::default() };
    RawNode::new(&config, storage, &logger()).unwrap()
}

pub(crate) fn campaigning(store: &Ours, id: u64) -> (RawNode<RegionStorage>, Ready) {
    let mut node = group(store, id);
    node.campaign().unwrap();
    let ready = node.ready();
    (node, ready)
}
