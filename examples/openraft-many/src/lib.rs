//! A thousand Raft groups of openraft 0.10 on three nodes: one engine a node, one region a group, and one
//! connection between two nodes, which all groups share over openraft's own router (`openraft-multi`).
//!
//! `machine` is the state machine, `wire` the connections, `node` the place where log, network and state
//! machine of each group come together, `load` the writers, [`run`] the run.

mod load;
mod machine;
mod node;
mod run;
mod wire;

pub use run::{Report, Restart, Size, run};
