//! The engine's threads in one interleaving after another, chosen by shuttle's schedulers. A thread that is
//! never woken is a deadlock, and found as one.
//!
//! Runs with `.ci/interleavings` only, because the engine's locks must be the scheduler's:
//! `RUSTFLAGS="--cfg shuttle"`. `RAFTWOOD_INTERLEAVINGS` is the number of schedules for each
//! scenario and scheduler, `RAFTWOOD_INTERLEAVINGS_SEED` moves all of them. A failure prints its
//! schedule, and `shuttle::replay` takes it.

#![cfg(all(shuttle, test))]
#![allow(clippy::unwrap_used)] // a test that cannot go on should stop

use raftwood::vfs::Vfs;
use raftwood::vfs::sim::{EIO, Fault, LossPolicy, OpKind, SimVfs};
use raftwood::{
    Background, Durability, Engine, EntryId, ErrorKind, EventListener, LogState, Lsn, Options, Pool, Purge,
    ReadLimit, RegionId, Rollback, WriteBatch,
};
use shuttle::scheduler::{PctScheduler, RandomScheduler, Scheduler};
use shuttle::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use shuttle::sync::{Arc, Mutex};
use shuttle::{Config, Runner, thread};
use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::path::Path;

fn from_env(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

/// How many changes of thread at chosen moments the second scheduler makes.
const PCT_DEPTH: usize = 4;

/// Runs the scenario under both schedulers.
fn explore(scenario: fn()) {
    let schedules = from_env("RAFTWOOD_INTERLEAVINGS", 5000) as usize;
    let seed = from_env("RAFTWOOD_INTERLEAVINGS_SEED", 1);
    let mut config = Config::new();
    // Opening a store needs more than a coroutine usually has.
    config.stack_size = 1 << 20;
    config.silence_warnings = true;
    let run = |scheduler: Box<dyn Scheduler + Send>| Runner::new(scheduler, config.clone()).run(scenario);
    let random = run(Box::new(RandomScheduler::new_from_seed(seed, schedules)));
    let few_changes = run(Box::new(PctScheduler::new_from_seed(seed, PCT_DEPTH, schedules)));
    println!("{} schedules", random + few_changes);
}

fn options(vfs: &SimVfs, life: u64) -> Options {
    let salt = std::sync::atomic::AtomicU64::new(life << 32);
    Options::new()
        .segment_bytes(64 << 10)
        .pool(Pool::default().files_max(2).prewrite(false))
        .purge(Purge::default().background(false))
        .background(Background::Manual)
        .salt_source(Arc::new(move || salt.fetch_add(1, std::sync::atomic::Ordering::Relaxed)))
        .vfs(Arc::new(vfs.clone()))
}

fn open(vfs: &SimVfs) -> Engine {
    options(vfs, 1).open("/db").unwrap()
}

/// What a power cut that takes everything unsynced leaves.
fn after_a_cut(vfs: &SimVfs) -> Engine {
    options(&vfs.crash(LossPolicy::LoseAll), 2).open("/db").unwrap()
}

fn payload(region: u64, index: u64, term: u64, len: usize) -> Vec<u8> {
    let mut bytes = format!("<{region} {index} {term}>").into_bytes();
    bytes.resize(len.max(bytes.len()), b'.');
    bytes
}

fn add(batch: &mut WriteBatch, region: u64, indexes: RangeInclusive<u64>, term: u64, len: usize) {
    for index in indexes {
        let bytes = payload(region, index, term, len);
        batch.region(RegionId(region)).append([(EntryId::new(term, index), &bytes[..])]).unwrap();
    }
}

fn batch(engine: &Engine, region: u64, indexes: RangeInclusive<u64>) -> WriteBatch {
    let mut batch = engine.batch();
    add(&mut batch, region, indexes, 1, 40);
    batch
}

/// Every entry that is there can be read and is what it should be; returns them.
fn read(engine: &Engine, region: u64, len: usize) -> Vec<EntryId> {
    let read = engine.region(RegionId(region)).entries(.., ReadLimit::NONE).unwrap();
    for (n, e) in read.iter().enumerate() {
        assert_eq!(e.id.index, read[0].id.index + n as u64);
        assert_eq!(e.payload, payload(region, e.id.index, e.id.term, len));
    }
    read.iter().map(|e| e.id).collect()
}

fn spawn<T: Send + 'static>(
    engine: &Engine,
    work: impl FnOnce(&Engine) -> T + Send + 'static,
) -> thread::JoinHandle<T> {
    let engine = engine.clone();
    thread::spawn(move || work(&engine))
}

