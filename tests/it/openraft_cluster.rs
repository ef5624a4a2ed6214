//! Three nodes, each with a disk of its own, under both releases of openraft.
//!
//! `cluster_09` and `cluster_010`: what a leader may do that lost the end of its log. `random`: random runs.

mod cluster;
mod cluster_010;
mod cluster_09;
mod net;
mod on_010;
mod on_09;
mod random;
mod release;
mod run;
