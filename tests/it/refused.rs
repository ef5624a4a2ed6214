//! What is refused is refused before anything is written, by name, and leaves nothing behind.

use crate::support::asked::with_causes;
use crate::support::entries::refs;
use raftwood::{
    BoxError, Compression, Durability, Engine, EntryId, ErrorKind, EventListener, Options, Pool, ReadLimit,
    RegionId, Rollback, WriteBatch, WriteError, limits,
};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

const R: RegionId = RegionId(7);

struct Fixture {
    engine: Engine,
    _dir: tempfile::TempDir,
}

impl Fixture {
    /// Region 7 has entries 4..=9 with terms 2 (4..=6) and 3 (7..=9), compacted through 3 (term
    /// 1), and a hard state.
    fn new() -> Fixture {
        Fixture::with(Options::new())
    }

    fn with(options: Options) -> Fixture {
        let dir = tempfile::tempdir().unwrap();
        let options = options.segment_bytes(64 << 10).pool(Pool::default().prewrite(false));
        let engine = options.open(dir.path()).unwrap();
        let mut b = engine.batch();
        b.region(R).append(refs(&run(1, 1..=3))).unwrap().append(refs(&run(2, 4..=6))).unwrap();
        b.region(R).append(refs(&run(3, 7..=9))).unwrap().set_hard_state(b"hs").unwrap();
        b.region(R).compact_through(3).unwrap();
        engine.write(b, Durability::Synced).unwrap();
        Fixture { engine, _dir: dir }
    }

    /// Everything there is to see, as text.
    fn all(&self) -> String {
        let mut out = String::new();
        for id in self.engine.regions() {
            let r = self.engine.region(id);
            let entries = r.entries(.., ReadLimit::NONE).unwrap();
            let state = raftwood::LogState { durable: 0, ..r.state() };
            out += &format!("{id}: {state:?} {entries:?} {:?} {:?}\n", r.hard_state(), r.scan(b""));
        }
        out
    }

    /// The batch is refused with the kind; the message holds all words; the region is named; nothing has
    /// changed, and the batch comes back whole.
    fn refused(&self, batch: WriteBatch, kind: ErrorKind, words: &[&str]) -> WriteError {
        let (before, accepted, len) = (self.all(), self.engine.stats().accepted, batch.encoded_len());
        let error = self.engine.write(batch.clone(), Durability::Synced).unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert_eq!(error.error().region(), Some(R), "{error}");
        for word in words {
            assert!(error.to_string().contains(word), "{error} does not say {word}");
        }
        let back = self.engine.submit(batch, Durability::Written).unwrap_err().into_batch().unwrap();
        assert_eq!(back.encoded_len(), len);
        assert_eq!(self.all(), before);
        assert_eq!(self.engine.stats().accepted, accepted);
        error
    }

    fn batch(&self, build: impl FnOnce(&mut WriteBatch)) -> WriteBatch {
        let mut b = self.engine.batch();
        // Something good first: a refusal is of the whole batch.
        b.region(RegionId(8)).append(refs(&run(1, 1..=2))).unwrap();
        build(&mut b);
        b
    }
}

fn run(term: u64, range: std::ops::RangeInclusive<u64>) -> Vec<(EntryId, Vec<u8>)> {
    range.map(|i| (EntryId::new(term, i), format!("{term}/{i}").into_bytes())).collect()
}

#[test]
fn an_append_that_leaves_a_gap_is_refused_with_both_indexes() {
    let f = Fixture::new();
    let b = f.batch(|b| drop(b.region(R).append(refs(&run(3, 12..=13))).map(|_| ())));
    f.refused(b, ErrorKind::Gap, &["12", "10", "region 7"]);
}

#[test]
fn an_append_below_the_compaction_point_is_refused_with_both_indexes() {
    let f = Fixture::new();
    let b = f.batch(|b| drop(b.region(R).append(refs(&run(5, 2..=2))).map(|_| ())));
    f.refused(b, ErrorKind::Compacted, &["2", "3", "region 7"]);
}

