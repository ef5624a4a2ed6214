//! A replica that is fenced, for its log has lost something that nobody has a copy of, and that is parked,
//! for it is being sent a snapshot: it says nothing, nothing of it is lost, and it comes back whole.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test")]

#[path = "support/disk.rs"]
mod disk;
#[path = "support/example.rs"]
mod example;
#[path = "support/harm.rs"]
mod harm;
#[path = "support/nodes.rs"]
mod nodes;

use disk::{extent, hard_state, log, stands};
use example::example;
use harm::harm;
use nodes::{PATIENCE, TIMING, dump, is_equal, lead, stats, until};
use raft::prelude::HardState;
use raftwood_kv::clocks::Trust;
use raftwood_kv::cluster::{Cluster, NODES};
use raftwood_kv::rollback::{Fate, read_saved};
use raftwood_kv::wire::{Reply, Request, Via};
use std::path::Path;
use std::time::Duration;

/// The upper of two neighbours, and who leads it.
const GROUP: u64 = 2;
const LEADER: u64 = 1;
const BYSTANDER: u64 = 2;
/// Has a replica that is fenced and parked.
const VICTIM: u64 = 3;

/// What the victim had in its log and had not applied: the first of them can still be read.
const UNAPPLIED: u64 = 20;
const READABLE: u64 = 10;

struct Parked {
    cluster: Cluster,
    /// All that was acknowledged.
    written: Vec<u64>,
    /// The first entry that is harmed.
    harmed: u64,
    /// Of the replica before it was harmed.
    hard_state: HardState,
}

fn tell(cluster: &Cluster, node: u64, request: &Request) {
    cluster.ask(node, request, Duration::from_secs(5)).unwrap();
}

fn try_write(cluster: &Cluster, node: u64, value: u64, patience: Duration) -> bool {
    let request = Request::Write { group: GROUP, key: value % 4, value };
    matches!(cluster.ask(node, &request, patience), Ok(Reply::Written { .. }))
}

impl Parked {
    fn new(dir: &Path) -> Parked {
        let mut cluster = Cluster::start(example("kv"), dir, GROUP, TIMING, Trust::Both).unwrap();
        // One that had not been up for long votes for nobody, and learns of the term by its leader.
        until("a vote of the victim", || {
            lead(&cluster, BYSTANDER, GROUP);
            lead(&cluster, LEADER, GROUP);
            hard_state(&log(&cluster, VICTIM), GROUP).is_some_and(|state| state.vote != 0)
        });
        let mut parked = Parked { cluster, written: vec![], harmed: 0, hard_state: HardState::default() };
        parked.write(1);
        until("equal replicas", || is_equal(&parked.cluster, GROUP));
        tell(&parked.cluster, VICTIM, &Request::HoldApplies { hold: true });
        let last = |cluster: &Cluster, node| extent(&log(cluster, node), GROUP).unwrap().last;
        let before = last(&parked.cluster, LEADER);
        let values: Vec<u64> = (1..=UNAPPLIED).map(|n| 0x5eed_cafe_0000_0000 | n << 8 | 0xb1).collect();
        values.iter().for_each(|value| parked.write(*value));
        until("the log of the victim", || last(&parked.cluster, VICTIM) >= before + UNAPPLIED);
        parked.harmed = before + READABLE + 1;
        cluster = parked.cluster;
        cluster.kill(VICTIM).unwrap();
        parked.hard_state = hard_state(&log(&cluster, VICTIM), GROUP).unwrap();
        assert!(stands(&cluster, VICTIM)[&GROUP].applied.index <= before, "applied, and not missed");
        assert!(harm(&cluster.dir_of(VICTIM).join("log"), &values[READABLE as usize..]) > 0);
        parked.cluster = cluster;
        // Nobody keeps a copy.
        let first = |node| extent(&log(&parked.cluster, node), GROUP).unwrap().first;
        let (mut value, mut burst) = (1 << 32, Vec::new());
        until("compacted logs", || {
            for _ in 0..40 {
                value += 1;
                until("a write", || try_write(&parked.cluster, LEADER, value, PATIENCE));
                burst.push(value);
            }
            [LEADER, BYSTANDER].iter().all(|node| first(*node) > before + UNAPPLIED)
        });
        parked.written.extend(burst);
        parked.park();
        parked
    }

