//! Many threads, one log: tickets, order, back-pressure, and a disk that stands still or fails.

#![cfg(feature = "sim")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

#[path = "concurrency/support.rs"]
mod support;

use raftwood::vfs::sim::{EIO, Fault, OpKind, SimVfs};
use raftwood::{
    Background, Durability, Engine, ErrorKind, Event, EventListener, Lsn, ReadLimit, RegionId, Ticket,
};
use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Barrier, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::Duration;
use support::*;

/// A whole runtime: parks the thread until woken.
fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(thread::Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(out) => return out,
            Poll::Pending => thread::park(),
        }
    }
}

#[test]
fn a_ticket_can_be_waited_for_polled_or_given_a_callback() {
    let vfs = SimVfs::new(1);
    let engine = open(&vfs);
    let lsn = submit(&engine, 1, 1).wait().unwrap();
    assert!(engine.durable_lsn() >= lsn);
    let lsn = block_on(submit(&engine, 1, 2)).unwrap();
    assert!(engine.durable_lsn() >= lsn);
    let (send, receive) = channel();
    submit(&engine, 1, 3).on_complete(move |outcome| send.send(outcome).unwrap());
    let lsn = receive.recv().unwrap().unwrap();
    assert!(engine.durable_lsn() >= lsn);
    drop(submit(&engine, 1, 4));
    engine.sync().unwrap();
    assert_eq!(engine.region(RegionId(1)).last_index(), 4);
}

#[test]
fn without_threads_of_the_engine_every_kind_of_ticket_still_completes() {
    let vfs = SimVfs::new(2);
    let engine = options(&vfs).background(Background::Manual).open("/db").unwrap();
    submit(&engine, 1, 1).wait().unwrap();
    block_on(submit(&engine, 1, 2)).unwrap();
    let (send, receive) = channel();
    submit(&engine, 1, 3).on_complete(move |outcome| send.send(outcome).unwrap());
    receive.try_recv().unwrap().unwrap();
}

#[test]
fn tickets_complete_in_the_order_of_their_positions() {
    let vfs = SimVfs::new(3);
    let engine = open(&vfs);
    let done: Arc<Mutex<Vec<Lsn>>> = Arc::default();
    // A callback that comes after its ticket has completed is called at once: so none may complete before all have theirs.
    vfs.block_syncs();
    thread::scope(|s| {
        for region in 1..=4 {
            let (engine, done) = (&engine, &done);
            s.spawn(move || {
                for index in 1..=25 {
                    let done = done.clone();
                    submit(engine, region, index)
                        .on_complete(move |lsn| done.lock().unwrap().push(lsn.unwrap()));
                }
            });
        }
    });
    vfs.release_syncs();
    engine.sync().unwrap();
    engine.close().unwrap();
    let done = done.lock().unwrap();
    assert_eq!(done.len(), 100);
    assert!(done.is_sorted());
}

#[test]
fn what_was_submitted_can_be_read_while_its_sync_is_stuck_and_nobody_else_waits() {
    let vfs = SimVfs::new(4);
    let engine = open(&vfs);
    submit(&engine, 1, 1).wait().unwrap();
    vfs.block_syncs();
    let before = engine.durable_lsn();
    let ticket = submit(&engine, 1, 2);
    vfs.wait_for_syncs(1);
    let r = engine.region(RegionId(1));
    assert_eq!(r.entries(.., ReadLimit::NONE).unwrap().len(), 2);
    assert_eq!(r.term(2).unwrap(), 1);
    assert_eq!((r.state().last, r.state().durable), (2, 1));
    assert_eq!(engine.regions(), [RegionId(1)]);
    assert_eq!(engine.stats().entries, 2);
    // Another region is written, as far as it need not be durable.
    engine.write(batch(&engine, 2, 1, 10), Durability::Written).unwrap();
    let later = submit(&engine, 2, 2);
    assert_eq!(engine.region(RegionId(2)).last_index(), 2);
    assert_eq!(engine.durable_lsn(), before);
    vfs.release_syncs();
    assert!(ticket.wait().unwrap() < later.wait().unwrap());
    assert_eq!(engine.region(RegionId(1)).state().durable, 2);
}

