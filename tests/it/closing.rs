//! The end of a run: who closes it, what it leaves, and that a handle of it does nothing to the
//! store any more.

use crate::support::engines::{by_hand, kill, salts};
use crate::support::entries;
use crate::support::files::{files, is_a};
use crate::support::threads::*;
use raftwood::vfs::sim::{EIO, Fault, LossPolicy, OpKind, SimVfs};
use raftwood::{
    Background, Durability, Engine, EntryId, ErrorKind, Event, EventListener, Options, Purge, ReadLimit,
    RegionId, ScrubOptions,
};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

const R: RegionId = RegionId(1);

fn manual(vfs: &SimVfs) -> Options {
    by_hand(vfs).salt_source(salts(1))
}

fn write(engine: &Engine, region: u64, index: u64, len: usize) {
    entries::append(engine, RegionId(region), index, len).unwrap();
}

/// `tick()` of a closed engine once said Ok, and gave a segment of its own the name of the one that the
/// engine after it was writing to: acknowledged entries were gone.
#[test]
fn a_closed_engine_touches_no_file_of_the_one_that_came_after_it() {
    for background in [Background::Manual, Background::Threads] {
        let vfs = SimVfs::new(1);
        let old = manual(&vfs).background(background).open("/db").unwrap();
        (1..=40).for_each(|index| write(&old, 1, index, 5000));
        old.close().unwrap();
        let new = manual(&vfs).open("/db").unwrap();
        for index in 41..=80 {
            write(&new, 1, index, 5000);
            let before = files(&vfs);
            assert_eq!(old.tick().unwrap_err().kind(), ErrorKind::Closed);
            assert!(before == files(&vfs));
        }
        drop(old);
        new.close().unwrap();
        let after = manual(&vfs).open("/db").unwrap();
        assert_eq!(after.region(R).entries(.., ReadLimit::NONE).unwrap().len(), 80);
    }
}

#[test]
fn every_call_that_could_change_something_says_that_the_engine_is_closed() {
    let vfs = SimVfs::new(2);
    let engine = manual(&vfs).open("/db").unwrap();
    (1..=40).for_each(|index| write(&engine, 1, index, 5000));
    let ticket = engine.submit(batch(&engine, 1, 41, 10), Durability::Synced).unwrap();
    engine.close().unwrap();
    // What was accepted before was seen to its end.
    ticket.wait().unwrap();
    let before = files(&vfs);
    let late = || batch(&engine, 2, 1, 10);
    let kinds = [
        engine.tick().unwrap_err().kind(),
        engine.sync().unwrap_err().kind(),
        engine.purge().unwrap_err().kind(),
        engine.scrub(&ScrubOptions::default()).unwrap_err().kind(),
        engine.backup("/copy").unwrap_err().kind(),
        engine.region(R).repair(EntryId::new(1, 7), &[7; 5000]).unwrap_err().kind(),
        engine.region(R).repair(EntryId::new(1, 700), &[7; 5000]).unwrap_err().kind(),
        engine.write(late(), Durability::Synced).unwrap_err().kind(),
        engine.write(late(), Durability::Written).unwrap_err().kind(),
        engine.write(engine.batch(), Durability::Synced).unwrap_err().kind(),
        engine.write(engine.batch(), Durability::Written).unwrap_err().kind(),
        engine.submit(late(), Durability::Synced).unwrap_err().kind(),
        engine.submit(engine.batch(), Durability::Synced).unwrap_err().kind(),
        engine.try_submit(late(), Durability::Synced).unwrap_err().kind(),
    ];
    assert!(kinds.iter().all(|kind| *kind == ErrorKind::Closed), "{kinds:?}");
    // Reads of what was there go on, wherever they run.
    let (send, receive) = std::sync::mpsc::channel();
    engine.fetch(R, .., ReadLimit::NONE, move |read| send.send(read).unwrap());
    assert_eq!(receive.recv().unwrap().unwrap().len(), 41);
    engine.close().unwrap();
    assert!(before == files(&vfs));
}

