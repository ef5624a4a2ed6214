//! What is explored: bounds that are small enough to be exhausted, each around one part of the protocol.

use crate::ghost::Harm;
use crate::mistakes::Mistake;
use crate::run::{Bounds, Changes};
use crate::state::{Config, Do, Harms, Upkeep};
use crate::table::{Batch, Op};
use Op::{Append, Compact, Destroy, Leave, Over};

/// Both regions; one of them; a rollback; what makes the first segment dead.
const BOTH: Batch = [Append, Append];
const ONE: Batch = [Append, Leave];
const ROLLBACK: Batch = [Over, Leave];
const ALL_GONE: Batch = [Compact, Compact];

/// Sectors of descriptions and of payloads, harmed in every way.
const SECTORS: &[Harms] = &[
    Harms::Desc(Harm::Lost),
    Harms::Desc(Harm::Garbage),
    Harms::Desc(Harm::DescWrong),
    Harms::Desc(Harm::Unreadable),
    Harms::Payload(Harm::Lost),
    Harms::Payload(Harm::Flip),
    Harms::Payload(Harm::Garbage),
    Harms::Payload(Harm::Unreadable),
];

/// Everything else.
const FILES: &[Harms] = &[Harms::Missing, Harms::Foot, Harms::NewestCkpt, Harms::MarkSlot, Harms::Marks];

fn config(name: &'static str, script: &[Batch]) -> Config {
    Config {
        name,
        bounds: Bounds {
            mistake: Mistake::None,
            script: script.to_vec(),
            slots: 2,
            own_zeros: false,
            changes: Changes::default(),
        },
        prelude: Vec::new(),
        crashes: 2,
        kills: true,
        failed_syncs: 0,
        syncs: 1,
        faults: &[],
        upkeep: &[],
        interleave: false,
        eager: false,
        subsets: 6,
        policies: false,
        early_syncs: false,
    }
}

/// What makes a file of the pool of the first segment.
const RECYCLED: &[Do] = &[Do::Batch, Do::Batch, Do::Batch, Do::Upkeep(Upkeep::Purge)];

/// The configurations, as the tests explore them.
pub fn configs() -> Vec<Config> {
    vec![
        Config { upkeep: &[Upkeep::Mark], ..config("crashes", &[BOTH, ROLLBACK, ONE]) },
        Config { failed_syncs: 1, syncs: 2, ..config("errors", &[BOTH, ONE, ROLLBACK]) },
        Config {
            faults: SECTORS,
            upkeep: &[Upkeep::Mark],
            kills: false,
            ..config("rot", &[BOTH, ONE, ROLLBACK])
        },
        Config {
            prelude: RECYCLED.to_vec(),
            faults: SECTORS,
            kills: false,
            ..config("recycle", &[BOTH, ONE, ALL_GONE, BOTH, ROLLBACK])
        },
        Config {
            prelude: vec![Do::Batch, Do::Batch, Do::Batch],
            upkeep: &[Upkeep::Purge, Upkeep::Seal, Upkeep::Absorb],
            crashes: 2,
            faults: FILES,
            ..config("purge", &[BOTH, ONE, ALL_GONE, BOTH])
        },
        Config {
            upkeep: &[Upkeep::Seal, Upkeep::Checkpoint],
            interleave: true,
            crashes: 1,
            faults: FILES,
            ..config("checkpoints", &[BOTH, ROLLBACK, [Destroy, Append], ONE])
        },
        Config {
            prelude: [RECYCLED, &[Do::Upkeep(Upkeep::Mark)]].concat(),
            faults: &[Harms::AllCkpts, Harms::NewestCkpt],
            ..config("rebuild", &[BOTH, ONE, ALL_GONE, BOTH])
        },
        Config {
            crashes: 3,
            eager: true,
            upkeep: &[Upkeep::Mark, Upkeep::Seal, Upkeep::Absorb, Upkeep::Purge],
            ..config("deaths", &[BOTH, ONE])
        },
        Config { upkeep: &[Upkeep::Close, Upkeep::Mark], faults: FILES, ..config("closing", &[BOTH, ONE]) },
        Config {
            prelude: vec![Do::Batch, Do::Batch, Do::Batch],
            upkeep: &[Upkeep::Backup, Upkeep::Purge],
            crashes: 1,
            kills: false,
            ..config("backup", &[BOTH, ONE, ALL_GONE, BOTH])
        },
        Config {
            faults: SECTORS,
            policies: true,
            kills: false,
            crashes: 1,
            upkeep: &[Upkeep::Mark],
            ..config("policies", &[BOTH, ONE])
        },
    ]
}
