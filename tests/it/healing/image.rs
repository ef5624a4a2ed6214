//! The disk of one replica, harmed in its real bytes before the group runs.

use crate::support::engines::{DIR, kill, of_run};
use crate::support::files::{find, of_kind, records, ruin};
use raft::prelude::{ConfState, Entry, HardState};
use raftwood::raft_rs::{BOOTSTRAP, RegionStorage, encode_entry, encode_hard_state};
use raftwood::vfs::sim::{LossPolicy, SimVfs};
use raftwood::{Durability, EntryId, RegionId, TailPolicy};
use std::collections::BTreeMap;

pub(crate) const R: RegionId = RegionId(7);

/// The term in which all entries of the images were made, by replica 1.
pub(crate) const TERM: u64 = 6;

/// What became of an entry on a disk.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Copy {
    Intact,
    /// Its payload is wrong, and it was acknowledged for certain.
    Faulty,
    /// The same, in the last record before a kill: nothing says whether it was acknowledged.
    Suspect,
}

/// What a replica has before the group runs: the entries from the first on, as far as its log went.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Disk {
    pub(crate) log: Vec<Copy>,
    /// How many entries it had acknowledged where the end of its log is lost, its hard state with it.
    pub(crate) had: Option<usize>,
}

impl Disk {
    /// How many entries it has acknowledged, or may have.
    pub(crate) fn held(&self) -> usize {
        self.had.unwrap_or(self.log.len())
    }
}

/// The n-th entry, from 0 on: those of the log begin after [`BOOTSTRAP`].
pub(crate) fn id(n: usize) -> EntryId {
    EntryId::new(TERM, BOOTSTRAP.index + 1 + n as u64)
}

pub(crate) fn data(index: u64) -> Vec<u8> {
    format!("what entry {index} sets, and to which value").into_bytes()
}

/// Images are prepared once; each case gets a disk of its own.
#[derive(Default)]
pub(crate) struct Images(BTreeMap<Disk, SimVfs>);

impl Images {
    pub(crate) fn of<'a>(disks: impl IntoIterator<Item = &'a Disk>) -> Images {
        Images(disks.into_iter().map(|disk| (disk.clone(), prepare(disk))).collect())
    }

    pub(crate) fn disk(&self, disk: &Disk) -> SimVfs {
        self.0[disk].crash(LossPolicy::KeepAll)
    }
}

fn prepare(disk: &Disk) -> SimVfs {
    let vfs = SimVfs::new(5);
    let engine = of_run(&vfs, 1).open(DIR).unwrap();
    let voters = ConfState::from((vec![1, 2, 3], vec![]));
    RegionStorage::new(&engine, R).bootstrap(&voters).unwrap();
    let mut state = HardState::default();
    (state.term, state.vote, state.commit) = (TERM, 1, BOOTSTRAP.index);
    let mut batch = engine.batch();
    batch.region(R).set_hard_state(&encode_hard_state(&state)).unwrap();
    engine.write(batch, Durability::Synced).unwrap();
    for n in 0..disk.held() {
        let mut entry = Entry::default();
        entry.set_data(data(id(n).index).into());
        let mut batch = engine.batch();
        batch.region(R).append_with(id(n), |out| encode_entry(&entry, out)).unwrap();
        engine.write(batch, Durability::Synced).unwrap();
    }
    // A close proves that all was acknowledged; a kill leaves nothing to say so of the last record.
    if disk.had.is_some() || disk.log.last() == Some(&Copy::Suspect) {
        kill(&vfs, engine);
    } else {
        engine.close().unwrap();
    }
    vfs.settle();
    for (n, _) in disk.log.iter().enumerate().filter(|(_, copy)| **copy != Copy::Intact) {
        let (path, at) = find(&vfs, &data(id(n).index));
        ruin(&vfs, path, at + 3, 6);
    }
    if let Some(had) = disk.had {
        cut_short(&vfs, had - disk.log.len());
    }
    vfs
}

/// The descriptions of the last records rot. The log is opened all the same, and ends before them.
fn cut_short(vfs: &SimVfs, last: usize) {
    let path = of_kind(vfs, "log").pop().unwrap();
    let batches: Vec<u64> =
        records(&vfs.read_file(&path).unwrap()).iter().filter(|r| r.is_batch).map(|r| r.at).collect();
    batches.iter().rev().take(last).for_each(|at| ruin(vfs, &path, at + 66, 7));
    let engine = of_run(vfs, 2).tail_policy(TailPolicy::AcceptLoss).open(DIR).unwrap();
    assert_eq!(engine.open_report().hard_states_lost, 1);
    engine.close().unwrap();
    vfs.settle();
}
