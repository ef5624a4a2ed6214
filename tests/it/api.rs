//! Every name of the public face, used as a program would use it, and what the consensus libraries rely on.
//!
//! The first part compiles or does not: a name or shape that changes breaks programs. The second part is the
//! rules that Raft libraries impose, each found by running their own suites.

use crate::support::engines::small;
use bytes::Bytes;
use raftwood::vfs::{OsVfs, Vfs, VfsFile};
use raftwood::{
    BoxError, Compression, Digest, Durability, Engine, Entry, EntryId, EntryRef, Error, ErrorKind, Event,
    EventListener, Health, KeyOrder, LogState, Lookup, Lsn, OpenReport, Options, Pin, Pool, Purge,
    PurgeReport, ReadLimit, ReadMode, Reader, Region, RegionBatch, RegionId, RegionStats, Rollback,
    ScrubOptions, ScrubReport, Stats, TailPolicy, Ticket, WriteBatch, WriteError,
};
use std::fmt::{Debug, Display};
use std::future::Future;
use std::ops::{Bound, ControlFlow, RangeBounds};
use std::path::Path;
use std::pin::Pin as Pinned;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

const A: RegionId = RegionId(7);
const B: RegionId = RegionId(9);

fn store() -> (tempfile::TempDir, Engine) {
    let dir = tempfile::tempdir().unwrap();
    let engine = small().open(dir.path()).unwrap();
    (dir, engine)
}

fn entry(term: u64, index: u64, payload: &[u8]) -> EntryRef<'_> {
    EntryRef { id: EntryId { term, index }, payload }
}

/// Appends entries `indexes` of one term, with their index as text.
fn append(engine: &Engine, region: RegionId, term: u64, indexes: std::ops::RangeInclusive<u64>) {
    let mut batch = engine.batch();
    for index in indexes {
        let text = index.to_string();
        batch.region(region).append([entry(term, index, text.as_bytes())]).unwrap();
    }
    engine.write(batch, Durability::Synced).unwrap();
}

fn indexes(entries: &[Entry]) -> Vec<u64> {
    entries.iter().map(|e| e.id.index).collect()
}

// ---- names and shapes -------------------------------------------------------------------------------------

#[test]
fn the_example_of_the_front_page_works() -> Result<(), Box<dyn std::error::Error>> {
    let dir = tempfile::tempdir()?;
    let engine = Engine::open(dir.path().join("data"))?;
    append(&engine, B, 1, 100..=130);
    let entries: Vec<EntryRef<'_>> = (90..95).map(|index| entry(3, index, b"payload")).collect();
    let hard_state = *b"term 3";
    let mut batch = engine.batch();
    batch.region(RegionId(7)).append(&entries)?.set_hard_state(&hard_state)?;
    batch.region(RegionId(9)).compact_through(120)?;
    engine.write(batch, Durability::Synced)?;
    let tail = engine.region(RegionId(7)).entries(90.., ReadLimit::bytes(1 << 20))?;
    assert_eq!(indexes(&tail), [90, 91, 92, 93, 94]);
    assert_eq!(engine.region(B).first_index(), 121);
    Ok(())
}

#[test]
fn types_have_the_traits_and_shapes_that_programs_need() {
    fn shared<T: Clone + Send + Sync + Debug + 'static>() {}
    fn sent<T: Send + Debug>() {}
    fn word<T: Copy + Ord + std::hash::Hash + Debug + Send + Sync>() {}
    fn error<T: std::error::Error + Display + Send + Sync + 'static>() {}
    fn future<T: Future<Output = Result<Lsn, Error>> + Send + Unpin>() {}
    shared::<Engine>();
    shared::<Region>();
    shared::<Options>();
    shared::<Error>();
    shared::<OpenReport>();
    sent::<WriteBatch>();
    sent::<Ticket>();
    sent::<Reader>();
    sent::<RegionBatch<'_>>();
    word::<RegionId>();
    word::<Lsn>();
    word::<EntryId>();
    word::<Durability>();
    error::<Error>();
    error::<WriteError>();
    future::<Ticket>();
    // Object-safe, and all of a file system that the engine asks for.
    let _: Arc<dyn Vfs> = Arc::new(OsVfs::new());
    let _: Option<Arc<dyn VfsFile>> = None;
    let _: Option<Arc<dyn EventListener>> = None;
    let EntryId { term: 3, index: 5 } = EntryId::new(3, 5) else { panic!() };
    let e = Entry { id: EntryId::new(3, 5), payload: Bytes::from_static(b"x") };
    assert_eq!(EntryRef::from(&e), entry(3, 5, b"x"));
    assert_eq!(EntryRef::from((e.id, &b"x"[..])), EntryRef::from(&EntryRef::from(&e)));
    assert!(Lsn::new(1, 9) < Lsn::new(2, 0) && Lsn::from_u64(Lsn::new(3, 4).to_u64()) == Lsn::new(3, 4));
    assert!(Durability::Written < Durability::Synced);
}

