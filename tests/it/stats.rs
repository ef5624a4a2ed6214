//! The figures of an engine are those of what happens on its disk and in its regions.

use crate::support::engines::{DIR, by_hand, kill};
use crate::support::files::ruin;
use crate::support::threads::{batch, begin, in_time, options, submit};
use crate::support::two_regions::{self, Fixture, OTHER, R, payload, term};
use crate::support::{engines, entries};
use raftwood::vfs::sim::{EIO, ENOSPC, Fault, OpKind, SimVfs};
use raftwood::{Background, Durability, Engine, EntryId, ErrorKind, ReadMode, RegionId, Stats, TailPolicy};
use std::ops::Range;
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

fn destroyed_suspect_damaged_lost(stats: &Stats) -> [u64; 4] {
    [stats.destroyed_regions, stats.suspect_regions, stats.damaged_regions, stats.lost_hard_states]
}

/// Three entries fill a segment.
fn append(engine: &Engine, indexes: Range<u64>) {
    for index in indexes {
        entries::append(engine, R, index, 20 << 10).unwrap();
    }
}

#[test]
fn an_idle_engine_has_nothing_in_flight_and_all_of_it_is_durable() {
    let vfs = SimVfs::new(60);
    for run in 1..=3 {
        let engine = engines::of_run(&vfs, run).open(DIR).unwrap();
        let is_idle = |when: &str| {
            let stats = engine.stats();
            assert_eq!(stats.accepted, stats.durable, "{when}, run {run}");
            assert_eq!(
                (stats.undurable_bytes, stats.in_flight_bytes, stats.waiting_writers),
                (0, 0, 0),
                "{when}"
            );
        };
        is_idle("opened");
        let next = engine.region(R).last_index() + 1;
        // More than a segment.
        append(&engine, next..next + 12);
        is_idle("written");
        engine.tick().unwrap();
        engine.purge().unwrap();
        is_idle("purged");
        entries::append(&engine, R, next + 12, 10).unwrap();
        let mut only_written = engine.batch();
        only_written.region(OTHER).set_hard_state(b"vote").unwrap();
        engine.write(only_written, Durability::Written).unwrap();
        let stats = engine.stats();
        assert!(stats.accepted > stats.durable && stats.undurable_bytes > 0);
        assert_eq!(stats.in_flight_bytes, 0, "it is as durable as was asked for");
        engine.sync().unwrap();
        is_idle("synced");
        match run {
            1 => engine.close().unwrap(),
            _ => kill(&vfs, engine),
        }
    }
}

#[test]
fn what_is_in_flight_and_who_waits_for_it_is_counted_while_the_disk_hangs() {
    let vfs = SimVfs::new(61);
    let engine = options(&vfs).in_flight_bytes_max(2000).stall_after(Duration::ZERO).open(DIR).unwrap();
    in_time("a disk that hangs", move || {
        begin(&engine);
        assert_eq!(engine.stats().throttled, 0);
        vfs.block_syncs();
        let first = engine.submit(batch(&engine, 1, 1, 1900), Durability::Synced).unwrap();
        vfs.wait_for_syncs(1);
        let before = engine.stats();
        assert!(before.in_flight_bytes >= 1900 && before.undurable_bytes >= 1900, "{before:?}");
        assert!(before.stalls > before.stalls_ended, "{before:?}");
        let other = engine.clone();
        let waits = thread::spawn(move || other.write(batch(&other, 2, 1, 900), Durability::Synced).unwrap());
        while engine.stats().waiting_writers == 0 {
            thread::yield_now();
        }
        assert_eq!(engine.stats().throttled, 1);
        vfs.release_syncs();
        first.wait().unwrap();
        waits.join().unwrap();
        engine.close().unwrap();
        let after = engine.stats();
        assert_eq!((after.undurable_bytes, after.in_flight_bytes, after.waiting_writers), (0, 0, 0));
        assert_eq!(after.stalls, after.stalls_ended, "all have ended");
        assert!(after.stalls_ended > before.stalls_ended);
    });
}

