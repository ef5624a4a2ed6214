//! Which work is measured.

use crate::child::Task;
use crate::engines::{Engine, RAFTWOOD};
use crate::load::Load;

/// One row of figures for each engine.
#[derive(Clone)]
pub(crate) struct Work {
    /// Group of rows that stand in one table: the same figures of all.
    pub(crate) group: Group,
    /// Within its group.
    pub(crate) name: String,
    pub(crate) task: Task,
}

/// A table.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, clap::ValueEnum)]
pub(crate) enum Group {
    /// 1, 4, 16, 64 writers and the raftstore loop, from an empty directory.
    Growing,
    /// The same after a warm-up of its own work.
    Steady,
    /// One writer with many batches in flight, beside as many writers with one each.
    Submitted,
    /// 1 and 4 writers that wait for no sync.
    Written,
    /// Four writers beside two readers.
    Mixed,
    /// A lagging region is read from the device.
    CatchUp,
    /// A store is opened after a kill.
    Open,
}

impl Group {
    pub(crate) const ALL: [Group; 7] = [
        Group::Growing,
        Group::Steady,
        Group::Submitted,
        Group::Written,
        Group::Mixed,
        Group::CatchUp,
        Group::Open,
    ];

    /// In results.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Group::Growing => "growing",
            Group::Steady => "steady",
            Group::Submitted => "submitted",
            Group::Written => "written",
            Group::Mixed => "mixed",
            Group::CatchUp => "catch-up",
            Group::Open => "open",
        }
    }
}

/// How long and how large.
#[derive(Clone, Debug)]
pub(crate) struct Sizes {
    pub(crate) seconds: f64,
    pub(crate) warm_up: f64,
    pub(crate) bytes_max: u64,
    /// Batches a second of the growing and steady rows; as many as there can be without it.
    pub(crate) rate: Option<f64>,
    pub(crate) catch_up_bytes: u64,
    pub(crate) regions: Vec<u64>,
}

/// The rows of these groups.
pub(crate) fn works(groups: &[Group], sizes: &Sizes) -> Vec<Work> {
    let mut works = Vec::new();
    for group in groups.iter().copied() {
        let mut add = |name: String, task: Task| works.push(Work { group, name, task });
        let write = |load: Load, warm_up: f64| Task::Write {
            load,
            warm_up,
            seconds: sizes.seconds,
            bytes_max: sizes.bytes_max,
        };
        match group {
            Group::Growing | Group::Steady => {
                let (warm_up, cold) =
                    if group == Group::Steady { (sizes.warm_up, true) } else { (0.0, false) };
                for writers in WRITERS {
                    let load = Load { cold, rate: sizes.rate, ..Load::batches(writers, true) };
                    add(writers_name(writers), write(load, warm_up));
                }
                add(RAFTSTORE.into(), write(Load { cold, rate: sizes.rate, ..Load::raftstore() }, warm_up));
            }
            Group::Submitted => {
                add(writers_name(64), write(Load::batches(64, true), 0.0));
                let load = Load { in_flight: 64, ..Load::batches(1, true) };
                add("1 writer, 64 in flight".into(), write(load, 0.0));
            }
            Group::Written => {
                for writers in [1, 4] {
                    add(writers_name(writers), write(Load::batches(writers, false), 0.0));
                }
            }
            Group::Mixed => add("4 writers, 2 readers".into(), Task::Mixed { seconds: sizes.seconds }),
            Group::CatchUp => {
                add("1 reader".into(), Task::CatchUp { seconds: sizes.seconds, bytes: sizes.catch_up_bytes })
            }
            Group::Open => {
                for regions in sizes.regions.iter().copied() {
                    add(regions.to_string(), Task::Open { regions });
                }
            }
        }
    }
    works
}

/// Numbers of writers; those of the plots.
pub(crate) const WRITERS: [usize; 4] = [1, 4, 16, 64];

/// The raftstore loop.
pub(crate) const RAFTSTORE: &str = "raftstore";

/// The row of so many writers.
pub(crate) fn writers_name(writers: usize) -> String {
    if writers == 1 { "1 writer".into() } else { format!("{writers} writers") }
}

/// Whether an engine can do it at all.
pub(crate) fn suits(engine: &Engine, work: &Work) -> bool {
    match &work.task {
        Task::Write { load, .. } => {
            (load.synced || engine.writes_only) && (load.in_flight <= 1 || engine.name == RAFTWOOD)
        }
        _ => engine.reads,
    }
}