#[test]
fn every_kind_of_error_has_its_name() {
    use ErrorKind::*;
    let all = [
        Compacted,
        Unavailable,
        Gap,
        TermRegression,
        TooLarge,
        InvalidArgument,
        Refused,
        WouldBlock,
        NoSpace,
        Damaged,
        Io,
        Poisoned,
        Closed,
        Locked,
        Unsupported,
    ];
    assert_eq!(all.iter().collect::<std::collections::HashSet<_>>().len(), 15);
    let (dir, engine) = store();
    let locked: Error = Engine::open(dir.path()).unwrap_err();
    assert_eq!((locked.kind(), locked.region(), locked.is_retryable()), (Locked, None, true));
    let mut batch = engine.batch();
    batch.region(A).append([entry(1, 5, b"")]).unwrap().append([entry(1, 7, b"")]).unwrap();
    let refused: WriteError = engine.write(batch, Durability::Written).unwrap_err();
    assert_eq!((refused.kind(), refused.error().region()), (Gap, Some(A)));
    let batch: WriteBatch = refused.into_batch().unwrap();
    assert_eq!(batch.entry_count(), 2);
    let error: Error = engine.submit(batch, Durability::Synced).unwrap_err().into();
    assert!(!error.is_retryable());
    engine.close().unwrap();
    let mut batch = engine.batch();
    batch.region(A).destroy();
    assert_eq!(engine.write(batch, Durability::Synced).unwrap_err().into_error().kind(), Closed);
}

/// Region, first, last, and the indexes that were shown.
type Doomed = (RegionId, u64, u64, Vec<u64>);

#[derive(Default)]
struct Ears {
    sealed: AtomicUsize,
    rolled_back: Mutex<Vec<Doomed>>,
}