/// A call that is changing files when the engine is closed comes to its end before another engine
/// may have the store.
#[test]
fn a_call_that_is_changing_files_ends_before_the_store_is_given_up() {
    let vfs = SimVfs::new(3);
    for round in 0..30 {
        let engine = manual(&vfs).open("/db").unwrap();
        let last = engine.region(R).last_index();
        let stop = Arc::new(AtomicBool::new(false));
        let busy: Vec<_> = (0..3)
            .map(|n| {
                let (engine, stop) = (engine.clone(), stop.clone());
                thread::spawn(move || {
                    while !stop.load(Ordering::Relaxed) {
                        let done = if n == 0 { engine.purge().map(drop) } else { engine.tick() };
                        assert!(done.is_ok() || done.unwrap_err().kind() == ErrorKind::Closed);
                    }
                })
            })
            .collect();
        (last + 1..=last + 10).for_each(|index| write(&engine, 1, index, 9000));
        engine.close().unwrap();
        let before = files(&vfs);
        thread::sleep(Duration::from_millis(2));
        assert!(before == files(&vfs), "round {round}");
        stop.store(true, Ordering::Relaxed);
        busy.into_iter().for_each(|t| t.join().unwrap());
        assert_eq!(manual(&vfs).open("/db").unwrap().region(R).last_index(), last + 10);
    }
}

/// A second `close()` once said Ok at once, while nothing was durable and the directory still locked.
#[test]
fn a_second_close_waits_for_the_first_and_says_what_it_came_to() {
    for fails in [false, true] {
        let vfs = SimVfs::new(4);
        let engine = open(&vfs);
        submit(&engine, 1, 1).wait().unwrap();
        vfs.block_syncs();
        let ticket = submit(&engine, 1, 2);
        vfs.wait_for_syncs(1);
        let close = |engine: &Engine| {
            let engine = engine.clone();
            thread::spawn(move || engine.close())
        };
        let closers = [close(&engine), close(&engine), close(&engine)];
        thread::sleep(Duration::from_millis(100));
        assert!(closers.iter().all(|t| !t.is_finished()));
        assert_eq!(options(&vfs).open("/db").map(drop).unwrap_err().kind(), ErrorKind::Locked);
        if fails {
            vfs.set_fault(Fault::error(EIO).on(OpKind::SyncData).forever());
        }
        vfs.release_syncs();
        let outcomes = closers.map(|t| in_time("a close", move || t.join().unwrap()));
        vfs.clear_faults();
        assert!(outcomes.iter().all(|o| o.is_ok() != fails), "{outcomes:?}");
        assert_eq!(ticket.wait().is_ok(), !fails);
        assert_eq!(engine.close().is_ok(), !fails);
        open(&vfs);
    }
}

/// Closes the engine from within.
#[derive(Default)]
struct ClosesItself(Mutex<Option<Engine>>, Mutex<Vec<bool>>);

impl EventListener for ClosesItself {
    fn on_event(&self, event: &Event<'_>) {
        let engine = self.0.lock().unwrap().clone();
        if let (Event::CheckpointTaken { .. } | Event::SegmentSealed { .. }, Some(engine)) = (event, engine) {
            let outcome = engine.close();
            self.1.lock().unwrap().push(outcome.is_ok());
        }
    }
}

/// It cannot wait for a close that waits for it in turn.
#[test]
fn a_listener_that_closes_an_engine_that_is_being_closed_is_refused_and_nothing_hangs() {
    for from_outside in [true, false] {
        let vfs = SimVfs::new(5);
        let listener = Arc::new(ClosesItself::default());
        let engine = options(&vfs).listener(listener.clone()).open("/db").unwrap();
        (1..=3).for_each(|index| write(&engine, 1, index, 20_000));
        *listener.0.lock().unwrap() = Some(engine.clone());
        if from_outside {
            let engine = engine.clone();
            let _ = in_time("the close", move || engine.close());
            assert!(listener.1.lock().unwrap().iter().all(|ok| !ok));
        } else {
            let callers = [0, 1].map(|_| {
                let engine = engine.clone();
                thread::spawn(move || drop((engine.purge(), engine.close())))
            });
            callers.into_iter().for_each(|t| in_time("the close", move || t.join().unwrap()));
        }
        assert!(!listener.1.lock().unwrap().is_empty());
        assert_eq!(engine.sync().unwrap_err().kind(), ErrorKind::Closed);
        listener.0.lock().unwrap().take();
        assert_eq!(open(&vfs).region(R).last_index(), 3);
    }
}

