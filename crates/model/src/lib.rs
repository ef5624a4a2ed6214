//! A checked model of the log and its recovery.

pub mod backup;
pub mod configs;
pub mod disk;
pub mod explore;
pub mod ghost;
pub mod judge;
pub mod mistakes;
pub mod recovery;
pub mod run;
pub mod state;
pub mod table;