impl EventListener for Ears {
    fn on_event(&self, event: &Event<'_>) {
        if let Event::SegmentSealed { .. } = event {
            self.sealed.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn before_rollback(&self, r: &Rollback<'_>) -> Result<(), BoxError> {
        let doomed = r.entries().map(|e| e.map(|e| e.id.index)).collect::<Result<_, _>>()?;
        self.rolled_back.lock().unwrap().push((r.region(), r.first(), r.last(), doomed));
        Ok(())
    }
}

#[test]
fn options_are_set_back_to_back_and_heeded() {
    let dir = tempfile::tempdir().unwrap();
    let ears = Arc::new(Ears::default());
    let options = Options::new()
        .segment_bytes(64 << 10)
        .compression(Compression::Lz4 { min_batch_bytes: 1000 })
        .pool(Pool::default().files_max(2).prewrite(false))
        .purge(Purge::default().background(true).garbage_percent_max(50).rate_bytes(1 << 30))
        .read_mode(ReadMode::Pread)
        .tail_policy(TailPolicy::Prove)
        .in_flight_bytes_max(1 << 20)
        .stall_after(std::time::Duration::from_secs(5))
        .vfs(Arc::new(OsVfs::without_map()))
        .listener(ears.clone());
    let engine = options.open(dir.path()).unwrap();
    let report: &OpenReport = engine.open_report();
    assert!(
        report.created && report.damage.is_empty() && report.torn_bytes == 0 && !report.times.total.is_zero()
    );
    let mut batch = engine.batch();
    batch.region(A).append([entry(1, 1, &[7; 50_000])]).unwrap();
    engine.write(batch, Durability::Synced).unwrap();
    assert!(engine.stats().written_bytes < 20_000, "compressed");
    append(&engine, A, 2, 1..=3);
    assert_eq!(*ears.rolled_back.lock().unwrap(), [(A, 1, 1, vec![1])]);
    let reader: Reader = options.show_unproven(true).open_read_only(dir.path()).unwrap();
    assert_eq!(reader.regions().iter().map(|r| (r.id, r.log.last)).collect::<Vec<_>>(), [(A, 3)]);
    assert!(
        Options::new()
            .segment_bytes(1)
            .open(dir.path())
            .is_err_and(|e| e.kind() == ErrorKind::InvalidArgument)
    );
}

#[test]
fn the_engine_does_what_its_methods_say() {
    let dir = tempfile::tempdir().unwrap();
    let ears = Arc::new(Ears::default());
    let engine: Engine = small().listener(ears.clone()).open(Path::new(dir.path())).unwrap();
    let mut batch = engine.batch();
    batch.region(A).append([entry(1, 1, b"a")]).unwrap();
    let lsn: Lsn = engine.write(batch, Durability::Synced).unwrap();
    assert!(engine.durable_lsn() >= lsn);
    let mut batch = engine.batch();
    batch.region(A).append([entry(1, 2, b"b")]).unwrap();
    let ticket: Ticket = engine.submit(batch, Durability::Written).unwrap();
    assert_eq!(engine.region(A).last_index(), 2);
    let written = ticket.wait().unwrap();
    assert!(engine.sync().unwrap() >= written);
    assert_eq!(engine.region(A).state().durable, 2);
    append(&engine, B, 1, 1..=1);
    assert_eq!(engine.regions(), [A, B]);
    let (send, receive) = channel();
    engine.fetch(A, 1..=2, ReadLimit::NONE, move |read: Result<Vec<Entry>, Error>| send.send(read).unwrap());
    assert_eq!(indexes(&receive.recv().unwrap().unwrap()), [1, 2]);
    for index in 3..=60 {
        let mut batch = engine.batch();
        batch.region(A).append([entry(1, index, &[index as u8; 4000])]).unwrap();
        engine.write(batch, Durability::Written).unwrap();
    }
    let pins: Vec<Pin> = engine.pins(1);
    assert_eq!(pins.len(), 1);
    let newest = engine.stats().accepted.segment();
    assert_eq!((pins[0].oldest_segment, pins[0].age), (1, newest - 1));
    assert!(pins[0].age > 0 && pins[0].garbage_percent < 100);
    assert_eq!(engine.dir(), dir.path());
    let mut seen = Vec::new();
    let all = engine.for_each_region(|id, log| {
        assert_eq!(log, engine.region(id).state());
        seen.push(id);
        ControlFlow::<()>::Continue(())
    });
    seen.sort_unstable();
    assert_eq!((all, seen), (None, engine.regions()));
    let first = engine.for_each_region(|id, _| ControlFlow::Break(id));
    assert!([Some(A), Some(B)].contains(&first));
    let scrub: ScrubReport = engine.scrub(&ScrubOptions::default().rate_bytes(0).from_device(true)).unwrap();
    assert_eq!((scrub.entries, scrub.damage.len()), (61, 0));
    let mut batch = engine.batch();
    batch.region(A).compact_through(60).unwrap();
    batch.region(B).destroy();
    engine.write(batch, Durability::Synced).unwrap();
    let purge: PurgeReport = engine.purge().unwrap();
    assert!(purge.segments_freed > 0 && ears.sealed.load(Ordering::Relaxed) > 0);
    let stats: Stats = engine.stats();
    assert_eq!((stats.regions, stats.live_entries, stats.entries), (1, 0, 61));
    let other_handle = engine.clone();
    engine.close().unwrap();
    other_handle.close().unwrap();
    assert_eq!(other_handle.region(A).term(60).unwrap(), 1);
}

#[test]
fn a_batch_says_what_it_holds_and_can_be_used_again() {
    let (_dir, engine) = store();
    let mut batch: WriteBatch = engine.batch();
    assert!(batch.is_empty());
    let empty = batch.encoded_len();
    let mut region: RegionBatch<'_> = batch.region(A);
    region
        .append(vec![entry(1, 4, b"four")])
        .unwrap()
        .append_with(EntryId::new(1, 5), |buffer: &mut Vec<u8>| buffer.extend_from_slice(b"five"))
        .unwrap()
        .set_hard_state(b"hs")
        .unwrap()
        .put(b"key", b"value")
        .unwrap()
        .put(b"gone", b"")
        .unwrap()
        .delete(b"gone")
        .unwrap();
    region.truncate_from(6);
    assert!(!batch.is_empty() && batch.encoded_len() > empty + 8);
    engine.write(batch.clone(), Durability::Synced).unwrap();
    let r = engine.region(A);
    assert_eq!(&r.entry(5).unwrap().payload[..], b"five");
    batch.clear();
    assert!(batch.is_empty() && batch.encoded_len() == empty);
    batch.region(A).reset(EntryId { term: 9, index: 100 }).unwrap().append([entry(9, 101, b"")]).unwrap();
    batch.region(B).put(b"k", b"v").unwrap();
    batch.region(B).destroy();
    engine.write(batch, Durability::Synced).unwrap();
    assert_eq!((r.first_index(), r.last_index(), r.term(100).unwrap()), (101, 101, 9));
    assert!(!engine.region(B).exists());
    // Entries that were read can be appended as they are.
    let read = r.entries(.., ReadLimit::NONE).unwrap();
    let mut batch = engine.batch();
    batch.region(B).append(&read).unwrap();
    engine.write(batch, Durability::Synced).unwrap();
    assert_eq!(engine.region(B).last_index(), 101);
}

#[test]
fn a_region_answers_as_of_now() {
    let (_dir, engine) = store();
    let r: Region = engine.region(A);
    let fresh: LogState = r.state();
    assert_eq!(
        (fresh.base, fresh.first, fresh.last, fresh.last_term, fresh.durable),
        (None, 1, 0, Some(0), 0)
    );
    append(&engine, A, 2, 1..=9);
    let mut batch = engine.batch();
    batch.region(A).compact_through(3).unwrap().set_hard_state(b"hs").unwrap().put(b"p/1", b"v").unwrap();
    engine.write(batch, Durability::Synced).unwrap();
    let base = Some(EntryId::new(2, 3));
    assert_eq!(r.state(), LogState { base, first: 4, last: 9, last_term: Some(2), durable: 9 });
    assert_eq!((r.first_index(), r.last_index(), r.term(3).unwrap()), (4, 9, 2));
    let e: Entry = r.entry(5).unwrap();
    assert_eq!((e.id, &e.payload[..]), (EntryId::new(2, 5), &b"5"[..]));
    assert_eq!(indexes(&r.entries(5..8, ReadLimit::entries(2)).unwrap()), [5, 6]);
    assert_eq!(indexes(&r.entries(5..=8, ReadLimit::bytes(2).overhead(1)).unwrap()), [5]);
    assert_eq!(indexes(&r.entries(.., ReadLimit::bytes(100).and_entries(1)).unwrap()), [4]);
    assert_eq!(r.hard_state().unwrap(), "hs");
    assert_eq!(r.get(b"p/1").unwrap(), "v");
    assert_eq!(r.scan(b"p/"), [(Bytes::from("p/1"), Bytes::from("v"))]);
    let stats: RegionStats = r.stats();
    assert_eq!((stats.entries, stats.segments), (6, 1));
    assert_eq!(r.health(), Health::Healthy);
    assert_eq!(r.lookup(EntryId::new(2, 5)), Lookup::Have);
    assert_eq!(r.lookup(EntryId::new(1, 5)), Lookup::DontHave);
    assert_eq!(r.lookup(EntryId::new(2, 2)), Lookup::Unknown);
    r.repair(EntryId::new(2, 5), b"5").unwrap();
    assert_eq!(r.repair(EntryId::new(2, 5), b"six").unwrap_err().kind(), ErrorKind::InvalidArgument);
    let digest: Digest = r.checksum(4..=9).unwrap();
    assert_eq!((digest, digest.entries()), (r.checksum(..).unwrap(), 6));
    assert_ne!(digest.to_u64(), r.checksum(4..9).unwrap().to_u64());
}

/// Any range of a map, in both orders, also where a scan takes several pieces and meanwhile something
/// changes.
#[test]
fn a_scan_visits_the_keys_of_its_range_in_either_order() {
    let dir = tempfile::tempdir().unwrap();
    let engine = Engine::open(dir.path()).unwrap();
    let r = engine.region(A);
    let key = |n: u32| n.to_be_bytes();
    let mut batch = engine.batch();
    (0..600).for_each(|n| drop(batch.region(A).put(&key(n), b"v").map(drop)));
    engine.write(batch, Durability::Synced).unwrap();
    let scan = |from: Bound<u32>, to: Bound<u32>, order| {
        let (from, to) = (from.map(key), to.map(key));
        let bounds = (from.as_ref().map(|k| &k[..]), to.as_ref().map(|k| &k[..]));
        let mut seen = Vec::new();
        let end = r.scan_range(bounds, order, |k, _| {
            seen.push(u32::from_be_bytes(k[..].try_into().unwrap()));
            ControlFlow::<()>::Continue(())
        });
        assert_eq!(end, None);
        seen
    };
    let places = [0, 1, 127, 128, 256, 300, 599, 700];
    let bounds =
        places.iter().flat_map(|n| [Bound::Included(*n), Bound::Excluded(*n)]).chain([Bound::Unbounded]);
    for from in bounds.clone() {
        for to in bounds.clone() {
            let within = |n: &u32| (from, to).contains(n);
            let mut expected: Vec<u32> = (0..600).filter(within).collect();
            assert_eq!(scan(from, to, KeyOrder::Ascending), expected, "{from:?} {to:?}");
            expected.reverse();
            assert_eq!(scan(from, to, KeyOrder::Descending), expected, "{from:?} {to:?}");
        }
    }
    // It stops when it is told to, and may write to the region that it visits.
    let mut visited = 0;
    let found = r.scan_range(.., KeyOrder::Ascending, |k, _| {
        visited += 1;
        let mut batch = engine.batch();
        batch.region(A).delete(&k).unwrap().delete(&key(visited + 300)).unwrap();
        engine.write(batch, Durability::Written).unwrap();
        if visited == 200 { ControlFlow::Break(k) } else { ControlFlow::Continue(()) }
    });
    assert_eq!(found.as_deref(), Some(&key(199)[..]));
    assert_eq!(
        scan(Bound::Unbounded, Bound::Included(400), KeyOrder::Ascending),
        (200..=300).collect::<Vec<_>>()
    );
    assert_eq!(engine.region(B).scan_range(.., KeyOrder::Descending, |k, _| ControlFlow::Break(k)), None);
}

#[test]
fn the_last_key_at_or_before_another_has_the_prefix() {
    let dir = tempfile::tempdir().unwrap();
    let engine = Engine::open(dir.path()).unwrap();
    let keys: [&[u8]; 9] = [b"", b"a", b"p", b"p1", b"p3", b"p3\xff", b"q", b"\xff\xff1", b"\xff\xff\xff"];
    let mut batch = engine.batch();
    keys.iter().for_each(|k| drop(batch.region(A).put(k, k).map(drop)));
    engine.write(batch, Durability::Synced).unwrap();
    let bounds: [&[u8]; 8] = [b"", b"o", b"p", b"p2", b"p3", b"p3\xff\xff", b"z", b"\xff\xff\xff\xff"];
    for prefix in [&b""[..], b"a", b"p", b"p3", b"x", b"\xff", b"\xff\xff"] {
        for bound in bounds {
            let expected = keys.iter().filter(|k| k.starts_with(prefix) && **k <= bound).max();
            let found = engine.region(A).last_at_or_before(prefix, bound);
            assert_eq!(found.as_ref().map(|(k, _)| &k[..]), expected.copied(), "{prefix:?} {bound:?}");
        }
    }
    assert_eq!(engine.region(B).last_at_or_before(b"", b"z"), None);
}

#[test]
fn a_ticket_can_be_polled_without_a_runtime() {
    let (_dir, engine) = store();
    let mut batch = engine.batch();
    batch.region(A).append([entry(1, 1, b"")]).unwrap();
    let mut ticket = engine.submit(batch, Durability::Synced).unwrap();
    let mut cx = Context::from_waker(Waker::noop());
    let lsn = loop {
        match Pinned::new(&mut ticket).poll(&mut cx) {
            Poll::Ready(outcome) => break outcome.unwrap(),
            Poll::Pending => std::thread::yield_now(),
        }
    };
    assert_eq!(lsn, ticket.lsn());
    let (send, receive) = channel();
    ticket.on_complete(move |outcome: Result<Lsn, Error>| send.send(outcome).unwrap());
    assert_eq!(receive.recv().unwrap().unwrap(), lsn);
}

// ---- what the consensus libraries impose ------------------------------------------------------------------

/// What is written must read the same before and after a restart.
fn before_and_after_a_restart(write: impl Fn(&Engine), check: impl Fn(&Engine)) {
    let (dir, engine) = store();
    write(&engine);
    check(&engine);
    // Without a checkpoint first, so that the records are replayed; then with one.
    let copy = tempfile::tempdir().unwrap();
    engine.sync().unwrap();
    for file in std::fs::read_dir(dir.path()).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), copy.path().join(file.file_name())).unwrap();
    }
    check(&small().open(copy.path()).unwrap());
    engine.close().unwrap();
    check(&small().open(dir.path()).unwrap());
}

