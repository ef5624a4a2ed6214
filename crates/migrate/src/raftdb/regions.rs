//! The regions of a raftdb: what the keys say of each, and whether that can be.

use super::keys::Key;
use crate::failure::{self, Failure};
use crate::store::Pair;
use crate::tikv::kv::{ApplyState, PREPARE_BOOTSTRAP_KEY, STORE_IDENT_KEY};
use crate::tikv::kv::{apply_state, apply_state_key, region_state_key};
use crate::tikv::{LocalState, RAFT_STATE_KEY, local_state};
use raftwood::EntryId;
use std::collections::BTreeMap;

/// A region, as it is copied.
pub(super) struct Region {
    pub(super) log: Option<Log>,
    /// The last entry that was compacted away, if an apply state names it.
    pub(super) base: Option<EntryId>,
    /// Its states, sorted, under the keys that TiKV has for them in raft-engine.
    pub(super) pairs: Vec<Pair>,
}

/// Where a region's entries are.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Log {
    pub(super) store: usize,
    pub(super) family: String,
    pub(super) first: u64,
    pub(super) last: u64,
}

/// What the keys say.
#[derive(Default)]
pub(super) struct Found {
    /// Under region 0, which is no region's.
    of_store: Vec<Pair>,
    regions: BTreeMap<u64, Parts>,
}

#[derive(Default)]
struct Parts {
    log: Option<Log>,
    raft_state: Option<Vec<u8>>,
    apply_state: Option<Vec<u8>>,
    region_state: Option<Vec<u8>>,
}

impl Found {
    /// A key with its value, of a column family of a store. Of a region's entries the first and the last.
    pub(super) fn take(
        &mut self,
        (store, family): (usize, &str),
        key: Key,
        value: &[u8],
    ) -> failure::Result<()> {
        match key {
            Key::StoreIdent => self.take_of_store(STORE_IDENT_KEY, value),
            Key::PrepareBootstrap => self.take_of_store(PREPARE_BOOTSTRAP_KEY, value),
            Key::Entry { region, index } => self.take_entry((store, family), region, index),
            Key::RaftState { region } => put(region, &mut self.parts(region)?.raft_state, value),
            Key::ApplyState { region } => put(region, &mut self.parts(region)?.apply_state, value),
            Key::RegionState { region } => put(region, &mut self.parts(region)?.region_state, value),
            Key::SnapshotRaftState { region } => Err(Failure::in_region(
                region,
                "a snapshot was being applied when TiKV ended: start TiKV again, and end it once it is done",
            )),
        }
    }

    fn take_of_store(&mut self, key: &[u8], value: &[u8]) -> failure::Result<()> {
        match self.of_store.iter().find(|(there, _)| there == key) {
            Some((_, there)) if there != value => Err(Failure::Wrong(
                "the two stores name different StoreIdents: they are not of one TiKV".to_owned(),
            )),
            Some(_) => Ok(()),
            None => {
                self.of_store.push((key.to_vec(), value.to_vec()));
                Ok(())
            }
        }
    }

    fn take_entry(&mut self, (store, family): (usize, &str), region: u64, index: u64) -> failure::Result<()> {
        match &mut self.parts(region)?.log {
            Some(log) if (log.store, log.family.as_str()) != (store, family) => {
                Err(Failure::in_region(region, "it has entries in two places"))
            }
            Some(log) => {
                log.last = index;
                Ok(())
            }
            log => {
                *log = Some(Log { store, family: family.to_owned(), first: index, last: index });
                Ok(())
            }
        }
    }

    fn parts(&mut self, region: u64) -> failure::Result<&mut Parts> {
        match region {
            0 => {
                Err(Failure::in_region(0, "TiKV has no such region, and keeps under it what is the store's"))
            }
            region => Ok(self.regions.entry(region).or_default()),
        }
    }

    /// The regions, and the store's own keys under region 0, if they can be so.
    pub(super) fn checked(mut self) -> failure::Result<BTreeMap<u64, Region>> {
        let mut regions = BTreeMap::new();
        for (id, parts) in self.regions {
            regions.insert(id, parts.checked().map_err(|why| Failure::in_region(id, why))?);
        }
        self.of_store.sort();
        if !self.of_store.is_empty() {
            regions.insert(0, Region { log: None, base: None, pairs: self.of_store });
        }
        if regions.is_empty() {
            let why = "there is nothing of TiKV's in the source: is it a raftdb?";
            return Err(Failure::Wrong(why.to_owned()));
        }
        Ok(regions)
    }
}

