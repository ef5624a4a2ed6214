//! What listeners are notified of later, where none may be called: under a lock, or on a thread that others
//! wait for.

use crate::index::Table;
use crate::listener::{Event, Listeners};
use crate::planted::{Bug, planted};
use crate::report::Health;
use crate::sync::Arc;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Segments that were rotated, and regions whose health changed.
pub(crate) struct News {
    pub(crate) table: Arc<Table>,
    pub(crate) listeners: Arc<Listeners>,
}

impl News {
    /// Notifies the listeners: called by a thread that has no lock, after what may have made news. A listener
    /// that panics does not fail what was done before.
    pub(crate) fn deliver(&self) {
        if !self.listeners.is_heard() {
            return;
        }
        let deliver = || {
            self.listeners.deliver_rotated();
            for region in self.table.take_changed() {
                let health = self.table.get(region).map_or(Health::Healthy, |cell| cell.read().health());
                self.listeners.deliver(&Event::HealthChanged { region, health: &health });
            }
        };
        if planted(Bug::NewsFailWrites) {
            return deliver();
        }
        drop(catch_unwind(AssertUnwindSafe(deliver)));
    }
}