/// A purge holds the turn of upkeep while it notifies its listener, which may close the engine. The close
/// waited for the engine's own thread, and that one for the turn: both forever.
#[test]
fn a_close_by_a_listener_of_a_purge_does_not_wait_for_threads_that_wait_for_the_purge() {
    struct ClosesLate(Mutex<Option<Engine>>);
    impl EventListener for ClosesLate {
        fn on_event(&self, event: &Event<'_>) {
            let Event::CheckpointTaken { .. } = event else { return };
            if thread::current().name().is_some_and(|name| name.starts_with("raftwood-")) {
                return;
            }
            if let Some(engine) = self.0.lock().unwrap().take() {
                // Long enough for upkeep to look around, and to wait for its turn.
                thread::sleep(Duration::from_millis(400));
                let _ = engine.close();
            }
        }
    }
    let vfs = SimVfs::new(15);
    let listener = Arc::new(ClosesLate(Mutex::default()));
    let options = options(&vfs).background(Background::Threads).purge(Purge::default().background(false));
    let engine = options.listener(listener.clone()).open("/db").unwrap();
    *listener.0.lock().unwrap() = Some(engine.clone());
    let (caller, heard) = (engine.clone(), listener.clone());
    let last = in_time("the purge", move || {
        // Upkeep may come first, and leave nothing for a purge.
        for round in 1..=100 {
            (6 * round - 5..=6 * round).for_each(|index| write(&caller, 1, index, 20_000));
            let mut batch = caller.batch();
            batch.region(R).compact_through(6 * round - 1).unwrap();
            caller.write(batch, Durability::Synced).unwrap();
            let _ = caller.purge();
            if heard.0.lock().unwrap().is_none() {
                return 6 * round;
            }
        }
        0
    });
    assert!(last > 0, "no purge wrote a checkpoint");
    assert_eq!(engine.sync().unwrap_err().kind(), ErrorKind::Closed);
    drop(engine);
    assert_eq!(open(&vfs).region(R).last_index(), last);
}

/// After a reset or a compaction that was accepted and not yet synced, `durable` once was its index:
/// ahead of the device.
#[test]
fn nothing_is_called_durable_ahead_of_the_device() {
    let vfs = SimVfs::new(6);
    let engine = open(&vfs);
    (1..=10).for_each(|index| write(&engine, 1, index, 10));
    (1..=10).for_each(|index| write(&engine, 2, index, 10));
    let durable = |region| engine.region(RegionId(region)).state().durable;
    vfs.block_syncs();
    let send = |region: u64, f: &dyn Fn(&mut raftwood::RegionBatch<'_>)| {
        let mut b = engine.batch();
        f(&mut b.region(RegionId(region)));
        engine.submit(b, Durability::Synced).unwrap()
    };
    let mut tickets = vec![
        send(1, &|r| {
            r.reset(EntryId::new(5, 1000)).unwrap();
        }),
        // What was durable is no less so for being compacted.
        send(2, &|r| {
            r.compact_through(10).unwrap();
        }),
        send(3, &|r| {
            r.append((1..=10).map(|i| (EntryId::new(1, i), &b"x"[..]))).unwrap();
        }),
        send(3, &|r| {
            r.compact_through(7).unwrap();
        }),
        send(4, &|r| {
            r.reset(EntryId::new(1, 5)).unwrap();
        }),
        send(4, &|r| {
            r.reset(EntryId::new(1, 9)).unwrap();
        }),
    ];
    assert_eq!([1, 2, 3, 4].map(durable), [10, 10, 0, 0]);
    // Nor is more there after a cut than was said.
    let after = options(&vfs.crash(LossPolicy::LoseAll)).open("/db").unwrap();
    assert_eq!([1, 2, 3, 4].map(|r| after.region(RegionId(r)).last_index()), [10, 10, 0, 0]);
    tickets.push(send(1, &|r| {
        r.append([(EntryId::new(5, 1001), &b"x"[..])]).unwrap();
    }));
    assert_eq!(durable(1), 10);
    vfs.release_syncs();
    for ticket in tickets {
        ticket.wait().unwrap();
    }
    assert_eq!([1, 2, 3, 4].map(durable), [1001, 10, 10, 9]);
    // A base below what was durable before.
    vfs.block_syncs();
    let ticket = send(1, &|r| {
        r.reset(EntryId::new(5, 3)).unwrap();
    });
    assert_eq!(durable(1), 3);
    vfs.release_syncs();
    ticket.wait().unwrap();
}