#[test]
fn beyond_the_bound_on_bytes_in_flight_a_batch_waits_or_comes_back() {
    let vfs = SimVfs::new(5);
    let engine = options(&vfs).in_flight_bytes_max(4096).open("/db").unwrap();
    vfs.block_syncs();
    // One may always be in flight, whatever its size.
    let first = engine.try_submit(batch(&engine, 1, 1, 8000), Durability::Synced).unwrap();
    let refused = engine.try_submit(batch(&engine, 1, 2, 8000), Durability::Synced).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::WouldBlock);
    assert!(refused.error().is_retryable());
    let again = refused.into_batch().unwrap();
    thread::scope(|s| {
        let waiter = s.spawn(|| engine.write(again, Durability::Synced).unwrap());
        vfs.wait_for_syncs(1);
        vfs.release_syncs();
        first.wait().unwrap();
        waiter.join().unwrap();
    });
    assert_eq!(engine.region(RegionId(1)).last_index(), 2);
}

#[test]
fn poison_wakes_everybody_with_the_first_cause() {
    let vfs = SimVfs::new(6);
    let engine = open(&vfs);
    submit(&engine, 1, 1).wait().unwrap();
    vfs.block_syncs();
    vfs.set_fault(Fault::error(EIO).on(OpKind::SyncData).path(".log").forever());
    let count = 8;
    let acked = AtomicUsize::new(0);
    let ready = Barrier::new(count as usize + 1);
    thread::scope(|s| {
        for region in 10..10 + count {
            let (engine, acked, ready) = (&engine, &acked, &ready);
            s.spawn(move || {
                ready.wait();
                let outcome = match region % 3 {
                    0 => engine
                        .write(batch(engine, region, 1, 10), Durability::Synced)
                        .map_err(|e| e.into_error()),
                    1 => engine
                        .submit(batch(engine, region, 1, 10), Durability::Synced)
                        .map_err(|e| e.into_error())
                        .and_then(Ticket::wait),
                    _ => engine
                        .submit(batch(engine, region, 1, 10), Durability::Synced)
                        .map_err(|e| e.into_error())
                        .and_then(block_on),
                };
                match outcome {
                    Ok(_) => drop(acked.fetch_add(1, Ordering::Relaxed)),
                    Err(e) => {
                        assert_eq!(e.kind(), ErrorKind::Poisoned);
                        assert!(e.to_string().contains("syncing the log"), "{e}");
                    }
                }
            });
        }
        ready.wait();
        vfs.wait_for_syncs(1);
        vfs.release_syncs();
    });
    assert_eq!(acked.load(Ordering::Relaxed), 0);
    assert_eq!(engine.sync().unwrap_err().kind(), ErrorKind::Poisoned);
    assert_eq!(engine.region(RegionId(1)).entry(1).unwrap().payload.len(), 100);
    assert_eq!(engine.close().unwrap_err().kind(), ErrorKind::Poisoned);
}

#[test]
fn a_sync_that_ends_after_the_first_error_acknowledges_nothing() {
    let vfs = SimVfs::new(12);
    let engine = open(&vfs);
    submit(&engine, 1, 1).wait().unwrap();
    vfs.block_syncs();
    let first = submit(&engine, 1, 2);
    vfs.wait_for_syncs(1);
    // While that sync is under way another batch cannot be written.
    vfs.set_fault(Fault::error(EIO).on(OpKind::Write).path(".log").forever());
    let refused = engine.write(batch(&engine, 2, 1, 10), Durability::Written).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Poisoned);
    let durable = engine.durable_lsn();
    vfs.release_syncs();
    assert_eq!(first.wait().unwrap_err().kind(), ErrorKind::Poisoned);
    // Closing waits for the thread that syncs.
    assert_eq!(engine.close().unwrap_err().kind(), ErrorKind::Poisoned);
    assert_eq!(engine.durable_lsn(), durable, "what was refused must not count as durable later");
    assert_eq!(engine.region(RegionId(1)).state().durable, 1);
}

