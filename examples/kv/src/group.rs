//! One group of a node: its `RawNode`, who waits for what, and what it hands to the state machine.

use crate::clocks::Moment;
use crate::lease::Lease;
use crate::machine::{Stand, Task, Waiter};
use crate::nursery::{Nursery, begin_child};
use crate::peers::{node_of, peer_on};
use crate::region::{Change, Outcome, Span, Standing};
use crate::wire::{Command, Reply, Request, Result, Via};
use raft::prelude::{ConfChange, ConfChangeType, ConfChangeV2, Entry, EntryType, Message};
use raft::{ProgressState, RawNode, Ready, SnapshotStatus, StateRole};
use raftwood::RegionId;
use raftwood::raft_rs::{Agent, BOOTSTRAP, Creation, RegionStorage, Route, encode_conf_state};
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

/// A snapshot that a follower has not answered in this time was lost on its way.
const SNAPSHOT_PATIENCE: Duration = Duration::from_secs(1);

/// The largest proposal: what one group holds, for the group that takes it over.
pub const PROPOSAL_MAX: usize = 2 << 20;

pub struct PendingRead {
    pub index: u64,
    pub key: u64,
    pub by_lease: bool,
    pub waiter: Waiter,
}

pub struct Asked {
    pub at: Moment,
    pub key: u64,
    pub waiter: Waiter,
}

pub struct Group {
    pub id: u64,
    /// Which of this process's `RawNode`s it is: the tag of its `Ready`s.
    pub run: u64,
    /// No request for a vote is answered until an election timeout after this.
    pub started: Moment,
    /// What it owns as of the last entry that was handed to the state machine; `None` before its first
    /// snapshot.
    pub span: Option<Span>,
    /// What it will own when the snapshot that it has been given is installed.
    pub expected: Option<Span>,
    pub node: RawNode<RegionStorage>,
    /// Which way its messages go while it leads, and what it hands on in its own zone while it follows.
    pub route: Route,
    pub agent: Agent,
    /// Proposals by index: their term, and who waits.
    pub proposals: BTreeMap<u64, (u64, Waiter)>,
    /// Reads whose index raft is finding out.
    pub asked: HashMap<Vec<u8>, Asked>,
    /// Reads that wait until their index has been handed to the state machine.
    pub reads: Vec<PendingRead>,
    /// Messages of a follower that wait for their `Ready` to be durable.
    pub held: VecDeque<(u64, Vec<Message>)>,
    /// The last entry that was handed to the state machine.
    pub handed: u64,
    /// A snapshot on its way into the state machine and the log. Until it is in both, raft would look for
    /// entries that are gone if it had to campaign, so the group is parked: it is notified of nothing.
    pub installing: Option<Installing>,
    /// Followers that were sent a snapshot, and when.
    pub sent: BTreeMap<u64, Moment>,
    pub lease: Lease,
}

/// A snapshot on its way.
pub struct Installing {
    /// The number of its `Ready`, and its index.
    pub number: u64,
    pub index: u64,
    /// What it came with, until the state machine holds it.
    pub parked: Option<Parked>,
    pub since: u64,
}

/// A `Ready` with a snapshot, before it may go to the log.
pub struct Parked {
    pub ready: Ready,
    /// What may be sent before it is in the log.
    pub messages: Vec<Message>,
    /// Earlier ones that have become durable meanwhile, up to this number.
    pub persisted: Option<u64>,
    pub is_in_machine: bool,
}

/// What an entry does to the groups of a node.
pub enum Effect {
    Split(Child),
    /// This one was merged into the entry's.
    Merged(u64),
    /// A peer of its group was exchanged for another.
    Exchanged,
}

/// A group that a split makes.
pub struct Child {
    pub id: u64,
    pub stand: Stand,
    /// It was there before, by a message, and may have answered another leader.
    pub existed: bool,
}

impl Group {
    pub fn is_leader(&self) -> bool {
        self.node.raft.state == StateRole::Leader
    }

    pub fn committed(&self) -> u64 {
        self.node.raft.raft_log.committed
    }

    /// Another group's snapshot, or entry, has ended it in the state machine. Its log stays until that is
    /// durable, and raft is notified of nothing more.
    pub fn end(&mut self) {
        self.expected = None;
        if let Some(span) = &mut self.span {
            span.standing = Standing::Gone;
        }
    }

    pub fn is_ended(&self) -> bool {
        self.span.as_ref().is_some_and(|span| span.standing == Standing::Gone)
    }

    /// Whether raft is to be left alone.
    pub fn is_parked(&self) -> bool {
        self.installing.is_some() || self.is_ended()
    }

