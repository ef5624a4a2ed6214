//! The figures of an engine for the facade crate `metrics`, with the feature of that name.
//!
//! They are published when the program says so, by a timer of its own, and are computed from what the engine
//! counts anyway: nothing is added to the path of a write or a read. `docs/metrics.md` has all names.

use crate::{Engine, Latencies, Latency, Sizes, Stats};
use metrics::Unit;

/// Publishes the figures of one engine into the recorder that the program has installed.
///
/// Every metric has the label `store`. Counters are those of this run of the engine: they begin at 0 with
/// each open, which is what monitoring systems expect of a restart. A publisher belongs to one engine; after
/// a reopen make a new one.
///
/// ```
/// use raftwood::metrics::Publisher;
/// use raftwood::{Durability, Engine, RegionId};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// let engine = Engine::open(dir.path())?;
/// let mut publisher = Publisher::new("logs");
/// let mut batch = engine.batch();
/// batch.region(RegionId(7)).set_hard_state(b"term 1")?;
/// engine.write(batch, Durability::Synced)?;
/// publisher.publish(&engine); // every ten seconds, say
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Publisher {
    store: String,
    /// What was published of the histograms.
    published: Latencies,
    published_groups: Sizes,
}

impl Publisher {
    /// For an engine that monitoring knows as `store`. Describes all metrics to the recorder that is
    /// installed by now.
    pub fn new(store: impl Into<String>) -> Publisher {
        for (name, unit, text, _) in COUNTERS {
            metrics::describe_counter!(*name, *unit, *text);
        }
        for (name, unit, text, _) in GAUGES {
            metrics::describe_gauge!(*name, *unit, *text);
        }
        for (name, text, _) in HISTOGRAMS {
            metrics::describe_histogram!(*name, Unit::Seconds, *text);
        }
        metrics::describe_histogram!(GROUPS.0, Unit::Count, GROUPS.1);
        Publisher { store: store.into(), published: Latencies::default(), published_groups: Sizes::default() }
    }

    /// Publishes the figures as they are now. Costs what [`stats`](Engine::stats) and
    /// [`latencies`](Engine::latencies) cost, a call of the recorder for each metric, and one for each bucket
    /// of a histogram that has something new, whose values are the highest of the bucket: rounded up by less
    /// than an eighth.
    pub fn publish(&mut self, engine: &Engine) {
        let (stats, latencies) = (engine.stats(), engine.latencies());
        for (name, _, _, figure) in COUNTERS {
            metrics::counter!(*name, "store" => self.store.clone()).absolute(figure(&stats));
        }
        for (name, _, _, figure) in GAUGES {
            metrics::gauge!(*name, "store" => self.store.clone()).set(figure(&stats) as f64);
        }
        let times_of = |count| usize::try_from(count).unwrap_or(usize::MAX);
        for (name, _, times) in HISTOGRAMS {
            let histogram = metrics::histogram!(*name, "store" => self.store.clone());
            for (longest, count) in times(&latencies).since(times(&self.published)).buckets() {
                histogram.record_many(longest.as_secs_f64(), times_of(count));
            }
        }
        self.published = latencies;
        let groups = engine.group_sizes();
        let histogram = metrics::histogram!(GROUPS.0, "store" => self.store.clone());
        for (highest, count) in groups.since(&self.published_groups).buckets() {
            histogram.record_many(highest as f64, times_of(count));
        }
        self.published_groups = groups;
    }
}

type Figure = (&'static str, Unit, &'static str, fn(&Stats) -> u64);

