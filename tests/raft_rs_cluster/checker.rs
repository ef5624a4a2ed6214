//! Raft's safety properties, watched from outside.

use raft::prelude::{Entry, Message, MessageType};
use std::collections::BTreeMap;

/// What an entry is, for comparison.
pub(crate) type Fact = (u64, Vec<u8>);

pub(crate) fn fact(entry: &Entry) -> Fact {
    (entry.term, entry.data.to_vec())
}

#[derive(Default)]
pub(crate) struct Checker {
    /// Who leads a term of a group.
    leaders: BTreeMap<(u64, u64), u64>,
    /// Whom a node voted for in a term of a group, as it told others.
    votes: BTreeMap<(u64, u64, u64), u64>,
    /// The highest term that a node has spoken in.
    spoken: BTreeMap<(u64, u64), u64>,
    /// What is committed, by group and index: applied by anybody.
    committed: BTreeMap<u64, BTreeMap<u64, Fact>>,
}

impl Checker {
    /// A node believes that it leads.
    pub(crate) fn leads(&mut self, group: u64, term: u64, node: u64) {
        let leader = *self.leaders.entry((group, term)).or_insert(node);
        assert_eq!(leader, node, "group {group} has two leaders in term {term}");
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

    /// A node has come back with this term and vote.
    pub(crate) fn restarts(&self, group: u64, node: u64, term: u64, vote: u64) {
        let spoken = self.spoken.get(&(group, node)).copied().unwrap_or(0);
        assert!(term >= spoken, "group {group}: node {node} spoke in term {spoken}, and came back in {term}");
        if let Some(&told) = self.votes.get(&(group, node, term)) {
            assert_eq!(vote, told, "group {group}: node {node} has forgotten its vote in term {term}");
        }
    }

    /// A node applies an entry.
    pub(crate) fn applies(&mut self, group: u64, index: u64, fact: &Fact) {
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
                "group {group}: the logs agree behind entry {index}, and not on it"
            );
        }
    }
}