fn put(region: u64, state: &mut Option<Vec<u8>>, value: &[u8]) -> failure::Result<()> {
    match state.replace(value.to_vec()) {
        None => Ok(()),
        Some(_) => Err(Failure::in_region(region, "one of its states is there twice")),
    }
}

impl Parts {
    fn checked(self) -> Result<Region, String> {
        let applied = self.apply_state.as_deref().map(apply_state).transpose()?;
        let local = self.raft_state.as_deref().map(local_state).transpose()?;
        let log = entries_that_count(self.log, local.as_ref(), applied)?;
        // As of which index TiKV keeps a state in raft-engine is part of its key there.
        let index = applied.unwrap_or_default().applied_index;
        let pairs = [
            (region_state_key(index), self.region_state),
            (apply_state_key(index), self.apply_state),
            (RAFT_STATE_KEY.to_vec(), self.raft_state),
        ];
        let pairs = pairs.into_iter().filter_map(|(key, value)| Some((key, value?))).collect();
        let base = applied.filter(|applied| applied.truncated_index > 0);
        let base = base.map(|applied| EntryId::new(applied.truncated_term, applied.truncated_index));
        Ok(Region { log, base, pairs })
    }
}

/// The log that TiKV would go on with: after the truncated index, up to the raft state's last.
fn entries_that_count(
    log: Option<Log>,
    local: Option<&LocalState>,
    applied: Option<ApplyState>,
) -> Result<Option<Log>, String> {
    let Some(local) = local else {
        return match log {
            Some(log) => Err(format!("entries {} to {} are there without a raft state", log.first, log.last)),
            None => Ok(None),
        };
    };
    let last = local.last_index;
    let log = match applied.map(|applied| applied.truncated_index) {
        None => log,
        Some(truncated) => {
            let first = truncated.saturating_add(1);
            if last < truncated {
                return Err(format!("its log ends with entry {last} and was truncated at {truncated}"));
            }
            // Below it stands what has not been removed yet.
            let log = log.filter(|log| log.last >= first);
            match &log {
                None if last > truncated => return Err(format!("entries {first} to {last} are missing")),
                Some(log) if log.first > first => {
                    return Err(format!("entries {first} to {} are missing", log.first - 1));
                }
                _ => log.map(|log| Log { first: log.first.max(first), ..log }),
            }
        }
    };
    match &log {
        Some(log) if log.last != last => {
            Err(format!("its last entry is {}, and by its raft state it is {last}", log.last))
        }
        _ => Ok(log),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// First and last of the log that counts, of entries `there`, with a raft state that ends with `last` and
    /// an apply state that was truncated at `truncated`.
    fn counts(
        there: Option<(u64, u64)>,
        last: Option<u64>,
        truncated: Option<u64>,
    ) -> Result<Option<(u64, u64)>, ()> {
        let log = there.map(|(first, last)| Log { store: 0, family: String::new(), first, last });
        let local = last.map(|last_index| LocalState { last_index, ..LocalState::default() });
        let applied =
            truncated.map(|truncated_index| ApplyState { truncated_index, ..ApplyState::default() });
        entries_that_count(log, local.as_ref(), applied)
            .map(|log| log.map(|log| (log.first, log.last)))
            .map_err(drop)
    }

    #[test]
    fn what_counts_of_a_log_and_what_cannot_be() {
        let whole = Some((6, 20));
        let table = [
            (whole, Some(20), Some(5), Ok(whole)),
            (whole, Some(20), None, Ok(whole)),
            (whole, Some(20), Some(9), Ok(Some((10, 20)))),
            (whole, Some(20), Some(20), Ok(None)),
            (None, Some(20), Some(20), Ok(None)),
            // Without an apply state it is not known where the log should begin.
            (None, Some(20), None, Ok(None)),
            (None, None, None, Ok(None)),
            (None, None, Some(5), Ok(None)),
            (whole, None, Some(5), Err(())),
            (whole, Some(20), Some(4), Err(())),
            (None, Some(20), Some(19), Err(())),
            (whole, Some(19), Some(5), Err(())),
            (whole, Some(21), Some(5), Err(())),
            (whole, Some(21), None, Err(())),
            (whole, Some(20), Some(21), Err(())),
            (Some((u64::MAX, u64::MAX)), Some(u64::MAX), Some(u64::MAX - 1), Ok(Some((u64::MAX, u64::MAX)))),
        ];
        for (there, last, truncated, expected) in table {
            assert_eq!(counts(there, last, truncated), expected, "{there:?} {last:?} {truncated:?}");
        }
    }
}