#[test]
fn an_append_that_lowers_the_term_is_refused_with_both_entries() {
    let f = Fixture::new();
    let b = f.batch(|b| drop(b.region(R).append(refs(&run(2, 10..=10))).map(|_| ())));
    f.refused(b, ErrorKind::TermRegression, &["10", "9", "term 2", "term 3"]);
    // Also against the compaction point itself.
    let b = f.batch(|b| drop(b.region(R).append(refs(&run(0, 4..=4))).map(|_| ())));
    f.refused(b, ErrorKind::TermRegression, &["4", "3", "term 0", "term 1"]);
}

#[test]
fn a_compaction_beyond_the_log_is_refused_when_it_is_added() {
    let f = Fixture::new();
    let mut b = f.engine.batch();
    let error = b.region(R).compact_through(10).map(|_| ()).unwrap_err();
    assert_eq!((error.kind(), error.region()), (ErrorKind::Unavailable, Some(R)));
    assert!(error.to_string().contains("10") && error.to_string().contains('9'), "{error}");
    assert!(b.is_empty());
}

#[test]
fn a_compaction_that_the_log_has_outgrown_is_refused() {
    let f = Fixture::new();
    let stale = f.batch(|b| drop(b.region(R).compact_through(9).map(|_| ())));
    let mut b = f.engine.batch();
    b.region(R).truncate_from(6);
    f.engine.write(b, Durability::Synced).unwrap();
    f.refused(stale, ErrorKind::Unavailable, &["9", "5"]);
}

#[test]
fn indexes_within_one_append_must_be_consecutive_and_the_batch_stays_as_it_was() {
    let f = Fixture::new();
    let mut b = f.engine.batch();
    b.region(R).append(refs(&run(3, 10..=11))).unwrap();
    let len = b.encoded_len();
    let mut bad = run(3, 12..=12);
    bad.extend(run(3, 14..=14));
    let error = b.region(R).append(refs(&bad)).map(|_| ()).unwrap_err();
    assert_eq!((error.kind(), error.region()), (ErrorKind::InvalidArgument, Some(R)));
    assert!(error.to_string().contains("14") && error.to_string().contains("12"), "{error}");
    let mut bad = run(3, 12..=12);
    bad.extend(run(2, 13..=13));
    let error = b.region(R).append(refs(&bad)).map(|_| ()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TermRegression);
    assert_eq!((b.encoded_len(), b.entry_count()), (len, 2));
    f.engine.write(b, Durability::Synced).unwrap();
    assert_eq!(f.engine.region(R).last_index(), 11);
}

#[test]
fn limits_are_enforced_where_data_enters_and_named() {
    let f = Fixture::new();
    let mut b = f.engine.batch();
    let check = |what: Result<(), raftwood::Error>, name: &str| {
        let error = what.unwrap_err();
        assert_eq!((error.kind(), error.region()), (ErrorKind::TooLarge, Some(R)), "{error}");
        assert!(error.to_string().contains(name), "{error} does not name {name}");
    };
    let id = |term, index| [(EntryId::new(term, index), &b""[..])];
    check(b.region(R).append(id(3, u64::MAX)).map(|_| ()), "INDEX_MAX");
    check(b.region(R).append(id(u64::MAX, 10)).map(|_| ()), "TERM_MAX");
    check(b.region(R).reset(EntryId::new(1, u64::MAX)).map(|_| ()), "INDEX_MAX");
    check(b.region(R).put(&vec![0; limits::KEY_BYTES_MAX + 1], b"").map(|_| ()), "KEY_BYTES_MAX");
    check(b.region(R).put(b"k", &vec![0; limits::VALUE_BYTES_MAX + 1]).map(|_| ()), "VALUE_BYTES_MAX");
    check(b.region(R).set_hard_state(&vec![0; limits::VALUE_BYTES_MAX + 1]).map(|_| ()), "VALUE_BYTES_MAX");
    check(b.region(R).delete(&vec![0; limits::KEY_BYTES_MAX + 1]).map(|_| ()), "KEY_BYTES_MAX");
    assert!(b.is_empty());
    b.region(R).put(&vec![1; limits::KEY_BYTES_MAX], &vec![2; limits::VALUE_BYTES_MAX]).unwrap();
    f.engine.write(b, Durability::Synced).unwrap();
    assert_eq!(
        f.engine.region(R).get(&vec![1; limits::KEY_BYTES_MAX]).unwrap().len(),
        limits::VALUE_BYTES_MAX
    );
}

