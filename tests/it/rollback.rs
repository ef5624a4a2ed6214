//! What listeners are asked about before it is discarded.

use crate::support::asked::{Asked, Question};
use crate::support::engines::small;
use raftwood::RollbackCause::{Destroyed, Replaced, Reset};
use raftwood::{
    Durability, Engine, EntryId, ErrorKind, EventListener, Options, RegionId, RollbackScope, WriteBatch,
};
use std::sync::Arc;

#[cfg(feature = "sim")]
mod incarnation;

const R: RegionId = RegionId(7);
const OTHER: RegionId = RegionId(8);

/// Two regions with entries 4 to 9, of term 2 up to 6 and then of 3, compacted through 3.
fn opened(options: Options, listener: Arc<dyn EventListener>) -> (tempfile::TempDir, Engine) {
    let dir = tempfile::tempdir().unwrap();
    let engine = options.listener(listener).open(dir.path()).unwrap();
    let mut batch = engine.batch();
    for region in [R, OTHER] {
        let entries = (1..=9).map(|i| (EntryId::new(if i < 7 { 2 } else { 3 }, i), &b"set x"[..]));
        batch.region(region).append(entries).unwrap().compact_through(3).unwrap();
    }
    engine.write(batch, Durability::Synced).unwrap();
    (dir, engine)
}

/// What is asked of a batch by default, and with [`RollbackScope::All`].
struct Case {
    what: &'static str,
    build: fn(&mut WriteBatch),
    asked: &'static [Question],
    of_all: &'static [Question],
}

const CASES: &[Case] = &[
    Case {
        what: "a snapshot of a leader that is ahead",
        build: |b| _ = b.region(R).reset(EntryId::new(3, 20)).unwrap(),
        asked: &[],
        of_all: &[(R, 4, 9, Reset)],
    },
    Case {
        what: "a snapshot that ends inside of the log, with the entry that stands there",
        build: |b| _ = b.region(R).reset(EntryId::new(2, 5)).unwrap(),
        asked: &[(R, 6, 9, Reset)],
        of_all: &[(R, 4, 9, Reset)],
    },
    Case {
        what: "a snapshot that has another entry than the log",
        build: |b| _ = b.region(R).reset(EntryId::new(4, 9)).unwrap(),
        asked: &[(R, 9, 9, Reset)],
        of_all: &[(R, 4, 9, Reset)],
    },
    Case {
        what: "a base below the log",
        build: |b| _ = b.region(R).reset(EntryId::new(1, 2)).unwrap(),
        asked: &[(R, 4, 9, Reset)],
        of_all: &[(R, 4, 9, Reset)],
    },
    Case {
        what: "a reset that says what is committed",
        build: |b| _ = b.region(R).committed(5).committed(7).reset(EntryId::new(3, 20)).unwrap(),
        asked: &[(R, 8, 9, Reset)],
        of_all: &[(R, 4, 9, Reset)],
    },
    Case {
        what: "a destroy that says nothing",
        build: |b| _ = b.region(R).destroy(),
        asked: &[],
        of_all: &[(R, 4, 9, Destroyed)],
    },
    Case {
        what: "a destroy of what is committed up to its middle",
        build: |b| _ = b.region(R).committed(6).destroy(),
        asked: &[(R, 7, 9, Destroyed)],
        of_all: &[(R, 4, 9, Destroyed)],
    },
    Case {
        what: "a destroy of what is committed to its end",
        build: |b| _ = b.region(R).committed(9).destroy(),
        asked: &[],
        of_all: &[(R, 4, 9, Destroyed)],
    },
    Case {
        what: "what is named counts for its region, and for what comes after it",
        build: |b| {
            b.region(OTHER).destroy();
            b.region(OTHER).committed(4);
            b.region(R).committed(8).destroy();
        },
        asked: &[(R, 9, 9, Destroyed)],
        of_all: &[(OTHER, 4, 9, Destroyed), (R, 4, 9, Destroyed)],
    },
    Case {
        what: "what the batch itself appended is nobody's, and nothing is asked twice",
        build: |b| {
            b.region(R).truncate_from(8).append([(EntryId::new(5, 8), &b"new"[..])]).unwrap();
            b.region(R).reset(EntryId::new(2, 5)).unwrap().committed(0).destroy();
        },
        asked: &[(R, 8, 9, Replaced), (R, 6, 7, Reset)],
        of_all: &[(R, 8, 9, Replaced), (R, 4, 7, Reset)],
    },
    Case {
        what: "a compaction, and a batch that names what is committed and discards nothing",
        build: |b| _ = b.region(R).committed(4).compact_to(9).committed(5),
        asked: &[],
        of_all: &[],
    },
];

#[test]
fn a_reset_and_a_destroy_ask_for_what_is_not_known_to_be_committed_or_for_all() {
    for Case { what, build, asked, of_all } in CASES {
        for (scope, asked) in [(RollbackScope::Uncommitted, asked), (RollbackScope::All, of_all)] {
            let listener = Asked::new();
            let (_dir, engine) = opened(small().rollback_scope(scope), listener.clone());
            let mut batch = engine.batch();
            build(&mut batch);
            listener.refuse(true);
            if !asked.is_empty() {
                let before = engine.region(R).state();
                let refused = engine.write(batch, Durability::Synced).unwrap_err();
                assert_eq!(refused.kind(), ErrorKind::Refused, "{what}, {scope:?}");
                assert_eq!(
                    (engine.region(R).state(), listener.take().len()),
                    (before, 1),
                    "{what}, {scope:?}"
                );
                batch = refused.into_batch().unwrap();
                listener.refuse(false);
            }
            engine.write(batch, Durability::Synced).unwrap();
            assert_eq!(listener.take(), *asked, "{what}, {scope:?}");
        }
    }
}

/// Where a batch is joined to another, what it names goes with it.
#[test]
fn what_is_named_as_committed_counts_in_the_batch_that_takes_it_in() {
    let listener = Asked::new();
    let (_dir, engine) = opened(small(), listener.clone());
    let (mut all, mut one) = (engine.batch(), engine.batch());
    all.region(OTHER).put(b"a", b"1").unwrap().destroy();
    one.region(OTHER).committed(4);
    one.region(R).committed(7).destroy();
    all.append_batch(&mut one).unwrap();
    // What was taken out of a batch is named no more.
    one.region(R).destroy();
    engine.write(all, Durability::Synced).unwrap();
    assert_eq!(listener.take(), [(R, 8, 9, Destroyed)]);
    engine.write(one, Durability::Synced).unwrap();
    assert_eq!(listener.take(), []);
}