#[test]
fn operations_of_a_batch_apply_in_their_order_within_a_region_too() {
    before_and_after_a_restart(
        |engine| {
            append(engine, A, 1, 1..=9);
            append(engine, B, 1, 1..=9);
            let mut batch = engine.batch();
            batch.region(A).put(b"old", b"1").unwrap().destroy().put(b"new", b"2").unwrap();
            batch.region(B).compact_through(7).unwrap().append([entry(2, 9, b"nine")]).unwrap();
            batch.region(A).append([entry(5, 50, b"fifty")]).unwrap();
            batch.region(B).append([entry(2, 10, b"ten")]).unwrap().truncate_from(10);
            engine.write(batch, Durability::Synced).unwrap();
        },
        |engine| {
            let (a, b) = (engine.region(A), engine.region(B));
            assert_eq!((a.get(b"old"), a.get(b"new")), (None, Some(Bytes::from("2"))));
            assert_eq!((a.first_index(), a.last_index(), a.state().base), (50, 50, None));
            assert_eq!(
                (b.first_index(), b.last_index(), b.term(7).unwrap(), b.term(9).unwrap()),
                (8, 9, 1, 2)
            );
        },
    );
}

#[test]
fn a_ready_with_a_snapshot_is_one_atomic_batch() {
    before_and_after_a_restart(
        |engine| {
            append(engine, A, 1, 1..=9);
            let mut batch = engine.batch();
            let mut region = batch.region(A);
            region.reset(EntryId::new(4, 100)).unwrap();
            region.append([entry(4, 101, b"x"), entry(5, 102, b"y")]).unwrap();
            region.set_hard_state(b"term 5").unwrap().put(b"conf", b"1,2,3").unwrap();
            engine.write(batch, Durability::Synced).unwrap();
        },
        |engine| {
            let r = engine.region(A);
            let base = Some(EntryId::new(4, 100));
            assert_eq!(r.state(), LogState { base, first: 101, last: 102, last_term: Some(5), durable: 102 });
            assert_eq!((r.hard_state().unwrap(), r.get(b"conf").unwrap()), ("term 5".into(), "1,2,3".into()));
            assert_eq!(r.entry(9).unwrap_err().kind(), ErrorKind::Compacted);
        },
    );
}

