//! How groups are started, and how their logs begin and end: what the state machine and the log, each with a
//! disk of its own, must do in this order.

use crate::clocks::Moment;
use crate::group::{Group, PROPOSAL_MAX};
use crate::healing::{Fenced, Found, examine};
use crate::lease::Lease;
use crate::machine::{Snapshots, Stand, Task};
use crate::node::{Args, Input};
use crate::peers::has_peer;
use crate::region::Standing;
use crate::wire::Result;
use raft::prelude::{ConfState, Snapshot};
use raft::{Config, RawNode};
use raftwood::raft_rs::{
    Agent, BOOTSTRAP, Creation, ReadyBatch, RegionStorage, Route, Tombstones, Zones, check_config,
    decode_conf_state,
};
use raftwood::{Engine, EntryId, RegionId};
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::mpsc::Sender;

/// Where the tombstones are: no group has this id.
pub const TOMBSTONES: RegionId = RegionId(u64::MAX);

/// Where the log has a hard state for the store as a whole, its incarnation: no group has this id either.
pub const STORE: RegionId = RegionId(u64::MAX - 1);

/// Of what is compacted, so many entries stay for followers that are a little behind.
const SLACK: u64 = 10;

/// Whether it is the store's own, and no group's.
pub fn is_own(region: RegionId) -> bool {
    region >= STORE
}

/// The replicas of a store.
#[derive(Default)]
pub struct Started {
    pub groups: BTreeMap<u64, Group>,
    pub fenced: BTreeMap<u64, Fenced>,
    pub lost: BTreeSet<u64>,
}

/// Starts groups.
pub struct Nursery {
    pub args: Args,
    /// The peer id of all replicas here.
    pub me: u64,
    pub engine: Engine,
    pub tombstones: Tombstones,
    pub inputs: Sender<Input>,
    pub tasks: Sender<Task>,
    pub snapshots: Snapshots,
    pub zones: Zones,
    pub runs: u64,
}

impl Nursery {
    /// All that this store has, after what a crash has interrupted is brought to its end.
    pub fn start_all(&mut self, stands: BTreeMap<u64, Stand>) -> Result<Started> {
        begin_at(&self.engine, &self.tombstones, self.me, &stands)?;
        let now = Moment::now();
        let known: BTreeSet<u64> = stands.keys().copied().collect();
        let by_message = self.engine.regions().into_iter().filter(|r| !is_own(*r) && !known.contains(&r.0));
        let by_message: Vec<_> = by_message.map(|region| (region.0, None)).collect();
        let serving = stands.into_iter().filter(|(_, s)| s.span.standing != Standing::Gone);
        let mut started = Started::default();
        for (id, stand) in serving.map(|(id, stand)| (id, Some(stand))).chain(by_message) {
            match examine(&self.engine, id, self.me, stand.clone())? {
                Found::Whole => drop(started.groups.insert(id, self.start(id, stand.as_ref(), now)?)),
                Found::Fenced(fenced) => drop(started.fenced.insert(id, *fenced)),
                Found::Lost => drop(started.lost.insert(id)),
            }
        }
        Ok(started)
    }

