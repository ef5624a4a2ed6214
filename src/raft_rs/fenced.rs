//! What a replica that is fenced may still do.

use super::codec::{encode_conf_state, encode_entry, encode_hard_state, id_of};
use super::storage::{CONF_STATE, RegionStorage};
use crate::healing::{Healer, Standing};
use crate::{Durability, EntryId, Error, ErrorKind, Result, WriteBatch};
use raft::prelude::{HardState, Message, MessageType};

/// In place of a `RawNode`, while the replica is [fenced]: it votes, and takes an append or a snapshot of a
/// leader that replaces what cannot be read here. It neither acknowledges nor campaigns, and never reads a
/// payload. One that is [unsure](Standing::Unsure) does not vote either, and takes snapshots only.
///
/// A `RawNode` would read committed entries to apply them, and panic over those that are damaged. When the
/// [`Healer`] says that the replica is whole, drop this and start one.
///
/// [fenced]: crate::healing::Standing::Fenced
///
/// It knows of no leader, and votes at once for whom it may vote for. Where reads go by a leader's lease,
/// wait for an election timeout after the start before handing it a message; where they do by raft's own
/// (`ReadOnlyOption::LeaseBased`, which counts each that answers), hand it no request for a vote for so long
/// after a message of a leader either.
///
/// # Snapshots
/// Where no peer has a copy, for they have compacted the entry, only a snapshot helps:
/// [`request_snapshot`](Self::request_snapshot) lets the voter ask the leader for one. Of a message that
/// [`takes`](Self::takes) says yes to, the state machine takes the snapshot, durably, unless it is further
/// already; then [`install`](Self::install) makes the log fit. After a crash between the two, the log is as
/// it was, and [`RegionStorage::recover`] or the next snapshot makes it fit.
///
/// What the state machine has applied durably needs no copy: compact the log through that before anything
/// else.
///
/// ```
/// use raft::prelude::{Message, MessageType};
/// use raftwood::raft_rs::{FencedVoter, RegionStorage};
/// use raftwood::{Engine, RegionId};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// let engine = Engine::open(dir.path())?;
/// let mut voter = FencedVoter::new(RegionStorage::new(&engine, RegionId(7)), 1)?;
/// // What came from a peer.
/// let mut request = Message { from: 2, to: 1, term: 5, ..Default::default() };
/// request.set_msg_type(MessageType::MsgRequestVote);
/// // What goes back: the vote is durable by now.
/// let vote = voter.step(&request)?.ok_or("no answer")?;
/// assert_eq!((vote.to, vote.term, vote.reject), (2, 5, false));
/// // Another candidate of that term does not get it.
/// request.from = 3;
/// assert!(voter.step(&request)?.is_some_and(|answer| answer.reject));
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct FencedVoter {
    storage: RegionStorage,
    healer: Healer,
    id: u64,
    hard_state: HardState,
    /// What leaders have said to be committed.
    committed: u64,
    requests_snapshot: bool,
}

/// What a snapshot does to the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fit {
    /// The log has its last entry, and goes on after it.
    Compact,
    /// The log ends before it, or has another entry there, or ends with one that nobody can name.
    Reset,
}

impl FencedVoter {
    /// For the replica `id` of the region.
    ///
    /// # Errors
    /// `HardStateLost` for one whose hard state is lost: it does not come back.
    pub fn new(storage: RegionStorage, id: u64) -> Result<FencedVoter> {
        let region = storage.region().id();
        let healer = Healer::new(storage.engine(), region);
        let hard_state = match healer.standing() {
            Standing::HardStateLost => {
                return Err(Error::new(
                    ErrorKind::HardStateLost,
                    "the replica may not vote, for its term and vote are lost; \
                     remove it from the group, and let it come back under another peer id",
                )
                .in_region(region));
            }
            // The term of the last entry may be lost. It does not vote.
            Standing::Unsure => storage.hard_state()?,
            _ => storage.start_state().map_err(|e| e.in_region(region))?.hard_state,
        };
        Ok(FencedVoter { storage, healer, id, hard_state, committed: 0, requests_snapshot: false })
    }