#[test]
fn an_operation_that_does_not_take_long_is_no_stall() {
    let vfs = SimVfs::new(62);
    let engine = by_hand(&vfs).stall_after(Duration::from_secs(3600)).open(DIR).unwrap();
    append(&engine, 1..13);
    engine.tick().unwrap();
    let stats = engine.stats();
    assert_eq!((stats.stalls, stats.stalls_ended), (0, 0));
}

/// Of a file that an entry shows the blocks stay when it has lost its name, and no figure said so.
#[test]
fn what_entries_of_the_caller_keep_of_removed_files_is_counted_until_they_are_dropped() {
    for (read_mode, held_bytes) in [(ReadMode::Map, 2 * (64 << 10)), (ReadMode::Pread, 0)] {
        let dir = tempfile::tempdir().unwrap();
        let options = engines::small().background(Background::Manual).read_mode(read_mode);
        let engine = options.open(dir.path()).unwrap();
        append(&engine, 1..13);
        engine.tick().unwrap();
        // Of the first segment two, of the second one and a copy, of the third a copy.
        let entry = |index| engine.region(R).entry(index).unwrap();
        let (first, second) = ([entry(1), entry(2)], entry(4));
        let copies = [entry(5).detached(), entry(7).detached()];
        assert_eq!(engine.stats().held_bytes, 0, "the files are there");
        let mut batch = engine.batch();
        batch.region(R).compact_through(12).unwrap();
        engine.write(batch, Durability::Synced).unwrap();
        while engine.purge().unwrap().segments_freed > 0 {}
        let held = || engine.stats().held_bytes;
        assert_eq!(held(), held_bytes, "{read_mode:?}");
        let [one, other] = first;
        drop(one);
        assert_eq!(held(), held_bytes, "another entry shows the same file");
        drop(other);
        assert_eq!(held(), held_bytes / 2);
        drop(second);
        assert_eq!(held(), 0);
        assert!(copies.iter().all(|copy| copy.payload.len() == 20 << 10));
    }
}

/// Sealed segments are asked for the regions that they list; the others have to be walked.
#[test]
fn the_first_pins_are_the_first_of_all_pins() {
    let vfs = SimVfs::new(69);
    let engine = by_hand(&vfs).open(DIR).unwrap();
    for round in 1..=6 {
        for region in 1..=40 {
            // Some stop early, and some begin late.
            if region % 6 + 1 >= round || region % 5 < round {
                let next = engine.region(RegionId(region)).last_index() + 1;
                let len = (1 + region as usize % 7) * 300;
                entries::append(&engine, RegionId(region), next, len).unwrap();
            }
        }
        let mut batch = engine.batch();
        (1..=40)
            .step_by(round as usize)
            .for_each(|region| _ = batch.region(RegionId(region)).compact_to(round / 2));
        engine.write(batch, Durability::Synced).unwrap();
        if round < 6 {
            engine.tick().unwrap();
        }
        let all = engine.pins(usize::MAX);
        let mut with_entries = 0;
        engine.for_each_region(|_, log| {
            with_entries += usize::from(log.last >= log.first);
            std::ops::ControlFlow::<()>::Continue(())
        });
        assert_eq!(all.len(), with_entries, "each once, round {round}");
        let key = |pin: &raftwood::Pin| (pin.oldest_segment, std::cmp::Reverse(pin.bytes), pin.region);
        assert!(all.is_sorted_by_key(key));
        for limit in 0..=all.len() {
            assert_eq!(engine.pins(limit), all[..limit], "{limit} of round {round}");
        }
    }
}

