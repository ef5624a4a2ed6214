//! What a batch leaves to acceptance is decided there, once, and what was decided is what every recovery
//! finds.

use crate::support::asked::Asked;
use crate::support::engines::{DIR, kill, of_run};
use crate::support::two_regions::*;
use raftwood::random::Rng;
use raftwood::vfs::sim::LossPolicy;
use raftwood::{
    Compacted, Compression, Durability, Engine, EntryId, ErrorKind, HardStateHealth, Health, Outcome,
    ReadLimit, RegionId, RollbackCause, WriteBatch, limits,
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
    // A mark proves the first group of a segment.
    write(&engine, |b| {
        b.region(OTHER).set_hard_state(b"first").unwrap();
    });
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

/// Index, term and payload of all entries.
fn log(engine: &Engine, region: RegionId) -> Vec<(u64, u64, String)> {
    let entries = engine.region(region).entries(.., ReadLimit::NONE).unwrap();
    let text = |e: &raftwood::Entry| String::from_utf8_lossy(&e.payload).into_owned();
    entries.iter().map(|e| (e.id.index, e.id.term, text(e))).collect()
}

fn firsts(outcome: &Outcome) -> Vec<(u64, u64)> {
    outcome.appends.iter().map(|a| (a.first, a.last)).collect()
}

#[test]
fn what_is_appended_next_comes_after_the_last_entry_when_the_batch_is_accepted() {
    for compression in [Compression::None, Compression::Lz4 { min_batch_bytes: 1 }] {
        let mut f = Fixture::new();
        let engine = f.open_with(|o| o.compression(compression));
        append(&engine, R, 1..=2);
        let mut late = engine.batch();
        let long = "long ".repeat(2000);
        late.region(R).append_next(["a", "", &long], 5).unwrap().append_next(["b"], 6).unwrap();
        late.region(OTHER).append_next(["first"], 0).unwrap();
        late.region(R).set_hard_state(b"with it").unwrap();
        // Meanwhile the one grows, and the other is reset.
        append(&engine, R, 3..=7);
        write(&engine, |b| {
            b.region(OTHER).reset(EntryId::new(0, 40)).unwrap();
        });
        let outcome = engine.write_outcome(late, Durability::Synced).unwrap();
        assert_eq!(firsts(&outcome), [(8, 10), (11, 11), (41, 41)]);
        let expected: Vec<_> = [(8, 5, "a"), (9, 5, ""), (10, 5, &long), (11, 6, "b")]
            .map(|(index, term, text): (u64, u64, &str)| (index, term, text.to_owned()))
            .into();
        let look = |engine: &Engine| {
            assert_eq!(log(engine, R)[7..], expected);
            assert_eq!(log(engine, OTHER), [(41, 0, "first".to_owned())]);
            assert_eq!(engine.region(R).hard_state().as_deref(), Some(&b"with it"[..]));
        };
        look(&engine);
        look(&of_run(&f.vfs.crash(LossPolicy::LoseAll), 90).open(DIR).unwrap());
        engine.close().unwrap();
        drop(engine);
        look(&f.open());
    }
}

#[test]
fn what_is_appended_next_comes_after_what_its_batch_did_before() {
    let mut f = Fixture::new();
    let engine = f.active();
    let outcome = write(&engine, |b| {
        b.region(R).truncate_from(5).append_next(["five", "six"], 9).unwrap();
        b.region(OTHER)
            .destroy()
            .append_next(["one"], 0)
            .unwrap()
            .compact_to(1)
            .append_next(["two"], 0)
            .unwrap();
        b.region(RegionId(1))
            .append([(EntryId::new(1, 0), &b"x"[..])])
            .unwrap()
            .append_next(["y"], 1)
            .unwrap();
        b.region(R).compact_to(5);
    });
    assert_eq!(firsts(&outcome), [(5, 6), (1, 1), (2, 2), (1, 1)]);
    let bases =
        [(R, Some(EntryId::new(9, 5)), 6), (OTHER, Some(EntryId::new(0, 1)), 2), (RegionId(1), None, 1)];
    is_everywhere(&mut f, engine, &bases);
}

#[test]
fn what_is_appended_next_is_refused_where_the_term_falls_or_the_indexes_end() {
    let mut f = Fixture::new();
    let engine = f.active();
    let refused = |region, term, count| {
        let mut batch = engine.batch();
        batch.region(region).append_next(vec!["x"; count], term).unwrap();
        let error = engine.write(batch, Durability::Synced).unwrap_err();
        assert_eq!(error.error().region(), Some(region), "{error}");
        let mut back = error.into_batch().unwrap();
        assert_eq!(back.entry_count(), count);
        back.clear();
        engine.write(back, Durability::Synced).map(drop).unwrap();
    };
    refused(R, term(8) - 1, 1);
    write(&engine, |b| {
        b.region(OTHER).reset(EntryId::new(1, limits::INDEX_MAX - 1)).unwrap();
    });
    refused(OTHER, 1, 2);
    let outcome = write(&engine, |b| {
        b.region(OTHER).append_next(["the last"], 1).unwrap();
    });
    assert_eq!(firsts(&outcome), [(limits::INDEX_MAX, limits::INDEX_MAX)]);
    refused(OTHER, 1, 1);
    let mut batch = engine.batch();
    let error = batch.region(R).append_next(["x"], u64::MAX).map(drop).unwrap_err();
    assert_eq!((error.kind(), batch.is_empty()), (ErrorKind::TooLarge, true));
    batch.region(R).append_next([""; 0], 1).unwrap();
    assert!(batch.is_empty());
}

#[test]
fn callers_that_append_to_one_region_get_indexes_of_their_own_without_gaps() {
    let dir = tempfile::tempdir().unwrap();
    let engine = Engine::open(dir.path()).unwrap();
    let empty = engine.append_next(R, [""; 0], Durability::Synced).unwrap_err();
    assert_eq!((empty.kind(), empty.region()), (ErrorKind::InvalidArgument, Some(R)));
    let mut given: Vec<(u64, String)> = std::thread::scope(|s| {
        let writer = |w: u64| {
            let engine = &engine;
            move || {
                let one = |n: u64| {
                    let texts = [format!("{w} {n} a"), format!("{w} {n} b")];
                    let first = engine.append_next(R, &texts, Durability::Synced).unwrap();
                    (first..).zip(texts).collect::<Vec<_>>()
                };
                (0..50).flat_map(one).collect::<Vec<_>>()
            }
        };
        let threads: Vec<_> = (0..4).map(|w| s.spawn(writer(w))).collect();
        threads.into_iter().flat_map(|t| t.join().unwrap()).collect()
    });
    given.sort_unstable();
    assert!(given.iter().map(|e| e.0).eq(1..=400));
    let look = |engine: &Engine| {
        let found: Vec<_> = log(engine, R).into_iter().map(|(index, _, text)| (index, text)).collect();
        assert_eq!(found, given);
    };
    look(&engine);
    drop(engine);
    look(&Engine::open(dir.path()).unwrap());
}

#[test]
fn joined_batches_are_one_record_in_their_order() {
    let mut f = Fixture::new();
    let engine = f.active();
    let (mut all, mut one) = (engine.batch(), engine.batch());
    all.append_batch(&mut one).unwrap();
    assert!(all.is_empty() && one.is_empty());
    one.region(R).append([(EntryId::new(9, 9), &b"nine"[..])]).unwrap().set_hard_state(b"R").unwrap();
    all.append_batch(&mut one).unwrap();
    assert!(one.is_empty() && one.entry_count() == 0);
    one.region(R).append([(EntryId::new(9, 10), &b"ten"[..])]).unwrap().put(b"k", b"v").unwrap();
    one.region(OTHER).compact_to(4);
    all.append_batch(&mut one).unwrap();
    // What is added now goes on where the other ended.
    one.region(OTHER).append([(EntryId::new(9, 9), &b"other"[..])]).unwrap();
    all.append_batch(&mut one).unwrap();
    all.region(OTHER).append([(EntryId::new(9, 10), &b"same append"[..])]).unwrap();
    let before = engine.stats().batches;
    let outcome = engine.write_outcome(all, Durability::Synced).unwrap();
    assert_eq!(engine.stats().batches, before + 1);
    assert_eq!(compacted(&outcome), [dropped(1, 4)]);
    let tail: Vec<_> = log(&engine, R).split_off(8).into_iter().map(|e| e.2).collect();
    assert_eq!(tail, ["nine", "ten"]);
    assert_eq!(log(&engine, OTHER).last().unwrap().2, "same append");
    assert_eq!(engine.region(R).hard_state().as_deref(), Some(&b"R"[..]));
    assert_eq!(engine.region(R).get(b"k").as_deref(), Some(&b"v"[..]));
    is_everywhere(&mut f, engine, &[(R, None, 10), (OTHER, Some(EntryId::new(2, 4)), 10)]);
}

#[test]
fn batches_that_do_not_fit_together_stay_as_they_were() {
    let mut f = Fixture::new();
    let engine = f.active();
    let value = vec![7; limits::VALUE_BYTES_MAX];
    let full = |key: u8, values: u8| {
        let mut batch = engine.batch();
        for n in 0..values {
            batch.region(R).put(&[key, n], &value).unwrap();
        }
        batch
    };
    let (mut a, mut b) = (full(1, 9), full(2, 9));
    let lens = (a.encoded_len(), b.encoded_len());
    let error = a.append_batch(&mut b).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooLarge);
    assert!(error.to_string().contains("DESC_BYTES_MAX"), "{error}");
    assert_eq!((a.encoded_len(), b.encoded_len()), lens);
    engine.write(a, Durability::Written).unwrap();
    engine.write(b, Durability::Written).unwrap();
    assert_eq!(engine.region(R).scan(b"").len(), 18);
    // Nor are those of two engines, nor one that a closure spoilt.
    let dir = tempfile::tempdir().unwrap();
    let stranger = Engine::open(dir.path()).unwrap();
    let (mut a, mut b) = (engine.batch(), stranger.batch());
    b.region(R).set_hard_state(b"x").unwrap();
    assert_eq!(a.append_batch(&mut b).unwrap_err().kind(), ErrorKind::InvalidArgument);
    assert!(a.is_empty() && !b.is_empty());
    let mut spoilt = engine.batch();
    spoilt.region(R).append([(EntryId::new(9, 9), &b"nine"[..])]).unwrap();
    spoilt.region(R).append_with(EntryId::new(9, 10), Vec::clear).map(drop).unwrap_err();
    assert_eq!(a.append_batch(&mut spoilt).unwrap_err().kind(), ErrorKind::InvalidArgument);
    assert_eq!((a.entry_count(), spoilt.entry_count()), (0, 1));
}

