//! What a batch leaves to acceptance is decided there, once, and what was decided is what every recovery finds.

use crate::support::engines::{DIR, kill, of_run};
use crate::support::two_regions::*;
use raftwood::vfs::sim::LossPolicy;
use raftwood::{
    Compacted, Durability, Engine, EntryId, ErrorKind, HardStateHealth, Health, Outcome, RegionId, WriteBatch,
};

fn write(engine: &Engine, build: impl FnOnce(&mut WriteBatch)) -> Outcome {
    let mut batch = engine.batch();
    build(&mut batch);
    engine.write_outcome(batch, Durability::Synced).unwrap()
}

fn compacted(outcome: &Outcome) -> Vec<Compacted> {
    outcome.compactions.iter().map(|c| c.done).collect()
}

fn dropped(first: u64, last: u64) -> Compacted {
    Compacted::Dropped { first, base: EntryId::new(term(last), last) }
}

/// What stands, here and after a kill, a power cut and a close.
#[track_caller]
fn is_everywhere(f: &mut Fixture, engine: Engine, regions: &[(RegionId, Option<EntryId>, u64)]) {
    let look = |engine: &Engine| {
        for (region, base, last) in regions {
            let state = engine.region(*region).state();
            assert_eq!((state.base, state.last), (*base, *last), "{region}");
            if let Some(base) = base {
                assert_eq!(engine.region(*region).term(base.index).unwrap(), base.term);
            }
        }
    };
    look(&engine);
    look(&of_run(&f.vfs.crash(LossPolicy::LoseAll), 90).open(DIR).unwrap());
    kill(&f.vfs, engine);
    let engine = f.open();
    look(&engine);
    engine.close().unwrap();
    drop(engine);
    look(&f.open());
}

#[test]
fn a_deferred_compaction_is_resolved_by_the_log_as_it_is_when_the_batch_is_accepted() {
    let mut f = Fixture::new();
    let engine = f.active();
    let mut late = engine.batch();
    late.region(R).compact_to(6);
    late.region(OTHER).compact_to(20);
    // Meanwhile entry 6 becomes another one, and the other log grows.
    write(&engine, |b| {
        b.region(R).append([(EntryId::new(9, 6), &b"new"[..])]).unwrap();
    });
    append(&engine, OTHER, 9..=11);
    let outcome = engine.write_outcome(late, Durability::Synced).unwrap();
    let base = EntryId::new(9, 6);
    assert_eq!(compacted(&outcome), [Compacted::Dropped { first: 1, base }, dropped(1, 11)]);
    let asked: Vec<_> = outcome.compactions.iter().map(|c| (c.region, c.index)).collect();
    assert_eq!(asked, [(R, 6), (OTHER, 20)]);
    let last = EntryId::new(term(11), 11);
    is_everywhere(&mut f, engine, &[(R, Some(base), 6), (OTHER, Some(last), 11)]);
}

#[test]
fn a_deferred_compaction_comes_after_what_its_batch_did_before() {
    let mut f = Fixture::new();
    let engine = f.active();
    let outcome = write(&engine, |b| {
        b.region(R).truncate_from(4).compact_to(6).append([(EntryId::new(9, 4), &b"new"[..])]).unwrap();
        b.region(OTHER).reset(EntryId::new(2, 30)).unwrap().compact_to(30);
        b.region(OTHER).append([(EntryId::new(2, 31), &b"a"[..]), (EntryId::new(3, 32), b"b")]).unwrap();
        b.region(OTHER).compact_to(31).compact_to(31).compact_through(32).unwrap();
        // A region that the batch itself makes.
        b.region(RegionId(1)).append([(EntryId::new(1, 5), &b"x"[..])]).unwrap().compact_to(9);
    });
    let base = EntryId::new(2, 31);
    let made = Compacted::Dropped { first: 5, base: EntryId::new(1, 5) };
    let all =
        [dropped(1, 3), Compacted::Nothing, Compacted::Dropped { first: 31, base }, Compacted::Nothing, made];
    assert_eq!(compacted(&outcome), all);
    let bases =
        [(R, EntryId::new(1, 3), 4), (OTHER, EntryId::new(3, 32), 32), (RegionId(1), EntryId::new(1, 5), 5)];
    is_everywhere(&mut f, engine, &bases.map(|(region, base, last)| (region, Some(base), last)));
}

