//! What TiKV keeps under keys in raft-engine, as far as it is the Raft library's.

use protobuf::CodedInputStream;
use raft_proto::eraftpb::HardState;

/// The key of a region's `RaftLocalState`.
pub(crate) const RAFT_STATE_KEY: &[u8] = b"R";

/// The hard state in a `RaftLocalState`: its field 1, beside the last index in field 2.
pub(crate) fn hard_state(value: &[u8]) -> Result<HardState, String> {
    let parse = || {
        let mut input = CodedInputStream::from_bytes(value);
        let mut state = HardState::default();
        while !input.eof()? {
            match input.read_tag_unpack()? {
                (1, protobuf::wire_format::WireTypeLengthDelimited) => input.merge_message(&mut state)?,
                (_, wire) => input.skip_field(wire)?,
            }
        }
        Ok(state)
    };
    parse().map_err(|e: protobuf::ProtobufError| {
        format!("the key {:?} holds no RaftLocalState: {e}", String::from_utf8_lossy(RAFT_STATE_KEY))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use protobuf::Message;

    #[test]
    fn the_hard_state_is_read_out_of_a_local_state_and_what_is_none_is_refused() {
        let state = HardState { term: 300, vote: 2, commit: 1000, ..HardState::default() };
        let inner = state.write_to_bytes().unwrap();
        // Field 1, then field 2 with the last index, then one of a later version.
        let mut value = vec![0x0a, inner.len() as u8];
        value.extend_from_slice(&inner);
        value.extend_from_slice(&[0x10, 0xe9, 0x07, 0x1a, 1, 0]);
        assert_eq!(hard_state(&value), Ok(state));
        assert_eq!(hard_state(b""), Ok(HardState::default()));
        for wrong in [&b"\x0a\x09x"[..], b"\xff", b"term 1"] {
            assert!(hard_state(wrong).is_err(), "{wrong:?}");
        }
    }
}