    /// The victim starts, and is given a snapshot that it is not notified of.
    fn park(&mut self) {
        // No message comes before the hold.
        let cut = |cluster: &Cluster, from: Vec<u64>| {
            [LEADER, BYSTANDER].iter().for_each(|node| cluster.partition(*node, from.clone()).unwrap());
        };
        cut(&self.cluster, vec![VICTIM]);
        self.cluster.start_node(VICTIM).unwrap();
        assert_eq!(stats(&self.cluster, VICTIM).fenced, [GROUP]);
        tell(&self.cluster, VICTIM, &Request::HoldInstalls { hold: true });
        cut(&self.cluster, vec![]);
        until("a replica that is parked", || stats(&self.cluster, VICTIM).installing == [GROUP]);
        until("the snapshot in the state machine", || {
            dump(&self.cluster, VICTIM, GROUP).applied > self.harmed
        });
        let stats = stats(&self.cluster, VICTIM);
        assert_eq!((stats.fenced, stats.healed, stats.unfenced), (vec![GROUP], 0, 0));
    }

    fn write(&mut self, value: u64) {
        until("a write", || (1..=NODES).any(|node| try_write(&self.cluster, node, value, PATIENCE)));
        self.written.push(value);
    }

    fn deafen_the_bystander(&self, groups: Vec<u64>) {
        tell(&self.cluster, BYSTANDER, &Request::Deafen { groups });
    }

    /// Its term and vote were not forgotten for the snapshot.
    fn keeps_its_vote(&self) {
        let (now, then) = (hard_state(&log(&self.cluster, VICTIM), GROUP).unwrap(), &self.hard_state);
        assert!(now.term > then.term || (now.term, now.vote) == (then.term, then.vote), "{now:?}, {then:?}");
        assert!(now.commit >= then.commit, "{now:?}, {then:?}");
    }

    /// It acknowledges, in a majority that needs it, and has all that was acknowledged, once.
    fn end_whole(mut self) {
        until("a whole replica", || stats(&self.cluster, VICTIM).fenced.is_empty());
        self.keeps_its_vote();
        self.deafen_the_bystander(vec![GROUP]);
        self.write(7 << 32);
        self.deafen_the_bystander(vec![]);
        until("equal replicas", || is_equal(&self.cluster, GROUP));
        let held: Vec<u64> = dump(&self.cluster, VICTIM, GROUP).writes.iter().map(|w| w.2).collect();
        for value in &self.written {
            assert_eq!(held.iter().filter(|held| *held == value).count(), 1, "{value:#x}");
        }
        self.cluster.check().unwrap();
    }
}

