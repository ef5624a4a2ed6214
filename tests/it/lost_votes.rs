//! A vote that may be lost is never replaced by an older one as if it were good.

use crate::support::engines::{DIR, kill, of_run};
use crate::support::files::{is_a, newest, position, rot, ruin, wipe};
use crate::support::two_regions::*;
use raftwood::vfs::sim::{LossPolicy, SimVfs};
use raftwood::{Durability, Engine, EntryId, ErrorKind, HardStateHealth, Health, Lookup, RegionId};

fn vote(engine: &Engine, region: RegionId, vote: &str, durability: Durability) {
    let mut batch = engine.batch();
    batch.region(region).set_hard_state(vote.as_bytes()).unwrap();
    engine.write(batch, durability).unwrap();
}

/// The log segment with this vote.
fn find_vote(vfs: &SimVfs, vote: &str) -> std::path::PathBuf {
    let has = |path: &std::path::PathBuf| {
        is_a(path, "log") && position(&vfs.read_file(path).unwrap(), vote.as_bytes()).is_some()
    };
    vfs.list().into_iter().map(|(path, _)| path).find(has).unwrap()
}

fn has_lost_its_vote(engine: &Engine, region: RegionId) -> bool {
    let lost =
        matches!(engine.region(region).health(), Health::Damaged { hard_state: HardStateHealth::Lost, .. });
    let asked = engine.region(region).hard_state_or_lost();
    match &asked {
        Ok(known) => assert_eq!(known, &engine.region(region).hard_state()),
        Err(e) => assert_eq!((e.kind(), e.region()), (ErrorKind::HardStateLost, Some(region)), "{e}"),
    }
    assert_eq!(asked.is_err(), lost);
    lost
}

/// Two regions that voted, a vote in the last record of R, and that record rotten beyond mending. With
/// `tail`, a record before it is past the watermark too.
fn rotten_last_vote(tail: bool, in_payload: bool) -> Fixture {
    let mut f = Fixture::new();
    let engine = f.active();
    vote(&engine, R, "R: old", Durability::Synced);
    vote(&engine, OTHER, "OTHER: old", Durability::Synced);
    if tail {
        vote(&engine, OTHER, "OTHER: newer", Durability::Written);
    }
    let before = engine.stats().accepted;
    let mut batch = engine.batch();
    let bytes = payload(R, 9);
    batch.region(R).append([(EntryId::new(term(9), 9), &bytes[..])]).unwrap();
    batch.region(R).set_hard_state(b"R: new").unwrap();
    engine.write(batch, Durability::Written).unwrap();
    let at = match in_payload {
        true => f.find(R, 9).1 + 3,
        false => u64::from(before.offset()) + 70,
    };
    kill(&f.vfs, engine);
    f.vfs.settle();
    ruin(&f.vfs, "/db/0000000001.log", at, 6);
    f
}

fn assume_torn(f: &SimVfs, life: u64) -> Engine {
    of_run(f, life).tail_policy(raftwood::TailPolicy::AssumeTorn).open(DIR).unwrap()
}

