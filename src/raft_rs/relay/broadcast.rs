//! What goes over the wire between a leader and an agent.

use super::delegated::Delegated;
use crate::{Error, ErrorKind, Result};
use raft::prelude::{Message, MessageType};
use std::collections::BTreeMap;

/// The most appends for neighbours in one [`Broadcast`].
pub const NEIGHBOURS_MAX: usize = 256;

/// From a leader to an agent: what the agent appends, and what it hands on.
///
/// On the wire: the group, as with every raft message; all fields that are here; of each message what the
/// application sends of a [`Message`] anyway. What arrives is not trusted: [`Agent::receive`] calls
/// [`check`](Self::check). Bound the size of a frame before it is decoded.
///
/// [`Agent::receive`]: super::Agent::receive
#[derive(Clone, Debug, PartialEq)]
pub struct Broadcast {
    /// The peer id of the agent. Another replica that the store holds by now refuses it.
    pub to: u64,
    /// The agent's own append, for its `RawNode`. `None` where it has been sent the entries before.
    pub append: Option<Message>,
    /// What it hands on, in this order.
    pub neighbours: Vec<Neighbour>,
}

/// An append that the agent fills in and sends on.
#[derive(Clone, Debug, PartialEq)]
pub struct Neighbour {
    /// The store of the follower or learner `append.message.to`. The agent may not have applied the change
    /// yet by which that peer joined.
    pub store: u64,
    /// Its append, without the entries.
    pub append: Delegated,
}

impl Neighbour {
    /// The peer id.
    pub fn peer(&self) -> u64 {
        self.append.message.to
    }
}

/// From an agent to the leader: nothing was sent to this neighbour. For [`Route::refused`].
///
/// On the wire: the group, and all fields.
///
/// [`Route::refused`]: super::Route::refused
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The peer id of the agent.
    pub from: u64,
    /// The peer id of the leader that had asked.
    pub to: u64,
    /// The leader's term.
    pub term: u64,
    /// The peer id of the neighbour that has to be sent to directly.
    pub neighbour: u64,
}

impl Broadcast {
    /// Whether it is one that a leader makes.
    ///
    /// # Errors
    /// `TooLarge` if there are more than [`NEIGHBOURS_MAX`] neighbours. `InvalidArgument` otherwise: there
    /// are none; they are not all of one leader and term; one is the agent or the leader; a range is empty;
    /// the ranges of one neighbour overlap or do not ascend, as those of a duplicate; a message is no append,
    /// or one for a neighbour has entries. A range beyond the agent's log is no error: its entries may be on
    /// their way.
    pub fn check(&self) -> Result<()> {
        let refuse = |why: String| {
            Err(Error::new(ErrorKind::InvalidArgument, format!("the broadcast to peer {}: {why}", self.to)))
        };
        if self.neighbours.len() > NEIGHBOURS_MAX {
            let why = format!(
                "a broadcast for {} neighbours, of {NEIGHBOURS_MAX} at most (NEIGHBOURS_MAX)",
                self.neighbours.len()
            );
            return Err(Error::new(ErrorKind::TooLarge, why));
        }
        let Some(first) = self.neighbours.first() else { return refuse("it has no neighbours".into()) };
        let leader = leader_of(&first.append.message);
        if let Some(own) = &self.append {
            if own.get_msg_type() != MessageType::MsgAppend {
                return refuse(format!("its own message is a {:?}", own.get_msg_type()));
            }
            if own.to != self.to || leader_of(own) != leader {
                return refuse("its own append is for another peer, or of another leader or term".into());
            }
        }
        let mut ends = BTreeMap::new();
        for Neighbour { append: Delegated { message, last }, .. } in &self.neighbours {
            let to = message.to;
            if message.get_msg_type() != MessageType::MsgAppend || !message.get_entries().is_empty() {
                return refuse(format!("what is for peer {to} is no append, or has entries"));
            }
            if leader_of(message) != leader {
                return refuse(format!("what is for peer {to} is of another leader or term"));
            }
            if to == self.to || to == message.from {
                return refuse(format!("peer {to} is no neighbour, but the agent or the leader"));
            }
            if message.index >= last.index {
                return refuse(format!("what is for peer {to} has no entries to fill in"));
            }
            let before = ends.insert(to, last.index);
            if before.is_some_and(|end| message.index < end) {
                return refuse(format!("what is for peer {to} overlaps with what goes before"));
            }
        }
        Ok(())
    }
}

fn leader_of(message: &Message) -> (u64, u64) {
    (message.from, message.term)
}