#[test]
fn a_closure_that_shortens_the_buffer_is_refused() {
    let f = Fixture::new();
    let mut b = f.engine.batch();
    b.region(R).append(refs(&run(3, 10..=10))).unwrap();
    let error = b.region(R).append_with(EntryId::new(3, 11), Vec::clear).map(|_| ()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    // The bytes of entry 10 are gone: what is left of the batch must not get into the log.
    let _ = b.region(R).append_with(EntryId::new(3, 11), |out| out.extend(b"in place")).map(|_| ());
    let error = f.engine.write(b, Durability::Synced).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    assert_eq!(error.into_batch().unwrap().entry_count(), 1);
    assert_eq!(f.engine.region(R).last_index(), 9);
}

#[test]
fn a_closure_that_rewrites_the_buffer_is_refused() {
    let f = Fixture::new();
    for compression in [Compression::None, Compression::Lz4 { min_batch_bytes: 1 }] {
        let f = if compression == Compression::None {
            &f
        } else {
            &Fixture::with(Options::new().compression(compression))
        };
        let mut b = f.engine.batch();
        b.region(R).append(refs(&run(3, 10..=10))).unwrap();
        let rewritten = |out: &mut Vec<u8>| {
            out.clear();
            out.extend(b"a longer text than there was before");
        };
        let error = b.region(R).append_with(EntryId::new(3, 11), rewritten).map(|_| ()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        let error = f.engine.write(b, Durability::Synced).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        let mut b = error.into_batch().unwrap();
        // Cleared, it is as good as new.
        b.clear();
        b.region(R).append(refs(&run(3, 10..=10))).unwrap();
        f.engine.write(b, Durability::Synced).unwrap();
    }
}

/// The bytes that a closure had added before it panicked once stayed in the batch: all entries after them
/// were written at the wrong place, and the store could not be opened again.
#[test]
fn a_closure_that_panics_leaves_the_batch_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let engine = Engine::open(dir.path()).unwrap();
    let mut b = engine.batch();
    b.region(R).append(refs(&run(3, 10..=10))).unwrap();
    let panics = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let _ = b.region(R).append_with(EntryId::new(3, 11), |out| {
            out.extend(b"half an entry");
            panic!("on purpose");
        });
    }));
    assert!(panics.is_err());
    b.region(R).append(refs(&run(3, 11..=12))).unwrap();
    engine.write(b, Durability::Synced).unwrap();
    let check = |engine: &Engine| {
        let all = engine.region(R).entries(.., ReadLimit::NONE).unwrap();
        let all: Vec<(EntryId, Vec<u8>)> = all.iter().map(|e| (e.id, e.payload.to_vec())).collect();
        assert_eq!(all, run(3, 10..=12));
    };
    check(&engine);
    drop(engine);
    check(&Engine::open(dir.path()).unwrap());
}

#[test]
fn what_is_added_atomically_is_there_whole_or_not_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let engine = Engine::open(dir.path()).unwrap();
    let mut b = engine.batch();
    b.region(R).append(refs(&run(3, 10..=10))).unwrap();
    let before = (b.entry_count(), b.encoded_len());
    let inner = b.atomically(|b| {
        b.region(R).append(refs(&run(3, 11..=12))).unwrap();
        // What is taken back within is not taken back twice.
        let refused: Result<(), &str> = b.atomically(|b| {
            b.region(RegionId(8)).set_hard_state(b"x").unwrap();
            Err("refused")
        });
        assert_eq!((refused, b.entry_count()), (Err("refused"), 3));
        Err::<(), _>("refused too")
    });
    assert_eq!((inner, (b.entry_count(), b.encoded_len())), (Err("refused too"), before));
    let panics = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        b.atomically(|b| -> Result<(), ()> {
            b.region(R).append(refs(&run(3, 11..=12))).unwrap();
            panic!("on purpose");
        })
    }));
    assert!(panics.is_err());
    assert_eq!((b.entry_count(), b.encoded_len()), before);
    b.atomically(|b| b.region(R).append(refs(&run(3, 11..=11))).map(drop)).unwrap();
    let mut spoilt = b.clone();
    engine.write(b, Durability::Synced).unwrap();
    assert_eq!(engine.region(R).last_index(), 11);

    // What it was before is not known any more.
    let cleared = spoilt.atomically(|b| {
        b.clear();
        b.region(R).append(refs(&run(3, 12..=12))).unwrap();
        Err::<(), _>("refused")
    });
    assert!(cleared.is_err());
    assert_eq!(engine.write(spoilt, Durability::Synced).unwrap_err().kind(), ErrorKind::InvalidArgument);
}

