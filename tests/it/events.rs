//! Each event is delivered when what it says has happened, and only then.

use crate::support::engines::{DIR, by_hand, kill, of_run};
use crate::support::entries;
use crate::support::files::ruin;
use crate::support::heard::Heard;
use crate::support::threads::{batch, begin, in_time, options};
use crate::support::two_regions::{self, Fixture, OTHER, R, payload, term};
use raftwood::vfs::sim::{EIO, ENOSPC, Fault, OpKind, SimVfs};
use raftwood::{
    Background, Durability, Engine, EntryId, ErrorKind, Event, EventListener, HardStateHealth, Health,
    RegionId, TailPolicy,
};
use std::sync::{Arc, Mutex};
use std::thread;

#[test]
fn the_log_moving_on_is_an_event_with_the_segment_that_is_full() {
    let (vfs, heard) = (
        SimVfs::new(70),
        Heard::new(|event| match event {
            Event::Rotated { segment, bytes } => Some((*segment, *bytes)),
            _ => None,
        }),
    );
    let engine = by_hand(&vfs).listener(heard.clone()).open(DIR).unwrap();
    entries::append(&engine, R, 1, 20 << 10).unwrap();
    assert_eq!(heard.all(), []);
    (2..=4).for_each(|index| entries::append(&engine, R, index, 20 << 10).map(drop).unwrap());
    // By the time that the write returns which went to the next segment.
    let [(first, bytes)] = heard.all()[..] else { panic!("{:?}", heard.all()) };
    assert!((40 << 10..64 << 10).contains(&bytes), "{bytes}");
    engine.close().unwrap();
    let last = heard.all()[1];
    assert_eq!((heard.count(), last.0), (2, first + 1));
}

#[test]
fn no_space_is_an_event_when_it_begins_and_when_it_ends() {
    let vfs = SimVfs::new(71);
    let heard = Heard::new(|event| match event {
        Event::SpaceExhausted { error } => Some(Some(error.kind())),
        Event::SpaceRegained => Some(None),
        _ => None,
    });
    let engine = by_hand(&vfs).listener(heard.clone()).open(DIR).unwrap();
    entries::append(&engine, R, 1, 40 << 10).unwrap();
    vfs.set_fault(Fault::error(ENOSPC).on(OpKind::Allocate).forever());
    for _ in 0..3 {
        assert_eq!(entries::append(&engine, R, 2, 40 << 10).unwrap_err().kind(), ErrorKind::NoSpace);
    }
    assert_eq!(heard.all(), [Some(ErrorKind::NoSpace)]);
    // What fits needs no space, and says nothing of it.
    entries::vote(&engine, R, b"vote").unwrap();
    assert_eq!(heard.count(), 1);
    vfs.clear_faults();
    entries::append(&engine, R, 2, 40 << 10).unwrap();
    assert_eq!(heard.all(), [Some(ErrorKind::NoSpace), None]);
    (3..=6).for_each(|index| entries::append(&engine, R, index, 40 << 10).map(drop).unwrap());
    assert_eq!(heard.count(), 2);
}

#[test]
fn back_pressure_is_an_event_once_it_lasts_and_when_it_is_over() {
    let vfs = SimVfs::new(72);
    let heard = Heard::new(|event| match event {
        Event::Throttled { waiting, in_flight_bytes } => Some((*waiting, *in_flight_bytes)),
        Event::ThrottlingEnded => Some((0, 0)),
        _ => None,
    });
    let engine = options(&vfs).in_flight_bytes_max(2000).listener(heard.clone()).open(DIR).unwrap();
    in_time("back-pressure", move || {
        begin(&engine);
        vfs.block_syncs();
        let first = engine.submit(batch(&engine, 1, 1, 1900), Durability::Synced).unwrap();
        vfs.wait_for_syncs(1);
        let other = engine.clone();
        let waits = thread::spawn(move || other.write(batch(&other, 2, 1, 900), Durability::Synced).unwrap());
        while heard.count() == 0 {
            thread::yield_now();
        }
        assert!(heard.all()[0].0 == 1 && heard.all()[0].1 >= 1900, "{:?}", heard.all());
        vfs.release_syncs();
        first.wait().unwrap();
        waits.join().unwrap();
        while heard.count() == 1 {
            thread::yield_now();
        }
        assert_eq!(heard.all()[1..], [(0, 0)]);
    });
}

