//! The smallest useful program on raftwood: `cargo run --example quickstart -- some-directory`.