#[test]
fn whoever_is_done_with_its_own_batch_wakes_somebody_for_the_others() {
    let vfs = SimVfs::new(13);
    let engine = open(&vfs);
    for round in 1..=50 {
        vfs.block_syncs();
        thread::scope(|s| {
            let write = |region| {
                let engine = &engine;
                s.spawn(move || engine.write(batch(engine, region, round, 10), Durability::Synced).unwrap())
            };
            write(1);
            vfs.wait_for_syncs(1);
            // These find somebody at work and go to sleep.
            (2..=4).for_each(|region| drop(write(region)));
            while (2..=4).any(|region| engine.region(RegionId(region)).last_index() < round) {
                thread::yield_now();
            }
            vfs.release_syncs();
        });
    }
}

#[test]
fn a_callback_that_panics_poisons_and_nothing_hangs() {
    let vfs = SimVfs::new(7);
    let engine = open(&vfs);
    vfs.block_syncs();
    submit(&engine, 1, 1).on_complete(|_| panic!("on purpose"));
    let other = submit(&engine, 1, 2);
    vfs.release_syncs();
    let _ = other.wait();
    // Whoever completes it trips the gate before it goes on to anything else.
    let error = loop {
        match engine
            .write(batch(&engine, 2, engine.region(RegionId(2)).last_index() + 1, 1), Durability::Synced)
        {
            Ok(_) => thread::yield_now(),
            Err(e) => break e,
        }
    };
    assert_eq!(error.kind(), ErrorKind::Poisoned);
    assert!(error.to_string().contains("callback"), "{error}");
}

#[test]
fn closing_while_writers_run_refuses_the_rest_and_keeps_what_was_acknowledged() {
    let vfs = SimVfs::new(8);
    let engine = open(&vfs);
    let acked: Vec<AtomicU64> = (0..4).map(|_| AtomicU64::new(0)).collect();
    thread::scope(|s| {
        for (region, acked) in acked.iter().enumerate() {
            let engine = &engine;
            s.spawn(move || {
                for index in 1.. {
                    match engine.write(batch(engine, region as u64, index, 300), Durability::Synced) {
                        Ok(_) => acked.store(index, Ordering::Relaxed),
                        Err(e) => {
                            assert_eq!(e.kind(), ErrorKind::Closed, "{e}");
                            return;
                        }
                    }
                }
            });
        }
        while acked.iter().any(|a| a.load(Ordering::Relaxed) < 20) {
            thread::yield_now();
        }
        engine.close().unwrap();
    });
    drop(engine);
    let engine = open(&vfs);
    for (region, acked) in acked.iter().enumerate() {
        assert!(engine.region(RegionId(region as u64)).last_index() >= acked.load(Ordering::Relaxed));
    }
}

#[test]
fn a_batch_larger_than_a_segment_gets_one_of_its_own() {
    let vfs = SimVfs::new(9);
    let engine = open(&vfs);
    thread::scope(|s| {
        for region in 1..=3 {
            let engine = &engine;
            s.spawn(move || {
                for index in 1..=6 {
                    let len = if index % 2 == 0 { 300_000 } else { 50 };
                    engine.write(batch(engine, region, index, len), Durability::Synced).unwrap();
                }
            });
        }
    });
    let check = |engine: &Engine| {
        for region in 1..=3 {
            let all = engine.region(RegionId(region)).entries(.., ReadLimit::NONE).unwrap();
            let lens: Vec<usize> = all.iter().map(|e| e.payload.len()).collect();
            assert_eq!(lens, [50, 300_000, 50, 300_000, 50, 300_000]);
            assert!(all.iter().all(|e| e.payload.iter().all(|b| *b == e.id.index as u8)));
        }
    };
    check(&engine);
    engine.close().unwrap();
    drop(engine);
    check(&open(&vfs));
}

#[test]
fn fetch_answers_on_a_thread_of_the_engine() {
    let vfs = SimVfs::new(10);
    let engine = open(&vfs);
    for index in 1..=10 {
        submit(&engine, 1, index).wait().unwrap();
    }
    let (send, receive) = channel();
    let here = thread::current().id();
    engine.fetch(RegionId(1), 3..=5, ReadLimit::NONE, move |read| {
        assert_ne!(thread::current().id(), here);
        send.send(read.unwrap().iter().map(|e| e.id.index).collect::<Vec<_>>()).unwrap();
    });
    assert_eq!(receive.recv().unwrap(), [3, 4, 5]);
}

