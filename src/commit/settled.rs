//! What the end of a stage settles.

use super::completion::Completions;
use super::pending::Pending;
use super::room::Taken;
use crate::sync::Arc;
use std::ops::RangeInclusive;

/// Batches whose outcome is known by the end of a stage.
#[derive(Default)]
pub(super) struct Settled {
    /// Their bytes are in flight no more.
    pub(super) taken: Taken,
    /// Somebody is to be called back.
    pub(super) tickets: bool,
    /// The groups of which something is settled, by durability.
    pub(super) written: Option<RangeInclusive<u64>>,
    pub(super) synced: Option<RangeInclusive<u64>>,
}

impl Settled {
    /// The outcome of the batches that have these bytes, or of the one with a ticket, is known: `Progress` or
    /// the gate says it already, since another thread may deliver it at once.
    pub(super) fn add(&mut self, taken: Taken, ticket: Option<Arc<Pending>>, completions: &Completions) {
        self.taken.join(taken);
        if let Some(pending) = ticket {
            self.tickets = true;
            completions.add(pending);
        }
    }
}
