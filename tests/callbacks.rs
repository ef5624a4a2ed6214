//! Other people's code on the engine's threads: callbacks and listeners that write, wait, close, or panic.

#![cfg(feature = "sim")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

#[path = "concurrency/support.rs"]
#[allow(dead_code)] // shared with the tests of threads
mod support;

use raftwood::vfs::sim::{EIO, Fault, OpKind, SimVfs};
use raftwood::{Background, Durability, Engine, ErrorKind, Event, EventListener, RegionId, Ticket};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;
use support::*;

/// The thread that works for tickets nobody waits for ran the callback, and waited for room that only its work would have made.
#[test]
fn a_callback_may_submit_while_the_bound_on_bytes_in_flight_is_reached() {
    let vfs = SimVfs::new(22);
    let engine = options(&vfs).in_flight_bytes_max(1000).open("/db").unwrap();
    let e = engine.clone();
    in_time("a callback that waits for room", move || {
        let (send, receive) = channel();
        vfs.block_syncs();
        let inner = e.clone();
        let disk = vfs.clone();
        submit(&e, 1, 1).on_complete(move |_| {
            // Fill what is in flight, and then some.
            disk.block_syncs();
            drop(inner.submit(batch(&inner, 2, 1, 900), Durability::Synced).unwrap());
            disk.release_syncs();
            drop(inner.submit(batch(&inner, 2, 2, 900), Durability::Synced).unwrap());
            drop(inner.submit(batch(&inner, 2, 3, 900), Durability::Synced).unwrap());
            send.send(()).unwrap();
        });
        vfs.release_syncs();
        receive.recv().unwrap();
        e.sync().unwrap();
    });
    assert_eq!(engine.region(RegionId(2)).state().durable, 3);
}

/// What a listener panics with must not take the thread along that has everybody's batches in its hands.
#[test]
fn a_listener_that_panics_when_writing_stops_leaves_nobody_waiting() {
    struct Panics;
    impl EventListener for Panics {
        fn on_event(&self, event: &Event<'_>) {
            if let Event::Poisoned { .. } = event {
                panic!("on purpose");
            }
        }
    }
    let vfs = SimVfs::new(23);
    let engine = options(&vfs).listener(Arc::new(Panics)).open("/db").unwrap();
    in_time("waiters", move || {
        submit(&engine, 1, 1).wait().unwrap();
        vfs.block_syncs();
        vfs.set_fault(Fault::error(EIO).on(OpKind::SyncData).path(".log").forever());
        let tickets: Vec<Ticket> = (2..=5).map(|region| submit(&engine, region, 1)).collect();
        let writer = engine.clone();
        let other = thread::spawn(move || writer.write(batch(&writer, 6, 1, 10), Durability::Synced));
        vfs.wait_for_syncs(1);
        vfs.release_syncs();
        for ticket in tickets {
            assert_eq!(ticket.wait().unwrap_err().kind(), ErrorKind::Poisoned);
        }
        assert_eq!(other.join().unwrap().unwrap_err().kind(), ErrorKind::Poisoned);
        let _ = engine.close();
    });
}

/// A listener that panics, or a file system that does, ended the thread that prepares segments, and writers waited for ever.
#[test]
fn a_panic_while_a_segment_is_prepared_fails_the_append_that_needs_it_and_no_other() {
    struct Panics(AtomicU64);
    impl EventListener for Panics {
        fn on_event(&self, event: &Event<'_>) {
            if let Event::BackgroundError { .. } = event
                && self.0.fetch_add(1, Ordering::Relaxed) < 3
            {
                panic!("on purpose");
            }
        }
    }
    for in_vfs in [true, false] {
        let vfs = SimVfs::new(24);
        let engine = options(&vfs).listener(Arc::new(Panics(AtomicU64::new(0)))).open("/db").unwrap();
        in_time("a writer that needs a segment", move || {
            if in_vfs {
                vfs.set_hook(Some(Arc::new(|op| {
                    assert!(
                        op.kind != OpKind::Open || !op.path.to_string_lossy().contains(".free"),
                        "on purpose"
                    );
                })));
            } else {
                vfs.set_fault(Fault::error(EIO).path(".free").forever());
            }
            let mut index = 0;
            let error = loop {
                index += 1;
                match engine.write(batch(&engine, 1, index, 3000), Durability::Synced) {
                    Ok(_) => {}
                    Err(e) => break e,
                }
            };
            assert_eq!(error.kind(), ErrorKind::Io, "{error}");
            vfs.set_hook(None);
            vfs.clear_faults();
            for index in index..index + 40 {
                engine.write(batch(&engine, 1, index, 3000), Durability::Synced).unwrap();
            }
            engine.close().unwrap();
        });
    }
}

