//! What a subscriber of `tracing` gets: a span for each thing that takes time, and all that a listener gets.

use crate::support::engines::{DIR, by_hand, kill};
use crate::support::entries;
use crate::support::heard::Heard;
use raftwood::vfs::sim::{ENOSPC, Fault, OpKind, SimVfs};
use raftwood::{Purge, RegionId};
use std::fmt::{Debug, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Once};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

const R: RegionId = RegionId(7);

/// Keeps names of spans with their fields, and lines of events with their levels.
#[derive(Clone, Default)]
struct Kept(Arc<State>);

#[derive(Default)]
struct State {
    spans: Mutex<Vec<String>>,
    events: Mutex<Vec<String>>,
    entered: AtomicU64,
    exited: AtomicU64,
}

struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        match field.name() {
            "message" => write!(self.0, " {value:?}").unwrap(),
            name => write!(self.0, " {name}={value:?}").unwrap(),
        }
    }
}

impl Subscriber for Kept {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "raftwood"
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let mut text = Text(span.metadata().name().to_string());
        span.record(&mut text);
        let mut spans = self.0.spans.lock().unwrap();
        spans.push(text.0);
        Id::from_u64(spans.len() as u64)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut text = Text(event.metadata().level().to_string());
        event.record(&mut text);
        self.0.events.lock().unwrap().push(text.0);
    }

    fn enter(&self, _: &Id) {
        self.0.entered.fetch_add(1, Ordering::Relaxed);
    }

    fn exit(&self, _: &Id) {
        self.0.exited.fetch_add(1, Ordering::Relaxed);
    }
}

/// Runs `work` for a subscriber. What another test's thread meets first, just when a subscriber comes, may be
/// noted as of no interest to anybody: each place is met once before.
fn traced(kept: &Kept, run: impl FnOnce()) {
    static MET: Once = Once::new();
    MET.call_once(|| {
        let vfs = SimVfs::new(92);
        tracing::subscriber::with_default(Kept::default(), || work(by_hand(&vfs), &vfs));
    });
    tracing::subscriber::with_default(kept.clone(), || {
        tracing::callsite::rebuild_interest_cache();
        run();
    });
}

/// A run in which everything happens that has a span.
fn work(options: raftwood::Options, vfs: &SimVfs) {
    let engine = options.purge(Purge::default().garbage_percent_max(10)).open(DIR).unwrap();
    for index in 1..=40 {
        entries::append(&engine, RegionId(index % 4), 1 + index / 4, 10 << 10).unwrap();
    }
    vfs.set_fault(Fault::error(ENOSPC).on(OpKind::Allocate).forever());
    while entries::append(&engine, R, engine.region(R).last_index() + 1, 20 << 10).is_ok() {}
    vfs.clear_faults();
    entries::append(&engine, R, engine.region(R).last_index() + 1, 20 << 10).unwrap();
    for region in 1..=3 {
        entries::compact(&engine, RegionId(region), 9).unwrap();
    }
    engine.tick().unwrap();
    engine.purge().unwrap();
    engine.backup("/copy").unwrap();
    kill(vfs, engine);
}

#[test]
fn each_thing_that_takes_time_has_a_span_with_its_figures() {
    let (vfs, kept) = (SimVfs::new(90), Kept::default());
    traced(&kept, || work(by_hand(&vfs), &vfs));
    let spans = kept.0.spans.lock().unwrap().clone();
    for name in [
        "recover",
        "group batches=1 bytes=",
        "sync bytes=",
        "rotate bytes=65536",
        "seal segment=1",
        "checkpoint sequence=",
        "clean segments=",
    ] {
        assert!(spans.iter().any(|span| span.starts_with(name)), "{name} is not in {spans:?}");
    }
    let (entered, exited) = (kept.0.entered.load(Ordering::Relaxed), kept.0.exited.load(Ordering::Relaxed));
    assert_eq!((entered, exited), (spans.len() as u64, spans.len() as u64));
}

#[test]
fn all_that_a_listener_hears_is_an_event_with_the_same_line() {
    let (vfs, kept) = (SimVfs::new(91), Kept::default());
    let heard = Heard::new(|event| Some(event.to_string()));
    traced(&kept, || work(by_hand(&vfs).listener(heard.clone()), &vfs));
    let events = kept.0.events.lock().unwrap().clone();
    let lines: Vec<&str> = events.iter().map(|event| event.split_once(' ').unwrap().1).collect();
    assert_eq!(lines, heard.all());
    for line in
        ["WARN space exhausted", "INFO space regained", "INFO recovered", "DEBUG rotated", "INFO backup made"]
    {
        assert!(events.iter().any(|event| event.starts_with(line)), "{line} is not in {events:?}");
    }
    // And without a listener.
    let (vfs, alone) = (SimVfs::new(91), Kept::default());
    traced(&alone, || work(by_hand(&vfs), &vfs));
    let names = |events: &[String]| events.iter().map(|event| event[..12].to_string()).collect::<Vec<_>>();
    assert_eq!(names(&alone.0.events.lock().unwrap()), names(&events));
}