#[test]
fn one_sync_serves_all_that_were_written_before_it_began() {
    let vfs = SimVfs::new(11);
    let engine = open(&vfs);
    submit(&engine, 1, 1).wait().unwrap();
    vfs.block_syncs();
    let first = submit(&engine, 1, 2);
    vfs.wait_for_syncs(1);
    let tickets: Vec<Ticket> = (1..=50).map(|region| submit(&engine, region + 100, 1)).collect();
    let before = engine.stats().syncs;
    vfs.release_syncs();
    first.wait().unwrap();
    for ticket in tickets {
        ticket.wait().unwrap();
    }
    assert!(engine.stats().syncs - before <= 3, "{} syncs", engine.stats().syncs - before);
}

/// Gives a batch a callback that is certain to run on the thread that completes it, and what the callback returned.
fn called_back<T: Send + 'static>(
    vfs: &SimVfs,
    engine: &Engine,
    index: u64,
    f: impl FnOnce() -> T + Send + 'static,
) -> std::sync::mpsc::Receiver<T> {
    let (send, receive) = channel();
    vfs.block_syncs();
    submit(engine, 1, index).on_complete(move |outcome| {
        outcome.unwrap();
        send.send(f()).unwrap();
    });
    vfs.release_syncs();
    receive
}

/// A callback once waited for the completion of its own batch, which only it could have delivered: it ran on the thread that
/// delivers, and all others left that to it.
#[test]
fn a_callback_may_write_wait_sync_read_and_purge() {
    for background in [Background::Threads, Background::Manual] {
        let vfs = SimVfs::new(20);
        let engine = options(&vfs).background(background).open("/db").unwrap();
        let e = engine.clone();
        in_time("a callback", move || {
            if background == Background::Manual {
                let inner = e.clone();
                submit(&e, 1, 1).on_complete(move |_| {
                    submit(&inner, 1, 2).wait().unwrap();
                });
                assert_eq!(e.region(RegionId(1)).state().durable, 2);
                return;
            }
            for index in 1..=20 {
                let inner = e.clone();
                called_back(&vfs, &e, index, move || {
                    inner.write(batch(&inner, 2, index, 10), Durability::Synced).unwrap();
                    submit(&inner, 3, index).wait().unwrap();
                    inner.write(batch(&inner, 4, index, 10), Durability::Written).unwrap();
                    inner.sync().unwrap();
                    inner.purge().unwrap();
                    assert_eq!(inner.region(RegionId(3)).state().durable, index);
                })
                .recv()
                .unwrap();
            }
        });
        engine.close().unwrap();
    }
}

/// Upkeep syncs while it holds what a purge or a close needs: so it must not wait for code that may call those.
#[test]
fn a_callback_that_takes_its_time_holds_up_other_callbacks_and_no_sync() {
    let vfs = SimVfs::new(29);
    let engine = open(&vfs);
    let (go, wait) = channel::<()>();
    let (started, has_started) = channel();
    let first = called_back(&vfs, &engine, 1, move || {
        started.send(()).unwrap();
        wait.recv().unwrap();
    });
    has_started.recv().unwrap();
    let (send, second) = channel();
    submit(&engine, 1, 2).on_complete(move |outcome| send.send(outcome).unwrap());
    let e = engine.clone();
    in_time("a sync", move || e.sync().unwrap());
    assert_eq!(engine.region(RegionId(1)).state().durable, 2);
    assert!(second.recv_timeout(Duration::from_millis(100)).is_err(), "one callback after the other");
    go.send(()).unwrap();
    first.recv().unwrap();
    second.recv().unwrap().unwrap();
}