/// A writer that was refused while it waited for room stood in the line for good: the end of the
/// back-pressure was never an event.
#[test]
fn back_pressure_is_over_too_once_writing_has_stopped() {
    let vfs = SimVfs::new(73);
    let heard = Heard::new(|event| match event {
        Event::Throttled { waiting, .. } => Some(*waiting),
        Event::ThrottlingEnded => Some(0),
        _ => None,
    });
    let engine = options(&vfs).in_flight_bytes_max(2000).listener(heard.clone()).open(DIR).unwrap();
    in_time("writing stops", move || {
        begin(&engine);
        vfs.set_fault(Fault::error(EIO).on(OpKind::SyncData));
        vfs.block_syncs();
        let first = engine.submit(batch(&engine, 1, 1, 1900), Durability::Synced).unwrap();
        vfs.wait_for_syncs(1);
        let others = [2, 3].map(|region| {
            let engine = engine.clone();
            thread::spawn(move || engine.write(batch(&engine, region, 1, 900), Durability::Synced))
        });
        while heard.all().last() != Some(&1) && heard.all().last() != Some(&2) {
            thread::yield_now();
        }
        vfs.release_syncs();
        first.wait().unwrap_err();
        for other in others {
            assert_eq!(other.join().unwrap().unwrap_err().kind(), ErrorKind::Poisoned);
        }
        while heard.all().last() != Some(&0) {
            thread::yield_now();
        }
    });
}

#[test]
fn a_backup_that_was_made_is_an_event_and_one_that_failed_is_none() {
    let heard = Heard::new(|event| match event {
        Event::BackupMade { dir, report } => Some((dir.to_path_buf(), report.durable)),
        _ => None,
    });
    let mut f = Fixture::new();
    let engine = f.open_with(|o| o.listener(heard.clone()));
    two_regions::append(&engine, R, 1..=3);
    let report = engine.backup("/copy").unwrap();
    engine.backup("/copy").unwrap_err();
    assert_eq!(heard.all(), [("/copy".into(), report.durable)]);
}

#[test]
fn what_an_open_found_is_an_event_of_that_open() {
    let heard = Heard::new(|event| match event {
        Event::Recovered { report } => Some((report.created, report.regions, report.tail_batches > 0)),
        _ => None,
    });
    let mut f = Fixture::new();
    let engine = f.open_with(|o| o.listener(heard.clone()));
    two_regions::append(&engine, R, 1..=3);
    kill(&f.vfs, engine);
    drop(f.open_with(|o| o.listener(heard.clone())));
    drop(f.open_with(|o| o.listener(heard.clone())));
    assert_eq!(heard.all(), [(true, 0, false), (false, 1, true), (false, 1, false)]);
}

/// Health by region, as it changes.
fn healths() -> Arc<Heard<(RegionId, Health)>> {
    Heard::new(|event| match event {
        Event::HealthChanged { region, health } => Some((*region, (*health).clone())),
        _ => None,
    })
}

fn is_damaged(ranges: &[std::ops::RangeInclusive<u64>]) -> Health {
    Health::Damaged { ranges: ranges.to_vec(), hard_state: HardStateHealth::Known }
}