#[test]
fn a_deferred_compaction_of_nothing_does_nothing() {
    let mut f = Fixture::new();
    let engine = f.active();
    write(&engine, |b| {
        b.region(OTHER).reset(EntryId::new(2, 30)).unwrap();
    });
    write(&engine, |b| {
        b.region(R).compact_to(2);
    });
    let nobody = RegionId(99);
    let outcome = write(&engine, |b| {
        b.region(R).compact_to(2).compact_to(0);
        b.region(OTHER).compact_to(31).compact_to(u64::MAX);
        b.region(nobody).compact_to(7);
    });
    let mut expected = vec![Compacted::Nothing; 4];
    expected.push(Compacted::Gone);
    assert_eq!(compacted(&outcome), expected);
    assert!(!engine.region(nobody).exists());
    assert_eq!(engine.regions(), [R, OTHER]);
    let bases = [(R, Some(EntryId::new(1, 2)), 8), (OTHER, Some(EntryId::new(2, 30)), 30), (nobody, None, 0)];
    is_everywhere(&mut f, engine, &bases);
    assert_eq!(f.open_with(|o| o).regions(), [R, OTHER]);
}

/// One region of a hundred that had moved on refused the compactions of all.
#[test]
fn a_region_that_has_moved_on_refuses_nobody_elses_compaction() {
    let mut f = Fixture::new();
    let engine = f.open();
    (1..=100).for_each(|region| append(&engine, RegionId(region), 1..=3));
    let (mut strict, mut late) = (engine.batch(), engine.batch());
    for region in 1..=100 {
        strict.region(RegionId(region)).compact_through(3).unwrap();
        late.region(RegionId(region)).compact_to(3);
    }
    write(&engine, |b| {
        b.region(RegionId(50)).truncate_from(2);
    });
    write(&engine, |b| {
        b.region(RegionId(51)).destroy();
    });
    assert_eq!(engine.write(strict, Durability::Synced).unwrap_err().kind(), ErrorKind::Unavailable);
    let outcome = engine.submit(late, Durability::Synced).unwrap().outcome().clone();
    let done = compacted(&outcome);
    assert_eq!((done[49], done[50]), (dropped(1, 1), Compacted::Gone));
    assert_eq!(done.iter().filter(|d| **d == dropped(1, 3)).count(), 98);
    assert_eq!(engine.regions().len(), 99);
    assert!((1..=100).all(|region| engine.region(RegionId(region)).state().is_empty()));
}

#[test]
fn a_late_compaction_drops_nothing_of_a_region_that_was_recreated() {
    for in_one_batch in [true, false] {
        let mut f = Fixture::new();
        let engine = f.active();
        let mut late = engine.batch();
        late.region(R).compact_to(8);
        if in_one_batch {
            write(&engine, |b| {
                b.region(R).destroy().append([(EntryId::new(1, 1), &b"not applied"[..])]).map(drop).unwrap();
            });
        } else {
            write(&engine, |b| {
                b.region(R).destroy();
            });
            // There is none now, and this is meant for none.
            late.region(R).compact_to(8);
            append(&engine, R, 1..=1);
        }
        let done = compacted(&engine.write_outcome(late, Durability::Synced).unwrap());
        assert!(done.iter().all(|done| *done == Compacted::Gone), "{done:?}");
        assert_eq!(engine.region(R).first_index(), 1);
        // For the new one, one that is added now.
        let mut batch = engine.batch();
        batch.region(R).compact_to(8);
        assert_eq!(compacted(&engine.write_outcome(batch, Durability::Synced).unwrap()), [dropped(1, 1)]);
        is_everywhere(&mut f, engine, &[(R, Some(EntryId::new(1, 1)), 1)]);
    }
}

/// The batch was built when the region was there; by now its append makes another one.
#[test]
fn a_late_compaction_drops_nothing_of_a_region_that_its_own_batch_makes_unawares() {
    let mut f = Fixture::new();
    let engine = f.active();
    let mut late = engine.batch();
    late.region(R).append([(EntryId::new(3, 9), &b"nine"[..])]).unwrap().compact_to(9);
    write(&engine, |b| {
        b.region(R).destroy();
    });
    let outcome = engine.write_outcome(late, Durability::Synced).unwrap();
    assert_eq!(compacted(&outcome), [Compacted::Gone]);
    is_everywhere(&mut f, engine, &[(R, None, 9)]);
}

#[test]
fn a_batch_that_recreates_a_region_compacts_what_it_made() {
    let mut f = Fixture::new();
    let engine = f.active();
    let outcome = write(&engine, |b| {
        let mut r = b.region(R);
        r.destroy()
            .append([(EntryId::new(4, 1), &b"a"[..]), (EntryId::new(4, 2), b"b")])
            .unwrap()
            .compact_to(1);
    });
    let base = EntryId::new(4, 1);
    assert_eq!(compacted(&outcome), [Compacted::Dropped { first: 1, base }]);
    is_everywhere(&mut f, engine, &[(R, Some(base), 2)]);
}

