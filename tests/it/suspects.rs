//! Entries that may be torn and may be rotten: kept, fenced, and told apart from those that were
//! acknowledged for certain.

use crate::support::engines::{DIR, kill, of_run};
use crate::support::files::ruin;
use crate::support::two_regions::*;
use raftwood::vfs::sim::{LossPolicy, Moment, SimVfs};
use raftwood::{
    Durability, Engine, EntryId, ErrorKind, HardStateHealth, Health, Lookup, ReadLimit, TailPolicy,
};

/// Entry 9 of `R` in the last record, which nothing proves to be durable, and rotten by more than one bit.
fn rotten_last_group() -> Fixture {
    let mut f = Fixture::new();
    let engine = f.active();
    let mut batch = engine.batch();
    let bytes = payload(R, 9);
    batch.region(R).append([(EntryId::new(term(9), 9), &bytes[..])]).unwrap();
    batch.region(R).set_hard_state(b"R: new").unwrap();
    engine.write(batch, Durability::Synced).unwrap();
    let (path, at) = f.find(R, 9);
    kill(&f.vfs, engine);
    f.vfs.settle();
    ruin(&f.vfs, path, at + 3, 6);
    f
}

fn reopened(vfs: &SimVfs) -> Engine {
    of_run(vfs, 77).open(DIR).unwrap()
}

#[track_caller]
fn is_suspect(engine: &Engine) {
    let region = engine.region(R);
    assert_eq!(region.health(), Health::Suspect { ranges: vec![9..=9] });
    let error = region.entry(9).unwrap_err();
    assert_eq!((error.kind(), error.region()), (ErrorKind::Damaged, Some(R)));
    assert!(error.path().is_some() && error.offset().is_some(), "{error:?}");
    assert!(error.is_suspect() && error.entries() == Some(9..=9), "{error}");
    assert_eq!(region.entries(8.., ReadLimit::NONE).unwrap_err().kind(), ErrorKind::Damaged);
    // It may have been acknowledged, or not: a peer is given neither answer.
    assert_eq!(region.lookup(EntryId::new(term(9), 9)), Lookup::Unknown);
    assert_eq!(region.lookup(EntryId::new(99, 9)), Lookup::DontHave);
    // All else of its batch is right, and all else of the store.
    assert_eq!((region.last_index(), region.term(9).unwrap()), (9, term(9)));
    assert_eq!(region.hard_state_or_lost().unwrap().as_deref(), Some(&b"R: new"[..]));
    is_whole(engine, R, 1..=8);
    is_whole(engine, OTHER, 1..=8);
    assert_eq!(engine.region(OTHER).health(), Health::Healthy);
}

#[test]
fn a_wrong_entry_of_the_last_group_is_kept_and_suspect_in_this_life_and_in_later_ones() {
    let f = rotten_last_group();
    let engine = reopened(&f.vfs);
    let report = engine.open_report();
    assert_eq!((report.suspects.len(), report.damage.len()), (1, 0), "{report:?}");
    assert_eq!(report.suspects[0].region(), Some(R));
    is_suspect(&engine);
    is_suspect(&reopened(&f.vfs.crash(LossPolicy::LoseAll)));
    append(&engine, OTHER, 9..=9);
    engine.tick().unwrap();
    engine.purge().unwrap();
    assert_eq!(engine.region(R).health(), Health::Suspect { ranges: vec![9..=9] });
    engine.close().unwrap();
    drop(engine);
    let engine = reopened(&f.vfs);
    assert_eq!(engine.region(R).health(), Health::Suspect { ranges: vec![9..=9] });
    assert!(engine.open_report().suspects.is_empty(), "that was an earlier open");
    // Reading it does not make it worse, nor does a scrub.
    engine.region(R).entry(9).unwrap_err();
    engine.scrub(&Default::default()).unwrap();
    assert_eq!(engine.region(R).health(), Health::Suspect { ranges: vec![9..=9] });
}