#[test]
fn a_vote_that_may_have_been_dropped_is_lost_and_not_replaced_by_the_one_before() {
    for (tail, in_payload) in [(false, false), (true, false), (false, true), (true, true)] {
        let f = rotten_last_vote(tail, in_payload);
        let engine = assume_torn(&f.vfs, 9);
        let report = engine.open_report();
        assert_eq!((report.assumed_torn, report.hard_states_lost), (true, 2));
        let check = |engine: &Engine, when: &str| {
            for region in [R, OTHER] {
                assert!(has_lost_its_vote(engine, region), "{when}: {region}, {tail} {in_payload}");
                is_whole(engine, region, 1..=8);
                assert_eq!(engine.region(region).lookup(EntryId::new(term(9), 9)), Lookup::Unknown);
            }
            // What is known is still answered: a node may want to compare.
            let known = if tail { "OTHER: newer" } else { "OTHER: old" };
            assert_eq!(engine.region(OTHER).hard_state().as_deref(), Some(known.as_bytes()));
            assert_eq!(engine.region(R).hard_state().as_deref(), Some(&b"R: old"[..]));
        };
        check(&engine, "at once");
        let reopened = |vfs: &SimVfs| of_run(vfs, 10).open(DIR).unwrap();
        check(&reopened(&f.vfs.crash(LossPolicy::LoseAll)), "after a power cut");
        append(&engine, OTHER, 9..=9);
        engine.region(OTHER).entry(9).unwrap();
        let cut = reopened(&f.vfs.crash(LossPolicy::LoseAll));
        assert!(has_lost_its_vote(&cut, R) && has_lost_its_vote(&cut, OTHER));
        // The newest checkpoint rots as well.
        let rotten = f.vfs.crash(LossPolicy::LoseAll);
        rotten.settle();
        rot(&rotten, newest(&rotten, "ckpt"), 140);
        let engine_on_older = reopened(&rotten);
        assert_eq!(engine_on_older.open_report().bad_checkpoints, 1);
        assert!(has_lost_its_vote(&engine_on_older, R) && has_lost_its_vote(&engine_on_older, OTHER));
        // Through checkpoints, seals and a clean close.
        engine.tick().unwrap();
        engine.purge().unwrap();
        engine.close().unwrap();
        drop(engine);
        let engine = reopened(&f.vfs);
        assert_eq!(engine.open_report().hard_states_lost, 0, "that was an earlier open");
        assert!(has_lost_its_vote(&engine, R) && has_lost_its_vote(&engine, OTHER));
    }
}

#[test]
fn a_lost_vote_is_healed_by_setting_it_and_by_a_destroy_and_by_nothing_else() {
    let f = rotten_last_vote(true, false);
    let engine = assume_torn(&f.vfs, 9);
    let mut batch = engine.batch();
    batch.region(OTHER).reset(EntryId::new(9, 90)).unwrap().put(b"k", b"v").unwrap();
    engine.write(batch, Durability::Synced).unwrap();
    vote(&engine, R, "R: old", Durability::Synced);
    let check = |engine: &Engine| {
        assert!(!has_lost_its_vote(engine, R));
        assert_eq!(engine.region(R).health(), Health::Healthy);
        assert!(has_lost_its_vote(engine, OTHER));
    };
    check(&engine);
    let cut = f.vfs.crash(LossPolicy::LoseAll);
    check(&of_run(&cut, 10).open(DIR).unwrap());
    engine.close().unwrap();
    drop(engine);
    let engine = of_run(&f.vfs, 11).open(DIR).unwrap();
    check(&engine);
    let mut batch = engine.batch();
    batch.region(OTHER).destroy();
    engine.write(batch, Durability::Synced).unwrap();
    assert!(!has_lost_its_vote(&engine, OTHER));
    let cut = f.vfs.crash(LossPolicy::LoseAll);
    assert!(!has_lost_its_vote(&of_run(&cut, 12).open(DIR).unwrap(), OTHER));
}

#[test]
fn a_crash_anywhere_in_the_open_that_assumes_a_tear_never_brings_an_old_vote_back_as_a_good_one() {
    for (tail, in_payload) in [(false, false), (true, false), (false, true), (true, true)] {
        let f = rotten_last_vote(tail, in_payload);
        f.vfs.snapshot_every(Some(raftwood::vfs::sim::Moment::Before));
        let engine = assume_torn(&f.vfs, 9);
        let snapshots = f.vfs.take_snapshots();
        f.vfs.snapshot_every(None);
        drop(engine);
        let (mut lost, mut refused, mut whole) = (0, 0, 0);
        for snapshot in &snapshots {
            for loss in
                [LossPolicy::LoseAll, LossPolicy::KeepAll, LossPolicy::Random(3), LossPolicy::Random(4)]
            {
                match of_run(&snapshot.crash(loss), 10).open(DIR) {
                    // A wrong payload alone is no reason to doubt the vote beside it.
                    Ok(engine) if engine.region(R).hard_state().as_deref() == Some(b"R: new") => whole += 1,
                    Ok(engine) => {
                        assert!(has_lost_its_vote(&engine, R), "{}, {loss:?}", snapshot.call());
                        assert!(has_lost_its_vote(&engine, OTHER), "{}, {loss:?}", snapshot.call());
                        lost += 1;
                    }
                    Err(e) => {
                        assert_eq!(e.kind(), ErrorKind::Damaged, "{e}");
                        refused += 1;
                    }
                }
            }
        }
        assert!(lost > 0 && refused + whole > 0 && (refused == 0) == in_payload, "{lost} {refused} {whole}");
    }
}

