//! The keys of TiKV's local area in RocksDB, as `components/keys/src/lib.rs` of tikv/tikv defines them (read
//! at commit 01343a87): all begin with 0x01, numbers are big-endian.
//!
//! ```text
//! 01 01                        StoreIdent
//! 01 02                        the region of a bootstrap that has not ended
//! 01 02 region 01 index        an entry
//! 01 02 region 02              RaftLocalState
//! 01 02 region 03              RaftApplyState                    in the column family `raft` of the kv store
//! 01 02 region 04              RaftLocalState of a snapshot that is being applied              likewise
//! 01 03 region 01              RegionLocalState                                                likewise
//! ```
//!
//! The application's keys begin with `z`. What is none of these is refused: an import that skipped what it
//! does not know could not say that it took everything over.

/// A key of the local area.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Key {
    StoreIdent,
    PrepareBootstrap,
    Entry { region: u64, index: u64 },
    RaftState { region: u64 },
    ApplyState { region: u64 },
    SnapshotRaftState { region: u64 },
    RegionState { region: u64 },
}

const LOCAL: u8 = 0x01;
const RAFT: u8 = 0x02;
const META: u8 = 0x03;

const ENTRY: u8 = 0x01;
const RAFT_STATE: u8 = 0x02;
const APPLY_STATE: u8 = 0x03;
const SNAPSHOT_RAFT_STATE: u8 = 0x04;
const REGION_STATE: u8 = 0x01;

/// The application's keys stand from here on, and before [`PAST_DATA`].
pub(super) const DATA: &[u8] = b"z";
pub(super) const PAST_DATA: &[u8] = b"{";

/// What a key is of; `None` for one that is of no known kind.
pub(super) fn parse(key: &[u8]) -> Option<Key> {
    match key {
        [LOCAL, 0x01] => return Some(Key::StoreIdent),
        [LOCAL, 0x02] => return Some(Key::PrepareBootstrap),
        _ => {}
    }
    let (&[LOCAL, area], rest) = key.split_first_chunk()? else { return None };
    let (region, rest) = rest.split_first_chunk()?;
    let region = u64::from_be_bytes(*region);
    match (area, rest) {
        (RAFT, [ENTRY, index @ ..]) => {
            Some(Key::Entry { region, index: u64::from_be_bytes(index.try_into().ok()?) })
        }
        (RAFT, [RAFT_STATE]) => Some(Key::RaftState { region }),
        (RAFT, [APPLY_STATE]) => Some(Key::ApplyState { region }),
        (RAFT, [SNAPSHOT_RAFT_STATE]) => Some(Key::SnapshotRaftState { region }),
        (META, [REGION_STATE]) => Some(Key::RegionState { region }),
        _ => None,
    }
}

/// The key of an entry.
pub(super) fn entry(region: u64, index: u64) -> Vec<u8> {
    [&[LOCAL, RAFT][..], &region.to_be_bytes(), &[ENTRY], &index.to_be_bytes()].concat()
}

/// The key after all entries of a region.
pub(super) fn past_entries(region: u64) -> Vec<u8> {
    [&[LOCAL, RAFT][..], &region.to_be_bytes(), &[RAFT_STATE]].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_parsed_as_they_are_built_and_others_are_refused() {
        let of = |area: u8, rest: &[u8]| [&[1, area][..], &7u64.to_be_bytes(), rest].concat();
        let region = 7;
        let known = [
            (vec![1, 1], Key::StoreIdent),
            (vec![1, 2], Key::PrepareBootstrap),
            (entry(7, 300), Key::Entry { region, index: 300 }),
            (of(2, &[1, 0, 0, 0, 0, 0, 0, 1, 44]), Key::Entry { region, index: 300 }),
            (past_entries(7), Key::RaftState { region }),
            (of(2, &[3]), Key::ApplyState { region }),
            (of(2, &[4]), Key::SnapshotRaftState { region }),
            (of(3, &[1]), Key::RegionState { region }),
        ];
        for (bytes, key) in known {
            assert_eq!(parse(&bytes), Some(key), "{bytes:?}");
            // No prefix of a key, and none that goes on, is another.
            let shorter = bytes[..bytes.len() - 1].to_vec();
            let longer = [&bytes[..], &[0]].concat();
            for wrong in [shorter, longer] {
                assert_eq!(parse(&wrong), None, "{wrong:?}");
            }
        }
        for wrong in [
            &b""[..],
            b"z",
            b"zkey",
            &of(2, &[5, 0, 0, 0, 0, 0, 0, 0, 1]),
            &of(2, &[0]),
            &of(4, &[1]),
            &[1, 3],
        ] {
            assert_eq!(parse(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn entries_of_a_region_stand_together_and_in_order() {
        let keys =
            [entry(1, 0), entry(1, 255), entry(1, 256), entry(1, u64::MAX), past_entries(1), entry(2, 0)];
        assert!(keys.is_sorted());
    }
}