    /// A group that stands there, or one that a message made and that waits for its snapshot.
    pub fn start(&mut self, id: u64, stand: Option<&Stand>, started: Moment) -> Result<Group> {
        let (fetched, tasks, snapshots) = (self.inputs.clone(), self.tasks.clone(), self.snapshots.clone());
        let region = self.engine.region(RegionId(id));
        let storage = RegionStorage::new(&self.engine, RegionId(id))
            .fetch_far(1, move |region, context| {
                let _ = fetched.send(Input::Fetched(region.0, context));
            })
            .snapshots(move |request_index: u64, to: u64| {
                let least = request_index.max(region.first_index().saturating_sub(1));
                // A peer takes none that was made before it was one: there it is nobody.
                let serves = |s: &&Snapshot| {
                    let meta = s.get_metadata();
                    meta.index >= least && has_peer(meta.get_conf_state(), to)
                };
                let made = snapshots.lock().unwrap().get(&id).filter(serves).cloned();
                if made.is_none() {
                    let _ = tasks.send(Task::Make { group: id });
                }
                made
            });
        let mut applied = EntryId::default();
        if let Some(stand) = stand {
            applied = stand.applied;
            // The state machine may be ahead of the log: it took a snapshot, and the crash came before the
            // log had a trace of it.
            storage.recover(applied, Some(&decode_conf_state(&stand.conf_state)?.1))?;
        }
        let timing = &self.args.timing;
        let config = Config {
            id: self.me,
            applied: applied.index,
            election_tick: timing.election_ticks as usize,
            heartbeat_tick: timing.heartbeat_ticks as usize,
            max_size_per_msg: 1 << 20,
            max_inflight_msgs: 256,
            max_uncommitted_size: 64 << 20,
            check_quorum: true,
            pre_vote: true,
            ..Config::default()
        };
        check_config(&config, PROPOSAL_MAX)?;
        self.runs += 1;
        let handed_on = self.inputs.clone();
        let agent = Agent::new(&storage, self.me, move |region| {
            let _ = handed_on.send(Input::HandedOn(region.0));
        });
        Ok(Group {
            route: Route::new(&self.zones, self.args.id),
            agent,
            id,
            run: self.runs,
            started,
            span: stand.map(|s| s.span.clone()),
            expected: None,
            node: RawNode::new(&config, storage, &slog::Logger::root(slog::Discard, slog::o!()))?,
            proposals: BTreeMap::new(),
            asked: HashMap::new(),
            reads: Vec::new(),
            held: VecDeque::new(),
            handed: applied.index,
            installing: None,
            sent: BTreeMap::new(),
            lease: Lease::new(timing),
        })
    }
}

/// Brings the logs to where the state machine stands, before any group is started: logs of new groups begin,
/// those of groups that were merged go, and a beginning whose split the state machine does not know is taken
/// back.
pub fn begin_at(
    engine: &Engine,
    tombstones: &Tombstones,
    peer: u64,
    stands: &BTreeMap<u64, Stand>,
) -> Result<()> {
    let mut batch = ReadyBatch::new(engine);
    for (&id, stand) in stands {
        let region = RegionId(id);
        if stand.span.standing == Standing::Gone {
            if engine.region(region).exists() || !tombstones.is_gone(region, peer)? {
                tombstones.destroy(&mut batch, region, peer)?;
            }
        } else if stand.applied == BOOTSTRAP {
            batch.split_off(region, peer, &decode_conf_state(&stand.conf_state)?.1, tombstones)?;
        }
    }
    for region in engine.regions() {
        if !is_own(region) && !stands.contains_key(&region.0) {
            batch.undo_split_off(region)?;
        }
    }
    batch.write(engine)?;
    Ok(())
}

/// Compacts a log that has grown beyond `keep` entries, and holds at what the state machine has applied
/// durably: what comes after that is applied again after a crash. False where there is nothing to do yet.
pub fn keep_what_is_needed(
    engine: &Engine,
    batch: &mut ReadyBatch,
    region: RegionId,
    durable: u64,
    keep: u64,
) -> bool {
    let first = engine.region(region).first_index();
    let is_due = durable >= first + keep;
    if is_due {
        batch.compact_applied(region, durable, SLACK.min(keep));
    }
    is_due
}

/// Begins the log of the group that a split makes: durable on return, so that the state machine may apply it.
pub fn begin_child(
    engine: &Engine,
    tombstones: &Tombstones,
    peer: u64,
    child: u64,
    conf_state: &ConfState,
) -> Result<Creation> {
    let mut batch = ReadyBatch::new(engine);
    let found = batch.split_off(RegionId(child), peer, conf_state, tombstones)?;
    batch.write(engine)?;
    Ok(found)
}