/// Operations without bytes of their own were not counted, and the reader's limit on descriptions
/// refused what had been acknowledged.
#[test]
fn a_batch_of_more_operations_than_a_description_can_hold_is_refused() {
    let f = Fixture::new();
    let mut b = f.engine.batch();
    for region in 0..900_000 {
        b.region(RegionId(u64::MAX - region)).truncate_from(u64::MAX);
    }
    let error = f.engine.write(b, Durability::Written).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooLarge, "{error}");
    assert!(error.to_string().contains("DESC_BYTES_MAX"), "{error}");
    assert!(error.into_batch().is_some());
    assert_eq!(f.engine.regions(), [R]);
}

#[test]
fn an_entry_without_bytes_counts_as_durable_when_it_is() {
    let f = Fixture::new();
    for (n, len) in (5..).zip(0..16) {
        let mut b = f.engine.batch();
        let bytes = vec![1; len];
        b.region(R)
            .append([(EntryId::new(3, n * 2), &bytes[..]), (EntryId::new(3, n * 2 + 1), &b""[..])])
            .map(drop)
            .unwrap();
        f.engine.write(b, Durability::Synced).unwrap();
        assert_eq!(f.engine.region(R).state().durable, n * 2 + 1, "after {len} bytes");
    }
}

#[derive(Default)]
struct Doorkeeper {
    refuse: AtomicBool,
    asked: AtomicU64,
}

impl EventListener for Doorkeeper {
    fn before_rollback(&self, r: &Rollback<'_>) -> Result<(), BoxError> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let doomed: Vec<u64> = r.entries().map(|e| e.unwrap().id.index).collect();
        assert_eq!(doomed, (r.first()..=r.last()).collect::<Vec<_>>());
        if self.refuse.load(Ordering::Relaxed) { Err("not these".into()) } else { Ok(()) }
    }
}

#[test]
fn a_listener_that_refuses_a_rollback_refuses_the_batch_and_is_asked_again() {
    let keeper = Arc::new(Doorkeeper { refuse: AtomicBool::new(true), ..Doorkeeper::default() });
    let f = Fixture::with(Options::new().listener(keeper.clone()));
    assert_eq!(keeper.asked.load(Ordering::Relaxed), 0, "nothing was discarded yet");
    let b = f.batch(|b| drop(b.region(R).append(refs(&run(4, 8..=8))).map(|_| ())));
    let error = f.refused(b, ErrorKind::Refused, &["8..=9", "region 7"]);
    assert!(error.error().is_retryable() && error.error().entries() == Some(8..=9));
    assert_eq!(std::error::Error::source(&error).unwrap().to_string(), "not these");
    assert_eq!(keeper.asked.load(Ordering::Relaxed), 2);
    keeper.refuse.store(false, Ordering::Relaxed);
    f.engine.write(error.into_batch().unwrap(), Durability::Synced).unwrap();
    assert_eq!(keeper.asked.load(Ordering::Relaxed), 3);
    assert_eq!(f.engine.region(R).last_index(), 8);
    assert_eq!(f.engine.region(R).term(8).unwrap(), 4);
}

#[test]
fn a_log_is_forgotten_only_for_another_one_and_not_unasked() {
    let keeper = Arc::new(Doorkeeper { refuse: AtomicBool::new(true), ..Doorkeeper::default() });
    let f = Fixture::with(Options::new().listener(keeper.clone()));
    for forget in [
        |b: &mut WriteBatch| drop(b.region(R).forget_log().set_hard_state(b"x").map(drop)),
        |b: &mut WriteBatch| {
            drop(
                b.region(R).append(refs(&run(3, 10..=10))).map(|r| r.forget_log().truncate_from(1)).map(drop),
            )
        },
    ] {
        f.refused(f.batch(forget), ErrorKind::InvalidArgument, &["forget_log", "region 7"]);
    }
    assert_eq!(keeper.asked.load(Ordering::Relaxed), 0);
    let b = f.batch(|b| drop(b.region(R).forget_log().append(refs(&run(1, 0..=1))).map(drop)));
    let error = f.refused(b, ErrorKind::Refused, &["4..=9", "region 7"]);
    keeper.refuse.store(false, Ordering::Relaxed);
    f.engine.write(error.into_batch().unwrap(), Durability::Synced).unwrap();
    let r = f.engine.region(R);
    assert_eq!((r.state().base, r.first_index(), r.last_index()), (None, 0, 1));
    assert_eq!(r.hard_state().as_deref(), Some(&b"hs"[..]));
    // A reset begins it too, and what is destroyed needs none.
    let mut b = f.engine.batch();
    b.region(R).forget_log().reset(EntryId::new(4, 70)).unwrap();
    b.region(RegionId(8)).forget_log().destroy();
    f.engine.write(b, Durability::Synced).unwrap();
    assert_eq!(f.engine.region(R).state().base, Some(EntryId::new(4, 70)));
    assert!(!f.engine.region(RegionId(8)).exists());
}

