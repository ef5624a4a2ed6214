//! Whole files lost, or in the place of others: all checkpoints gone, files of another store, of
//! another segment.

mod checkpoints_lost;
mod files;
mod names;