    /// The `Ready` of a snapshot that the state machine holds by now.
    pub fn unpark(&mut self) -> Option<Parked> {
        let is_ended = self.is_ended();
        self.installing.as_mut()?.parked.take_if(|parked| parked.is_in_machine && !is_ended)
    }
}

impl Group {
    /// Raft sends nothing else to a follower that it has sent a snapshot, until it is notified of what became
    /// of it. No network reports all that it loses, so after a while it is taken for lost. True if one was.
    pub fn give_up_snapshots(&mut self, now: Moment) -> bool {
        let followers = self.node.raft.prs().iter();
        let waiting = followers.filter(|(_, p)| self.is_leader() && p.state == ProgressState::Snapshot);
        let waiting: BTreeSet<u64> = waiting.map(|(id, _)| *id).collect();
        self.sent.retain(|id, _| waiting.contains(id));
        for id in waiting {
            self.sent.entry(id).or_insert(now);
        }
        let is_lost = |at: Moment| !now.is_within(at, SNAPSHOT_PATIENCE);
        let lost: Vec<u64> = self.sent.iter().filter(|(_, at)| is_lost(**at)).map(|(id, _)| *id).collect();
        for id in &lost {
            self.sent.remove(id);
            self.node.report_snapshot(*id, SnapshotStatus::Failure);
        }
        !lost.is_empty()
    }

    pub fn request(&mut self, request: Request, key: u64, waiter: Waiter, asked: &mut u64, id: u64) {
        let (term, at) = (self.node.raft.term, Moment::now());
        let by_index = matches!(request, Request::Read { via: Via::Index, .. });
        if self.is_parked() || !self.is_leader() && !by_index {
            let _ = waiter.send(Reply::NotLeader { leader: node_of(self.node.raft.leader_id) });
            return;
        }
        let outcome = match request {
            Request::Write { value, .. } => self.propose(&Command::Write { key, value }, Some(&waiter), at),
            Request::Read { via: Via::Log, .. } => self.propose(&Command::Read { key }, Some(&waiter), at),
            Request::Propose { value, .. } => self
                .propose(&Command::Write { key, value }, None, at)
                .map(|()| drop(waiter.send(Reply::Done))),
            Request::Read { via, .. } => {
                let covered = self.lease.holds(term, at) && self.node.raft.commit_to_current_term();
                if via == Via::Lease && covered {
                    let index = self.committed();
                    self.reads.push(PendingRead { index, key, by_lease: true, waiter: waiter.clone() });
                } else {
                    // Unique over all nodes and all their runs.
                    *asked += 1;
                    let context = [id.to_le_bytes(), asked.to_le_bytes()].concat();
                    self.node.read_index(context.clone());
                    self.asked.insert(context, Asked { at, key, waiter: waiter.clone() });
                }
                Ok(())
            }
            Request::Transfer { to, .. } if to == id => Err(raft::Error::ProposalDropped),
            Request::Transfer { to, .. } => {
                self.lease.give_up(term);
                peer_on(to, &self.conf_state()).ok_or(raft::Error::ProposalDropped).map(|to| {
                    self.node.transfer_leader(to);
                    let _ = waiter.send(Reply::Done);
                })
            }
            // The child begins with this configuration, and is to have one that is not half done.
            Request::Split { .. } if self.is_changing() => Err(raft::Error::ProposalDropped),
            Request::Split { at: key, child, .. } => {
                let version = self.span.as_ref().map_or(0, |s| s.version);
                self.propose(&Command::Change(Change::Split { version, at: key, child }), Some(&waiter), at)
            }
            Request::Freeze { .. } => self.propose(&Command::Change(Change::Freeze), Some(&waiter), at),
            Request::Absorb { source, state, .. } => {
                let version = self.span.as_ref().map_or(0, |s| s.version);
                let change = Change::Absorb { version, source, state };
                self.propose(&Command::Change(change), Some(&waiter), at)
            }
            Request::Demote { node, .. } => self.change(ConfChangeType::AddLearnerNode, node, &waiter),
            Request::Promote { node, .. } => self.change(ConfChangeType::AddNode, node, &waiter),
            _ => Ok(()),
        };
        if let Err(e) = outcome {
            let _ = waiter.send(Reply::Failed { why: e.to_string() });
        }
    }