#[test]
fn index_0_is_a_legal_entry_and_a_log_without_a_base_starts_anywhere() {
    before_and_after_a_restart(
        |engine| {
            append(engine, A, 0, 0..=2);
            append(engine, B, 6, 1000..=1001);
        },
        |engine| {
            let (a, b) = (engine.region(A), engine.region(B));
            assert_eq!((a.first_index(), a.last_index(), a.state().last, a.term(0).unwrap()), (0, 2, 2, 0));
            assert_eq!(&a.entry(0).unwrap().payload[..], b"0");
            assert_eq!((b.first_index(), b.last_index()), (1000, 1001));
            let fresh = engine.region(RegionId(1));
            assert_eq!((fresh.first_index(), fresh.last_index(), fresh.term(0).unwrap()), (1, 0, 0));
            assert_eq!(fresh.term(1).unwrap_err().kind(), ErrorKind::Unavailable);
        },
    );
}

#[test]
fn the_compaction_point_keeps_its_term_also_when_the_log_is_empty() {
    before_and_after_a_restart(
        |engine| {
            append(engine, A, 3, 1..=9);
            let mut batch = engine.batch();
            // What openraft calls the purged id is opaque, and atomic with the compaction.
            batch.region(A).compact_through(9).unwrap().put(b"purged", b"T3-N1-9").unwrap();
            engine.write(batch, Durability::Synced).unwrap();
        },
        |engine| {
            let r = engine.region(A);
            assert_eq!((r.first_index(), r.last_index(), r.term(9).unwrap()), (10, 9, 3));
            assert_eq!(
                (r.state().base, r.get(b"purged").unwrap()),
                (Some(EntryId::new(3, 9)), "T3-N1-9".into())
            );
            assert_eq!(r.term(8).unwrap_err().kind(), ErrorKind::Compacted);
            assert!(r.entries(10.., ReadLimit::NONE).unwrap().is_empty());
        },
    );
}

