//! What a replica that is fenced may still do.

use super::codec::{encode_entry, encode_hard_state, id_of};
use super::storage::RegionStorage;
use crate::engine::write_batch::WriteBatch;
use crate::error::{Error, Result};
use crate::healing::Healer;
use crate::types::Durability;
use raft::prelude::{HardState, Message, MessageType};
use raft::{Storage, StorageError};

/// In place of a `RawNode`, while the replica is [fenced]: it votes, and takes the append of a leader that
/// replaces all that cannot be read here. It neither acknowledges nor campaigns, and never reads a payload.
///
/// A `RawNode` would read committed entries to apply them, and panic over those that are damaged. When the
/// [`Healer`] says that the replica is whole, drop this and start one.
///
/// [fenced]: crate::healing::Standing::Fenced
///
/// Like a node that has just started, it knows of no leader: where reads go by a leader's lease, wait for an
/// election timeout after the start before handing it a message.
///
/// A snapshot is not for it. Take one into the state machine, call [`RegionStorage::recover`] with its
/// applied index, and compact the log through that: what was damaged up to there is gone.
#[derive(Debug)]
pub struct FencedVoter {
    storage: RegionStorage,
    healer: Healer,
    id: u64,
    hard_state: HardState,
}

impl FencedVoter {
    /// For the replica `id` of the region.
    ///
    /// # Errors
    /// `Damaged` for one that may not vote: of an entry even the term is lost, or the hard state is.
    pub fn new(storage: RegionStorage, id: u64) -> Result<FencedVoter> {
        let region = storage.region().id();
        let healer = Healer::new(storage.engine(), region);
        if !healer.standing().may_vote() {
            return Err(Error::damaged(
                "the replica may not vote: terms of its entries, or its term and vote, are lost; \
                 remove it from the group, and let it come back under another peer id",
            )
            .in_region(region));
        }
        let hard_state = storage.initial_state().map_err(|e| of_raft(e).in_region(region))?.hard_state;
        Ok(FencedVoter { storage, healer, id, hard_state })
    }

    /// Takes a message, and returns the one to send for it. What that says is durable on return; after a
    /// crash in between, nothing was said.
    ///
    /// | message | what it does |
    /// |---|---|
    /// | request for a vote, or a pre-vote | answers as raft does |
    /// | append that meets the log before all that is damaged, and replaces that | takes it, without an answer: the replica is whole then |
    /// | append that does not meet the log | declines it, so that the leader goes further back |
    /// | all else | nothing |
    ///
    /// # Errors
    /// Those of writing, and `Damaged` where a leader's entry would replace a committed one.
    pub fn step(&mut self, message: &Message) -> Result<Option<Message>> {
        if message.to != self.id || !self.healer.standing().may_vote() {
            return Ok(None);
        }
        match message.get_msg_type() {
            MessageType::MsgRequestVote => self.vote(message).map(Some),
            MessageType::MsgRequestPreVote => Ok(Some(self.pre_vote(message)?)),
            MessageType::MsgAppend => self.append(message),
            _ => Ok(None),
        }
    }

    fn vote(&mut self, m: &Message) -> Result<Message> {
        let mut state = self.hard_state.clone();
        raise(&mut state, m.term);
        let may = m.term == state.term && (state.vote == 0 || state.vote == m.from);
        let grants = may && self.is_up_to_date(m)?;
        if grants {
            state.vote = m.from;
        }
        self.persist(state)?;
        Ok(self.response(m, MessageType::MsgRequestVoteResponse, self.hard_state.term, !grants))
    }

    /// Promises nothing, and writes nothing.
    fn pre_vote(&self, m: &Message) -> Result<Message> {
        let state = &self.hard_state;
        let may = m.term > state.term || m.term == state.term && (state.vote == 0 || state.vote == m.from);
        let grants = may && self.is_up_to_date(m)?;
        let term = if grants { m.term } else { state.term };
        Ok(self.response(m, MessageType::MsgRequestPreVoteResponse, term, !grants))
    }

    fn append(&mut self, m: &Message) -> Result<Option<Message>> {
        let (region, log) = (self.storage.region().clone(), self.storage.region().state());
        let mut state = self.hard_state.clone();
        raise(&mut state, m.term);
        let open = self.healer.open().first().map(|range| *range.start());
        let (Some(open), false) = (open, m.term < state.term) else { return Ok(None) };
        let term = |index| region.term(index).ok();
        if m.index > log.last || m.index.saturating_add(1) >= log.first && term(m.index) != Some(m.log_term) {
            self.persist(state)?;
            let mut hint = m.index.min(log.last);
            while hint + 1 > log.first && term(hint).is_none_or(|t| t > m.log_term) {
                hint -= 1;
            }
            let mut declined = self.response(m, MessageType::MsgAppendResponse, m.term, true);
            declined.index = m.index;
            declined.reject_hint = hint;
            declined.log_term = term(hint).unwrap_or(0);
            declined.commit = self.hard_state.commit.min(log.last);
            return Ok(Some(declined));
        }
        let differs =
            m.get_entries().iter().position(|e| e.index >= log.first && term(e.index) != Some(e.term));
        let Some(from) = differs.filter(|&n| m.get_entries()[n].index <= open) else { return Ok(None) };
        let first = m.get_entries()[from].index;
        if first <= state.commit {
            return Err(Error::damaged(format!(
                "a leader of term {} would replace entry {first}, which is committed here: \
                 the two do not belong to one group",
                m.term
            ))
            .in_region(region.id())
            .naming(first..=first));
        }
        let mut batch = self.storage.engine().batch();
        for entry in &m.get_entries()[from..] {
            batch.region(region.id()).append_with(id_of(entry), |out| encode_entry(entry, out))?;
        }
        self.write(batch, state)?;
        Ok(None)
    }

    /// By index and term alone. Entries that are suspect count: another replica may have them.
    fn is_up_to_date(&self, m: &Message) -> Result<bool> {
        let last = self.storage.region().state().last;
        let term = self.storage.region().term(last)?;
        Ok((m.log_term, m.index) >= (term, last))
    }

    fn persist(&mut self, state: HardState) -> Result<()> {
        match state == self.hard_state {
            true => Ok(()),
            false => self.write(self.storage.engine().batch(), state),
        }
    }

    fn write(&mut self, mut batch: WriteBatch, state: HardState) -> Result<()> {
        batch.region(self.storage.region().id()).set_hard_state(&encode_hard_state(&state))?;
        self.storage.engine().write(batch, Durability::Synced)?;
        self.hard_state = state;
        Ok(())
    }

    fn response(&self, m: &Message, kind: MessageType, term: u64, reject: bool) -> Message {
        let mut response = Message::default();
        response.set_msg_type(kind);
        (response.from, response.to, response.term, response.reject) = (self.id, m.from, term, reject);
        response
    }
}

/// In a later term nobody was voted for yet.
fn raise(state: &mut HardState, term: u64) {
    if term > state.term {
        state.term = term;
        state.vote = 0;
    }
}

fn of_raft(error: raft::Error) -> Error {
    match error {
        raft::Error::Store(StorageError::Other(e)) => match e.downcast::<Error>() {
            Ok(error) => *error,
            Err(e) => Error::damaged(format!("the state that raft starts from cannot be had: {e}")),
        },
        e => Error::damaged(format!("the state that raft starts from cannot be had: {e}")),
    }
}
