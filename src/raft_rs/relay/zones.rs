//! Which zone each store is in.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

/// Which zone each store is in, as a server says: shared by all groups of a process, and only read by them.
/// Cheap to clone.
///
/// A zone is a name; those that are equal are one zone. Where nothing is known of a store, it is sent to
/// directly; where nothing is known of the leader's own, all are.
///
/// ```
/// use raftwood::raft_rs::Zones;
///
/// let (updates, zones) = Zones::shared();
/// assert_eq!(zones.snapshot().zone_of(3), None);
/// updates.replace([(1, "west"), (2, "east"), (3, "east")]);
/// assert_eq!(zones.snapshot().zone_of(3), Some("east"));
/// ```
#[derive(Clone)]
pub struct Zones(Arc<Mutex<Arc<ZoneMap>>>);

impl fmt::Debug for Zones {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Zones").field(&self.snapshot()).finish()
    }
}

impl Zones {
    /// Nothing is known yet. The first half is for the one that asks the server; the second for every
    /// [`Route`](super::Route).
    pub fn shared() -> (ZoneUpdates, Zones) {
        let zones = Zones(Arc::default());
        (ZoneUpdates(zones.clone()), zones)
    }

    /// What is known now. It does not change; an update replaces it.
    pub fn snapshot(&self) -> Arc<ZoneMap> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The half of [`Zones`] that writes.
#[derive(Debug)]
pub struct ZoneUpdates(Zones);

impl ZoneUpdates {
    /// Replaces all that was known, at once: a store that is not among these is in no zone. Takes effect
    /// with the next messages of every group.
    pub fn replace<Z: Into<Arc<str>>>(&self, stores: impl IntoIterator<Item = (u64, Z)>) {
        let map = ZoneMap(stores.into_iter().map(|(store, zone)| (store, zone.into())).collect());
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(map);
    }
}

/// The zones of all stores at one moment.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ZoneMap(BTreeMap<u64, Arc<str>>);

impl ZoneMap {
    /// The zone of a store, if it is known.
    pub fn zone_of(&self, store: u64) -> Option<&str> {
        self.0.get(&store).map(|zone| &**zone)
    }
}