#[test]
fn latencies_have_one_value_for_each_operation() {
    let vfs = SimVfs::new(63);
    let engine = by_hand(&vfs).open(DIR).unwrap();
    append(&engine, 1..6);
    let (sealed, checkpoints) = {
        let times = engine.latencies();
        assert_eq!((times.commit.count(), times.queue.count(), times.read.count()), (5, 5, 0));
        (times.seal.count(), times.checkpoint.count())
    };
    // Submitted: counted when its callback has it.
    let (send, receive) = channel();
    let ticket = engine.submit(entries::batch(&engine, R, 6, 10), Durability::Synced).unwrap();
    assert_eq!(engine.latencies().commit.count(), 5);
    ticket.on_complete(move |outcome| send.send(outcome.is_ok()).unwrap());
    assert!(receive.recv().unwrap());
    let times = engine.latencies();
    assert_eq!((times.commit.count(), times.queue.count()), (6, 6));
    assert!(times.commit.quantile(1.0) >= times.queue.quantile(0.0));
    engine.purge().unwrap();
    engine.close().unwrap();
    let times = engine.latencies();
    let files =
        |kind| vfs.list().iter().filter(|(path, _)| crate::support::files::is_a(path, kind)).count() as u64;
    assert!(times.seal.count() - sealed >= 1 && times.seal.count() == files("foot"), "{times:?}");
    assert!(times.checkpoint.count() > checkpoints);
    // What fails has taken no time of anybody that was answered well.
    engine.write(entries::batch(&engine, R, 7, 10), Durability::Synced).unwrap_err();
    assert_eq!(engine.latencies().commit.count(), 6);
}

#[test]
fn what_one_sync_settles_is_a_group_and_a_sync_that_fails_settles_nothing() {
    let vfs = SimVfs::new(68);
    let engine = by_hand(&vfs).open(DIR).unwrap();
    append(&engine, 1..3);
    let before = engine.group_sizes();
    assert_eq!((before.count(), before.quantile(1.0)), (2, Some(1)));
    let submit = |region, index| submit(&engine, region, index);
    let tickets = [submit(11, 1), submit(12, 1), submit(13, 1)];
    engine.sync().unwrap();
    tickets.into_iter().for_each(|ticket| assert!(ticket.wait().is_ok()));
    entries::append(&engine, R, 3, 10).unwrap();
    let groups = engine.group_sizes().since(&before);
    assert_eq!(groups.buckets().collect::<Vec<_>>(), [(1, 1), (3, 1)]);
    vfs.set_fault(Fault::error(EIO).on(OpKind::SyncData));
    entries::append(&engine, R, 4, 10).unwrap_err();
    assert_eq!(engine.group_sizes().since(&before), groups);
}

