//! What is explored: bounds that are small enough to be exhausted, each around one part of the protocol.

use crate::bounds::{Bounds, Changes};
use crate::ghost::Harm;
use crate::mistakes::Mistake;
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
const FILES: &[Harms] =
    &[Harms::Missing, Harms::Foot, Harms::NewestCkpt, Harms::MarkSlot, Harms::Marks, Harms::Newest];

fn config(name: &'static str, script: &[Batch]) -> Config {
    Config {
        name,
        bounds: Bounds {
            mistake: Mistake::None,
            script: script.to_vec(),
            slots: 2,
            own_zeros: false,
            // What the engine does otherwise is what `findings` is about.
            changes: Changes { mark_synced_at_open: true, copy_marked_twice: true, entry_marked: true },
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
        strict_rebuild: false,
        strict_files: true,
    }
}

/// What makes a file of the pool of the first segment.
const RECYCLED: &[Do] = &[Do::Batch, Do::Batch, Do::Batch, Do::Upkeep(Upkeep::Purge)];

/// The configurations, as the tests explore them.
pub fn configs() -> Vec<Config> {
    vec![
        // Every crash, also inside recovery, and a sync of half a copy.
        Config { upkeep: &[Upkeep::Mark], early_syncs: true, ..config("crashes", &[BOTH, ROLLBACK, ONE]) },
        // Processes that die one after the other, and then the power: what was only in the cache.
        Config {
            crashes: 3,
            eager: true,
            upkeep: &[Upkeep::Mark, Upkeep::Seal, Upkeep::Absorb, Upkeep::Purge],
            bounds: Bounds { slots: 3, ..config("deaths", &[BOTH, ONE]).bounds },
            ..config("deaths", &[BOTH, ONE])
        },
        // A sync that fails, beside another one.
        Config { failed_syncs: 1, syncs: 2, ..config("errors", &[BOTH, ONE, ROLLBACK]) },
        // One sector, harmed in any way, between or after two crashes.
        Config {
            faults: SECTORS,
            upkeep: &[Upkeep::Mark],
            kills: false,
            ..config("rot", &[BOTH, ONE, ROLLBACK])
        },
        // The same in a file that was a segment before.
        Config {
            prelude: RECYCLED.to_vec(),
            faults: SECTORS,
            kills: false,
            ..config("recycle", &[BOTH, ONE, ALL_GONE, BOTH, ROLLBACK])
        },
        // The same with payloads that end in zeros.
        Config {
            bounds: Bounds { own_zeros: true, ..config("zeros", &[ONE, BOTH]).bounds },
            faults: SECTORS,
            kills: false,
            crashes: 1,
            ..config("zeros", &[ONE, BOTH])
        },
        // The same, and then a caller who accepts a loss. A mark proves the first group of a segment, so
        // there are three.
        Config {
            bounds: Bounds { slots: 3, ..config("policies", &[BOTH, ONE, ONE]).bounds },
            faults: SECTORS,
            policies: true,
            kills: false,
            crashes: 1,
            upkeep: &[Upkeep::Mark],
            ..config("policies", &[BOTH, ONE, ONE])
        },
        // The same on a recycled file.
        Config {
            prelude: RECYCLED.to_vec(),
            faults: SECTORS,
            policies: true,
            kills: false,
            crashes: 1,
            ..config("stale policies", &[BOTH, ONE, ALL_GONE, BOTH, ROLLBACK])
        },
        // A purge, with a crash at each of its steps; a file that is lost.
        Config {
            prelude: vec![Do::Batch, Do::Batch, Do::Batch],
            upkeep: &[Upkeep::Purge, Upkeep::Seal, Upkeep::Absorb],
            faults: FILES,
            ..config("purge", &[BOTH, ONE, ALL_GONE, BOTH])
        },
        // Footers and checkpoints while batches go on.
        Config {
            upkeep: &[Upkeep::Seal, Upkeep::Checkpoint],
            interleave: true,
            crashes: 1,
            faults: FILES,
            ..config("checkpoints", &[BOTH, ROLLBACK, [Destroy, Append], ONE])
        },
        // All checkpoints are lost, or the newest, of a store at rest.
        Config {
            prelude: [RECYCLED, &[Do::Upkeep(Upkeep::Mark)]].concat(),
            faults: &[Harms::AllCkpts, Harms::NewestCkpt],
            ..config("rebuild", &[BOTH, ONE, ALL_GONE, BOTH])
        },
        // Runs that are closed.
        Config { upkeep: &[Upkeep::Close, Upkeep::Mark], faults: FILES, ..config("closing", &[BOTH, ONE]) },
        // Which runs were closed.
        Config { crashes: 3, kills: false, upkeep: &[Upkeep::Close], ..config("unclean ends", &[ONE, ONE]) },
        // A backup, then a purge, and its files are used again.
        Config {
            prelude: vec![Do::Batch, Do::Batch, Do::Batch],
            upkeep: &[Upkeep::Backup, Upkeep::Purge],
            crashes: 1,
            kills: false,
            ..config("backup", &[BOTH, ONE, ONE, ALL_GONE, BOTH])
        },
    ]
}

/// The same with wider bounds, for a run by hand: one crash more, processes that die, and more upkeep.
pub fn deep() -> Vec<Config> {
    let wider = |config: Config| Config {
        crashes: match config.name {
            // A crash while a loss is being accepted is one of the findings; more purges need more room.
            "policies" | "stale policies" | "purge" => config.crashes,
            // Processes that die and more upkeep are enough for some minutes.
            "rot" | "recycle" => config.crashes,
            _ => (config.crashes + 1).min(3),
        },
        kills: true,
        subsets: 8,
        upkeep: match config.name {
            "rot" => &[Upkeep::Mark, Upkeep::Seal],
            "recycle" => &[Upkeep::Mark, Upkeep::Seal, Upkeep::Purge, Upkeep::Absorb],
            _ => config.upkeep,
        },
        bounds: Bounds {
            // Where nothing depends on when a segment is full, larger ones need fewer files.
            slots: if config.prelude.is_empty() { 3 } else { config.bounds.slots },
            ..config.bounds.clone()
        },
        ..config
    };
    configs().into_iter().map(wider).collect()
}

/// A configuration by its name.
pub fn named(name: &str) -> Option<Config> {
    configs().into_iter().chain(findings().into_iter().map(|finding| finding.config)).find(|c| c.name == name)
}

/// A counterexample against the engine as it is.
#[derive(Clone, Debug)]
pub struct Finding {
    /// Where it is found.
    pub config: Config,
    /// The promise that it breaks.
    pub breaks: &'static str,
}

/// What the engine does wrong, or did, as far as this model knows. `docs/model.md` tells the stories.
pub fn findings() -> Vec<Finding> {
    let as_it_is = |config: Config| Config {
        bounds: Bounds { changes: Changes::default(), ..config.bounds.clone() },
        ..config
    };
    let crashes_alone = "crashes alone refuse nothing and raise no alarm";
    let one_fault = "one fault affects what it hit";
    let acknowledged = "what was acknowledged is there, or named";
    let of = |name: &str| {
        as_it_is(configs().into_iter().find(|c| c.name == name).unwrap_or_else(|| config("", &[])))
    };
    vec![
        // A mark that stood in the cache only was believed, and the power took it.
        Finding {
            config: Config {
                name: "unsynced mark",
                crashes: 3,
                upkeep: &[Upkeep::Purge],
                ..as_it_is(config("", &[BOTH]))
            },
            breaks: crashes_alone,
        },
        Finding {
            config: Config {
                name: "unsynced mark, lost sector",
                faults: &[Harms::Desc(Harm::Lost), Harms::Payload(Harm::Lost)],
                upkeep: &[Upkeep::Mark],
                ..as_it_is(config("", &[BOTH]))
            },
            breaks: acknowledged,
        },
        // One slot of the mark file is all that says that recovery's copy is whole, and a purge gives the
        // original back before it seals the copy.
        Finding {
            config: Config { name: "one slot", faults: &[Harms::MarkSlot], ..of("purge") },
            breaks: one_fault,
        },
        // A log without a checkpoint is not whole where an unfinished copy follows, or a torn group.
        Finding {
            config: Config {
                name: "only checkpoint",
                faults: &[Harms::NewestCkpt],
                strict_rebuild: true,
                ..as_it_is(config("", &[BOTH, ONE]))
            },
            breaks: one_fault,
        },
        // The newest file of a busy log, with the records in it that prove each other.
        Finding {
            config: Config {
                name: "newest file",
                faults: &[Harms::Missing],
                strict_files: true,
                crashes: 1,
                ..as_it_is(config("", &[BOTH, ONE]))
            },
            breaks: acknowledged,
        },
        // A crash while a loss is being accepted: the announcement alone ends the log for good.
        Finding {
            config: Config {
                name: "half-accepted loss",
                crashes: 2,
                upkeep: &[Upkeep::Mark],
                ..of("policies")
            },
            breaks: acknowledged,
        },
    ]
}