/// A close once left up to a segment without a footer: the next open read and replayed it, and one sector of
/// it that was lost stopped every region.
#[test]
fn a_closed_store_has_nothing_to_replay_and_a_lost_sector_takes_what_was_in_it() {
    let vfs = SimVfs::new(7);
    let engine = manual(&vfs).open("/db").unwrap();
    for index in 1..=30 {
        for region in 1..=4 {
            let durability = if region == 2 { Durability::Synced } else { Durability::Written };
            engine.write(batch(&engine, region, index, 100), durability).unwrap();
        }
    }
    engine.close().unwrap();
    let files = |kind: &str| vfs.list().into_iter().filter(|(path, _)| is_a(path, kind)).collect::<Vec<_>>();
    assert_eq!((files("log").len(), files("foot").len()), (1, 1));
    let log = files("log").pop().unwrap().0;
    let bytes = vfs.read_file(&log).unwrap();
    let sectors = bytes.iter().rposition(|b| *b != 0).unwrap() as u64 / 512;
    for sector in 8..=sectors {
        let case = vfs.crash(LossPolicy::KeepAll);
        case.zero_sector(&log, sector).unwrap();
        let engine = manual(&case).open("/db").unwrap_or_else(|e| panic!("sector {sector}: {e}"));
        let report = engine.open_report();
        assert_eq!((report.replayed_segments, report.scanned_segments, report.tail_batches), (0, 0, 0));
        let mut damaged = 0;
        for region in 1..=4 {
            let region = engine.region(RegionId(region));
            assert_eq!(region.last_index(), 30);
            for index in 1..=30 {
                match region.entry(index) {
                    Ok(entry) => assert_eq!(entry.payload, vec![index as u8; 100]),
                    Err(e) => {
                        assert_eq!(e.kind(), ErrorKind::Damaged);
                        damaged += 1;
                    }
                }
            }
            engine.write(batch(&engine, region.id().0, 31, 100), Durability::Synced).unwrap();
        }
        assert!(damaged <= 4, "sector {sector}: {damaged}");
        engine.close().unwrap();
        assert_eq!(manual(&case).open("/db").unwrap().region(RegionId(4)).last_index(), 31);
    }
}

/// A store that was killed is as a closed one after a run that wrote nothing and was closed.
#[test]
fn a_close_ends_what_a_killed_run_left_to_replay() {
    let vfs = SimVfs::new(8);
    let engine = manual(&vfs).open("/db").unwrap();
    (1..=30).for_each(|index| write(&engine, 1, index, 5000));
    kill(&vfs, engine);
    let engine = manual(&vfs).open("/db").unwrap();
    assert!(engine.open_report().replayed_segments > 0);
    engine.close().unwrap();
    let engine = manual(&vfs).open("/db").unwrap();
    let report = engine.open_report();
    assert_eq!((report.replayed_segments, report.scanned_segments, report.tail_batches), (0, 0, 0));
    assert_eq!(engine.region(R).entries(.., ReadLimit::NONE).unwrap().len(), 30);
}
