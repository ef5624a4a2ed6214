//! A checked model of the log and its recovery.

pub mod backup;
mod chain;
pub mod configs;
pub mod disk;
pub mod explore;
pub mod ghost;
mod jobs;
pub mod judge;
pub mod mistakes;
mod open;
pub mod recovery;
pub mod run;
pub mod state;
pub mod table;
mod tail;
mod tasks;