    /// Takes a message, and returns the one to send for it. What that says is durable on return; after a
    /// crash in between, nothing was said.
    ///
    /// | message | what it does |
    /// |---|---|
    /// | append or heartbeat of a leader of the past | says its own term, so that this leader gives up |
    /// | request for a vote, or a pre-vote | answers as raft does |
    /// | append that meets the log before all that is damaged, and replaces that | takes it, without an answer: the replica is whole then |
    /// | append that does not meet the log | declines it, so that the leader goes further back |
    /// | any other append, or a heartbeat, after [`request_snapshot`](Self::request_snapshot) | asks the leader for a snapshot |
    /// | any other heartbeat | says that it is there, and confirms no read |
    /// | all else | nothing; of a snapshot, [`takes`](Self::takes) says what to do |
    ///
    /// One that is unsure does the first, the fifth and the sixth, and nothing else.
    ///
    /// # Errors
    /// Those of writing, and `Damaged` where a leader's entry would replace a committed one.
    pub fn step(&mut self, message: &Message) -> Result<Option<Message>> {
        if message.to != self.id {
            return Ok(None);
        }
        let may_vote = self.healer.standing().may_vote();
        match message.get_msg_type() {
            MessageType::MsgAppend | MessageType::MsgHeartbeat if message.term < self.hard_state.term => {
                Ok(Some(self.say_the_term(message)))
            }
            MessageType::MsgRequestVote if may_vote => self.vote(message).map(Some),
            MessageType::MsgRequestPreVote if may_vote => Ok(Some(self.pre_vote(message)?)),
            MessageType::MsgAppend if may_vote => match self.append(message)? {
                None => self.request(message),
                declined => Ok(declined),
            },
            MessageType::MsgAppend => self.request(message),
            MessageType::MsgHeartbeat => match self.request(message)? {
                None => self.say_that_it_is_there(message).map(Some),
                asked => Ok(asked),
            },
            _ => Ok(None),
        }
    }

    /// A leader that waits for the answer to an append that was lost sends no other, and no snapshot to a
    /// follower that it has not heard of: a heartbeat is answered for that. Without the heartbeat's context
    /// it confirms no read.
    fn say_that_it_is_there(&mut self, m: &Message) -> Result<Message> {
        self.follow(m)?;
        let mut answer = self.response(m, MessageType::MsgHeartbeatResponse, m.term, false);
        answer.commit = self.hard_state.commit.min(self.storage.region().state().last);
        Ok(answer)
    }

    /// A leader of the past gives up when it sees the term, which is durable here, and the group elects
    /// another. A `RawNode` says so too, or campaigns; this one does not campaign, and takes nothing from
    /// that leader.
    fn say_the_term(&self, m: &Message) -> Message {
        self.response(m, MessageType::MsgAppendResponse, self.hard_state.term, false)
    }

    /// From now on, asks the leader for a snapshot that reaches beyond what is committed and cannot be read
    /// here: when all peers were [asked](Healer::question) and none has a copy. A leader is asked for nothing
    /// that it has not committed.
    ///
    /// The leader is asked at each of its messages that would be answered by nothing else, and sends one at a
    /// time. As with raft's own `request_snapshot`, it has to be notified of what became of it
    /// (`report_snapshot`).
    pub fn request_snapshot(&mut self) {
        self.requests_snapshot = true;
    }

    /// Whether the message is a snapshot for this replica: of a leader of the current term, whose term is
    /// durable on return, and beyond some of what cannot be read here. If so, let the state machine take it,
    /// durably, unless that is further already, and [`install`](Self::install) it then.
    ///
    /// Entries that were acknowledged here are never dropped for it: where the log goes on after it, it is
    /// kept, and where nobody can say whether it does, the answer is no.
    ///
    /// # Errors
    /// Those of writing, and `Damaged` where it contradicts a committed entry.
    pub fn takes(&mut self, message: &Message) -> Result<bool> {
        let is_for_us = message.to == self.id && message.get_msg_type() == MessageType::MsgSnapshot;
        if !is_for_us || message.term < self.hard_state.term || self.fit(message)?.is_none() {
            return Ok(false);
        }
        self.follow(message)?;
        Ok(true)
    }

