//! Many threads, one log: tickets, order, back-pressure, and a disk that stands still or fails.

mod fetches;
mod groups;

use crate::support::threads::*;
use raftwood::vfs::sim::{EIO, Fault, OpKind, SimVfs};
use raftwood::{Background, Durability, Engine, EntryId, ErrorKind, Lsn, Pool, ReadLimit, RegionId, Ticket};
use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Barrier, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::Duration;

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
    // A callback that comes after its ticket has completed is called at once: so none may
    // complete before all have theirs.
    begin(&engine);
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
    begin(&engine);
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
                        let cause = std::error::Error::source(&e).unwrap().to_string();
                        assert!(cause.contains("syncing the log"), "{e:?}");
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
fn a_thread_that_is_done_with_its_own_batch_wakes_somebody_for_the_others() {
    let vfs = SimVfs::new(13);
    let engine = open(&vfs);
    for round in 1..=50 {
        begin(&engine);
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

/// Each section of a batch was once applied by itself: a region that a batch came back to was
/// seen with the first half of it.
#[test]
fn a_batch_that_returns_to_a_region_is_seen_whole_or_not_at_all() {
    let vfs = SimVfs::new(7);
    let engine = open(&vfs);
    let stop = std::sync::atomic::AtomicBool::new(false);
    thread::scope(|s| {
        for _ in 0..2 {
            s.spawn(|| {
                let region = engine.region(RegionId(1));
                while !stop.load(Ordering::Relaxed) {
                    let state = region.state();
                    assert!(
                        state.last == 0 || !state.is_empty(),
                        "emptied, and not yet filled again: {state:?}"
                    );
                }
            });
        }
        for round in 0..3000u64 {
            let base = 1 + 3 * round;
            let mut b = engine.batch();
            b.region(RegionId(1)).reset(EntryId::new(1, base)).unwrap();
            b.region(RegionId(2)).set_hard_state(b"x").unwrap();
            b.region(RegionId(1))
                .append((base + 1..=base + 3).map(|i| (EntryId::new(1, i), &b"x"[..])))
                .unwrap();
            // Within a region its order holds, with other regions between.
            b.region(RegionId(3)).put(b"k", b"1").unwrap();
            b.region(RegionId(1)).put(b"base", &base.to_le_bytes()).unwrap();
            b.region(RegionId(3)).delete(b"k").unwrap();
            engine.write(b, Durability::Written).unwrap();
            let r = engine.region(RegionId(1));
            assert_eq!((r.first_index(), r.last_index()), (base + 1, base + 3));
            assert_eq!(r.get(b"base").as_deref(), Some(&base.to_le_bytes()[..]));
            assert_eq!(engine.region(RegionId(3)).get(b"k"), None);
        }
        stop.store(true, Ordering::Relaxed);
    });
}

/// A ticket that was kept once held the payload of its batch, beyond all bounds on memory, and its
/// segment's file.
#[test]
fn a_completed_ticket_holds_nothing_of_its_batch_and_outlives_the_engine() {
    let vfs = SimVfs::new(7);
    let engine = open(&vfs);
    let unpolled = submit(&engine, 1, 1);
    let stuck = {
        engine.sync().unwrap();
        vfs.block_syncs();
        submit(&engine, 1, 2)
    };
    vfs.wait_for_syncs(1);
    // The last handle: what was accepted is seen to its end, and the store can be opened at once.
    let closer = thread::spawn(move || drop(engine));
    vfs.release_syncs();
    closer.join().unwrap();
    let engine = open(&vfs);
    assert_eq!(engine.region(RegionId(1)).state().durable, 2);
    assert!(unpolled.wait().unwrap() < stuck.wait().unwrap());
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

/// Gives a batch a callback that is certain to run on the thread that completes it, and what the
/// callback returned.
fn called_back<T: Send + 'static>(
    vfs: &SimVfs,
    engine: &Engine,
    index: u64,
    f: impl FnOnce() -> T + Send + 'static,
) -> std::sync::mpsc::Receiver<T> {
    let (send, receive) = channel();
    begin(engine);
    vfs.block_syncs();
    submit(engine, 1, index).on_complete(move |outcome| {
        outcome.unwrap();
        send.send(f()).unwrap();
    });
    vfs.release_syncs();
    receive
}

/// A callback once waited for the completion of its own batch, which only it could have delivered: it ran on
/// the thread that delivers, and all others left that to it.
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

/// Upkeep syncs while it holds what a purge or a close needs: so it must not wait for code that
/// may call those.
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

/// The lock was once released while a writer that had been let in before still had its batch in its hands:
/// the one that opened the store then did not see it, and it was acknowledged all the same.
#[test]
fn a_close_waits_for_those_who_were_let_in_before() {
    let vfs = SimVfs::new(26);
    let engine = open(&vfs);
    submit(&engine, 1, 1).wait().unwrap();
    let (gate, once) = (Arc::new(Barrier::new(2)), AtomicU64::new(0));
    let stands = gate.clone();
    vfs.set_hook(Some(Arc::new(move |op| {
        let is_log = op.kind == OpKind::Write && op.path.extension().is_some_and(|e| e == "log");
        if is_log && once.fetch_add(1, Ordering::Relaxed) == 0 {
            stands.wait();
            stands.wait();
        }
    })));
    let writer = {
        let engine = engine.clone();
        thread::spawn(move || engine.write(batch(&engine, 2, 1, 10), Durability::Synced))
    };
    gate.wait();
    let late = engine.clone();
    let closer = thread::spawn(move || engine.close());
    thread::sleep(Duration::from_millis(200));
    assert_eq!(options(&vfs).open("/db").map(|_| ()).unwrap_err().kind(), ErrorKind::Locked);
    assert!(!closer.is_finished());
    // Nobody is let in any more.
    let refused = late.submit(batch(&late, 3, 1, 10), Durability::Synced).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Closed);
    gate.wait();
    in_time("the close", move || closer.join().unwrap()).unwrap();
    writer.join().unwrap().unwrap();
    let after = open(&vfs);
    assert_eq!((after.region(RegionId(2)).last_index(), after.region(RegionId(3)).last_index()), (1, 0));
}

/// Small batches once went past a large one that waited for room, for as long as there were any.
#[test]
fn a_large_batch_that_waits_for_room_is_not_overtaken() {
    let vfs = SimVfs::new(27);
    let engine = options(&vfs).in_flight_bytes_max(4096).open("/db").unwrap();
    begin(&engine);
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

/// With two threads that called `tick()`, or one beside the engine's own, segments once became active out of
/// the order of their numbers: positions fell, `sync()` said Ok without a sync, and the next open dropped
/// what had been acknowledged as torn.
#[test]
fn positions_rise_while_others_tick() {
    for background in [Background::Manual, Background::Threads] {
        let vfs = SimVfs::new(28);
        // Every other segment takes its time to get its name.
        let named = AtomicU64::new(0);
        vfs.set_hook(Some(Arc::new(move |op| {
            if op.kind == OpKind::Rename && named.fetch_add(1, Ordering::Relaxed).is_multiple_of(2) {
                thread::sleep(Duration::from_millis(3));
            }
        })));
        let engine = options(&vfs).background(background).open("/db").unwrap();
        let stop = AtomicU64::new(0);
        let acked = AtomicU64::new(0);
        thread::scope(|s| {
            for _ in 0..2 {
                s.spawn(|| {
                    while stop.load(Ordering::Relaxed) == 0 {
                        engine.tick().unwrap();
                    }
                });
            }
            let mut last = Lsn::ZERO;
            for index in 1..=400 {
                let lsn = match engine.write(batch(&engine, 1, index, 6000), Durability::Written) {
                    Ok(lsn) => lsn,
                    Err(e) => {
                        stop.store(1, Ordering::Relaxed);
                        panic!("{background:?}, entry {index}: {e}");
                    }
                };
                if lsn <= last || index % 50 == 0 && engine.sync().unwrap() < lsn {
                    stop.store(1, Ordering::Relaxed);
                    panic!("{background:?}: entry {index} lies at {lsn}, after {last}");
                }
                last = lsn;
                acked.store(index, Ordering::Relaxed);
            }
            stop.store(1, Ordering::Relaxed);
        });
        let killed = options(&vfs.crash(raftwood::vfs::sim::LossPolicy::KeepAll)).open("/db").unwrap();
        assert_eq!(killed.region(RegionId(1)).last_index(), acked.load(Ordering::Relaxed));
        let cut = options(&vfs.crash(raftwood::vfs::sim::LossPolicy::LoseAll)).open("/db").unwrap();
        assert_eq!(cut.region(RegionId(1)).last_index(), 400);
    }
}

/// A digest was read piece by piece, each as the log was by then: it stood for a log that never was, or
/// failed because the front was compacted meanwhile.
#[test]
fn a_digest_is_of_one_moment() {
    const ENTRIES: u64 = 20_000;
    let vfs = SimVfs::new(60);
    let engine = options(&vfs).segment_bytes(1 << 20).open("/db").unwrap();
    let write = |term: u64| {
        let mut b = engine.batch();
        let payload = [term as u8; 20];
        b.region(RegionId(1)).append((1..=ENTRIES).map(|i| (EntryId::new(term, i), &payload[..]))).unwrap();
        engine.write(b, Durability::Written).unwrap();
    };
    let r = engine.region(RegionId(1));
    write(1);
    let mut allowed = vec![r.checksum(1..=ENTRIES).unwrap()];
    let stop = std::sync::atomic::AtomicBool::new(false);
    thread::scope(|s| {
        let digests = s.spawn(|| {
            let mut digests = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                match engine.region(RegionId(1)).checksum(1..=ENTRIES) {
                    Ok(digest) => digests.push(digest),
                    // Only one that begins after the compaction.
                    Err(e) => {
                        assert_eq!(
                            (e.kind(), engine.region(RegionId(1)).first_index()),
                            (ErrorKind::Compacted, ENTRIES)
                        );
                    }
                }
            }
            digests
        });
        for term in 2..=12 {
            write(term);
            engine.purge().unwrap();
            allowed.push(r.checksum(1..=ENTRIES).unwrap());
        }
        stop.store(true, Ordering::Relaxed);
        let digests = digests.join().unwrap();
        assert!(!digests.is_empty() && digests.iter().all(|digest| allowed.contains(digest)));
    });
    // One that is under way goes on from what it saw, whatever is compacted and given back meanwhile.
    let last = allowed[11];
    for _ in 0..20 {
        let begun = Barrier::new(2);
        thread::scope(|s| {
            let digest = s.spawn(|| {
                begun.wait();
                r.checksum(..)
            });
            begun.wait();
            let mut b = engine.batch();
            b.region(RegionId(1)).compact_through(r.first_index().max(1) + 900).unwrap();
            engine.write(b, Durability::Written).unwrap();
            engine.purge().unwrap();
            let digest = digest.join().unwrap().unwrap();
            assert!(digest == last || digest.entries() < ENTRIES);
        });
    }
}

/// A new segment was filled whole before it was ready, and writers waited for that. Now records may
/// come while it is being filled.
#[test]
fn what_is_written_beside_the_filling_of_segments_stays() {
    let filled = |vfs: &SimVfs| options(vfs).segment_bytes(256 << 10).pool(Pool::default().prewrite(true));
    for seed in 0..4 {
        let vfs = SimVfs::new(seed);
        let engine = filled(&vfs).open("/db").unwrap();
        thread::scope(|s| {
            for region in 1..=4 {
                let engine = &engine;
                s.spawn(move || {
                    for index in 1..=60 {
                        engine.write(batch(engine, region, index, 8 << 10), Durability::Synced).unwrap();
                    }
                });
            }
        });
        assert!(engine.stats().filled_bytes > 256 << 10, "more than the first segment");
        drop(engine);
        let engine = filled(&vfs).open("/db").unwrap();
        assert!(engine.open_report().damage.is_empty());
        for region in 1..=4 {
            let all = engine.region(RegionId(region)).entries(.., ReadLimit::NONE).unwrap();
            assert_eq!(all.len(), 60);
            assert!(all.iter().all(|e| e.payload.iter().all(|b| *b == e.id.index as u8)));
        }
    }
}

/// What filling costs is paid by the byte and what it saves once a sync: a store whose syncs cover
/// much wrote every byte twice.
#[test]
fn segments_are_filled_only_where_a_sync_covers_little() {
    let filled = |len: usize| {
        let vfs = SimVfs::new(1);
        let manual = options(&vfs).background(Background::Manual).segment_bytes(1 << 20);
        let engine = manual.pool(Pool::default().prewrite(true)).open("/db").unwrap();
        for index in 1..=(3 << 20) / len as u64 {
            engine.write(batch(&engine, 1, index, len), Durability::Synced).unwrap();
            engine.tick().unwrap();
        }
        engine.stats().filled_bytes
    };
    let first = 1 << 20;
    let little = filled(8 << 10);
    assert!(little > first + (768 << 10), "{little}");
    let much = filled(64 << 10);
    assert!(much <= first + (512 << 10), "{much}");
}

#[test]
fn a_segment_that_cannot_be_filled_is_given_back_and_another_one_is_made() {
    for kind in [OpKind::Write, OpKind::SyncData] {
        let vfs = SimVfs::new(1);
        let manual = options(&vfs).background(Background::Manual).pool(Pool::default().prewrite(true));
        let engine = manual.open("/db").unwrap();
        let write = |index| engine.write(batch(&engine, 1, index, 9 << 10), Durability::Synced).unwrap();
        write(1);
        write(2);
        // The first such call on a log is that of a piece: its header is written and synced under
        // another name.
        vfs.set_fault(Fault::error(EIO).on(kind).path(".log"));
        vfs.transcript_start();
        assert_eq!(engine.tick().unwrap_err().kind(), ErrorKind::Io);
        assert_eq!(vfs.faults_struck(), 1);
        for index in 3..=30 {
            write(index);
            engine.tick().unwrap();
        }
        let removed = |call: &String| call.starts_with("remove") && call.contains(".log");
        assert_eq!(vfs.take_transcript().iter().filter(|call| removed(call)).count(), 1);
        engine.close().unwrap();
        let engine = options(&vfs).open("/db").unwrap();
        assert_eq!(engine.region(RegionId(1)).last_index(), 30);
    }
}
