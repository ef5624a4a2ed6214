//! Raftwood's side.

use crate::failure::{Failure, Result};
use crate::lock::Lock;
use crate::store::{CHUNK_BYTES, Pair, Reads, Writes};
use crate::tikv::{RAFT_STATE_KEY, local_state};
use protobuf::Message;
use raft_proto::eraftpb::Entry;
use raftwood::raft_rs::{decode_entry, decode_hard_state, encode_entry, encode_hard_state};
use raftwood::{Durability, Engine, EntryId, ErrorKind, Options, ReadLimit, Reader, RegionId};
use std::path::Path;

/// What the program that goes on with a store expects in it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Layout {
    /// It uses `raftwood-raft-engine`: entries are the bytes of their messages, and its states are under its
    /// keys. Raftwood's hard state stays unset: that program would not keep it up to date.
    #[default]
    RaftEngine,
    /// It uses `raftwood::raft_rs`: entries are as that adapter stores them, and the hard state that TiKV
    /// keeps under a key is Raftwood's.
    RaftRs,
}

/// What the adapter for raft-rs keeps under keys of its own.
const ADAPTER_KEYS: &[u8] = b"raft/";

/// An error of the engine's, in full, of what it does to a store that is open. What it says of the system is
/// no fault of the source.
fn failed(e: impl Into<raftwood::Error>) -> Failure {
    let e = e.into();
    match e.kind() {
        ErrorKind::Io
        | ErrorKind::NoSpace
        | ErrorKind::Poisoned
        | ErrorKind::Closed
        | ErrorKind::Locked
        | ErrorKind::Unsupported => Failure::CannotRun(format!("{e:?}")),
        _ => Failure::Wrong(format!("{e:?}")),
    }
}

/// As [`failed`], of opening a store: there is something wrong with it only if it is damaged. A directory
/// without a store, and a store of a newer release, are none of that.
fn unopened(e: raftwood::Error) -> Failure {
    match e.kind() {
        ErrorKind::Damaged => Failure::Wrong(format!("{e:?}")),
        _ => Failure::CannotRun(format!("{e:?}")),
    }
}

/// A store of Raftwood's that is being made.
pub(crate) struct Made {
    engine: Engine,
    layout: Layout,
}

impl Made {
    pub(crate) fn create(dir: &Path, layout: Layout) -> Result<Made> {
        Ok(Made { engine: Engine::open(dir).map_err(unopened)?, layout })
    }

    /// Makes everything durable, and the next open one that has nothing to replay.
    pub(crate) fn close(self) -> Result<()> {
        self.engine.close().map_err(failed)
    }
}

impl Writes for Made {
    fn begin(&mut self, region: u64, pairs: Vec<Pair>, base: Option<EntryId>) -> Result<()> {
        let mut batch = self.engine.batch();
        let mut to = batch.region(RegionId(region));
        // Removes nothing, and makes the region also where it is empty.
        to.delete(b"").map_err(failed)?;
        if let Some(base) = base {
            to.reset(base).map_err(failed)?;
        }
        for (key, value) in &pairs {
            if self.layout == Layout::RaftRs && key.starts_with(ADAPTER_KEYS) {
                let why = format!("the adapter for raft-rs keeps the key {key:?} for itself");
                return Err(Failure::in_region(region, why));
            }
            to.put(key, value).map_err(failed)?;
            if self.layout == Layout::RaftRs && key == RAFT_STATE_KEY {
                let state = local_state(value).map_err(|why| Failure::in_region(region, why))?;
                to.set_hard_state(&encode_hard_state(&state.hard_state)).map_err(failed)?;
            }
        }
        self.engine.write(batch, Durability::Written).map_err(failed)?;
        Ok(())
    }

    fn append(&mut self, region: u64, entries: &[Entry]) -> Result<()> {
        let mut batch = self.engine.batch();
        let mut to = batch.region(RegionId(region));
        for entry in entries {
            let mut encoded = Ok(());
            let id = EntryId::new(entry.term, entry.index);
            to.append_with(id, |out| match self.layout {
                Layout::RaftEngine => encoded = entry.write_to_vec(out),
                Layout::RaftRs => encode_entry(entry, out),
            })
            .map_err(failed)?;
            encoded.map_err(|e| Failure::in_region(region, format!("entry {}: {e}", entry.index)))?;
        }
        self.engine.write(batch, Durability::Written).map_err(failed)?;
        Ok(())
    }
}

