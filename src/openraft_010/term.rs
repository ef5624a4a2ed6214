//! The term of an entry, which the engine needs as a number.

use openraft010::NodeId;
use openraft010::vote::{RaftTerm, leader_id_adv, leader_id_std};

/// What an entry's leader id says about its term. Both kinds of leader id that openraft comes with know it;
/// implement it for one of your own.
pub trait LeaderTerm {
    /// The term, if it is no less than 0 and fits. It must not fall from one leader to the next.
    fn leader_term(&self) -> Option<u64>;
}

impl<T: RaftTerm> LeaderTerm for leader_id_std::CommittedLeaderId<T> {
    fn leader_term(&self) -> Option<u64> {
        self.term.as_u64()
    }
}

impl<T: RaftTerm, N: NodeId> LeaderTerm for leader_id_adv::LeaderId<T, N> {
    fn leader_term(&self) -> Option<u64> {
        self.term.as_u64()
    }
}