#[test]
fn what_is_acknowledged_is_durable_and_what_is_accepted_can_be_read() {
    explore(|| {
        let vfs = SimVfs::new(1);
        let engine = open(&vfs);
        let writers = [1, 2, 3].map(|w| {
            let vfs = vfs.clone();
            spawn(&engine, move |engine| {
                for index in [1, 3] {
                    let lsn = engine.write(batch(engine, w, index..=index + 1), Durability::Synced).unwrap();
                    assert!(engine.durable_lsn() >= lsn);
                    if w == 1 {
                        assert_eq!(after_a_cut(&vfs).region(RegionId(w)).last_index(), index + 1);
                    }
                }
            })
        });
        let reader = spawn(&engine, |engine| {
            for _ in 0..3 {
                for region in 1..=3 {
                    // A batch's entries appear together.
                    assert!(read(engine, region, 40).len().is_multiple_of(2));
                }
            }
        });
        writers.into_iter().chain([reader]).for_each(|t| t.join().unwrap());
        let after = after_a_cut(&vfs);
        (1..=3).for_each(|region| assert_eq!(read(&after, region, 40).len(), 4));
    });
}

#[test]
fn tickets_complete_once_and_in_order_however_they_are_waited_for() {
    explore(|| {
        let vfs = SimVfs::new(2);
        let engine = options(&vfs, 1).background(Background::Threads).open("/db").unwrap();
        let told: Arc<Mutex<Vec<(u64, Lsn)>>> = Arc::default();
        let submit = |engine: &Engine, region: u64, index: u64| {
            engine.submit(batch(engine, region, index..=index), Durability::Synced).unwrap()
        };
        let callers = [1, 2].map(|w| {
            let told = told.clone();
            spawn(&engine, move |engine| {
                for index in 1..=2 {
                    let told = told.clone();
                    submit(engine, w, index)
                        .on_complete(move |lsn| told.lock().unwrap().push((w, lsn.unwrap())));
                }
                let last = submit(engine, w, 3);
                let expected = last.lsn();
                assert_eq!(last.wait().unwrap(), expected);
            })
        });
        let polls = spawn(&engine, move |engine| {
            let ticket = submit(engine, 3, 1);
            let expected = ticket.lsn();
            assert_eq!(shuttle::future::block_on(ticket).unwrap(), expected);
            drop(submit(engine, 3, 2));
        });
        callers.into_iter().chain([polls]).for_each(|t| t.join().unwrap());
        engine.close().unwrap();
        // A callback that comes late is called at once; so the order is that of each thread's own tickets.
        let told = told.lock().unwrap();
        for w in [1, 2] {
            let own: Vec<Lsn> = told.iter().filter(|(who, _)| *who == w).map(|(_, lsn)| *lsn).collect();
            assert!(own.len() == 2 && own.is_sorted(), "{told:?}");
        }
    });
}

fn three_writers_and_a_failing(kind: OpKind) {
    let vfs = SimVfs::new(3);
    let engine = open(&vfs);
    // The run has its segment: an error of making one fails the batch that needs it and nothing more.
    engine.write(batch(&engine, 9, 1..=1), Durability::Synced).unwrap();
    let failed = Arc::new(AtomicBool::new(false));
    let writers = [1, 2, 3].map(|w| {
        let failed = failed.clone();
        spawn(&engine, move |engine| {
            let mut acked = 0;
            for index in 1..=3 {
                let late = failed.load(Ordering::SeqCst);
                match engine.write(batch(engine, w, index..=index), Durability::Synced) {
                    Ok(_) => {
                        assert!(!late, "acknowledged after an error had been told");
                        acked = index;
                    }
                    Err(e) => {
                        assert_eq!(e.kind(), ErrorKind::Poisoned);
                        failed.store(true, Ordering::SeqCst);
                        break;
                    }
                }
            }
            acked
        })
    });
    let breaks = vfs.clone();
    let saboteur = thread::spawn(move || breaks.set_fault(Fault::error(EIO).on(kind)));
    let acked = writers.map(|t| t.join().unwrap());
    saboteur.join().unwrap();
    if vfs.faults_struck() > 0 {
        assert_eq!(engine.sync().unwrap_err().kind(), ErrorKind::Poisoned);
        assert!(failed.load(Ordering::SeqCst), "somebody was told");
    }
    let after = after_a_cut(&vfs);
    for (region, acked) in (1..).zip(acked) {
        assert!(read(&after, region, 40).len() as u64 >= acked);
    }
}