#[test]
fn a_fenced_replica_that_is_parked_for_a_snapshot_says_nothing_and_comes_back_whole() {
    let dir = tempfile::tempdir().unwrap();
    let mut parked = Parked::new(dir.path());
    let cluster = &parked.cluster;
    // Without the bystander the group needs it: for its writes, and then for a leader.
    let votes = stats(cluster, VICTIM).fenced_votes;
    parked.deafen_the_bystander(vec![GROUP]);
    let is_acknowledged = try_write(cluster, LEADER, 5 << 32, Duration::from_secs(1));
    assert!(!is_acknowledged, "acknowledged by a parked replica");
    until("a leader that has lost its majority", || !stats(cluster, LEADER).leads.contains(&GROUP));
    std::thread::sleep(TIMING.election() * 4);
    for node in [LEADER, VICTIM] {
        assert!(!stats(cluster, node).leads.contains(&GROUP), "a parked replica has voted, or leads");
    }
    for via in [Via::Index, Via::Lease, Via::Log] {
        let read = Request::Read { group: GROUP, key: 1, via };
        let reply = cluster.ask(VICTIM, &read, Duration::from_secs(5)).unwrap();
        assert!(matches!(reply, Reply::NotLeader { .. }), "{reply:?}");
    }
    let still = stats(cluster, VICTIM);
    assert_eq!((still.fenced, still.installing, still.fenced_votes), (vec![GROUP], vec![GROUP], votes));
    // The log is as it was: what the state machine has taken is all that has happened.
    assert!(extent(&log(cluster, VICTIM), GROUP).unwrap().first <= parked.harmed);

    tell(cluster, VICTIM, &Request::HoldInstalls { hold: false });
    until("a whole replica", || stats(cluster, VICTIM).fenced.is_empty());
    // What could be read, and was not known to be committed here, was saved before the log went.
    let saved = read_saved(&cluster.dir_of(VICTIM).join("discarded")).unwrap();
    let readable = &parked.written[1..=READABLE as usize];
    assert!(readable.iter().all(|value| saved.contains(&(Fate::Displaced, *value))), "{saved:x?}");
    // The leader that it had is gone for want of it; now there is one again.
    parked.write(6 << 32);
    let stats = stats(&parked.cluster, VICTIM);
    assert_eq!((stats.unfenced, stats.healed, stats.snapshots_installed), (1, 0, 1), "{stats:?}");
    parked.end_whole();
}

#[test]
fn a_fenced_replica_has_its_vote_when_its_snapshot_is_installed() {
    let dir = tempfile::tempdir().unwrap();
    let parked = Parked::new(dir.path());
    assert_ne!(parked.hard_state.vote, 0, "it has none to lose");
    // The leader leads on: a later term would hide what became of this one's vote.
    tell(&parked.cluster, VICTIM, &Request::HoldInstalls { hold: false });
    parked.end_whole();
}

#[test]
fn a_kill_of_a_fenced_replica_that_is_parked_leaves_what_the_next_start_makes_whole() {
    let dir = tempfile::tempdir().unwrap();
    let mut parked = Parked::new(dir.path());
    parked.cluster.kill(VICTIM).unwrap();
    let applied = stands(&parked.cluster, VICTIM)[&GROUP].applied.index;
    let left = extent(&log(&parked.cluster, VICTIM), GROUP).unwrap();
    assert!(applied > left.last && left.first <= parked.harmed, "the log has been reset: {left:?}");
    parked.keeps_its_vote();
    parked.cluster.start_node(VICTIM).unwrap();
    parked.end_whole();
}

#[test]
fn a_merge_ends_a_fenced_replica_that_is_parked() {
    let dir = tempfile::tempdir().unwrap();
    let Parked { mut cluster, written, .. } = Parked::new(dir.path());
    let frozen = cluster.ask_leader(GROUP, &Request::Freeze { group: GROUP }, PATIENCE);
    let Some((_, Reply::Frozen(state))) = frozen else { panic!("{frozen:?}") };
    let absorb = Request::Absorb { group: GROUP - 1, source: GROUP, state };
    let absorbed = cluster.ask_leader(GROUP - 1, &absorb, PATIENCE);
    assert!(matches!(absorbed, Some((_, Reply::Done))), "{absorbed:?}");
    until("its end", || stats(&cluster, VICTIM).buried > 0);
    // The word of the snapshot comes for a replica that is no more.
    tell(&cluster, VICTIM, &Request::HoldInstalls { hold: false });
    std::thread::sleep(Duration::from_secs(1));
    let after = stats(&cluster, VICTIM);
    assert!(after.fenced.is_empty() && after.installing.is_empty() && after.unfenced == 0, "{after:?}");
    assert!(extent(&log(&cluster, VICTIM), GROUP).is_none());
    until("equal replicas", || is_equal(&cluster, GROUP - 1));
    let held: Vec<u64> = dump(&cluster, VICTIM, GROUP - 1).writes.iter().map(|w| w.2).collect();
    assert!(written.iter().all(|value| held.iter().filter(|held| *held == value).count() == 1));
    cluster.check().unwrap();
}
