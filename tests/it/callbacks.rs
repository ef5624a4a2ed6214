//! Other people's code on the engine's threads: callbacks and listeners that write, wait, close, or panic.

use crate::support::heard::Heard;
use crate::support::threads::*;
use raftwood::vfs::sim::{EIO, Fault, OpKind, SimVfs};
use raftwood::{Background, Durability, Engine, ErrorKind, Event, EventListener, Lsn, RegionId, Ticket};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// The thread that works for tickets nobody waits for ran the callback, and waited for room that
/// only its work would have made.
#[test]
fn a_callback_may_submit_while_the_bound_on_bytes_in_flight_is_reached() {
    let vfs = SimVfs::new(22);
    let engine = options(&vfs).in_flight_bytes_max(1000).open("/db").unwrap();
    let e = engine.clone();
    in_time("a callback that waits for room", move || {
        let (send, receive) = channel();
        begin(&e);
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

/// Callbacks that panicked.
fn panics() -> Arc<Heard<(Lsn, String)>> {
    Heard::new(|event| match event {
        Event::CallbackPanicked { lsn, message } => Some((*lsn, message.to_string())),
        _ => None,
    })
}

/// What stalled, and how long it had by its end.
fn stalls() -> Arc<Heard<(&'static str, Option<Duration>)>> {
    Heard::new(|event| match event {
        Event::SyncStalled { operation, .. } => Some((*operation, None)),
        Event::StallEnded { operation, elapsed } => Some((*operation, Some(*elapsed))),
        _ => None,
    })
}

/// One callback of one group that panicked once stopped all writing, of all groups.
#[test]
fn a_callback_that_panics_ends_itself_and_nothing_else() {
    let (vfs, panics) = (SimVfs::new(40), panics());
    let engine = options(&vfs).listener(panics.clone()).open("/db").unwrap();
    begin(&engine);
    in_time("the callbacks", move || {
        let (send, receive) = channel();
        vfs.block_syncs();
        let first = submit(&engine, 1, 1);
        vfs.wait_for_syncs(1);
        let ticket = submit(&engine, 1, 2);
        let lsn = ticket.lsn();
        ticket.on_complete(|_| panic!("on purpose"));
        for region in 2..=4 {
            let send = send.clone();
            submit(&engine, region, 1).on_complete(move |outcome| send.send(outcome).unwrap());
        }
        let waits = submit(&engine, 5, 1);
        vfs.release_syncs();
        first.wait().unwrap();
        waits.wait().unwrap();
        (0..3).for_each(|_| assert!(receive.recv().unwrap().is_ok()));
        assert_eq!(panics.all(), [(lsn, "on purpose".to_string())]);
        engine.write(batch(&engine, 1, 3, 10), Durability::Synced).unwrap();
        assert_eq!(engine.region(RegionId(1)).state().durable, 3);
        engine.close().unwrap();
    });
}

/// Each panic once poisoned the engine from inside the delivery of the one before, and each callback that
/// waited delivered those after it: the stack grew with the number of callbacks, and the process was gone
/// after some thousand of them.
#[test]
fn any_number_of_callbacks_may_panic_or_wait() {
    const MANY: u64 = 20_000;
    for fails in [true, false] {
        let (vfs, panics) = (SimVfs::new(41), panics());
        let engine = options(&vfs).segment_bytes(64 << 20).listener(panics.clone()).open("/db").unwrap();
        in_time("the callbacks", move || {
            submit(&engine, 1, 1).wait().unwrap();
            vfs.block_syncs();
            let (send, receive) = channel();
            for index in 1..=MANY {
                let (inner, send) = (engine.clone(), send.clone());
                let ticket = engine.submit(batch(&engine, 2, index, 1), Durability::Synced).unwrap();
                ticket.on_complete(move |outcome| {
                    // Before the last one says so: the close comes right after that, and refuses.
                    if !fails {
                        inner.write(batch(&inner, 3, index, 1), Durability::Written).unwrap();
                    }
                    send.send(()).unwrap();
                    if fails {
                        // Without the noise of the panic hook.
                        std::panic::resume_unwind(Box::new(outcome.unwrap_err().to_string()));
                    }
                });
                if index == 1 {
                    vfs.wait_for_syncs(1);
                }
            }
            if fails {
                vfs.set_fault(Fault::error(EIO).on(OpKind::SyncData).path(".log").forever());
            }
            vfs.release_syncs();
            (0..MANY).for_each(|_| receive.recv().unwrap());
            let after = engine.write(batch(&engine, 4, 1, 1), Durability::Synced);
            assert_eq!(after.map_err(|e| e.kind()).err(), fails.then_some(ErrorKind::Poisoned));
            // It waits for the thread that delivers the last one.
            assert_eq!(engine.close().is_err(), fails);
            let told = panics.all();
            assert_eq!(told.len() as u64, if fails { MANY } else { 0 });
            assert!(told.iter().all(|(_, message)| message.contains("writing stopped")), "{:?}", told.last());
        });
    }
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

/// A listener that panics, or a file system that does, ended the thread that prepares segments, and
/// writers waited forever.
#[test]
fn a_panic_while_a_segment_is_prepared_fails_the_append_that_needs_it_and_no_other() {
    struct Panics(AtomicU64);
    impl EventListener for Panics {
        fn on_event(&self, event: &Event<'_>) {
            if let Event::BackgroundFailed { .. } = event
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

/// The close waits for upkeep, upkeep for its sync, and that was notified of the error only after the
/// listeners were.
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
    let vfs = SimVfs::new(25);
    let stalls = stalls();
    let engine =
        options(&vfs).stall_after(Duration::from_millis(20)).listener(stalls.clone()).open("/db").unwrap();
    vfs.set_fault(Fault::error(EIO).on(OpKind::SyncData).path(".log").forever());
    assert!(engine.write(batch(&engine, 1, 1, 10), Durability::Synced).is_err());
    thread::sleep(Duration::from_millis(400));
    assert_eq!(stalls.all(), []);
}

/// What upkeep does is delivered while upkeep is running: a listener that asked for more upkeep
/// waited for itself.
#[test]
fn a_listener_that_calls_upkeep_from_within_upkeep_is_refused_and_nothing_hangs() {
    struct Calls(Mutex<Option<Engine>>, Mutex<Vec<ErrorKind>>);
    impl EventListener for Calls {
        fn on_event(&self, event: &Event<'_>) {
            let engine = self.0.lock().unwrap().clone();
            if let (Event::CheckpointTaken { .. }, Some(engine)) = (event, engine) {
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

/// A thread that looked at a ticket whose batch another thread was at took the place of the
/// ticket's own callback.
#[test]
fn without_threads_of_the_engine_a_callback_is_called_whichever_thread_completes_its_batch() {
    let vfs = SimVfs::new(88);
    let engine = options(&vfs).background(Background::Manual).open("/db").unwrap();
    begin(&engine);
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

/// Upkeep reported stalls, until it waited for the disk itself: a full segment that had to be sealed was
/// enough, and nobody learned of a disk that hung. And nobody learned of an end.
#[test]
fn a_disk_that_hangs_is_reported_whichever_thread_waits_for_it_and_its_end_too() {
    // A writer alone; a writer, and upkeep that has a segment to seal; upkeep alone; the
    // preparation of a segment alone.
    for (hangs, operation) in [
        (".log", "syncing the log"),
        ("seal", "syncing the log"),
        (".foot", "writing a footer"),
        (".free", "preparing a segment"),
    ] {
        let (vfs, stalls) = (SimVfs::new(50), stalls());
        let engine = options(&vfs)
            .stall_after(Duration::from_millis(50))
            .listener(stalls.clone())
            .open("/db")
            .unwrap();
        in_time("the stall", move || {
            submit(&engine, 1, 1).wait().unwrap();
            // What the first segment brought with it is done: the files kept for a full disk.
            engine.tick().unwrap();
            let (hold, held) = (Arc::new(Mutex::new(())), Arc::new(AtomicU64::new(0)));
            let guard = hold.lock().unwrap();
            let (gate, holds) = (hold.clone(), held.clone());
            vfs.set_hook(Some(Arc::new(move |op| {
                let path = op.path.to_string_lossy();
                let is_it = match hangs {
                    ".foot" => op.to.as_ref().is_some_and(|to| to.extension().is_some_and(|e| e == "foot")),
                    ".free" => op.kind.is_sync() && path.contains(".free"),
                    _ => op.kind == OpKind::SyncData && path.contains(".log"),
                };
                if is_it {
                    holds.fetch_add(1, Ordering::Relaxed);
                    drop(gate.lock());
                }
            })));
            let writer = engine.clone();
            let full = hangs != ".log";
            let writer = thread::spawn(move || {
                for index in 1..=if full { 12 } else { 1 } {
                    let durability = if full { Durability::Written } else { Durability::Synced };
                    writer.write(batch(&writer, 2, index, 10 << 10), durability).unwrap();
                }
            });
            while !stalls.all().contains(&(operation, None)) {
                thread::sleep(Duration::from_millis(5));
            }
            assert!(held.load(Ordering::Relaxed) > 0);
            drop(guard);
            writer.join().unwrap();
            engine.sync().unwrap();
            let ends = || stalls.all().into_iter().filter_map(|(what, after)| Some((what, after?)));
            while !ends().any(|(what, _)| what == operation) {
                thread::sleep(Duration::from_millis(5));
            }
            assert!(ends().next().unwrap().1 >= Duration::from_millis(50));
            vfs.set_hook(None);
            engine.close().unwrap();
        });
    }
}

/// Without threads of the engine, a thread that ticks reports the others.
#[test]
fn a_tick_tells_of_a_disk_that_others_wait_for() {
    let (vfs, stalls) = (SimVfs::new(51), stalls());
    let engine = options(&vfs)
        .background(Background::Manual)
        .stall_after(Duration::from_millis(20))
        .listener(stalls.clone())
        .open("/db")
        .unwrap();
    begin(&engine);
    in_time("the stall", move || {
        vfs.block_syncs();
        let writer = engine.clone();
        let writer =
            thread::spawn(move || writer.write(batch(&writer, 1, 1, 10), Durability::Synced).unwrap());
        vfs.wait_for_syncs(1);
        engine.tick().unwrap();
        assert_eq!(stalls.all(), []);
        thread::sleep(Duration::from_millis(30));
        engine.tick().unwrap();
        engine.tick().unwrap();
        assert_eq!(stalls.all(), [("syncing the log", None); 2]);
        vfs.release_syncs();
        writer.join().unwrap();
        engine.tick().unwrap();
        engine.tick().unwrap();
        assert_eq!(stalls.all().iter().filter(|(_, ended)| ended.is_some()).count(), 1);
    });
}