#[test]
fn a_failed_sync_wakes_everybody_and_nothing_is_acknowledged_after_it() {
    explore(|| three_writers_and_a_failing(OpKind::SyncData));
}

#[test]
fn a_failed_write_beside_a_sync_wakes_everybody_and_nothing_is_acknowledged_after_it() {
    explore(|| three_writers_and_a_failing(OpKind::Write));
}

#[test]
fn writers_that_wait_for_room_and_for_segments_go_on() {
    explore(|| {
        let vfs = SimVfs::new(4);
        const LEN: usize = 15 << 10;
        let engine = options(&vfs, 1)
            .background(Background::Threads)
            .in_flight_bytes_max(LEN + 200)
            .open("/db")
            .unwrap();
        let writers = [1, 2, 3].map(|w| {
            spawn(&engine, move |engine| {
                for index in 1..=2 {
                    let mut batch = engine.batch();
                    add(&mut batch, w, index..=index, 1, LEN);
                    let durability = if w == 2 { Durability::Written } else { Durability::Synced };
                    engine.write(batch, durability).unwrap();
                    assert_eq!(read(engine, w, LEN).len() as u64, index);
                }
            })
        });
        writers.into_iter().for_each(|t| t.join().unwrap());
        engine.close().unwrap();
        let after = after_a_cut(&vfs);
        (1..=3).for_each(|region| assert_eq!(read(&after, region, LEN).len(), 2));
    });
}

/// No more full segments wait for their footer than a few: a writer that needs another one is held up until
/// one is sealed, and the thread that seals is the only one to wake it.
#[test]
fn writers_that_wait_for_footers_go_on() {
    explore(|| {
        let vfs = SimVfs::new(16);
        // One to a segment.
        const LEN: usize = 50 << 10;
        let engine = options(&vfs, 1).background(Background::Threads).open("/db").unwrap();
        let writers = [1, 2].map(|w| {
            spawn(&engine, move |engine| {
                for index in 1..=4 {
                    let mut batch = engine.batch();
                    add(&mut batch, w, index..=index, 1, LEN);
                    engine.write(batch, Durability::Written).unwrap();
                }
            })
        });
        writers.into_iter().for_each(|t| t.join().unwrap());
        engine.close().unwrap();
        let after = after_a_cut(&vfs);
        (1..=2).for_each(|region| assert_eq!(read(&after, region, LEN).len(), 4));
    });
}

/// Two that prepared segments at once once made them active out of the order of their numbers.
#[test]
fn positions_rise_beside_two_that_tick() {
    explore(|| {
        let vfs = SimVfs::new(13);
        let engine = open(&vfs);
        let tickers = [1, 2].map(|_| {
            spawn(&engine, |engine| {
                for _ in 0..3 {
                    engine.tick().unwrap();
                }
            })
        });
        let mut last = Lsn::ZERO;
        for index in 1..=5 {
            let mut batch = engine.batch();
            add(&mut batch, 1, index..=index, 1, 25_000);
            let lsn = engine.write(batch, Durability::Written).unwrap();
            assert!(lsn > last, "{lsn} after {last}");
            last = lsn;
        }
        assert!(engine.sync().unwrap() >= last);
        tickers.into_iter().for_each(|t| t.join().unwrap());
        assert_eq!(read(&after_a_cut(&vfs), 1, 25_000).len(), 5);
    });
}

#[test]
fn a_close_beside_writers_ends_and_keeps_what_was_acknowledged() {
    explore(|| {
        let vfs = SimVfs::new(5);
        let engine = options(&vfs, 1).background(Background::Threads).open("/db").unwrap();
        let writers = [1, 2].map(|w| {
            spawn(&engine, move |engine| {
                let mut acked = 0;
                for index in 1..=2 {
                    match engine.write(batch(engine, w, index..=index), Durability::Synced) {
                        Ok(_) => acked = index,
                        Err(e) => {
                            assert_eq!(e.kind(), ErrorKind::Closed);
                            break;
                        }
                    }
                }
                acked
            })
        });
        let closers = [(), ()].map(|()| spawn(&engine, |engine| engine.close().unwrap()));
        let acked = writers.map(|t| t.join().unwrap());
        closers.into_iter().for_each(|t| t.join().unwrap());
        drop(engine);
        let after = after_a_cut(&vfs);
        for (region, acked) in (1..).zip(acked) {
            assert!(read(&after, region, 40).len() as u64 >= acked);
        }
    });
}