#[test]
fn a_tear_that_is_proven_costs_no_vote_whatever_the_policy() {
    let f = rotten_last_vote(true, false);
    // Nothing of the last record ever reached the disk.
    let end = f.vfs.read_file("/db/0000000001.log").unwrap().iter().rposition(|b| *b != 0).unwrap();
    let at = f.find(R, 9).1 - 120;
    wipe(&f.vfs, "/db/0000000001.log", at, end + 1 - at as usize);
    let engine = assume_torn(&f.vfs, 9);
    assert!(!engine.open_report().assumed_torn);
    assert!(!has_lost_its_vote(&engine, R) && !has_lost_its_vote(&engine, OTHER));
    assert_eq!(engine.region(R).hard_state().as_deref(), Some(&b"R: old"[..]));
}

/// A store whose newest checkpoint names a segment that the one before does not, with votes in it.
fn voted_in_a_later_segment() -> Fixture {
    let mut f = Fixture::new();
    let engine = f.active();
    kill(&f.vfs, engine);
    // A segment that only this run has, and a checkpoint after votes in it.
    let engine = f.open();
    vote(&engine, R, "R: new", Durability::Synced);
    vote(&engine, OTHER, "OTHER: new", Durability::Synced);
    // It begins with that segment: a close would have ended it.
    engine.backup("/copy").unwrap();
    kill(&f.vfs, engine);
    f.vfs.settle();
    let copied = f.vfs.list().into_iter().filter(|(path, _)| path.starts_with("/copy"));
    copied.for_each(|(path, _)| f.vfs.remove_file(path).unwrap());
    f
}

#[test]
fn a_missing_segment_is_missed_even_when_the_checkpoint_that_names_it_is_rotten() {
    for rotten in [false, true] {
        let f = voted_in_a_later_segment();
        if rotten {
            // In its body: its headers still say up to where the log was durable.
            rot(&f.vfs, newest(&f.vfs, "ckpt"), 300);
        }
        let whole = of_run(&f.vfs.crash(LossPolicy::KeepAll), 8).open(DIR).unwrap();
        assert_eq!(whole.open_report().bad_checkpoints, u64::from(rotten));
        assert_eq!(whole.region(R).hard_state().as_deref(), Some(&b"R: new"[..]));
        let gone = find_vote(&f.vfs, "R: new");
        f.vfs.remove_file(&gone).unwrap();
        let error = of_run(&f.vfs, 9).open(DIR).err().map(|e| e.kind());
        assert_eq!(error, Some(ErrorKind::Damaged), "rotten: {rotten}");
    }
}

