//! What is published into the facade `metrics` is what the engine counts, under the names of the page and the
//! board.

use metrics::{
    Counter, CounterFn, Gauge, GaugeFn, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder,
    SharedString, Unit,
};
use raftwood::metrics::Publisher;
use raftwood::{Background, Durability, Engine, EntryId, Options, RegionId};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

const PAGE: &str = include_str!("../../docs/metrics.md");
const BOARD: &str = include_str!("../../docs/grafana.json");

/// Keeps descriptions as rows of the page, and the last value of each metric; of histograms how many.
#[derive(Clone, Default)]
struct Kept(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    rows: Vec<String>,
    values: BTreeMap<String, f64>,
}

impl Kept {
    fn describe(&self, kind: &str, name: KeyName, unit: Option<Unit>, text: SharedString) {
        let unit = unit.map_or("", |unit| unit.as_str());
        self.0.lock().unwrap().rows.push(format!("| `{}` | {kind} | {unit} | {text} |", name.as_str()));
    }

    fn handle(&self, key: &Key) -> Arc<Handle> {
        let labels: Vec<_> = key.labels().map(|label| (label.key(), label.value())).collect();
        assert_eq!(labels, [("store", "here")]);
        Arc::new(Handle(self.clone(), key.name().to_string()))
    }

    fn value(&self, name: &str) -> f64 {
        *self.0.lock().unwrap().values.get(name).unwrap_or_else(|| panic!("{name} was not published"))
    }
}

struct Handle(Kept, String);

impl Handle {
    fn change(&self, change: impl FnOnce(f64) -> f64) {
        let mut state = self.0.0.lock().unwrap();
        let value = state.values.entry(self.1.clone()).or_default();
        *value = change(*value);
    }
}

impl CounterFn for Handle {
    fn increment(&self, by: u64) {
        self.change(|value| value + by as f64);
    }

    fn absolute(&self, to: u64) {
        self.change(|_| to as f64);
    }
}

impl GaugeFn for Handle {
    fn increment(&self, by: f64) {
        self.change(|value| value + by);
    }

    fn decrement(&self, by: f64) {
        self.change(|value| value - by);
    }

    fn set(&self, to: f64) {
        self.change(|_| to);
    }
}

impl HistogramFn for Handle {
    fn record(&self, value: f64) {
        assert!((0.0..60.0).contains(&value), "{value} seconds");
        self.change(|count| count + 1.0);
    }
}

impl Recorder for Kept {
    fn describe_counter(&self, name: KeyName, unit: Option<Unit>, text: SharedString) {
        self.describe("counter", name, unit, text);
    }

    fn describe_gauge(&self, name: KeyName, unit: Option<Unit>, text: SharedString) {
        self.describe("gauge", name, unit, text);
    }

    fn describe_histogram(&self, name: KeyName, unit: Option<Unit>, text: SharedString) {
        self.describe("histogram", name, unit, text);
    }

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(self.handle(key))
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(self.handle(key))
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::from_arc(self.handle(key))
    }
}

fn write(engine: &Engine, index: u64) {
    let mut batch = engine.batch();
    batch.region(RegionId(7)).append([(EntryId::new(1, index), &b"set x"[..])]).unwrap();
    engine.write(batch, Durability::Synced).unwrap();
}

/// Names on the page, with their types.
fn names() -> BTreeMap<&'static str, &'static str> {
    let cells = PAGE.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` | "));
    cells.map(|(name, rest)| (name, rest.split(' ').next().unwrap())).collect()
}

#[test]
fn what_is_published_is_what_the_engine_counts_and_nothing_twice() {
    let dir = tempfile::tempdir().unwrap();
    let engine = Options::new().background(Background::Manual).open(dir.path()).unwrap();
    let kept = Kept::default();
    metrics::with_local_recorder(&kept, || {
        let mut publisher = Publisher::new("here");
        for round in 1..=3 {
            (1..=5).for_each(|n| write(&engine, (round - 1) * 5 + n));
            // One in sixteen is timed.
            (0..16).for_each(|_| drop(engine.region(RegionId(7)).entry(1).unwrap()));
            publisher.publish(&engine);
            publisher.publish(&engine);
            let stats = engine.stats();
            for (name, is) in [
                ("raftwood_batches_total", 5 * round),
                ("raftwood_reads_total", 16 * round),
                ("raftwood_syncs_total", stats.syncs),
                ("raftwood_disk_bytes", stats.disk_bytes),
                ("raftwood_live_entries", 5 * round),
                ("raftwood_regions", 1),
                ("raftwood_poisoned", 0),
                ("raftwood_undurable_bytes", 0),
                // Histograms: how many.
                ("raftwood_commit_seconds", 5 * round),
                ("raftwood_sync_seconds", stats.syncs),
                ("raftwood_read_seconds", round),
                ("raftwood_group_batches", 5 * round),
            ] {
                assert_eq!(kept.value(name), is as f64, "{name} in round {round}");
            }
        }
        engine.purge().unwrap();
        publisher.publish(&engine);
    });
    // All of them, but for what has not happened.
    let published: BTreeSet<String> = kept.0.lock().unwrap().values.keys().cloned().collect();
    let missing: Vec<_> = names().into_keys().filter(|name| !published.contains(*name)).collect();
    assert!(
        missing.iter().all(|name| ["raftwood_seal_seconds", "raftwood_checkpoint_seconds"].contains(name)),
        "{missing:?}"
    );
}

#[test]
fn the_page_has_each_metric_with_type_unit_and_meaning_and_no_other() {
    let kept = Kept::default();
    metrics::with_local_recorder(&kept, || drop(Publisher::new("here")));
    let rows = kept.0.lock().unwrap().rows.clone();
    let on_page: Vec<&str> = PAGE.lines().filter(|line| line.starts_with("| `")).collect();
    assert_eq!(on_page, rows);
}

#[test]
fn the_board_is_json_and_names_metrics_of_the_page_alone() {
    let board: serde_json::Value = serde_json::from_str(BOARD).unwrap();
    let names = names();
    let panels = board["panels"].as_array().unwrap();
    assert!(panels.len() > 10);
    let mut shown = BTreeSet::new();
    for panel in panels {
        let title = panel["title"].as_str().unwrap();
        for target in panel["targets"].as_array().unwrap() {
            let expr = target["expr"].as_str().unwrap();
            let words = expr.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
            let before = shown.len();
            for word in words.filter(|word| word.starts_with("raftwood_")) {
                let name = word.strip_suffix("_bucket").unwrap_or(word);
                let kind = names.get(name).unwrap_or_else(|| panic!("{title}: {word} is not on the page"));
                assert_eq!(word.ends_with("_bucket"), *kind == "histogram", "{title}: {word} is a {kind}");
                let is_rate = expr.contains("rate(") || expr.contains("increase(") || expr.contains(" - ");
                assert!(*kind == "gauge" || is_rate, "{title}: {word} only grows");
                shown.insert(name.to_string());
            }
            assert!(shown.len() > before || expr.contains("raftwood_"), "{title}: {expr} shows nothing");
        }
    }
    let not_shown: Vec<_> = names.into_keys().filter(|name| !shown.contains(*name)).collect();
    // What the board leaves to those who look closer.
    let left_out = [
        "raftwood_batch_bytes_total",
        "raftwood_index_bytes",
        "raftwood_wakes_total",
        "raftwood_writes_total",
    ];
    assert_eq!(not_shown, left_out);
    let store = &board["templating"]["list"][1];
    assert_eq!(
        (store["name"].as_str(), store["query"].as_str().map(|q| q.contains("raftwood_batches_total"))),
        (Some("store"), Some(true))
    );
}