/// A thread that lets others run before it writes counts as writing. When writing stops meanwhile there may
/// be nothing left to write, and a close that waits for the end of it would wait forever.
#[test]
fn a_close_ends_when_writing_stops_while_a_group_gathers() {
    explore(|| {
        let vfs = SimVfs::new(14);
        let engine = open(&vfs);
        engine.write(batch(&engine, 9, 1..=1), Durability::Synced).unwrap();
        let writers = [1, 2, 3].map(|w| {
            spawn(&engine, move |engine| {
                for index in 1..=3 {
                    if let Err(e) = engine.write(batch(engine, w, index..=index), Durability::Synced) {
                        assert!(matches!(e.kind(), ErrorKind::Poisoned | ErrorKind::Closed), "{e}");
                        break;
                    }
                }
            })
        });
        let elsewhere = vfs.clone();
        let closer = spawn(&engine, move |engine| {
            elsewhere.open_dir(Path::new("/db")).unwrap().remove("LOCK").unwrap();
            assert_eq!(engine.tick().unwrap_err().kind(), ErrorKind::Poisoned);
            engine.close().unwrap_err();
        });
        writers.into_iter().for_each(|t| t.join().unwrap());
        closer.join().unwrap();
    });
}

/// The close may be the one that lets others run. Once they have stopped writing nothing is left to do, no
/// stage ends any more, and a close that waited for the next one would wait forever.
#[test]
fn a_close_that_gathers_itself_ends_when_writing_stops_meanwhile() {
    explore(|| {
        let vfs = SimVfs::new(15);
        let engine = open(&vfs);
        let submit = |region, index| {
            let submitted = engine.submit(batch(&engine, region, index..=index), Durability::Synced);
            submitted.unwrap()
        };
        // Two that one sync settles are expected back.
        let settled = [submit(1, 1), submit(2, 1)];
        engine.sync().unwrap();
        settled.into_iter().for_each(|ticket| assert!(ticket.wait().is_ok()));
        let pending = [submit(1, 2), submit(2, 2)];
        let stopper = spawn(&engine, move |engine| {
            vfs.open_dir(Path::new("/db")).unwrap().remove("LOCK").unwrap();
            let _ = engine.tick();
        });
        let _ = engine.close();
        pending.into_iter().for_each(|ticket| {
            let _ = ticket.wait();
        });
        stopper.join().unwrap();
    });
}

#[test]
fn a_reader_sees_the_log_before_or_after_each_batch_and_never_between() {
    explore(|| {
        let vfs = SimVfs::new(6);
        let engine = open(&vfs);
        engine.write(batch(&engine, 1, 1..=4), Durability::Synced).unwrap();
        let writer = spawn(&engine, |engine| {
            // Another leader's entries from 3 on.
            let mut b = engine.batch();
            add(&mut b, 1, 3..=6, 2, 40);
            b.region(RegionId(1)).set_hard_state(b"2").unwrap();
            engine.write(b, Durability::Written).unwrap();
            let mut b = engine.batch();
            b.region(RegionId(1)).compact_through(4).unwrap();
            engine.write(b, Durability::Written).unwrap();
            let mut b = engine.batch();
            b.region(RegionId(1)).reset(EntryId::new(3, 20)).unwrap().set_hard_state(b"3").unwrap();
            // It comes back to the region.
            b.region(RegionId(2)).set_hard_state(b"3").unwrap();
            add(&mut b, 1, 21..=22, 3, 40);
            engine.write(b, Durability::Synced).unwrap();
        });
        let id = EntryId::new;
        let states = [
            vec![id(1, 1), id(1, 2), id(1, 3), id(1, 4)],
            vec![id(1, 1), id(1, 2), id(2, 3), id(2, 4), id(2, 5), id(2, 6)],
            vec![id(2, 5), id(2, 6)],
            vec![id(3, 21), id(3, 22)],
        ];
        let reader = spawn(&engine, move |engine| {
            let mut at = 0;
            for _ in 0..4 {
                let seen = read(engine, 1, 40);
                let now = states.iter().position(|state| *state == seen);
                assert!(now.is_some_and(|now| now >= at), "{seen:?} after {:?}", states[at]);
                at = now.unwrap();
                let LogState { first, last, .. } = engine.region(RegionId(1)).state();
                let seen = [(1, 4), (1, 6), (5, 6), (21, 22)].iter().position(|ends| *ends == (first, last));
                assert!(seen.is_some_and(|now| now >= at), "{first}..={last} after {:?}", states[at]);
                at = seen.unwrap();
            }
        });
        [writer, reader].into_iter().for_each(|t| t.join().unwrap());
        assert_eq!(read(&engine, 1, 40), [id(3, 21), id(3, 22)]);
    });
}