const COUNTERS: &[Figure] = &[
    ("raftwood_batches_total", Unit::Count, "batches accepted", |s| s.batches),
    ("raftwood_entries_total", Unit::Count, "entries accepted", |s| s.entries),
    ("raftwood_batch_bytes_total", Unit::Bytes, "bytes of accepted batches in the log", |s| s.batch_bytes),
    ("raftwood_payload_bytes_total", Unit::Bytes, "payload of accepted batches", |s| s.payload_bytes),
    ("raftwood_writes_total", Unit::Count, "write calls to the log", |s| s.writes),
    ("raftwood_written_bytes_total", Unit::Bytes, "bytes written to the log", |s| s.written_bytes),
    ("raftwood_syncs_total", Unit::Count, "sync calls on the log", |s| s.syncs),
    ("raftwood_wakes_total", Unit::Count, "calls that woke waiting threads", |s| s.wakes),
    ("raftwood_throttled_total", Unit::Count, "batches that had to wait for others, or for a footer", |s| {
        s.throttled
    }),
    ("raftwood_reads_total", Unit::Count, "reads of entries that were answered with them", |s| s.reads),
    ("raftwood_read_errors_total", Unit::Count, "reads that failed for what is on the disk", |s| {
        s.read_errors
    }),
    ("raftwood_read_retries_total", Unit::Count, "reads that were tried once more", |s| s.read_retries),
    ("raftwood_refused_fetches_total", Unit::Count, "fetches refused because as many waited as may", |s| {
        s.refused_fetches
    }),
    ("raftwood_stalls_total", Unit::Count, "operations of the disk that took long", |s| s.stalls),
    ("raftwood_stalls_ended_total", Unit::Count, "of these, those that have ended", |s| s.stalls_ended),
    ("raftwood_no_space_total", Unit::Count, "segments for which there was no space", |s| s.no_space),
    ("raftwood_filled_bytes_total", Unit::Bytes, "zeros written to new files", |s| s.filled_bytes),
    ("raftwood_cleaned_bytes_total", Unit::Bytes, "payload that the cleaner moved", |s| s.cleaned_bytes),
    ("raftwood_upkeep_bytes_total", Unit::Bytes, "bytes of footers and checkpoints", |s| s.upkeep_bytes),
];

const GAUGES: &[Figure] = &[
    ("raftwood_poisoned", Unit::Count, "1 once an I/O error has stopped all writing", |s| {
        u64::from(s.poisoned)
    }),
    ("raftwood_regions", Unit::Count, "regions that exist", |s| s.regions),
    ("raftwood_destroyed_regions", Unit::Count, "destroyed regions on the heap", |s| s.destroyed_regions),
    ("raftwood_suspect_regions", Unit::Count, "regions with entries in doubt", |s| s.suspect_regions),
    ("raftwood_damaged_regions", Unit::Count, "damaged regions", |s| s.damaged_regions),
    ("raftwood_lost_hard_states", Unit::Count, "regions that must not vote", |s| s.lost_hard_states),
    ("raftwood_segments", Unit::Count, "segments", |s| s.segments),
    ("raftwood_disk_bytes", Unit::Bytes, "bytes of all files", |s| s.disk_bytes),
    ("raftwood_pool_bytes", Unit::Bytes, "of these, prepared and free files", |s| s.pool_bytes),
    ("raftwood_held_bytes", Unit::Bytes, "removed files that entries of the program keep", |s| s.held_bytes),
    ("raftwood_live_entries", Unit::Count, "live entries", |s| s.live_entries),
    ("raftwood_live_bytes", Unit::Bytes, "payload of live entries", |s| s.live_bytes),
    ("raftwood_index_bytes", Unit::Bytes, "the index, on the heap", |s| s.index_bytes),
    ("raftwood_undurable_bytes", Unit::Bytes, "accepted and not on the device", |s| s.undurable_bytes),
    ("raftwood_in_flight_bytes", Unit::Bytes, "of batches that are not complete", |s| s.in_flight_bytes),
    ("raftwood_waiting_writers", Unit::Count, "threads that wait to be accepted", |s| s.waiting_writers),
    ("raftwood_queued_fetches", Unit::Count, "fetches that wait for a thread", |s| s.queued_fetches),
];

/// Of [`group_sizes`](Engine::group_sizes).
const GROUPS: (&str, &str) = ("raftwood_group_batches", "batches that a sync of the log settled");

type Histogram = (&'static str, &'static str, fn(&Latencies) -> &Latency);

const HISTOGRAMS: &[Histogram] = &[
    ("raftwood_commit_seconds", "from the call to the answer", |l| &l.commit),
    ("raftwood_queue_seconds", "from the call to the beginning of its write", |l| &l.queue),
    ("raftwood_write_seconds", "calls that write to the log", |l| &l.write),
    ("raftwood_sync_seconds", "syncs of the log", |l| &l.sync),
    ("raftwood_seal_seconds", "building and writing a footer", |l| &l.seal),
    ("raftwood_checkpoint_seconds", "writing a checkpoint", |l| &l.checkpoint),
    ("raftwood_read_seconds", "reads of entries, one in sixteen of them", |l| &l.read),
];
