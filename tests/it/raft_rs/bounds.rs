//! What raft lets through must be what the engine takes.

use super::stores::entry;
use raft::Config;
use raftwood::ErrorKind;
use raftwood::limits::{BATCH_BYTES_MAX, ENTRY_BYTES_MAX};
use raftwood::raft_rs::{PROPOSAL_BYTES_MAX, check_config, check_proposal, encode_entry};

const MIB: u64 = 1 << 20;

fn config(per_message: u64, in_flight: usize, uncommitted: u64) -> Config {
    Config {
        max_size_per_msg: per_message,
        max_inflight_msgs: in_flight,
        max_uncommitted_size: uncommitted,
        ..Config::default()
    }
}

#[test]
fn the_first_limit_that_lets_too_much_through_is_named() {
    let named = |config: &Config, proposal| match check_config(config, proposal) {
        Ok(()) => "none",
        Err(e) if e.kind() == ErrorKind::TooLarge => "the proposal",
        Err(e) if e.to_string().contains("Config::max_uncommitted_size") => "uncommitted",
        Err(e) if e.to_string().contains("Config::max_inflight_msgs") => "in flight",
        Err(e) => panic!("{e}"),
    };
    let batch = BATCH_BYTES_MAX as u64;
    for (config, proposal, expected) in [
        (config(MIB, 256, 512 * MIB), MIB as usize, "none"),
        (config(MIB, 992, 992 * MIB), MIB as usize, "none"),
        (config(MIB, 993, 992 * MIB), MIB as usize, "in flight"),
        // A larger proposal goes alone, in a message of its own.
        (config(MIB, 256, 512 * MIB), 4 * MIB as usize, "in flight"),
        (config(0, 256, 512 * MIB), 3 * MIB as usize, "none"),
        (config(MIB, 256, 993 * MIB), MIB as usize, "uncommitted"),
        (config(MIB, 256, batch), MIB as usize, "uncommitted"),
        (config(u64::MAX, 256, 512 * MIB), 1, "in flight"),
        (Config::default(), 1, "uncommitted"),
        (config(MIB, 1, 512 * MIB), PROPOSAL_BYTES_MAX, "none"),
        (config(MIB, 1, 512 * MIB), PROPOSAL_BYTES_MAX + 1, "the proposal"),
    ] {
        assert_eq!(named(&config, proposal), expected, "{:?}, {proposal}", config.max_inflight_msgs);
    }
}

#[test]
fn the_largest_proposal_is_one_that_the_engine_takes() {
    assert!(check_proposal(PROPOSAL_BYTES_MAX).is_ok());
    let refused = check_proposal(PROPOSAL_BYTES_MAX + 1).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::TooLarge);
    // What is stored beside data and context: one byte, and the length of a context if there is one.
    let mut entry = entry(1, 1);
    for (data, context) in [(0, 0), (1, 0), (0, 1), (1000, 1), (1, 1 << 22), (1 << 22, 1 << 22)] {
        entry.set_data(vec![0; data].into());
        entry.set_context(vec![0; context].into());
        let mut stored = Vec::new();
        encode_entry(&entry, &mut stored);
        assert!(stored.len() <= data + context + (ENTRY_BYTES_MAX - PROPOSAL_BYTES_MAX), "{data} {context}");
    }
}