/// Those who only look see what an open would keep, and what it would fence they find fenced.
#[test]
fn a_reader_says_the_same_of_it() {
    let f = rotten_last_group();
    let all = || of_run(&f.vfs, 77).show_unproven(true);
    let reader = all().open_read_only(DIR).unwrap();
    assert_eq!(reader.health(R), Health::Suspect { ranges: vec![9..=9] });
    assert_eq!(reader.report().suspects.len(), 1);
    let error = reader.entry(R, 9).unwrap_err();
    assert!(error.is_suspect() && error.kind() == ErrorKind::Damaged, "{error}");
    assert_eq!(reader.entries(R, 1..=8, ReadLimit::NONE).unwrap().len(), 8);
    assert_eq!((reader.state(R).last, reader.health(OTHER)), (9, Health::Healthy));
    // As by an open that is told to, it is dropped, and said to be.
    let reader = all().tail_policy(TailPolicy::AssumeTorn).open_read_only(DIR).unwrap();
    assert_eq!((reader.state(R).last, reader.report().suspects.len()), (8, 1));
    // What is not known to be durable is not judged.
    let reader = of_run(&f.vfs, 77).open_read_only(DIR).unwrap();
    assert!(reader.state(R).last < 9 && reader.written() > reader.end());
    assert_eq!((reader.health(R), reader.report().suspects.len()), (Health::Healthy, 0));
}

#[test]
fn a_crash_anywhere_in_the_open_that_finds_a_suspect_keeps_it_one() {
    let f = rotten_last_group();
    f.vfs.snapshot_every(Some(Moment::Before));
    drop(reopened(&f.vfs));
    let snapshots = f.vfs.take_snapshots();
    assert!(snapshots.len() > 10);
    for snapshot in snapshots {
        for loss in [LossPolicy::LoseAll, LossPolicy::KeepAll, LossPolicy::Random(3), LossPolicy::Random(4)] {
            let engine = of_run(&snapshot.crash(loss), 80).open(DIR).unwrap();
            let health = engine.region(R).health();
            assert_eq!(health, Health::Suspect { ranges: vec![9..=9] }, "{} {loss:?}", snapshot.call());
        }
    }
}

#[test]
fn a_suspect_is_healed_by_what_replaces_it_and_by_the_right_bytes() {
    for how in ["overwrite", "truncate", "compact", "reset", "destroy", "repair"] {
        let f = rotten_last_group();
        let engine = reopened(&f.vfs);
        let mut batch = engine.batch();
        let mut b = batch.region(R);
        match how {
            "overwrite" => drop(b.append([(EntryId::new(9, 9), &b"new"[..])]).unwrap()),
            "truncate" => drop(b.truncate_from(9)),
            "compact" => drop(b.compact_through(9).unwrap()),
            "reset" => drop(b.reset(EntryId::new(9, 20)).unwrap()),
            "destroy" => drop(b.destroy()),
            _ => {
                let id = EntryId::new(term(9), 9);
                let wrong = engine.region(R).repair(id, b"something else").unwrap_err();
                assert_eq!(wrong.kind(), ErrorKind::InvalidArgument);
                engine.region(R).repair(id, &payload(R, 9)).unwrap();
                is_whole(&engine, R, 1..=9);
            }
        }
        engine.write(batch, Durability::Synced).unwrap();
        let check = |engine: &Engine| {
            assert_eq!(engine.region(R).health(), Health::Healthy, "{how}");
            assert!(engine.region(R).entries(.., ReadLimit::NONE).is_ok(), "{how}");
            is_whole(engine, OTHER, 1..=8);
        };
        check(&engine);
        check(&reopened(&f.vfs.crash(LossPolicy::LoseAll)));
        engine.close().unwrap();
        drop(engine);
        check(&reopened(&f.vfs));
    }
}

#[test]
fn a_region_with_damage_that_is_certain_is_damaged_and_names_the_suspects_too() {
    let f = rotten_last_group();
    let engine = reopened(&f.vfs);
    f.rot(R, 4);
    engine.region(R).entry(4).unwrap_err();
    let hard_state = HardStateHealth::Known;
    assert_eq!(engine.region(R).health(), Health::Damaged { ranges: vec![4..=4, 9..=9], hard_state });
    assert_eq!(engine.region(R).lookup(EntryId::new(term(4), 4)), Lookup::HaveDamaged);
    assert_eq!(engine.region(R).lookup(EntryId::new(term(9), 9)), Lookup::Unknown);
    engine.region(R).repair(EntryId::new(term(4), 4), &payload(R, 4)).unwrap();
    is_suspect(&engine);
}