    /// Makes the log fit a snapshot that the state machine has taken durably, durably and in one batch. What
    /// was damaged up to there is gone; whether the replica is whole, its [`Healer`] says. The leader is not
    /// answered: a `RawNode` does that.
    ///
    /// Where the log has another entry in its place, the log is cleared, and listeners are asked for that
    /// entry and those after it ([`before_rollback`](crate::EventListener::before_rollback)). Those that are
    /// damaged are errors in their places.
    ///
    /// # Errors
    /// `InvalidArgument` for a message that [`takes`](Self::takes) says no to. Those of writing: nothing is
    /// changed then.
    pub fn install(&mut self, message: &Message) -> Result<()> {
        let region = self.storage.region().id();
        let fit = if self.takes(message)? { self.fit(message)? } else { None };
        let Some(fit) = fit else {
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                "snapshot refused: it is of a leader of the past, or does not reach what is damaged here",
            )
            .in_region(region));
        };
        let meta = message.get_snapshot().get_metadata();
        let mut batch = self.storage.engine().batch();
        match fit {
            Fit::Compact => batch.region(region).compact_through(meta.index)?,
            Fit::Reset => batch.region(region).reset(EntryId::new(meta.term, meta.index))?,
        };
        if self.storage.conf_state()?.is_none_or(|(index, _)| index < meta.index) {
            let conf_state = encode_conf_state(meta.index, meta.get_conf_state());
            batch.region(region).put(CONF_STATE, &conf_state)?;
        }
        let mut state = self.hard_state.clone();
        state.commit = state.commit.max(meta.index);
        self.write(batch, state)
    }

    /// What the snapshot does to the log; `None` where it does not help, or not for certain.
    fn fit(&self, m: &Message) -> Result<Option<Fit>> {
        let meta = m.get_snapshot().get_metadata();
        let conf = meta.get_conf_state();
        let mut members =
            conf.get_voters().iter().chain(conf.get_learners()).chain(conf.get_voters_outgoing());
        let open = self.healer.open().first().map(|range| *range.start());
        if open.is_none_or(|open| meta.index < open) || members.all(|id| *id != self.id) {
            return Ok(None);
        }
        let region = self.storage.region();
        let last = region.state().last;
        Ok(match region.term(meta.index) {
            _ if meta.index > last => Some(Fit::Reset),
            Ok(term) if term == meta.term => Some(Fit::Compact),
            Ok(_) if meta.index <= self.hard_state.commit => {
                return Err(contradicts(m.term, meta.index).in_region(region.id()));
            }
            Ok(_) => Some(Fit::Reset),
            // Where nobody can say whether the log goes on after it, what was acknowledged is kept.
            Err(_) => (meta.index == last).then_some(Fit::Reset),
        })
    }

    fn request(&mut self, m: &Message) -> Result<Option<Message>> {
        self.committed = self.committed.max(m.commit).max(self.hard_state.commit);
        let last = self.storage.region().state().last;
        let open = self.healer.open().into_iter().rev().find(|range| *range.start() <= self.committed);
        let lost = match self.healer.standing() {
            // Only beyond its end it is certain what a snapshot replaces.
            Standing::Unsure => Some(last).filter(|last| *last <= self.committed),
            _ => open.map(|range| self.committed.min(*range.end())),
        };
        let Some(lost) = lost.filter(|_| self.requests_snapshot) else { return Ok(None) };
        self.follow(m)?;
        let mut request = self.response(m, MessageType::MsgAppendResponse, m.term, true);
        (request.index, request.reject_hint, request.request_snapshot) = (last, last, lost);
        request.log_term = self.storage.region().term(last).unwrap_or(0);
        Ok(Some(request))
    }

    /// Makes the term of a leader's message durable.
    fn follow(&mut self, m: &Message) -> Result<()> {
        let mut state = self.hard_state.clone();
        raise(&mut state, m.term);
        self.persist(state)
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
        let Some(open) = open else { return Ok(None) };
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
            return Err(contradicts(m.term, first).in_region(region.id()));
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

fn contradicts(term: u64, index: u64) -> Error {
    Error::new(
        ErrorKind::Damaged,
        format!(
            "a leader of term {term} would replace entry {index}, which is committed here: \
         the two do not belong to one group"
        ),
    )
    .naming(index..=index)
}