    pub fn propose(&mut self, command: &Command, waiter: Option<&Waiter>, at: Moment) -> raft::Result<()> {
        let encoded = command.encode().ok().filter(|e| e.len() <= PROPOSAL_MAX);
        let encoded = encoded.ok_or(raft::Error::ProposalDropped)?;
        self.node.propose(vec![], encoded)?;
        let (term, index) = (self.node.raft.term, self.node.raft.raft_log.last_index());
        match command {
            Command::Change(_) => self.lease.suspend(term, index),
            _ => self.lease.proposed(term, index, at),
        }
        if let Some(waiter) = waiter {
            self.proposals.insert(index, (term, waiter.clone()));
        }
        Ok(())
    }

    pub fn change(&mut self, kind: ConfChangeType, node: u64, waiter: &Waiter) -> raft::Result<()> {
        let peer = peer_on(node, &self.conf_state()).ok_or(raft::Error::ProposalDropped)?;
        let mut change = ConfChange::default();
        change.set_change_type(kind);
        change.set_node_id(peer);
        // Raft takes one at a time. Of a second it would make an empty entry, and committing that
        // changes nothing.
        if self.is_changing() {
            return Err(raft::Error::ProposalDropped);
        }
        self.node.propose_conf_change(vec![], change)?;
        let (term, index) = (self.node.raft.term, self.node.raft.raft_log.last_index());
        self.proposals.insert(index, (term, waiter.clone()));
        Ok(())
    }

    /// Gives a committed entry to the state machine, and a change of the configuration to raft. Returns what
    /// it does to other groups.
    pub fn hand_over(
        &mut self,
        entry: Entry,
        machine: &Sender<Task>,
        nursery: &Nursery,
    ) -> Result<Option<Effect>> {
        self.handed = entry.index;
        let waiter = match self.proposals.remove(&entry.index) {
            Some((term, waiter)) if term == entry.term => Some(waiter),
            // Another leader's entry stands where ours stood: ours can never be committed.
            Some((_, waiter)) => {
                let _ =
                    waiter.send(Reply::Failed { why: "another leader's entry took its place".to_string() });
                None
            }
            None => None,
        };
        // Raft learns of a change of the configuration when it is applied; the state machine keeps the
        // outcome, so that after a restart both stand at the same entry.
        let mut exchanged = None;
        let changed = match entry.get_entry_type() {
            EntryType::EntryNormal => None,
            EntryType::EntryConfChange => {
                let change: ConfChange = protobuf::Message::parse_from_bytes(&entry.data)?;
                Some(self.node.apply_conf_change(&change)?)
            }
            EntryType::EntryConfChangeV2 => {
                let change: ConfChangeV2 = protobuf::Message::parse_from_bytes(&entry.data)?;
                exchanged = (!change.changes.is_empty()).then_some(Effect::Exchanged);
                Some(self.node.apply_conf_change(&change)?)
            }
        };
        let conf_state = changed.map(|state| encode_conf_state(entry.index, &state));
        let effect = match Command::of(&entry) {
            Some(Command::Change(change)) => self.change_span(&change, nursery)?,
            _ => exchanged,
        };
        let (done, split) = channel();
        let done = matches!(effect, Some(Effect::Split(_))).then_some(done);
        let must_wait = done.is_some();
        machine.send(Task::Apply { group: self.id, entry, conf_state, waiter, done })?;
        // Its log may go on only when the state machine knows it, whatever happens then.
        if must_wait {
            split.recv()?;
        }
        Ok(effect)
    }

    /// What the state machine is about to do, done here first: the log of a new group begins before that.
    pub fn change_span(&mut self, change: &Change, nursery: &Nursery) -> Result<Option<Effect>> {
        let Some(span) = &self.span else { return Ok(None) };
        match (span.after(change), change) {
            (Outcome::Split { left, right }, &Change::Split { child, .. }) => {
                let conf_state = self.conf_state();
                let existed = nursery.engine.region(RegionId(child)).exists();
                let me = nursery.me;
                let found = begin_child(&nursery.engine, &nursery.tombstones, me, child, &conf_state)?;
                self.span = Some(left);
                let conf_state = encode_conf_state(BOOTSTRAP.index, &conf_state);
                let stand = Stand { span: right, applied: BOOTSTRAP, conf_state };
                let begun = found != Creation::Gone;
                Ok(begun.then_some(Effect::Split(Child { id: child, stand, existed })))
            }
            (Outcome::Frozen(frozen), _) => {
                self.span = Some(frozen);
                Ok(None)
            }
            (Outcome::Absorbed(wider), &Change::Absorb { source, .. }) => {
                self.span = Some(wider);
                Ok(Some(Effect::Merged(source)))
            }
            _ => Ok(None),
        }
    }
}
