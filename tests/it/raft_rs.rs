//! `raft::Storage` over a region: the contract, checked side by side with raft's own
//! `MemStorage`, and what is ours beyond it.

mod beyond;
mod bounds;
mod conformance;
mod far;
mod hung;
mod joining;
mod lifecycle;
mod parts;
mod recover;
mod returning;
mod rollback;
mod stores;
mod writer;