#[test]
fn reads_beside_a_purge_that_uses_segments_again_are_right_or_compacted() {
    explore(|| {
        let vfs = SimVfs::new(7);
        const LEN: usize = 20 << 10;
        let engine = open(&vfs);
        let write = |engine: &Engine, index: u64| {
            let mut b = engine.batch();
            add(&mut b, 1, index..=index, 1, LEN);
            engine.write(b, Durability::Synced).unwrap();
            engine.tick().unwrap();
        };
        (1..=4).for_each(|index| write(&engine, index));
        let reader = spawn(&engine, move |engine| {
            let mut held = Vec::new();
            for _ in 0..2 {
                for index in 1..=4 {
                    match engine.region(RegionId(1)).entry(index) {
                        Ok(entry) => held.push((index, entry)),
                        Err(e) => assert_eq!(e.kind(), ErrorKind::Compacted, "{e}"),
                    }
                }
            }
            for (index, entry) in held {
                assert_eq!(entry.payload, payload(1, index, 1, LEN));
            }
        });
        let purger = spawn(&engine, move |engine| {
            let mut b = engine.batch();
            b.region(RegionId(1)).compact_through(3).unwrap();
            engine.write(b, Durability::Synced).unwrap();
            engine.purge().unwrap();
            (5..=8).for_each(|index| write(engine, index));
            engine.purge().unwrap();
        });
        [reader, purger].into_iter().for_each(|t| t.join().unwrap());
        assert_eq!(read(&engine, 1, LEN).len(), 5);
    });
}

/// Remembers what was shown to it.
#[derive(Default)]
struct Shown(Mutex<BTreeSet<EntryId>>, AtomicUsize);

impl EventListener for Shown {
    fn before_rollback(
        &self,
        rollback: &Rollback<'_>,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        for entry in rollback.entries() {
            self.0.lock().unwrap().insert(entry?.id);
        }
        self.1.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
}

#[test]
fn no_entry_is_discarded_that_the_listener_was_not_shown() {
    explore(|| {
        let vfs = SimVfs::new(8);
        let shown = Arc::new(Shown::default());
        let engine = options(&vfs, 1).listener(shown.clone()).open("/db").unwrap();
        engine.write(batch(&engine, 1, 1..=2), Durability::Synced).unwrap();
        let appender = spawn(&engine, |engine| {
            let mut there: BTreeSet<EntryId> = (1..=2).map(|index| EntryId::new(1, index)).collect();
            for index in 3..=4 {
                match engine.write(batch(engine, 1, index..=index), Durability::Written) {
                    Ok(_) => drop(there.insert(EntryId::new(1, index))),
                    Err(e) => {
                        assert!(matches!(e.kind(), ErrorKind::Gap | ErrorKind::TermRegression), "{e:?}")
                    }
                }
            }
            there
        });
        let usurper = spawn(&engine, |engine| {
            let mut b = engine.batch();
            add(&mut b, 1, 2..=2, 2, 40);
            engine.write(b, Durability::Synced).unwrap();
        });
        let mut gone = appender.join().unwrap();
        usurper.join().unwrap();
        for id in read(&engine, 1, 40) {
            gone.remove(&id);
        }
        let shown = shown.0.lock().unwrap();
        assert!(gone.is_subset(&shown), "gone {gone:?}, shown {shown:?}");
        assert!(gone.contains(&EntryId::new(1, 2)));
    });
}

#[test]
fn an_open_after_a_close_finds_what_a_writer_beside_it_was_answered() {
    explore(|| {
        let vfs = SimVfs::new(9);
        let engine = options(&vfs, 1).open("/db").unwrap();
        let writers = [1, 2].map(|w| {
            spawn(&engine, move |engine| {
                let durability = if w == 1 { Durability::Synced } else { Durability::Written };
                (1..=2).take_while(|i| engine.write(batch(engine, w, *i..=*i), durability).is_ok()).count()
            })
        });
        let next = spawn(&engine, move |engine| {
            engine.close().unwrap();
            options(&vfs, 2).open("/db").unwrap()
        });
        let acked = writers.map(|t| t.join().unwrap());
        let next = next.join().unwrap();
        for (region, acked) in (1..).zip(acked) {
            assert!(read(&next, region, 40).len() >= acked);
        }
    });
}

