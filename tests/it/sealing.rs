//! Full segments get their footer in time, and what keeps one from it does not stop the log.

use crate::support::engines::{DIR, by_hand, kill};
use crate::support::files::{is_a, of_kind};
use crate::support::heard::Heard;
use crate::support::threads::{batch, begin, in_time, options};
use raftwood::vfs::sim::{ENOSPC, Fault, Op, OpKind, SimVfs};
use raftwood::{Durability, Engine, ErrorKind, Event, EventListener, ReadLimit, RegionId};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;

/// Hangs once a segment has its footer, for as long as the test has the lock.
#[derive(Default)]
struct Hanging(Mutex<()>);

impl EventListener for Hanging {
    fn on_event(&self, event: &Event<'_>) {
        if let Event::SegmentSealed { .. } = event {
            drop(self.0.lock());
        }
    }
}

/// Writes entries until one is refused because of footers, or one lies in `segment`. Returns where the last
/// one lies, and whether one was refused.
fn fill(engine: &Engine, next: &mut u64, segment: u32) -> (u32, bool) {
    loop {
        match engine.try_submit(batch(engine, 1, *next, 20 << 10), Durability::Written) {
            Ok(ticket) => {
                *next += 1;
                let at = ticket.wait().unwrap().segment();
                if at >= segment {
                    return (at, false);
                }
            }
            Err(e) => {
                assert_eq!(e.error().kind(), ErrorKind::WouldBlock);
                if e.error().to_string().contains("footer") {
                    return (engine.stats().accepted.segment(), true);
                }
                thread::yield_now();
            }
        }
    }
}

/// Nothing bounded them: five waited under many thin regions, and the index held all that they held.
#[test]
fn four_full_segments_at_most_wait_for_their_footer_and_then_the_log_does_not_wait_forever() {
    let (vfs, hanging) = (SimVfs::new(90), Arc::new(Hanging::default()));
    let engine = options(&vfs).listener(hanging.clone()).open(DIR).unwrap();
    in_time("sealing that hangs", move || {
        begin(&engine);
        let (first, mut next) = (engine.stats().accepted.segment(), 1);
        let held: MutexGuard<'_, ()> = hanging.0.lock().unwrap();
        let before = engine.stats().throttled;
        assert_eq!(fill(&engine, &mut next, first + 9), (first + 4, true));
        // It is said once, however often it is tried.
        assert_eq!(
            (fill(&engine, &mut next, first + 9), engine.stats().throttled),
            ((first + 4, true), before + 1)
        );
        // What has no time to wait for goes on by itself.
        let written = engine.write(batch(&engine, 1, next, 20 << 10), Durability::Written).unwrap();
        assert_eq!((written.segment(), engine.stats().waiting_writers), (first + 5, 0));
        drop(held);
        next += 1;
        while next < 100 {
            engine.write(batch(&engine, 1, next, 20 << 10), Durability::Written).unwrap();
            next += 1;
        }
        engine.close().unwrap();
    });
}

#[test]
fn a_write_does_not_wait_for_footers_that_cannot_be_written() {
    let vfs = SimVfs::new(91);
    let engine = options(&vfs).open(DIR).unwrap();
    in_time("footers that have no space", move || {
        begin(&engine);
        let first = engine.stats().accepted.segment();
        vfs.set_fault(Fault::error(ENOSPC).on(OpKind::Rename).path(".foot").forever());
        let mut next = 1;
        // A footer is tried for while the segments fill: until the first attempt has failed they may wait.
        while fill(&engine, &mut next, first + 9).1 {
            thread::yield_now();
        }
        let before = engine.stats().throttled;
        assert_eq!(fill(&engine, &mut next, first + 15), (first + 15, false));
        assert_eq!(engine.stats().throttled, before);
    });
}