#[test]
fn reads_are_counted_with_what_became_of_them() {
    let mut f = Fixture::new();
    let engine = f.sealed();
    let figures = || {
        let stats = engine.stats();
        (stats.reads, stats.read_errors, stats.read_retries)
    };
    let region = engine.region(R);
    region.entry(3).unwrap();
    region.entries(1..=4, raftwood::ReadLimit::NONE).unwrap();
    // One in sixteen is timed.
    assert_eq!((figures(), engine.latencies().read.count()), ((2, 0, 0), 1));
    (2..17).for_each(|_| drop(region.entry(3).unwrap()));
    assert_eq!((figures(), engine.latencies().read.count()), ((17, 0, 0), 2));
    // That an entry is not there is an answer.
    assert_eq!(region.entry(99).unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(figures(), (17, 0, 0));
    f.rot(R, 5);
    assert_eq!(region.entry(5).unwrap_err().kind(), ErrorKind::Damaged);
    // Its footer is rebuilt once, and not again for what is known to be damaged.
    assert_eq!(region.entry(5).unwrap_err().kind(), ErrorKind::Damaged);
    assert_eq!(figures(), (17, 2, 1));
}

#[test]
fn no_space_for_a_segment_is_counted_and_poisons_nothing() {
    let vfs = SimVfs::new(64);
    let engine = by_hand(&vfs).open(DIR).unwrap();
    entries::append(&engine, R, 1, 40 << 10).unwrap();
    vfs.set_fault(Fault::error(ENOSPC).on(OpKind::Allocate).forever());
    assert_eq!(entries::append(&engine, R, 2, 40 << 10).unwrap_err().kind(), ErrorKind::NoSpace);
    let stats = engine.stats();
    assert_eq!((stats.no_space, stats.poisoned), (1, false));
    vfs.clear_faults();
    vfs.set_fault(Fault::error(EIO).on(OpKind::SyncData).path(".log").forever());
    assert!(entries::append(&engine, R, 2, 40 << 10).is_err());
    assert!(engine.stats().poisoned);
}

#[test]
fn regions_are_counted_by_what_is_wrong_with_them_until_it_is_not() {
    let mut f = Fixture::new();
    let engine = f.sealed();
    assert_eq!((engine.stats().regions, destroyed_suspect_damaged_lost(&engine.stats())), (2, [0; 4]));
    f.rot(R, 5);
    engine.region(R).entry(5).unwrap_err();
    assert_eq!(destroyed_suspect_damaged_lost(&engine.stats()), [0, 0, 1, 0]);
    engine.region(R).repair(EntryId::new(term(5), 5), &payload(R, 5)).unwrap();
    assert_eq!(destroyed_suspect_damaged_lost(&engine.stats()), [0; 4]);
    let mut batch = engine.batch();
    batch.region(OTHER).destroy();
    engine.write(batch, Durability::Synced).unwrap();
    assert_eq!((engine.stats().regions, destroyed_suspect_damaged_lost(&engine.stats())), (1, [1, 0, 0, 0]));
    engine.purge().unwrap();
    assert_eq!((engine.stats().regions, destroyed_suspect_damaged_lost(&engine.stats())), (1, [0; 4]));
}

#[test]
fn what_an_open_finds_wrong_is_counted_in_that_run_and_in_later_ones() {
    // The last record is wrong, and nothing proves it: suspect, or dropped and with it the votes.
    for (policy, found) in [(TailPolicy::Prove, [0, 1, 0, 0]), (TailPolicy::AssumeTorn, [0, 0, 2, 2])] {
        let mut f = Fixture::new();
        let engine = f.active();
        two_regions::append(&engine, R, 9..=9);
        let (path, at) = f.find(R, 9);
        kill(&f.vfs, engine);
        f.vfs.settle();
        ruin(&f.vfs, path, at + 3, 6);
        for run in [20, 21] {
            let engine = engines::of_run(&f.vfs, run).tail_policy(policy).open(DIR).unwrap();
            assert_eq!(destroyed_suspect_damaged_lost(&engine.stats()), found, "run {run}");
            if run == 21 {
                // A vote that is known heals what a lost one is; a truncation the entry.
                for region in [R, OTHER] {
                    let mut batch = engine.batch();
                    let mut to = batch.region(region);
                    to.set_hard_state(b"vote").unwrap();
                    to.truncate_from(9);
                    engine.write(batch, Durability::Synced).unwrap();
                }
                assert_eq!(destroyed_suspect_damaged_lost(&engine.stats()), [0; 4]);
            }
            engine.close().unwrap();
        }
    }
}

#[test]
fn tickets_that_nobody_looks_at_are_counted_all_the_same() {
    let vfs = SimVfs::new(65);
    let engine = options(&vfs).open(DIR).unwrap();
    in_time("the tickets", move || {
        begin(&engine);
        let before = engine.latencies().commit.count();
        let tickets: Vec<_> = (1..=5).map(|index| submit(&engine, 1, index)).collect();
        drop(tickets);
        // It writes a record of its own, unless all five are durable by now.
        engine.sync().unwrap();
        let all_are_counted = || {
            let times = engine.latencies();
            times.commit.count() >= before + 5 && times.queue.count() == times.commit.count()
        };
        while !all_are_counted() {
            thread::yield_now();
        }
    });
}