/// The close waits for upkeep, upkeep for its sync, and that was told of the error only after the listeners were.
#[test]
fn a_listener_may_close_the_engine_when_writing_stops() {
    struct Closes(Mutex<Option<Engine>>, Mutex<std::sync::mpsc::Sender<()>>);
    impl EventListener for Closes {
        fn on_event(&self, event: &Event<'_>) {
            if let Event::Poisoned { .. } = event
                && let Some(engine) = self.0.lock().unwrap().take()
            {
                assert_eq!(engine.close().unwrap_err().kind(), ErrorKind::Poisoned);
                self.1.lock().unwrap().send(()).unwrap();
            }
        }
    }
    for round in 0..20 {
        let vfs = SimVfs::new(28 + round);
        let (send, closed) = channel();
        let closes = Arc::new(Closes(Mutex::default(), Mutex::new(send)));
        let engine = options(&vfs).listener(closes.clone()).open("/db").unwrap();
        *closes.0.lock().unwrap() = Some(engine.clone());
        in_time("the close", move || {
            // Upkeep has a segment to seal, and waits for a sync that another thread is at, and that fails.
            vfs.set_hook(Some(Arc::new(|op| {
                if op.kind == OpKind::SyncData && op.path.extension().is_some_and(|e| e == "log") {
                    thread::sleep(Duration::from_millis(30));
                }
            })));
            vfs.set_fault(Fault::error(EIO).on(OpKind::SyncData).path(".log").forever());
            for index in 1..=21 + round % 3 {
                drop(engine.submit(batch(&engine, 1, index, 3000), Durability::Synced));
            }
            while engine.write(batch(&engine, 2, 1, 1), Durability::Written).is_ok() {}
            closed.recv().unwrap();
        });
    }
}

#[test]
fn a_sync_that_failed_is_not_reported_as_stalled() {
    #[derive(Default)]
    struct Stalls(AtomicU64);
    impl EventListener for Stalls {
        fn on_event(&self, event: &Event<'_>) {
            if let Event::SyncStalled { .. } = event {
                self.0.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
    let vfs = SimVfs::new(25);
    let stalls = Arc::new(Stalls::default());
    let engine =
        options(&vfs).stall_after(Duration::from_millis(20)).listener(stalls.clone()).open("/db").unwrap();
    vfs.set_fault(Fault::error(EIO).on(OpKind::SyncData).path(".log").forever());
    assert!(engine.write(batch(&engine, 1, 1, 10), Durability::Synced).is_err());
    thread::sleep(Duration::from_millis(400));
    assert_eq!(stalls.0.load(Ordering::Relaxed), 0);
}

/// What upkeep does is told while it is at it: a listener that asked for more upkeep waited for itself.
#[test]
fn a_listener_that_calls_upkeep_from_within_upkeep_is_refused_and_nothing_hangs() {
    struct Calls(Mutex<Option<Engine>>, Mutex<Vec<ErrorKind>>);
    impl EventListener for Calls {
        fn on_event(&self, event: &Event<'_>) {
            let engine = self.0.lock().unwrap().clone();
            if let (Event::Checkpoint { .. }, Some(engine)) = (event, engine) {
                let refused = [
                    engine.purge().map(drop),
                    engine.tick(),
                    engine.scrub(&Default::default()).map(drop),
                    engine.backup("/elsewhere").map(drop),
                ];
                self.1.lock().unwrap().extend(refused.map(|outcome| outcome.unwrap_err().kind()));
                // What others may do from there, it may too.
                engine
                    .write(
                        batch(&engine, 9, engine.region(RegionId(9)).last_index() + 1, 1),
                        Durability::Written,
                    )
                    .unwrap();
            }
        }
    }
    let calls = Arc::new(Calls(Mutex::default(), Mutex::default()));
    let vfs = SimVfs::new(77);
    let engine = options(&vfs).listener(calls.clone()).open("/db").unwrap();
    *calls.0.lock().unwrap() = Some(engine.clone());
    in_time("upkeep", move || {
        for index in 1..=60 {
            engine.write(batch(&engine, 1, index, 3000), Durability::Synced).unwrap();
        }
        let mut compact = engine.batch();
        compact.region(RegionId(1)).compact_through(60).unwrap();
        engine.write(compact, Durability::Synced).unwrap();
        engine.purge().unwrap();
        let refused = calls.1.lock().unwrap().clone();
        assert!(
            refused.len() >= 4 && refused.iter().all(|kind| *kind == ErrorKind::InvalidArgument),
            "{refused:?}"
        );
        assert!(engine.region(RegionId(9)).last_index() >= 1);
        *calls.0.lock().unwrap() = None;
        engine.close().unwrap();
        // An empty batch is no way round the end of writing.
        let late = engine.write(engine.batch(), Durability::Written).unwrap_err();
        assert_eq!(late.kind(), ErrorKind::Closed);
    });
}

/// A thread that looked at a ticket whose batch another thread was at took the place of the ticket's own callback.
#[test]
fn without_threads_of_the_engine_a_callback_is_called_whoever_completes_its_batch() {
    let vfs = SimVfs::new(88);
    let engine = options(&vfs).background(Background::Manual).open("/db").unwrap();
    in_time("the callback", move || {
        for round in 0..50 {
            vfs.block_syncs();
            let writer = engine.clone();
            let other = thread::spawn(move || {
                writer.write(batch(&writer, 1, 1 + round, 10), Durability::Synced).unwrap();
            });
            // The other thread is in its sync; ours comes with the next one.
            vfs.wait_for_syncs(1);
            let (send, called) = channel();
            let ticket = submit(&engine, 2, 1 + round);
            let looker =
                thread::spawn(move || ticket.on_complete(move |outcome| send.send(outcome).unwrap()));
            thread::sleep(Duration::from_millis(1));
            vfs.release_syncs();
            looker.join().unwrap();
            called.recv().unwrap().unwrap();
            other.join().unwrap();
        }
        // From within a callback too.
        let (send, called) = channel();
        let inner = engine.clone();
        submit(&engine, 3, 1).on_complete(move |outcome| {
            outcome.unwrap();
            submit(&inner, 3, 2).on_complete(move |outcome| send.send(outcome).unwrap());
        });
        called.recv().unwrap().unwrap();
    });
}