/// A store of Raftwood's, looked at without changing it.
pub(crate) struct Ours {
    reader: Reader,
    layout: Layout,
    _lock: Option<Lock>,
}

impl Ours {
    /// A store that programs wrote through `raftwood-raft-engine`.
    pub(crate) fn open_source(dir: &Path) -> Result<Ours> {
        let lock = Lock::of_ours(dir)?;
        Ours::open(dir, Layout::RaftEngine, Some(lock))
    }

    /// One that was made here: opened as its program will open it, then read.
    pub(crate) fn open_own(dir: &Path, layout: Layout) -> Result<Ours> {
        Engine::open(dir).and_then(|engine| engine.close()).map_err(unopened)?;
        Ours::open(dir, layout, None)
    }

    fn open(dir: &Path, layout: Layout, lock: Option<Lock>) -> Result<Ours> {
        let reader = Options::new().show_unproven(true).open_read_only(dir).map_err(unopened)?;
        let report = reader.report();
        if let Some(found) = report.damage.iter().chain(&report.suspects).next() {
            let advice = "repair it first, see `raftwood check` and `raftwood repair`";
            return Err(Failure::Wrong(format!("{} is damaged, {advice}: {found:?}", dir.display())));
        }
        Ok(Ours { reader, layout, _lock: lock })
    }
}

impl Reads for Ours {
    fn regions(&self) -> Vec<u64> {
        self.reader.regions().iter().map(|region| region.id.0).collect()
    }

    fn span(&self, region: u64) -> Option<(u64, u64)> {
        let state = self.reader.state(RegionId(region));
        (!state.is_empty()).then_some((state.first, state.last))
    }

    fn entries(&self, region: u64, from: u64, to: u64) -> Result<Vec<Entry>> {
        let limit = ReadLimit::bytes(CHUNK_BYTES as u64);
        let stored = self.reader.entries(RegionId(region), from..to, limit).map_err(failed)?;
        let decoded = stored.iter().map(|stored| match self.layout {
            Layout::RaftRs => decode_entry(stored).map_err(failed),
            Layout::RaftEngine => match Entry::parse_from_bytes(&stored.payload) {
                Ok(entry) if entry.index == stored.id.index => Ok(entry),
                _ => Err(Failure::in_region(
                    region,
                    format!(
                        "entry {} is no eraftpb::Entry of this index: the store was not written through \
                         raftwood-raft-engine",
                        stored.id.index
                    ),
                )),
            },
        });
        decoded.collect()
    }

    fn pairs(&self, region: u64) -> Result<Vec<Pair>> {
        let id = RegionId(region);
        let pairs = self.reader.scan(id, b"");
        let pairs: Vec<Pair> = pairs.into_iter().map(|(key, value)| (key.into(), value.into())).collect();
        let kept = pairs.iter().find(|(key, _)| key == RAFT_STATE_KEY).map(|(_, value)| value);
        match (self.layout, self.reader.hard_state(id)) {
            (Layout::RaftEngine, None) => {}
            (Layout::RaftEngine, Some(_)) => {
                let why = "it has a hard state of Raftwood's own, which raft-engine has no place for";
                return Err(Failure::in_region(region, why));
            }
            (Layout::RaftRs, ours) => {
                let ours = ours.map(|bytes| decode_hard_state(&bytes)).transpose().map_err(failed)?;
                let theirs = kept.map(|value| local_state(value)).transpose();
                let theirs = theirs.map_err(|why| Failure::in_region(region, why))?;
                if theirs.map(|state| state.hard_state) != ours {
                    return Err(Failure::in_region(region, "the copy's hard state differs"));
                }
            }
        }
        Ok(pairs)
    }

    fn base(&self, region: u64) -> Option<EntryId> {
        match self.layout {
            // raft-engine has no place for it.
            Layout::RaftEngine => None,
            Layout::RaftRs => self.reader.state(RegionId(region)).base,
        }
    }
}
