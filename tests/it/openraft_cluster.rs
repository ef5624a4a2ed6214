//! Three nodes, each with a disk of its own, under both releases of openraft.
//!
//! `cluster_09` and `cluster_010`: what a leader may do that lost the end of its log. `random`: random
//! runs. `refused`: writes that a listener refuses, or a full disk. `hung`: a disk that hangs. `healed`:
//! damage before the start.

mod cluster;
mod cluster_010;
mod cluster_09;
mod healed;
mod hung;
mod net;
mod on_010;
mod on_09;
mod random;
mod refused;
mod release;
mod run;
