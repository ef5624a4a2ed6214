//! The smallest useful program on raftwood:
//! `cargo run -p raftwood-quickstart --example quickstart -- some-directory`.
