//! Three nodes, each with a disk of its own: what a leader may do that lost the end of its log.

mod cluster_010;
mod cluster_09;