/// What was moved into an empty batch could not be taken back: the batch kept it, and could not be written.
#[test]
fn what_was_joined_to_a_batch_is_taken_back_with_all_else_that_was_added() {
    let mut f = Fixture::new();
    let engine = f.active();
    for keys in [&[][..], &[b"first"]] {
        let mut all = engine.batch();
        for key in keys {
            all.region(R).put(*key, b"there").unwrap();
        }
        let before = (all.is_empty(), all.entry_count(), all.encoded_len());
        let refused = all.atomically(|all| {
            for _ in 0..2 {
                let mut one = engine.batch();
                one.region(R).append_next(["lost"], 9).unwrap().put(b"lost", b"x").unwrap();
                all.append_batch(&mut one).unwrap();
            }
            Err::<(), _>("refused")
        });
        assert_eq!(refused, Err("refused"));
        assert_eq!((all.is_empty(), all.entry_count(), all.encoded_len()), before);
        // What is joined within, and stays, is taken back by who is around it.
        let mut one = engine.batch();
        one.region(R).put(b"second", b"there").unwrap();
        let refused = all.atomically(|all| {
            all.atomically(|all| all.append_batch(&mut one)).unwrap();
            Err::<(), _>("refused")
        });
        assert!(refused.is_err() && one.is_empty());
        assert_eq!((all.is_empty(), all.entry_count(), all.encoded_len()), before);
        // The one that it was moved out of has nothing any more that could be had back.
        let mut one = engine.batch();
        one.region(R).put(b"second", b"there").unwrap();
        one.atomically(|one| all.append_batch(one)).unwrap();
        engine.write(all, Durability::Synced).unwrap();
        engine.write(one, Durability::Synced).unwrap();
        let there = engine.region(R).scan(b"");
        assert_eq!(there.iter().filter(|(_, value)| &value[..] == b"there").count(), 1 + keys.len());
        assert!(engine.region(R).get(b"lost").is_none() && engine.region(R).last_index() == 8);
    }
}