#[test]
fn a_truncation_asks_the_listener_too_and_a_plain_append_does_not() {
    let keeper = Arc::new(Doorkeeper::default());
    let f = Fixture::with(Options::new().listener(keeper.clone()));
    let mut b = f.engine.batch();
    b.region(R).append(refs(&run(3, 10..=12))).unwrap();
    f.engine.write(b, Durability::Synced).unwrap();
    assert_eq!(keeper.asked.load(Ordering::Relaxed), 0);
    let mut b = f.engine.batch();
    b.region(R).truncate_from(11);
    f.engine.write(b, Durability::Synced).unwrap();
    assert_eq!(keeper.asked.load(Ordering::Relaxed), 1);
}

/// On another thread: a listener's own writes to the region that it is asked about are refused.
fn elsewhere<T: Send>(act: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|threads| threads.spawn(act).join().unwrap())
}

/// Has a key put in the region that it is asked about, and counts how often it was asked.
struct PutsKeys(Mutex<Option<Engine>>, AtomicU64);

impl EventListener for PutsKeys {
    fn before_rollback(&self, r: &Rollback<'_>) -> Result<(), BoxError> {
        let engine = self.0.lock().unwrap().clone().unwrap();
        let asked = self.1.fetch_add(1, Ordering::Relaxed);
        let mut b = engine.batch();
        b.region(r.region()).put(b"discarded", &asked.to_le_bytes())?.set_hard_state(b"newer")?;
        b.region(r.region()).compact_through(r.first() - 1)?;
        elsewhere(|| engine.write(b, Durability::Written))?;
        Ok(())
    }
}

/// Any batch of the region between the question and the acceptance once asked again, and the hundredth time
/// refused: a key that others keep in the region was enough.
#[test]
fn a_rollback_is_asked_about_again_only_when_it_would_discard_other_entries() {
    let listener = Arc::new(PutsKeys(Mutex::default(), AtomicU64::new(0)));
    let f = Fixture::with(Options::new().listener(listener.clone()));
    *listener.0.lock().unwrap() = Some(f.engine.clone());
    let mut b = f.engine.batch();
    b.region(R).append(refs(&run(4, 6..=7))).unwrap();
    f.engine.write(b, Durability::Synced).unwrap();
    assert_eq!(listener.1.load(Ordering::Relaxed), 1);
    let r = f.engine.region(R);
    assert_eq!((r.first_index(), r.last_index(), r.term(6).unwrap()), (6, 7, 4));
    *listener.0.lock().unwrap() = None;
}

/// It was once accepted, though what had been checked while it was built was true of another store.
#[test]
fn a_batch_of_another_engine_is_refused() {
    let (f, other) = (Fixture::new(), Fixture::new());
    let before = f.all();
    for batch in [other.batch(|b| _ = b.region(R).compact_through(5).unwrap()), other.engine.batch()] {
        let error = f.engine.write(batch.clone(), Durability::Synced).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
        assert!(error.to_string().contains("another engine"), "{error}");
        let len = batch.encoded_len();
        let back = f.engine.try_submit(batch, Durability::Written).unwrap_err().into_batch().unwrap();
        assert_eq!(back.encoded_len(), len, "it comes back whole");
        other.engine.write(back, Durability::Synced).unwrap();
        assert_eq!(f.all(), before);
    }
}

