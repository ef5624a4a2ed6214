//! What a replica may do with the log that it has.

use crate::planted::{Bug, planted};
use crate::{HardStateHealth, Health, Region};

/// How far a replica can be trusted with its part in the group: the fence.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Standing {
    /// Nothing is known to be wrong.
    Whole,
    /// Entries are damaged or suspect. Which entries the log has is certain, each with its term, and so is
    /// the hard state.
    Fenced,
    /// Of some entry not even the term is known.
    Unsure,
    /// The newest term or vote may be lost, and acknowledged entries with it.
    HardStateLost,
}

impl Standing {
    /// As far as is known of `region`: damage is found by reading, see [`Healer::look`](super::Healer::look).
    pub(super) fn of(region: &Region) -> Standing {
        let health = region.health();
        if health == Health::Healthy {
            return Standing::Whole;
        }
        match health {
            Health::Damaged { hard_state: HardStateHealth::Lost, .. } if !planted(Bug::VotesWhileUnsure) => {
                Standing::HardStateLost
            }
            Health::Damaged { ranges, .. } | Health::Suspect { ranges } => {
                // Of what can be read the term is known; the last one is what votes go by.
                let mut in_doubt = ranges.into_iter().flatten().chain([region.last_index()]);
                match in_doubt.all(|index| region.term(index).is_ok()) {
                    true => Standing::Fenced,
                    false => Standing::Unsure,
                }
            }
            // Of a health that is not known here nothing is certain.
            _ => Standing::Unsure,
        }
    }

    /// Whether it may vote. It votes by the terms and indexes of its log and by its hard state, and needs no
    /// payload for that; refusing candidates for the sake of an entry that nobody has is safe.
    pub fn may_vote(self) -> bool {
        matches!(self, Standing::Whole | Standing::Fenced)
    }

    /// Whether it may do all else: acknowledge entries, campaign and lead, serve reads, and say
    /// [`DontHave`](super::Says::DontHave).
    pub fn may_serve(self) -> bool {
        self == Standing::Whole
    }
}