#[test]
fn a_callback_may_close_the_engine_or_drop_its_last_handle() {
    for close in [true, false] {
        let vfs = SimVfs::new(21);
        let disk = vfs.clone();
        in_time("a callback that ends the engine", move || {
            let engine = open(&vfs);
            let inner = engine.clone();
            let done = called_back(&vfs, &engine, 1, move || {
                if close {
                    inner.close()
                } else {
                    drop(inner);
                    Ok(())
                }
            });
            drop(engine);
            done.recv().unwrap().unwrap();
        });
        // The lock goes last.
        let engine = in_time("opening anew", move || {
            loop {
                match options(&disk).open("/db") {
                    Err(e) if e.kind() == ErrorKind::Locked => thread::yield_now(),
                    opened => return opened.unwrap(),
                }
            }
        });
        assert_eq!(engine.region(RegionId(1)).last_index(), 1);
    }
}

/// The lock was once released while a writer that had been let in before still had its batch in its hands: whoever opened the
/// store then did not see it, and it was acknowledged all the same.
#[test]
fn a_close_waits_for_whoever_was_let_in_before() {
    /// Stops the close between its last sync and its end, and lets a writer in there, whose write stands still.
    struct Late {
        vfs: SimVfs,
        engine: Mutex<Option<Engine>>,
        gate: Arc<Barrier>,
        writer: Mutex<Option<thread::JoinHandle<Lsn>>>,
    }
    impl EventListener for Late {
        fn on_event(&self, event: &Event<'_>) {
            if let Event::Checkpoint { .. } = event
                && let Some(engine) = self.engine.lock().unwrap().take()
            {
                let (gate, once) = (self.gate.clone(), AtomicU64::new(0));
                self.vfs.set_hook(Some(Arc::new(move |op| {
                    let is_log = op.kind == OpKind::Write && op.path.extension().is_some_and(|e| e == "log");
                    if is_log && once.fetch_add(1, Ordering::Relaxed) == 0 {
                        gate.wait();
                        gate.wait();
                    }
                })));
                *self.writer.lock().unwrap() = Some(thread::spawn(move || {
                    engine.write(batch(&engine, 2, 1, 10), Durability::Synced).unwrap()
                }));
                self.gate.wait();
            }
        }
    }
    let vfs = SimVfs::new(26);
    let gate = Arc::new(Barrier::new(2));
    let writer = Mutex::default();
    let late = Arc::new(Late { vfs: vfs.clone(), engine: Mutex::default(), gate: gate.clone(), writer });
    let engine = options(&vfs).listener(late.clone()).open("/db").unwrap();
    submit(&engine, 1, 1).wait().unwrap();
    *late.engine.lock().unwrap() = Some(engine.clone());
    let closer = thread::spawn(move || engine.close());
    thread::sleep(Duration::from_millis(200));
    assert_eq!(options(&vfs).open("/db").map(|_| ()).unwrap_err().kind(), ErrorKind::Locked);
    assert!(!closer.is_finished());
    gate.wait();
    in_time("the close", move || closer.join().unwrap()).unwrap();
    late.writer.lock().unwrap().take().unwrap().join().unwrap();
    assert_eq!(open(&vfs).region(RegionId(2)).last_index(), 1);
}

/// Small batches once went past a large one that waited for room, for as long as there were any.
#[test]
fn a_large_batch_that_waits_for_room_is_not_overtaken() {
    let vfs = SimVfs::new(27);
    let engine = options(&vfs).in_flight_bytes_max(4096).open("/db").unwrap();
    vfs.block_syncs();
    let first = submit(&engine, 1, 1);
    vfs.wait_for_syncs(1);
    thread::scope(|s| {
        let large = s.spawn(|| engine.write(batch(&engine, 2, 1, 8000), Durability::Synced).unwrap());
        // Until it waits, small ones are let in.
        for index in 1.. {
            match engine.try_submit(batch(&engine, 3, index, 0), Durability::Synced) {
                Ok(_) => thread::sleep(Duration::from_millis(5)),
                Err(e) => {
                    vfs.release_syncs();
                    assert_eq!(e.kind(), ErrorKind::WouldBlock);
                    assert!(index < 30, "only because there is no room left at all");
                    break;
                }
            }
        }
        first.wait().unwrap();
        large.join().unwrap();
    });
    engine.write(batch(&engine, 4, 1, 0), Durability::Synced).unwrap();
}