/// Uses the time in which it is asked to let the region go on.
#[derive(Default)]
struct Meddler {
    engine: Mutex<Option<Engine>>,
    asked: Mutex<Vec<(u64, u64)>>,
}

impl EventListener for Meddler {
    fn before_rollback(&self, r: &Rollback<'_>) -> Result<(), BoxError> {
        self.asked.lock().unwrap().push((r.first(), r.last()));
        if let Some(engine) = self.engine.lock().unwrap().take() {
            let mut b = engine.batch();
            b.region(R).append(refs(&run(3, 10..=10)))?;
            elsewhere(|| engine.write(b, Durability::Synced))?;
        }
        Ok(())
    }
}

#[test]
fn a_log_that_changes_while_a_listener_is_asked_is_shown_to_it_again() {
    let meddler = Arc::new(Meddler::default());
    let f = Fixture::with(Options::new().listener(meddler.clone()));
    *meddler.engine.lock().unwrap() = Some(f.engine.clone());
    let b = f.batch(|b| drop(b.region(R).append(refs(&run(4, 8..=8))).map(|_| ())));
    f.engine.write(b, Durability::Synced).unwrap();
    assert_eq!(*meddler.asked.lock().unwrap(), [(8, 9), (8, 10)], "nothing goes that it has not seen");
    assert_eq!(f.engine.region(R).last_index(), 8);
}

/// Writes to the region that it is asked about and to another one, by itself or by a thread that it waits
/// for.
#[derive(Default)]
struct Writes {
    engine: Mutex<Option<Engine>>,
    elsewhere: bool,
    build: Option<fn(&mut WriteBatch, &Rollback<'_>) -> raftwood::Result<()>>,
    asked: AtomicU64,
}

impl EventListener for Writes {
    fn before_rollback(&self, r: &Rollback<'_>) -> Result<(), BoxError> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let engine = self.engine.lock().unwrap().clone().ok_or("no engine")?;
        let mut b = engine.batch();
        b.region(RegionId(99)).put(b"discarded", &r.first().to_le_bytes())?;
        self.build.map_or(Ok(()), |build| build(&mut b, r))?;
        match self.elsewhere {
            true => elsewhere(|| engine.submit(b, Durability::Written).map(drop))?,
            false => drop(engine.submit(b, Durability::Written)?),
        }
        Ok(())
    }
}

/// What becomes of an overwriting batch, and how often the listener was asked.
fn overwritten_with(writes: Writes) -> (Fixture, Result<(), WriteError>, u64) {
    let writes = Arc::new(writes);
    let f = Fixture::with(Options::new().listener(writes.clone()));
    *writes.engine.lock().unwrap() = Some(f.engine.clone());
    let b = f.batch(|b| drop(b.region(R).append(refs(&run(4, 8..=8))).map(|_| ())));
    let written = f.engine.write(b, Durability::Synced).map(drop);
    *writes.engine.lock().unwrap() = None;
    (f, written, writes.asked.load(Ordering::Relaxed))
}

/// A key was let through, and an append was asked about a hundred times.
#[test]
fn a_listener_that_writes_to_the_region_it_is_asked_about_is_told_so_at_once() {
    for build in [
        |b: &mut WriteBatch, r: &Rollback<'_>| b.region(r.region()).put(b"discarded", b"1").map(drop),
        |b: &mut WriteBatch, r: &Rollback<'_>| {
            b.region(r.region()).append(refs(&run(3, r.last() + 1..=r.last() + 1))).map(drop)
        },
    ] {
        let (f, written, asked) = overwritten_with(Writes { build: Some(build), ..Writes::default() });
        let error = written.unwrap_err();
        assert_eq!(
            (error.kind(), error.error().region(), asked),
            (ErrorKind::Refused, Some(R), 1),
            "{error}"
        );
        let said = with_causes(error.error());
        for words in ["region 7: a listener that is asked", "before_rollback", "write to another region"] {
            assert!(said.contains(words), "{said}");
        }
        assert_eq!(f.engine.region(R).term(8).unwrap(), 3);
        assert!(!f.engine.region(RegionId(99)).exists() && f.engine.region(R).get(b"discarded").is_none());
        // Once nobody is asked, the region is as free as any.
        f.engine.write(f.batch(|b| drop(b.region(R).put(b"k", b"v"))), Durability::Synced).unwrap();
    }
    let (f, written, asked) = overwritten_with(Writes::default());
    written.unwrap();
    assert_eq!((asked, f.engine.region(R).term(8).unwrap()), (1, 4), "another region is written to freely");
    assert!(f.engine.region(RegionId(99)).exists());
}