#[test]
fn callbacks_that_write_wait_and_close_wait_for_nobody_but_the_disk() {
    explore(|| {
        let vfs = SimVfs::new(10);
        let engine = options(&vfs, 1).background(Background::Threads).open("/db").unwrap();
        let done = Arc::new(AtomicUsize::new(0));
        let callers = [1, 2].map(|w| {
            let done = done.clone();
            spawn(&engine, move |engine| {
                let Ok(ticket) = engine.submit(batch(engine, w, 1..=1), Durability::Synced) else {
                    assert_eq!(w, 2, "only the other closes");
                    done.fetch_add(1, Ordering::Relaxed);
                    return;
                };
                let engine = engine.clone();
                ticket.on_complete(move |outcome| {
                    outcome.unwrap();
                    let written = engine.write(batch(&engine, w, 2..=2), Durability::Synced);
                    assert!(written.is_ok() || w == 2, "only the other closes");
                    let submitted = engine.submit(batch(&engine, w + 10, 1..=1), Durability::Written);
                    if let Ok(ticket) = submitted {
                        ticket.wait().unwrap();
                    }
                    if w == 1 {
                        engine.close().unwrap();
                    }
                    done.fetch_add(1, Ordering::Relaxed);
                });
            })
        });
        callers.into_iter().for_each(|t| t.join().unwrap());
        while done.load(Ordering::Relaxed) < 2 {
            thread::yield_now();
        }
        drop(engine);
        let after = after_a_cut(&vfs);
        assert_eq!(read(&after, 1, 40).len(), 2);
        assert!(read(&after, 2, 40).len() <= 2);
    });
}

/// A callback was once dropped uncalled: the batch, only to be written, was handed to a thread that was
/// calling back before the log said that it is written.
#[test]
fn callbacks_of_written_batches_are_called_beside_those_of_synced_ones() {
    explore(|| {
        let vfs = SimVfs::new(12);
        let engine = options(&vfs, 1).background(Background::Threads).open("/db").unwrap();
        let called = Arc::new(AtomicUsize::new(0));
        let callers =
            [(1, Durability::Written), (2, Durability::Written), (3, Durability::Synced)].map(|(w, d)| {
                let called = called.clone();
                spawn(&engine, move |engine| {
                    for index in 1..=2 {
                        let called = called.clone();
                        engine.submit(batch(engine, w, index..=index), d).unwrap().on_complete(
                            move |outcome| {
                                outcome.unwrap();
                                thread::yield_now();
                                called.fetch_add(1, Ordering::Relaxed);
                            },
                        );
                    }
                })
            });
        callers.into_iter().for_each(|t| t.join().unwrap());
        engine.close().unwrap();
        assert_eq!(called.load(Ordering::Relaxed), 6);
    });
}

#[test]
fn a_large_batch_gets_its_turn_and_callbacks_that_submit_find_room() {
    explore(|| {
        let vfs = SimVfs::new(11);
        let engine =
            options(&vfs, 1).background(Background::Threads).in_flight_bytes_max(600).open("/db").unwrap();
        let small = [1, 2].map(|w| {
            spawn(&engine, move |engine| {
                let ticket = engine.submit(batch(engine, w, 1..=2), Durability::Synced).unwrap();
                let inner = engine.clone();
                ticket.on_complete(move |_| {
                    drop(inner.submit(batch(&inner, w, 3..=5), Durability::Synced).unwrap());
                    drop(inner.submit(batch(&inner, w, 6..=8), Durability::Written).unwrap());
                });
                engine.write(batch(engine, w + 10, 1..=3), Durability::Synced).unwrap();
            })
        });
        let large = spawn(&engine, |engine| {
            engine.write(batch(engine, 20, 1..=20), Durability::Synced).unwrap();
        });
        small.into_iter().chain([large]).for_each(|t| t.join().unwrap());
        while (1..=2).any(|w| engine.region(RegionId(w)).last_index() < 8) {
            thread::yield_now();
        }
        engine.close().unwrap();
        drop(engine);
        let after = after_a_cut(&vfs);
        assert_eq!([1, 2, 11, 12, 20].map(|w| read(&after, w, 40).len()), [8, 8, 3, 3, 20]);
    });
}