#[test]
fn reads_are_strict_unless_they_are_asked_to_clamp() {
    let (_dir, engine) = store();
    append(&engine, A, 1, 1..=9);
    let mut batch = engine.batch();
    batch.region(A).compact_through(3).unwrap();
    engine.write(batch, Durability::Synced).unwrap();
    let r = engine.region(A);
    let strict = |range: std::ops::Range<u64>| {
        r.entries(range, ReadLimit::NONE).map(|e| indexes(&e)).map_err(|e| e.kind())
    };
    assert_eq!(strict(3..5), Err(ErrorKind::Compacted));
    assert_eq!(strict(8..11), Err(ErrorKind::Unavailable));
    assert_eq!(strict(8..10), Ok(vec![8, 9]));
    assert_eq!(indexes(&r.entries(5.., ReadLimit::bytes(0)).unwrap()), [5], "at least one");
    let lenient = |range: std::ops::Range<u64>| indexes(&r.entries_clamped(range, ReadLimit::NONE).unwrap());
    assert_eq!((lenient(0..6), lenient(8..100), lenient(50..60)), (vec![4, 5], vec![8, 9], vec![]));
}

#[test]
fn what_was_submitted_is_readable_with_its_term_by_every_handle_and_completes_in_order() {
    let (_dir, engine) = store();
    let order: Arc<Mutex<Vec<u64>>> = Arc::default();
    let (send, receive) = channel();
    for index in 1..=50 {
        let mut batch = engine.batch();
        batch.region(A).append([entry(index, index, b"payload")]).unwrap();
        let ticket = engine.submit(batch, Durability::Synced).unwrap();
        let other = engine.clone().region(A);
        assert_eq!((other.last_index(), other.term(index).unwrap()), (index, index));
        assert_eq!(&other.entry(index).unwrap().payload[..], b"payload");
        let (order, send) = (order.clone(), send.clone());
        ticket.on_complete(move |outcome| {
            outcome.unwrap();
            order.lock().unwrap().push(index);
            send.send(()).unwrap();
        });
    }
    (1..=50).for_each(|_| receive.recv().unwrap());
    assert!(order.lock().unwrap().is_sorted());
}