/// It was once asked forever.
#[test]
fn a_listener_that_has_another_thread_append_is_not_asked_forever() {
    let build = |b: &mut WriteBatch, r: &Rollback<'_>| {
        b.region(r.region()).append(refs(&run(3, r.last() + 1..=r.last() + 1))).map(drop)
    };
    let (f, written, asked) =
        overwritten_with(Writes { build: Some(build), elsewhere: true, ..Writes::default() });
    let error = written.unwrap_err();
    assert_eq!((error.kind(), error.error().region()), (ErrorKind::Refused, Some(R)), "{error}");
    assert!((2..=100).contains(&asked), "asked {asked} times");
    assert_eq!(f.engine.region(R).term(8).unwrap(), 3);
}

#[test]
fn a_read_stops_at_its_limit() {
    let f = Fixture::new();
    let mut b = f.engine.batch();
    let long: Vec<(EntryId, Vec<u8>)> = (10..=29).map(|i| (EntryId::new(3, i), vec![7; 100])).collect();
    b.region(R).append(refs(&long)).unwrap();
    f.engine.write(b, Durability::Synced).unwrap();
    let r = f.engine.region(R);
    let read = |limit: ReadLimit| r.entries(10.., limit).unwrap().len();
    // While the segment is written, and when its index is the footer's.
    for sealed in [false, true] {
        if sealed {
            let filler = vec![(EntryId::new(1, 1), vec![0; 60 << 10])];
            for region in 100..104 {
                let mut b = f.engine.batch();
                b.region(RegionId(region)).append(refs(&filler)).unwrap();
                f.engine.write(b, Durability::Synced).unwrap();
            }
            f.engine.purge().unwrap();
        }
        assert_eq!(read(ReadLimit::bytes(99)), 1, "at least one");
        assert_eq!(read(ReadLimit::bytes(199)), 1);
        assert_eq!(read(ReadLimit::bytes(200)), 2);
        assert_eq!(read(ReadLimit::bytes(550)), 5);
        assert_eq!(read(ReadLimit::bytes(550).overhead(10)), 5);
        assert_eq!(read(ReadLimit::bytes(549).overhead(10)), 4);
        assert_eq!(read(ReadLimit::entries(3)), 3);
        assert_eq!(read(ReadLimit::bytes(550).and_entries(4)), 4);
        assert_eq!(read(ReadLimit::NONE), 20);
    }
}

#[test]
fn what_is_not_ours_in_the_directory_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str| dir.path().join(name);
    drop(Engine::open(dir.path()).unwrap());
    for name in ["notes.txt", "0000000001.log.bak", "1.log", "0000000009.backup"] {
        std::fs::write(file(name), name).unwrap();
    }
    std::fs::create_dir(file("lost+found")).unwrap();
    for _ in 0..2 {
        let engine = Engine::open(dir.path()).unwrap();
        let mut foreign = engine.open_report().foreign.clone();
        foreign.sort();
        assert_eq!(foreign, ["0000000001.log.bak", "0000000009.backup", "1.log", "lost+found", "notes.txt"]);
        engine.purge().unwrap();
        engine.close().unwrap();
    }
    for name in ["notes.txt", "0000000001.log.bak", "1.log", "0000000009.backup"] {
        assert_eq!(std::fs::read(file(name)).unwrap(), name.as_bytes());
    }
    assert!(file("lost+found").is_dir());
}