#[test]
fn a_refused_batch_keeps_its_deferred_compactions_as_they_were_asked_for() {
    let mut f = Fixture::new();
    let engine = f.active();
    let mut batch = engine.batch();
    batch.region(R).compact_to(20);
    batch.region(OTHER).append([(EntryId::new(9, 12), &b"gap"[..])]).unwrap();
    let refused = engine.write_outcome(batch, Durability::Synced).unwrap_err();
    assert_eq!((refused.kind(), engine.region(R).first_index()), (ErrorKind::Gap, 1));
    append(&engine, R, 9..=9);
    append(&engine, OTHER, 9..=11);
    let outcome = engine.write_outcome(refused.into_batch().unwrap(), Durability::Synced).unwrap();
    assert_eq!(compacted(&outcome), [dropped(1, 9)]);
}

#[test]
fn a_deferred_compaction_makes_no_term_up_and_lifts_no_fence() {
    let mut f = Fixture::new();
    let engine = f.sealed();
    write(&engine, |b| {
        b.region(R).truncate_from(6);
    });
    engine.close().unwrap();
    drop(engine);
    f.vfs.remove_file("/db/0000000001.log").unwrap();
    let engine = f.open();
    let lost = |engine: &Engine| match engine.region(R).health() {
        Health::Damaged { hard_state, ranges } => (hard_state, ranges),
        other => panic!("{other:?}"),
    };
    let before = lost(&engine);
    // The term of 5 is not known, nor is that of 6 in the other region; that of the last one is.
    let outcome = write(&engine, |b| {
        b.region(R).compact_to(5);
    });
    assert_eq!(compacted(&outcome), [Compacted::Unreadable]);
    assert_eq!(engine.region(R).term(5).unwrap_err().kind(), ErrorKind::Damaged);
    assert_eq!(lost(&engine), before);
    let outcome = write(&engine, |b| {
        b.region(OTHER).compact_to(6).compact_to(8);
    });
    assert_eq!(compacted(&outcome), [Compacted::Unreadable, dropped(1, 8)]);
}

#[test]
fn a_deferred_compaction_gives_back_no_hard_state_that_was_lost() {
    let mut f = Fixture::new();
    let engine = f.active();
    write(&engine, |b| {
        b.region(R).set_hard_state(b"old").unwrap();
    });
    engine.close().unwrap();
    drop(engine);
    let engine = f.open();
    write(&engine, |b| {
        b.region(R).set_hard_state(b"new").unwrap();
    });
    kill(&f.vfs, engine);
    f.vfs.settle();
    let (path, at) = crate::support::files::find(&f.vfs, b"new");
    crate::support::files::ruin(&f.vfs, path, at - 60, 50);
    let engine = f.open_with(|o| o.tail_policy(raftwood::TailPolicy::AssumeTorn));
    let lost = |engine: &Engine| {
        matches!(engine.region(R).health(), Health::Damaged { hard_state: HardStateHealth::Lost, .. })
    };
    assert!(lost(&engine), "{:?}", engine.region(R).health());
    let outcome = write(&engine, |b| {
        b.region(R).compact_to(5);
    });
    assert_eq!(compacted(&outcome), [dropped(1, 5)]);
    assert!(lost(&engine));
    engine.region(R).hard_state_or_lost().unwrap_err();
    engine.close().unwrap();
    drop(engine);
    assert!(lost(&f.open()));
}

#[test]
fn building_many_deferred_compactions_does_not_look_at_the_batch_again() {
    let mut f = Fixture::new();
    let engine = f.active();
    let mut batch = engine.batch();
    for n in 0..200_000 {
        batch.region(if n % 2 == 0 { R } else { RegionId(n) }).compact_to(4);
    }
    let outcome = engine.write_outcome(batch, Durability::Synced).unwrap();
    assert_eq!(outcome.compactions.len(), 200_000);
    let done = compacted(&outcome);
    assert_eq!(done[0], dropped(1, 4));
    assert!(done[1..].iter().all(|d| *d == Compacted::Nothing || *d == Compacted::Gone));
}

#[test]
fn an_outcome_says_how_long_the_record_is() {
    let mut f = Fixture::new();
    let engine = f.active();
    let before = engine.stats();
    let outcome = write(&engine, |b| {
        b.region(R).append([(EntryId::new(9, 9), &[1; 1000][..])]).unwrap();
    });
    let after = engine.stats();
    assert_eq!(outcome.lsn, after.accepted);
    assert_eq!(outcome.bytes, after.batch_bytes - before.batch_bytes);
    assert!(outcome.compactions.is_empty() && outcome.bytes > 1000);
    let nothing = engine.write_outcome(engine.batch(), Durability::Written).unwrap();
    assert_eq!((nothing.lsn, nothing.bytes), (engine.stats().accepted, 0));
    let ticket = engine.submit(engine.batch(), Durability::Synced).unwrap();
    assert_eq!((ticket.outcome().lsn, ticket.outcome().bytes), (ticket.lsn(), 0));
}