#[test]
fn a_region_destroyed_in_the_meantime_is_no_error_of_its_tickets() {
    let (_dir, engine) = store();
    let mut batch = engine.batch();
    batch.region(A).append([entry(1, 1, b"")]).unwrap();
    let first = engine.submit(batch, Durability::Synced).unwrap();
    let mut batch = engine.batch();
    batch.region(A).destroy();
    let second = engine.submit(batch, Durability::Synced).unwrap();
    assert!(first.wait().unwrap() < second.wait().unwrap());
    assert!(!engine.region(A).exists() && engine.regions().is_empty());
}

#[test]
fn ids_and_indexes_at_both_ends_work() {
    let last = raftwood::limits::INDEX_MAX;
    before_and_after_a_restart(
        |engine| {
            for region in [RegionId(0), RegionId(u64::MAX)] {
                append(engine, region, raftwood::limits::TERM_MAX, last - 1..=last);
                let mut batch = engine.batch();
                batch
                    .region(region)
                    .truncate_from(u64::MAX)
                    .append([entry(raftwood::limits::TERM_MAX, last, b"z")])
                    .unwrap();
                engine.write(batch, Durability::Synced).unwrap();
            }
            let mut batch = engine.batch();
            batch.region(A).reset(EntryId::new(1, last)).unwrap();
            batch.region(A).truncate_from(u64::MAX);
            engine.write(batch, Durability::Synced).unwrap();
        },
        |engine| {
            assert_eq!(engine.regions(), [RegionId(0), A, RegionId(u64::MAX)]);
            for region in [RegionId(0), RegionId(u64::MAX)] {
                let r = engine.region(region);
                assert_eq!(indexes(&r.entries(.., ReadLimit::NONE).unwrap()), [last - 1, last]);
                assert_eq!(indexes(&r.entries(last.., ReadLimit::NONE).unwrap()), [last]);
                assert_eq!((&r.entry(last).unwrap().payload[..], r.state().durable), (&b"z"[..], last));
                assert_eq!(r.entry(u64::MAX).unwrap_err().kind(), ErrorKind::Unavailable);
                assert_eq!(r.checksum(..).unwrap().entries(), 2);
                let mut batch = engine.batch();
                assert_eq!(
                    batch.region(region).compact_through(u64::MAX).map(|_| ()).unwrap_err().kind(),
                    ErrorKind::Unavailable
                );
                assert!(batch.region(region).compact_through(last).is_ok());
            }
            let full = engine.region(A);
            assert_eq!((full.first_index(), full.last_index()), (u64::MAX, last));
            assert!(full.entries(.., ReadLimit::NONE).unwrap().is_empty());
        },
    );
}