/// It went to the other batch where this one was empty: the region was destroyed unasked.
#[test]
fn what_was_said_to_be_committed_stays_where_another_batch_is_joined() {
    let (mut f, asked) = (Fixture::new(), Asked::new());
    let engine = f.open_with(|options| options.listener(asked.clone()));
    append(&engine, R, 1..=8);
    append(&engine, OTHER, 1..=8);
    let (mut all, mut one) = (engine.batch(), engine.batch());
    all.region(R).committed(6);
    all.region(OTHER).committed(6);
    one.region(RegionId(9)).put(b"k", b"v").unwrap();
    all.append_batch(&mut one).unwrap();
    all.region(R).destroy();
    engine.write(all, Durability::Synced).unwrap();
    assert_eq!(asked.take(), [(R, 7, 8, RollbackCause::Destroyed)]);
    // The one that was emptied knows nothing of it.
    one.region(OTHER).destroy();
    engine.write(one, Durability::Synced).unwrap();
    assert_eq!(asked.take(), []);
}

/// What was collected for the old region is in one batch with what replaces it.
#[test]
fn a_joined_compaction_drops_nothing_of_a_region_that_the_batch_before_it_recreates() {
    let mut f = Fixture::new();
    let engine = f.active();
    let (mut all, mut late) = (engine.batch(), engine.batch());
    late.region(R).compact_to(8);
    late.region(RegionId(1)).compact_to(8);
    all.region(R).destroy().append_next(["new"], 1).unwrap();
    all.region(RegionId(1)).append_next(["new"], 1).unwrap();
    all.append_batch(&mut late).unwrap();
    let outcome = engine.write_outcome(all, Durability::Synced).unwrap();
    assert_eq!(compacted(&outcome), [Compacted::Gone, Compacted::Gone]);
    is_everywhere(&mut f, engine, &[(R, None, 1), (RegionId(1), None, 1)]);
}