#[test]
fn a_file_of_another_store_in_place_of_the_active_segment_is_never_taken_for_the_end_of_the_log() {
    let mut f = Fixture::new();
    let engine = f.active();
    let filler = vec![b'.'; 20 << 10];
    for index in 9..=16 {
        let mut batch = engine.batch();
        batch.region(OTHER).append([(EntryId::new(20, index), &filler[..])]).unwrap();
        engine.write(batch, Durability::Synced).unwrap();
    }
    // A checkpoint that names the active segment, and a vote after it.
    engine.tick().unwrap();
    assert!(f.vfs.list().iter().any(|(p, _)| p.ends_with("0000000002.ckpt")), "{:?}", f.vfs.list());
    vote(&engine, R, "R: new", Durability::Synced);
    kill(&f.vfs, engine);
    f.vfs.settle();
    let mut other = Fixture::new();
    other.run = 70;
    let engine = other.active();
    kill(&other.vfs, engine);
    let theirs = other.vfs.read_file("/db/0000000001.log").unwrap();
    let active = find_vote(&f.vfs, "R: new");
    f.vfs.write_bytes(&active, 0, &theirs).unwrap();
    let error = of_run(&f.vfs, 9).open(DIR).err().unwrap();
    assert_eq!((error.kind(), error.path()), (ErrorKind::Damaged, Some(active.as_path())), "{error}");
}

/// A hard state as libraries encode one: it ends in a flag that is not set.
#[test]
fn a_rotten_last_record_that_ends_in_zeros_is_not_taken_for_torn() {
    for (entry, in_payload) in
        [(None, false), (Some(0), false), (Some(7), false), (Some(700), false), (Some(700), true)]
    {
        let mut f = Fixture::new();
        let engine = f.active();
        vote(&engine, R, "R: old", Durability::Synced);
        let at = u64::from(engine.stats().accepted.offset());
        let mut batch = engine.batch();
        // Zeros at the end, and whole sectors of them.
        let bytes = [&[1; 40][..], &vec![0; entry.unwrap_or(0)]].concat();
        if entry.is_some() {
            batch.region(R).append([(EntryId::new(9, 9), &bytes[..])]).unwrap();
        }
        batch.region(R).set_hard_state(b"R: new\0\0\0").unwrap();
        engine.write(batch, Durability::Synced).unwrap();
        kill(&f.vfs, engine);
        f.vfs.settle();
        let whole = f.vfs.freeze();
        let log = f.vfs.read_file("/db/0000000001.log").unwrap();
        let desc_len = u64::from(log[at as usize + 16]);
        let place = if in_payload { at + 64 + desc_len + 3 } else { at + 65 };
        ruin(&f.vfs, "/db/0000000001.log", place, 3);
        let opened = of_run(&f.vfs, 9).open(DIR);
        match in_payload {
            true => {
                let engine = opened.unwrap();
                assert_eq!(engine.region(R).health(), Health::Suspect { ranges: vec![9..=9] });
                assert_eq!(engine.region(R).hard_state().as_deref(), Some(&b"R: new\0\0\0"[..]));
            }
            false => assert_eq!(opened.unwrap_err().kind(), ErrorKind::Damaged, "{entry:?}"),
        }
        let uncounted = bytes.ends_with(&[0; 255]);
        // The same record, torn at any byte but the last few, which might be rot.
        for cut in (at..at + 64 + desc_len + bytes.len() as u64).step_by(5) {
            let vfs = whole.crash(LossPolicy::KeepAll);
            wipe(&vfs, "/db/0000000001.log", cut, 1200);
            let engine = of_run(&vfs, 9).open(DIR);
            let zeros_only = log[cut as usize..cut as usize + 1200].iter().all(|b| *b == 0);
            match engine {
                Ok(engine) if zeros_only => {
                    assert_eq!(engine.region(R).hard_state().as_deref(), Some(&b"R: new\0\0\0"[..]))
                }
                // More zeros than can be counted, and the cut in the middle of a sector: that is
                // in doubt, and kept.
                Ok(engine) if uncounted && !engine.open_report().suspects.is_empty() => {}
                Ok(engine) => {
                    let vote = engine.region(R).hard_state();
                    assert_eq!(vote.as_deref(), Some(&b"R: old"[..]), "{entry:?} {cut}");
                    assert!(engine.open_report().suspects.is_empty());
                }
                Err(e) => {
                    let left = log[cut as usize..cut as usize + 1200].iter().rposition(|b| *b != 0).unwrap();
                    assert!(left < 4 || uncounted, "{entry:?}, cut at {cut} with {left} bytes to go: {e}");
                }
            }
        }
    }
}