#[test]
fn reads_outside_the_log_say_which_side_they_missed_it_on() {
    let f = Fixture::new();
    let r = f.engine.region(R);
    let kind = |e: raftwood::Error| {
        assert_eq!(e.region(), Some(R));
        e.kind()
    };
    assert_eq!(kind(r.term(2).unwrap_err()), ErrorKind::Compacted);
    assert_eq!(r.term(3).unwrap(), 1, "the compaction point answers forever");
    assert_eq!(kind(r.term(10).unwrap_err()), ErrorKind::Unavailable);
    assert_eq!(kind(r.entry(3).unwrap_err()), ErrorKind::Compacted);
    assert_eq!(kind(r.entry(10).unwrap_err()), ErrorKind::Unavailable);
    assert_eq!(kind(r.entries(3..5, ReadLimit::NONE).unwrap_err()), ErrorKind::Compacted);
    assert_eq!(kind(r.entries(8..12, ReadLimit::NONE).unwrap_err()), ErrorKind::Unavailable);
    assert!(r.entries(10..10, ReadLimit::NONE).unwrap().is_empty());
    assert_eq!(r.entries(4.., ReadLimit::bytes(0)).unwrap().len(), 1, "at least one");
    // No entries at all was the answer here, which a caller that reads on from the last one takes
    // for the end.
    for limit in [ReadLimit::entries(0), ReadLimit::bytes(0).and_entries(0), ReadLimit::NONE.and_entries(0)] {
        assert_eq!(r.entries(5.., limit).unwrap()[..], [r.entry(5).unwrap()]);
        assert_eq!(r.entries_clamped(.., limit).unwrap()[..], [r.entry(4).unwrap()]);
        assert!(r.entries(10..10, limit).unwrap().is_empty(), "but none where there is none");
    }
}

/// Programs that wanted to know which entries an error was about read its message.
#[test]
fn an_error_says_which_entries_it_is_about() {
    let f = Fixture::new();
    let r = f.engine.region(R);
    let named = |e: raftwood::Error| e.entries().map(|r| (*r.start(), *r.end()));
    assert_eq!(named(r.entry(3).unwrap_err()), Some((3, 3)));
    assert_eq!(named(r.entry(10).unwrap_err()), Some((10, 10)));
    assert_eq!(named(r.term(2).unwrap_err()), Some((2, 2)));
    assert_eq!(named(r.entries(8..12, ReadLimit::NONE).unwrap_err()), Some((10, 11)));
    assert_eq!(named(r.entries(20..22, ReadLimit::NONE).unwrap_err()), Some((20, 21)));
    // Of an empty region it was said that entry 4 is not there: so is the first.
    let empty = f.engine.region(RegionId(99));
    let error = empty.entries(1..5, ReadLimit::NONE).unwrap_err();
    assert_eq!((error.kind(), named(error)), (ErrorKind::Unavailable, Some((1, 4))));
    assert!(empty.entries(1..1, ReadLimit::NONE).unwrap().is_empty());

    let appended = |term, range: std::ops::RangeInclusive<u64>| {
        let b = f.batch(|b| drop(b.region(R).append(refs(&run(term, range))).map(|_| ())));
        named(f.engine.write(b, Durability::Synced).unwrap_err().into_error())
    };
    assert_eq!(appended(3, 12..=14), Some((12, 14)));
    assert_eq!(appended(5, 2..=2), Some((2, 2)));
    assert_eq!(appended(2, 10..=11), Some((10, 11)));
    let mut b = f.engine.batch();
    assert_eq!(named(b.region(R).compact_through(10).map(|_| ()).unwrap_err()), Some((10, 10)));
    let top = [(EntryId::new(3, u64::MAX), &b""[..])];
    assert_eq!(named(b.region(R).append(top).map(|_| ()).unwrap_err()), Some((u64::MAX, u64::MAX)));
    assert_eq!(named(f.engine.region(R).repair(EntryId::new(3, 44), b"x").unwrap_err()), Some((44, 44)));
}

#[test]
fn after_close_every_write_is_refused_and_reads_go_on() {
    let f = Fixture::new();
    f.engine.close().unwrap();
    let mut b = f.engine.batch();
    b.region(R).append(refs(&run(3, 10..=10))).unwrap();
    let error = f.engine.write(b, Durability::Synced).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Closed);
    assert!(error.into_batch().is_some());
    assert_eq!(f.engine.region(R).entry(9).unwrap().id, EntryId::new(3, 9));
}

/// A voter whose disk was exchanged would start empty, and vote again.
#[test]
fn an_open_of_a_store_that_must_exist_creates_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options::new().must_exist(true);
    for missing in [dir.path().to_path_buf(), dir.path().join("below")] {
        let error = options.open(&missing).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        assert!(error.to_string().contains("must join its groups anew"), "{error}");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
    Engine::open(dir.path()).unwrap().close().unwrap();
    options.open(dir.path()).unwrap();
}
