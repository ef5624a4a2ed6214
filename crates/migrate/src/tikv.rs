//! What TiKV keeps under keys in raft-engine, as far as it is the Raft library's.

use protobuf::wire_format::WireType;
use protobuf::{CodedInputStream, ProtobufError, ProtobufResult};
use raft_proto::eraftpb::HardState;

/// The keys, as `components/raft_log_engine/src/engine.rs` of tikv/tikv has them (read at commit 00d3d9ae).
/// That of a region's `RaftLocalState`.
pub(crate) const RAFT_STATE_KEY: &[u8] = b"R";

/// A `RaftLocalState`, as far as it is known here.
#[derive(Clone, PartialEq, Debug, Default)]
pub(crate) struct LocalState {
    /// Field 1.
    pub(crate) hard_state: HardState,
    /// Field 2: the index of the last entry, or that of the snapshot that stands for it.
    #[cfg_attr(
        not(feature = "rocksdb"),
        allow(dead_code, reason = "raft-engine knows its last entry itself")
    )]
    pub(crate) last_index: u64,
}

/// Parses a `RaftLocalState`.
pub(crate) fn local_state(value: &[u8]) -> Result<LocalState, String> {
    let mut state = LocalState::default();
    fields(value, |field, wire, input| {
        match (field, wire) {
            (1, WireType::WireTypeLengthDelimited) => input.merge_message(&mut state.hard_state)?,
            (2, WireType::WireTypeVarint) => state.last_index = input.read_uint64()?,
            (_, wire) => input.skip_field(wire)?,
        }
        Ok(())
    })
    .map_err(|e| format!("the value of its raft state is no RaftLocalState: {e}"))?;
    Ok(state)
}

/// Gives each field of a message to `each`, which has to read or skip it.
fn fields(
    value: &[u8],
    mut each: impl FnMut(u32, WireType, &mut CodedInputStream<'_>) -> ProtobufResult<()>,
) -> Result<(), ProtobufError> {
    let mut input = CodedInputStream::from_bytes(value);
    while !input.eof()? {
        let (field, wire) = input.read_tag_unpack()?;
        each(field, wire, &mut input)?;
    }
    Ok(())
}

/// What the kv store of a raftstore keeps beside the log.
#[cfg(feature = "rocksdb")]
pub(crate) mod kv {
    use super::{WireType, fields};

    /// That of the `StoreIdent`, in region 0.
    pub(crate) const STORE_IDENT_KEY: &[u8] = &[0x01];
    /// That of the region of a bootstrap that has not ended, in region 0.
    pub(crate) const PREPARE_BOOTSTRAP_KEY: &[u8] = &[0x02];
    /// Those of a `RegionLocalState` and a `RaftApplyState` end in the index that was applied with them.
    const REGION_STATE: u8 = 0x03;
    const APPLY_STATE: u8 = 0x04;

    /// The key of a region's `RegionLocalState` as of an applied index.
    pub(crate) fn region_state_key(applied: u64) -> Vec<u8> {
        [&[REGION_STATE][..], &applied.to_be_bytes()].concat()
    }

    /// The key of a region's `RaftApplyState` as of an applied index.
    pub(crate) fn apply_state_key(applied: u64) -> Vec<u8> {
        [&[APPLY_STATE][..], &applied.to_be_bytes()].concat()
    }

    /// A `RaftApplyState`, as far as it is known here.
    #[derive(Clone, Copy, PartialEq, Debug, Default)]
    pub(crate) struct ApplyState {
        /// Field 1.
        pub(crate) applied_index: u64,
        /// Field 1 of field 2: the last index that was compacted away.
        pub(crate) truncated_index: u64,
        /// Field 2 of field 2: its term.
        pub(crate) truncated_term: u64,
    }

    /// Parses a `RaftApplyState`.
    pub(crate) fn apply_state(value: &[u8]) -> Result<ApplyState, String> {
        let mut state = ApplyState::default();
        fields(value, |field, wire, input| {
            match (field, wire) {
                (1, WireType::WireTypeVarint) => state.applied_index = input.read_uint64()?,
                (2, WireType::WireTypeLengthDelimited) => {
                    let truncated = input.read_bytes()?;
                    fields(&truncated, |field, wire, input| {
                        match (field, wire) {
                            (1, WireType::WireTypeVarint) => state.truncated_index = input.read_uint64()?,
                            (2, WireType::WireTypeVarint) => state.truncated_term = input.read_uint64()?,
                            (_, wire) => input.skip_field(wire)?,
                        }
                        Ok(())
                    })?;
                }
                (_, wire) => input.skip_field(wire)?,
            }
            Ok(())
        })
        .map_err(|e| format!("the value of its apply state is no RaftApplyState: {e}"))?;
        Ok(state)
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn an_apply_state_is_parsed_and_what_is_none_is_refused() {
            // Applied 1001, truncated at index 900 of term 7, and a field of a later version in each.
            let value = [0x08, 0xe9, 0x07, 0x12, 7, 0x08, 0x84, 0x07, 0x10, 7, 0x18, 1, 0x18, 1];
            let state = ApplyState { applied_index: 1001, truncated_index: 900, truncated_term: 7 };
            assert_eq!(apply_state(&value), Ok(state));
            assert_eq!(apply_state(b""), Ok(ApplyState::default()));
            for wrong in [&b"\x12\x09x"[..], b"\xff", b"\x12\x01\x08"] {
                assert!(apply_state(wrong).is_err(), "{wrong:?}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use protobuf::Message;

    #[test]
    fn a_local_state_is_parsed_and_what_is_none_is_refused() {
        let hard_state = HardState { term: 300, vote: 2, commit: 1000, ..HardState::default() };
        let inner = hard_state.write_to_bytes().unwrap();
        // Field 1, then field 2 with the last index, then one of a later version.
        let mut value = vec![0x0a, inner.len() as u8];
        value.extend_from_slice(&inner);
        value.extend_from_slice(&[0x10, 0xe9, 0x07, 0x1a, 1, 0]);
        assert_eq!(local_state(&value), Ok(LocalState { hard_state, last_index: 1001 }));
        assert_eq!(local_state(b""), Ok(LocalState::default()));
        for wrong in [&b"\x0a\x09x"[..], b"\xff", b"term 1"] {
            assert!(local_state(wrong).is_err(), "{wrong:?}");
        }
    }
}
