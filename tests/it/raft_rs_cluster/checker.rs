//! Raft's safety properties, watched from outside.

use raft::prelude::{Entry, HardState, Message, MessageType};
use std::collections::{BTreeMap, BTreeSet};

/// What an entry is, for comparison.
pub(crate) type Fact = (u64, Vec<u8>);

pub(crate) fn fact(entry: &Entry) -> Fact {
    (entry.term, entry.data.to_vec())
}

#[derive(Default)]
pub(crate) struct Checker {
    /// Who leads a term of a group.
    leaders: BTreeMap<(u64, u64), u64>,
    /// Whom a node voted for in a term of a group, as it said to others.
    votes: BTreeMap<(u64, u64, u64), u64>,
    /// The highest term that a node has spoken in.
    spoken: BTreeMap<(u64, u64), u64>,
    /// What is committed, by group and index: applied by anybody.
    committed: BTreeMap<u64, BTreeMap<u64, Fact>>,
    /// By which term it was committed at the latest.
    committed_by: BTreeMap<(u64, u64), u64>,
    /// Up to which index a node has acknowledged entries that it has not overwritten since, by
    /// group and node.
    promised: BTreeMap<(u64, u64), u64>,
    /// The entries by which a node has changed its configuration, by group and node.
    changed: BTreeMap<(u64, u64), BTreeSet<u64>>,
}

impl Checker {
    /// A node believes that it leads. `has` says of which term its entry at an index is, `None` where
    /// that is compacted.
    pub(crate) fn leads(&mut self, group: u64, term: u64, node: u64, has: impl Fn(u64) -> Option<u64>) {
        if let Some(&leader) = self.leaders.get(&(group, term)) {
            assert_eq!(leader, node, "group {group} has two leaders in term {term}");
            return;
        }
        self.leaders.insert((group, term), node);
        for (index, entry) in self.committed.get(&group).into_iter().flatten() {
            if self.committed_by[&(group, *index)] < term
                && let Some(own) = has(*index)
            {
                assert_eq!(own, entry.0, "group {group}: node {node} leads without committed entry {index}");
            }
        }
    }

    pub(crate) fn elections(&self) -> u64 {
        self.leaders.len() as u64
    }

    /// A node sends a message: what it says there it must still know after a crash.
    pub(crate) fn sends(&mut self, group: u64, message: &Message) {
        let (from, term) = (message.from, message.term);
        let vote = match message.get_msg_type() {
            MessageType::MsgRequestPreVote | MessageType::MsgRequestPreVoteResponse => return,
            // Forwarded in another's name.
            MessageType::MsgTransferLeader | MessageType::MsgPropose | MessageType::MsgReadIndex => return,
            MessageType::MsgRequestVote => Some(from),
            MessageType::MsgRequestVoteResponse if !message.reject => Some(message.to),
            _ => None,
        };
        if let Some(vote) = vote {
            let first = *self.votes.entry((group, from, term)).or_insert(vote);
            assert_eq!(first, vote, "group {group}: node {from} voted twice in term {term}");
        }
        let spoken = self.spoken.entry((group, from)).or_default();
        *spoken = (*spoken).max(term);
    }

    /// A node says that it has the entries up to this one, and will have them after a crash.
    pub(crate) fn acknowledges(&mut self, group: u64, node: u64, index: u64) {
        let promised = self.promised.entry((group, node)).or_default();
        *promised = (*promised).max(index);
    }

    /// A node is about to overwrite entries, and may or may not have done so when it crashes. Its
    /// log ends here then.
    pub(crate) fn overwrites(&mut self, group: u64, node: u64, last: u64) {
        let promised = self.promised.entry((group, node)).or_default();
        *promised = (*promised).min(last);
    }

    /// A node takes the configuration of this entry for the present one.
    pub(crate) fn changes(&mut self, group: u64, node: u64, index: u64) {
        self.changed.entry((group, node)).or_default().insert(index);
    }

    /// A node has come back with this hard state, with entries up to `last`, and a state machine
    /// that has applied some.
    pub(crate) fn restarts(&self, group: u64, node: u64, state: &HardState, last: u64, applied: u64) {
        let (term, vote) = (state.term, state.vote);
        let known = state.commit.max(applied);
        let forgotten = self.changed.get(&(group, node)).map_or(0, |c| c.range(known + 1..).count());
        assert!(
            forgotten <= 1,
            "group {group}: node {node} would campaign in a configuration that is {forgotten} changes old"
        );
        let promised = self.promised.get(&(group, node)).copied().unwrap_or(0);
        assert!(
            last >= promised,
            "group {group}: node {node} acknowledged entry {promised}, and came back with {last}"
        );
        let spoken = self.spoken.get(&(group, node)).copied().unwrap_or(0);
        assert!(term >= spoken, "group {group}: node {node} spoke in term {spoken}, and came back in {term}");
        if let Some(&told) = self.votes.get(&(group, node, term)) {
            assert_eq!(vote, told, "group {group}: node {node} has forgotten its vote in term {term}");
        }
    }

    /// A node applies an entry, in this term.
    pub(crate) fn applies(&mut self, group: u64, index: u64, fact: &Fact, term: u64) {
        let by = self.committed_by.entry((group, index)).or_insert(term);
        *by = term.min(*by);
        let committed = self.committed.entry(group).or_default();
        let first = committed.entry(index).or_insert_with(|| fact.clone());
        assert_eq!(first, fact, "group {group}: entry {index} was committed twice, and not the same");
    }

    pub(crate) fn committed(&self, group: u64) -> Option<&BTreeMap<u64, Fact>> {
        self.committed.get(&group)
    }

    pub(crate) fn commits(&self) -> u64 {
        self.committed.values().map(|c| c.len() as u64).sum()
    }

    /// Logs that agree on an entry agree on everything before it.
    pub(crate) fn logs_match(group: u64, a: &BTreeMap<u64, Fact>, b: &BTreeMap<u64, Fact>) {
        let mut agreed = false;
        for (index, entry) in a.iter().rev() {
            let Some(other) = b.get(index) else { continue };
            agreed |= entry.0 == other.0;
            assert!(
                !agreed || entry == other,
                "group {group}: the logs agree after entry {index}, and not on it"
            );
        }
    }
}