/// What a killed run left without a footer gets one while the store is opened, or else as soon as one can be
/// written: until then each open has to read its records again, and nothing that follows it is given back.
#[test]
fn a_footer_that_an_open_could_not_write_is_written_later() {
    let vfs = SimVfs::new(93);
    let engine = by_hand(&vfs).open(DIR).unwrap();
    for index in 1..=9 {
        engine.write(batch(&engine, 1, index, 20 << 10), Durability::Synced).unwrap();
    }
    kill(&vfs, engine);
    let logs = of_kind(&vfs, "log");
    assert!(logs.len() > 2, "{logs:?}");
    vfs.set_fault(Fault::error(ENOSPC).on(OpKind::Rename).path(".foot").forever());
    let engine = by_hand(&vfs).open(DIR).unwrap();
    assert!(of_kind(&vfs, "foot").is_empty());
    vfs.clear_faults();
    engine.tick().unwrap();
    let footers = of_kind(&vfs, "foot").len();
    assert!(footers >= 3, "{footers} of {}", logs.len());
}

/// To build one again would read all that the killed run had written.
#[test]
fn a_footer_that_an_open_has_written_is_not_written_again() {
    let vfs = SimVfs::new(94);
    let engine = by_hand(&vfs).open(DIR).unwrap();
    for index in 1..=9 {
        engine.write(batch(&engine, 1, index, 20 << 10), Durability::Synced).unwrap();
    }
    kill(&vfs, engine);
    vfs.transcript_start();
    let heard = Heard::new(|event| match event {
        Event::SegmentSealed { segment, entries } => Some((*segment, *entries)),
        _ => None,
    });
    let engine = by_hand(&vfs).listener(heard.clone()).open(DIR).unwrap();
    let restored = of_kind(&vfs, "foot").len();
    assert!(restored > 2 && heard.count() == restored, "{restored}, {:?}", heard.all());
    engine.tick().unwrap();
    engine.purge().unwrap();
    let is_footer = |op: &&Op| op.kind == OpKind::Rename && op.to.iter().any(|to| is_a(to, "foot"));
    let written = vfs.take_log().iter().filter(is_footer).count();
    assert_eq!((written, heard.count()), (restored, restored));
    assert_eq!(heard.all().iter().map(|(_, entries)| entries).sum::<u64>(), 9);
    assert!(engine.stats().upkeep_bytes > 0);
    assert_eq!(engine.region(RegionId(1)).entries(.., ReadLimit::NONE).unwrap().len(), 9);
}

/// A checkpoint of many regions takes its time. What becomes full meanwhile gets its footer between two parts
/// of it: else the log would come to wait for that.
#[test]
fn full_segments_are_sealed_while_a_checkpoint_is_written() {
    let vfs = SimVfs::new(92);
    let heard = Heard::new(|event| match event {
        Event::SegmentSealed { segment, .. } => Some(("sealed", *segment)),
        Event::CheckpointTaken { start_segment, .. } => Some(("checkpoint", *start_segment)),
        _ => None,
    });
    let engine = by_hand(&vfs).listener(heard.clone()).open(DIR).unwrap();
    // More than one part of a checkpoint holds.
    for region in 1..=30 {
        let mut batch = engine.batch();
        batch.region(RegionId(region)).put(b"key", &[7; 50 << 10]).unwrap();
        engine.write(batch, Durability::Synced).unwrap();
    }
    let (first, writer) = (engine.stats().accepted.segment(), Mutex::new(Some(engine.clone())));
    vfs.set_hook(Some(Arc::new(move |op: &Op| {
        let is_checkpoint = op.kind == OpKind::Write && op.path.ends_with("checkpoint.tmp");
        // The writes below come here too.
        let taken = if is_checkpoint { writer.lock().unwrap().take() } else { None };
        let Some(engine) = taken else { return };
        let mut index = 1;
        while engine.stats().accepted.segment() < first + 3 {
            engine.write(batch(&engine, 1, index, 20 << 10), Durability::Synced).unwrap();
            index += 1;
        }
    })));
    engine.tick().unwrap();
    vfs.set_hook(None);
    let news = heard.take();
    let sealed = |segment| news.iter().position(|news| *news == ("sealed", segment));
    let taken = news.iter().position(|news| *news == ("checkpoint", first));
    assert!(taken.is_some() && sealed(first + 1).is_some() && sealed(first + 1) < taken, "{news:?}");
}