/// A region of which each entry was appended next, and its number among all that were ever made; 0 for none.
#[derive(Clone, Copy, Default)]
struct Sim {
    made: u64,
    base: u64,
    last: u64,
}

enum Late {
    Append,
    Destroy,
    Compact { index: u64, seen: u64 },
}

/// Batches that are built at one time and accepted at another, with others in between, by chance.
#[test]
fn late_batches_do_what_a_plain_model_says() {
    for seed in 0..60 {
        let rng = &mut Rng::new(seed);
        let mut f = Fixture::new();
        let engine = f.open();
        let (mut model, mut births) = ([Sim::default(); 3], 0);
        let mut waiting: Vec<(WriteBatch, Vec<(usize, Late)>)> = Vec::new();
        for _ in 0..60 {
            let (mut batch, mut ops) = (engine.batch(), Vec::new());
            for _ in 0..1 + rng.below(4) {
                let at = rng.below(3) as usize;
                let mut region = batch.region(RegionId(at as u64));
                ops.push(match rng.below(9) {
                    0..=3 => {
                        region.append_next(["an entry"], 0).unwrap();
                        (at, Late::Append)
                    }
                    4 => {
                        region.destroy();
                        (at, Late::Destroy)
                    }
                    _ => {
                        let index = rng.below(model[at].last + 3);
                        region.compact_to(index);
                        (at, Late::Compact { index, seen: model[at].made })
                    }
                });
            }
            waiting.push((batch, ops));
            if waiting.len() < 4 && rng.one_in(2) {
                continue;
            }
            let (batch, ops) = waiting.swap_remove(rng.below(waiting.len() as u64) as usize);
            let before = model;
            let (mut wiped, mut done, mut given) = ([false; 3], Vec::new(), Vec::new());
            for (at, op) in ops {
                let sim = &mut model[at];
                match op {
                    Late::Append => {
                        if sim.made == 0 {
                            births += 1;
                            sim.made = births;
                        }
                        sim.last += 1;
                        given.push(sim.last);
                    }
                    Late::Destroy => (*sim, wiped[at]) = (Sim::default(), true),
                    // What the batch itself makes of nothing it may compact.
                    Late::Compact { seen, .. } if sim.made == 0 || !wiped[at] && before[at].made != seen => {
                        done.push(Compacted::Gone);
                    }
                    Late::Compact { index, .. } if index <= sim.base || sim.base == sim.last => {
                        done.push(Compacted::Nothing);
                    }
                    Late::Compact { index, .. } => {
                        let last = index.min(sim.last);
                        done.push(Compacted::Dropped { first: sim.base + 1, base: EntryId::new(0, last) });
                        sim.base = last;
                    }
                }
            }
            let outcome = engine.write_outcome(batch, Durability::Written).unwrap();
            assert_eq!(compacted(&outcome), done, "seed {seed}");
            assert_eq!(outcome.appends.iter().map(|a| a.first).collect::<Vec<_>>(), given, "seed {seed}");
        }
        drop(waiting);
        let base = |sim: &Sim| (sim.base > 0).then(|| EntryId::new(0, sim.base));
        let regions: Vec<_> =
            (0..).zip(&model).map(|(id, sim)| (RegionId(id), base(sim), sim.last)).collect();
        engine.sync().unwrap();
        is_everywhere(&mut f, engine, &regions);
    }
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