#[test]
fn entries_of_the_largest_size_and_of_none_are_read_back() {
    let dir = tempfile::tempdir().unwrap();
    for compression in [Compression::None, Compression::Lz4 { min_batch_bytes: 1 }] {
        let engine = small().compression(compression).open(dir.path()).unwrap();
        let largest = vec![0; raftwood::limits::ENTRY_BYTES_MAX];
        let mut batch = engine.batch();
        batch.region(A).reset(EntryId::new(1, 0)).unwrap();
        batch
            .region(A)
            .append([entry(1, 1, b""), entry(1, 2, b"x"), entry(1, 3, &largest), entry(1, 4, b"")])
            .unwrap();
        let too_large = batch
            .region(A)
            .append_with(EntryId::new(1, 5), |b| b.resize(b.len() + largest.len() + 1, 0))
            .map(|_| ());
        assert_eq!(too_large.unwrap_err().kind(), ErrorKind::TooLarge);
        engine.write(batch, Durability::Synced).unwrap();
        let check = |engine: &Engine| {
            let read = engine.region(A).entries(.., ReadLimit::NONE).unwrap();
            assert_eq!(read.iter().map(|e| e.payload.len()).collect::<Vec<_>>(), [0, 1, largest.len(), 0]);
            assert!(read[2].payload == largest);
        };
        check(&engine);
        engine.close().unwrap();
        drop(engine);
        check(&small().open(dir.path()).unwrap());
    }
}

/// Each operation is counted once, and a difference is what lies between.
#[test]
fn latencies_count_what_the_counters_count() {
    let dir = tempfile::tempdir().unwrap();
    let engine = Options::new().background(raftwood::Background::Manual).open(dir.path()).unwrap();
    let write = |index, durability| {
        let mut batch = engine.batch();
        let entry = EntryRef { id: EntryId::new(1, index), payload: b"x" };
        batch.region(RegionId(1)).append([entry]).unwrap();
        engine.write(batch, durability).unwrap();
    };
    (1..=10).for_each(|index| write(index, Durability::Synced));
    let before = engine.latencies();
    (11..=15).for_each(|index| write(index, Durability::Written));
    engine.sync().unwrap();
    let (now, stats) = (engine.latencies(), engine.stats());
    assert_eq!((now.write.count(), now.sync.count()), (stats.writes, stats.syncs));
    assert_eq!((before.commit.count(), now.commit.count()), (10, 16));
    assert_eq!(now.commit.since(&before.commit).count(), 6);
    assert!(now.sync.quantile(1.0).unwrap() >= now.sync.quantile(0.5).unwrap());
    assert!(now.commit.quantile(0.0).unwrap() > std::time::Duration::ZERO);
    // Those that failed took no place among the writes that were answered.
    engine.close().unwrap();
    let mut batch = engine.batch();
    batch.region(RegionId(1)).set_hard_state(b"late").unwrap();
    engine.write(batch, Durability::Synced).unwrap_err();
    assert_eq!(engine.latencies().commit.count(), 16);
}

#[test]
fn the_main_types_go_to_other_threads_and_say_what_they_are() {
    fn is<T: Send + Sync + std::fmt::Debug + 'static>() {}
    is::<raftwood::Engine>();
    is::<raftwood::Region>();
    is::<raftwood::WriteBatch>();
    is::<raftwood::WriteError>();
    is::<raftwood::Ticket>();
    is::<raftwood::Error>();
    is::<raftwood::Options>();
    is::<raftwood::Reader>();
    is::<raftwood::Follow>();
    is::<raftwood::Entry>();
    is::<raftwood::OpenReport>();
    is::<raftwood::Stats>();
}