/// Whatever ends it: a repair, a write, or what follows from it.
#[test]
fn the_health_of_a_region_is_an_event_when_it_changes_and_when_it_is_well_again() {
    for how in ["repair", "overwrite", "destroy"] {
        let (mut f, heard) = (Fixture::new(), healths());
        f.active().close().unwrap();
        let engine = f.open_with(|o| o.listener(heard.clone()));
        f.rot(R, 5);
        engine.region(R).entry(5).unwrap_err();
        engine.region(R).entry(5).unwrap_err();
        assert_eq!(heard.all(), [(R, is_damaged(&[5..=5]))]);
        let mut batch = engine.batch();
        match how {
            "repair" => engine.region(R).repair(EntryId::new(term(5), 5), &payload(R, 5)).unwrap(),
            "overwrite" => drop(batch.region(R).append([(EntryId::new(9, 5), &b"new"[..])]).unwrap()),
            _ => drop(batch.region(R).destroy()),
        }
        engine.write(batch, Durability::Synced).unwrap();
        assert_eq!(heard.all()[1..], [(R, Health::Healthy)], "{how}");
    }
}

#[test]
fn what_an_open_finds_is_in_its_report_and_what_heals_it_is_an_event() {
    for policy in [TailPolicy::Prove, TailPolicy::AssumeTorn] {
        let (mut f, heard) = (Fixture::new(), healths());
        let engine = f.active();
        two_regions::append(&engine, R, 9..=9);
        let (path, at) = f.find(R, 9);
        kill(&f.vfs, engine);
        f.vfs.settle();
        ruin(&f.vfs, path, at + 3, 6);
        let engine = of_run(&f.vfs, 20).tail_policy(policy).listener(heard.clone()).open(DIR).unwrap();
        assert_ne!(engine.region(R).health(), Health::Healthy);
        assert_eq!(heard.all(), []);
        for region in [R, OTHER] {
            let mut batch = engine.batch();
            batch.region(region).set_hard_state(b"vote").unwrap().truncate_from(9);
            engine.write(batch, Durability::Synced).unwrap();
        }
        let both = [(R, Health::Healthy), (OTHER, Health::Healthy)];
        let only = if policy == TailPolicy::Prove { 1 } else { 2 };
        assert_eq!(heard.all(), both[..only]);
    }
}

/// Reads and writes of the engine from inside the event, on the path of a write.
#[test]
fn a_listener_may_write_when_the_log_has_moved_on_or_a_region_is_well_again() {
    struct Writes(Mutex<Option<Engine>>);
    impl EventListener for Writes {
        fn on_event(&self, event: &Event<'_>) {
            let engine = self.0.lock().unwrap().clone();
            if let (Event::Rotated { .. } | Event::HealthChanged { .. }, Some(engine)) = (event, engine) {
                let next = engine.region(OTHER).last_index() + 1;
                two_regions::append(&engine, OTHER, next..=next);
            }
        }
    }
    for background in [Background::Threads, Background::Manual] {
        let mut f = Fixture::new();
        f.active().close().unwrap();
        let writes = Arc::new(Writes(Mutex::default()));
        let engine = f.open_with(|o| o.listener(writes.clone()).background(background));
        f.rot(R, 5);
        in_time("a listener that writes", move || {
            *writes.0.lock().unwrap() = Some(engine.clone());
            engine.region(R).entry(5).unwrap_err();
            engine.region(R).repair(EntryId::new(term(5), 5), &payload(R, 5)).unwrap();
            assert_eq!(engine.region(OTHER).last_index(), 10);
            (1..=4)
                .for_each(|index| entries::append(&engine, RegionId(50), index, 30 << 10).map(drop).unwrap());
            assert!(engine.region(OTHER).last_index() > 10);
            *writes.0.lock().unwrap() = None;
        });
    }
}

/// A panic of a listener is not the caller's whose batch was written.
#[test]
fn a_listener_that_panics_at_a_rotation_fails_no_write() {
    struct Panics;
    impl EventListener for Panics {
        fn on_event(&self, event: &Event<'_>) {
            if let Event::Rotated { .. } = event {
                std::panic::resume_unwind(Box::new("on purpose"));
            }
        }
    }
    let vfs = SimVfs::new(73);
    let engine = by_hand(&vfs).listener(Arc::new(Panics)).open(DIR).unwrap();
    for index in 1..=6 {
        entries::append(&engine, R, index, 30 << 10).unwrap();
    }
    engine.close().unwrap();
    assert_eq!(engine.region(R).last_index(), 6);
}
