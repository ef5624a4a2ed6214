//! The log read record by record, also beside an engine that goes on.

use crate::support::beside_for;
use crate::support::engines::small;
use crate::support::entries::compact;
use raftwood::{
    Background, Compression, Durability, Engine, Entry, EntryId, ErrorKind, LogItem, LogOp, LogRecord, Lsn,
    Options, ReadMode, Reader, RecordContent, RecordOptions, RegionId,
};
use std::collections::BTreeMap;
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const R: RegionId = RegionId(7);
const ALL: Duration = Duration::from_secs(20);

fn options() -> Options {
    small().background(Background::Manual)
}

/// What an entry holds: no two have the same bytes.
fn payload(index: u64, len: usize) -> Vec<u8> {
    let word = (index ^ 0x5bd1_e995_0000).to_le_bytes();
    word.iter().copied().cycle().take(len).collect()
}

fn append_as(engine: &Engine, index: u64, len: usize, durability: Durability) -> Lsn {
    let mut batch = engine.batch();
    batch.region(R).append([(EntryId::new(1 + index / 10, index), &payload(index, len)[..])]).unwrap();
    engine.write(batch, durability).unwrap()
}

fn append(engine: &Engine, index: u64, len: usize) -> Lsn {
    append_as(engine, index, len, Durability::Synced)
}

fn read(dir: &Path) -> Reader {
    options().open_read_only(dir).unwrap()
}

fn read_all(dir: &Path) -> Reader {
    options().show_unproven(true).open_read_only(dir).unwrap()
}

fn items(reader: &Reader, what: RecordOptions) -> Vec<LogItem> {
    reader.records(what).map(|item| item.unwrap()).collect()
}

fn payloads() -> RecordOptions {
    RecordOptions::new().payloads(true)
}

/// The entries of a record.
fn entries(record: &LogRecord) -> Vec<Entry> {
    let RecordContent::Batch(regions) = &record.content else { return Vec::new() };
    let ops = regions.iter().flat_map(|r| &r.ops);
    let appended = ops.filter_map(|op| match op {
        LogOp::Append { entries, .. } => Some(entries.clone()),
        _ => None,
    });
    appended.flatten().collect()
}

/// Index and end of each record with one entry, and the rest of the items in words.
fn shown(items: &[LogItem]) -> (Vec<(u64, Lsn)>, Vec<String>) {
    let (mut seen, mut other) = (Vec::new(), Vec::new());
    for item in items {
        match item {
            LogItem::Record(record) => {
                for entry in entries(record) {
                    assert_eq!(entry.payload, payload(entry.id.index, entry.payload.len()));
                    seen.push((entry.id.index, record.end));
                }
            }
            LogItem::Gone { .. } => other.push("gone".into()),
            LogItem::TakenBack { .. } => other.push("taken back".into()),
            LogItem::Damaged(e) => other.push(format!("damaged at {:?}", e.offset())),
            _ => other.push("unknown".into()),
        }
    }
    (seen, other)
}

#[test]
fn each_record_is_shown_with_all_that_it_did() {
    for compression in [Compression::None, Compression::Lz4 { min_batch_bytes: 10 }] {
        let dir = tempfile::tempdir().unwrap();
        let engine = options().compression(compression).open(dir.path()).unwrap();
        let mut batch = engine.batch();
        let some: Vec<_> = (5..=9).map(|i| (EntryId::new(1 + i / 7, i), payload(i, 100))).collect();
        batch.region(R).reset(EntryId::new(1, 4)).unwrap();
        batch.region(R).append(some.iter().map(|(id, bytes)| (*id, &bytes[..]))).unwrap();
        batch.region(R).set_hard_state(b"vote").unwrap();
        batch.region(RegionId(9)).put(b"key", b"value").unwrap();
        batch.region(RegionId(9)).delete(b"other").unwrap();
        let first = engine.write(batch, Durability::Synced).unwrap();
        let mut batch = engine.batch();
        batch.region(R).truncate_from(9);
        batch.region(RegionId(9)).destroy();
        engine.write(batch, Durability::Synced).unwrap();
        compact(&engine, R, 6).unwrap();
        engine.close().unwrap();

        for with in [false, true] {
            let found = items(&read(dir.path()), RecordOptions::new().payloads(with));
            let records: Vec<&LogRecord> = found
                .iter()
                .filter_map(|item| match item {
                    LogItem::Record(r) if matches!(r.content, RecordContent::Batch(_)) => Some(r),
                    LogItem::Record(_) => None,
                    other => panic!("{other:?}"),
                })
                .collect();
            assert_eq!((records.len(), records[0].end, records[0].durable), (3, first, true));
            let RecordContent::Batch(regions) = &records[0].content else { panic!() };
            assert_eq!(regions.iter().map(|r| r.region).collect::<Vec<_>>(), [R, RegionId(9)]);
            assert_eq!(regions[0].ops[0], LogOp::Reset(EntryId::new(1, 4)));
            let LogOp::Append { first, last, terms, bytes, entries } = &regions[0].ops[1] else { panic!() };
            assert_eq!((*first, *last, *bytes), (5, 9, 500));
            let terms: Vec<_> = terms.iter().map(|t| (t.term, t.first, t.last)).collect();
            assert_eq!(terms, [(1, 5, 6), (2, 7, 9)]);
            let wanted = some.iter().filter(|_| with).map(|(id, p)| (*id, p.clone()));
            assert!(entries.iter().map(|e| (e.id, e.payload.to_vec())).eq(wanted));
            assert_eq!(regions[0].ops[2], LogOp::SetHardState((&b"vote"[..]).into()));
            let put = LogOp::Put { key: (&b"key"[..]).into(), value: (&b"value"[..]).into() };
            assert_eq!(regions[1].ops, [put, LogOp::Delete { key: (&b"other"[..]).into() }]);
            let RecordContent::Batch(regions) = &records[1].content else { panic!() };
            assert_eq!(regions[0].ops, [LogOp::TruncateFrom(9)]);
            assert_eq!(regions[1].ops, [LogOp::Destroy]);
            let RecordContent::Batch(regions) = &records[2].content else { panic!() };
            assert_eq!(regions[0].ops, [LogOp::CompactThrough(EntryId::new(1, 6))]);
        }
    }
}

#[test]
fn the_log_is_shown_in_its_order_across_segments_runs_and_purges() {
    for mode in [ReadMode::Map, ReadMode::Pread] {
        let dir = tempfile::tempdir().unwrap();
        let mut wanted = Vec::new();
        let options = options().read_mode(mode);
        for run in 0..3 {
            let engine = options.open(dir.path()).unwrap();
            for index in run * 40 + 1..=run * 40 + 40 {
                wanted.push((index, append(&engine, index, 3000)));
            }
            engine.tick().unwrap();
            engine.close().unwrap();
        }
        let reader = options.open_read_only(dir.path()).unwrap();
        assert_eq!(shown(&items(&reader, payloads())), (wanted.clone(), Vec::new()));
        // From the end of one, the next.
        for at in [0, 1, 39, 40, 77, 119] {
            let (seen, other) = shown(&items(&reader, payloads().from(wanted[at].1)));
            assert_eq!((seen, other), (wanted[at + 1..].to_vec(), Vec::new()), "from {at}");
        }
        drop(reader);
        let engine = options.open(dir.path()).unwrap();
        compact(&engine, R, 60).unwrap();
        engine.purge().unwrap();
        engine.close().unwrap();
        // What is not there any more is said, and the rest follows.
        let (seen, other) = shown(&items(&options.open_read_only(dir.path()).unwrap(), payloads()));
        assert_eq!(other, ["gone"]);
        assert!(wanted.ends_with(&seen) && seen.len() >= 60, "{}", seen.len());
    }
}

#[test]
fn an_empty_store_has_no_records() {
    let dir = tempfile::tempdir().unwrap();
    options().open(dir.path()).unwrap().close().unwrap();
    assert!(items(&read(dir.path()), payloads()).is_empty());
    let mut tail = read(dir.path()).follow(payloads());
    assert!(tail.next_within(Duration::from_millis(20)).unwrap().is_none());
    let engine = options().open(dir.path()).unwrap();
    let end = append(&engine, 1, 100);
    engine.close().unwrap();
    let Some(LogItem::Record(record)) = tail.next_within(ALL).unwrap() else { panic!() };
    assert_eq!((record.end, tail.position()), (end, end));
}

/// What was written and not synced may never have been: it is shown to those who ask for it, and marked.
#[test]
fn only_what_is_known_to_be_durable_is_shown_unless_asked() {
    let dir = tempfile::tempdir().unwrap();
    let engine = options().open(dir.path()).unwrap();
    let synced = append(&engine, 1, 100);
    engine.tick().unwrap(); // writes the mark
    append_as(&engine, 2, 100, Durability::Written);
    let written = append_as(&engine, 3, 100, Durability::Written);
    assert_eq!(shown(&items(&read(dir.path()), payloads())).0, [(1, synced)]);
    let all = items(&read_all(dir.path()), payloads());
    let marks: Vec<_> = all
        .iter()
        .filter_map(|item| match item {
            LogItem::Record(r) => Some((r.end, r.durable)),
            _ => None,
        })
        .collect();
    assert_eq!((marks.len(), marks[0], marks[2]), (3, (synced, true), (written, false)));

    // A tail waits for the proof, or does not.
    let mut proven = read(dir.path()).follow(payloads());
    let mut eager = read_all(dir.path()).follow(payloads());
    let take = |tail: &mut raftwood::Follow| {
        let mut all = Vec::new();
        while let Some(item) = tail.next_within(Duration::from_millis(30)).unwrap() {
            all.push(item);
        }
        shown(&all).0.iter().map(|(index, _)| *index).collect::<Vec<_>>()
    };
    assert_eq!((take(&mut proven), take(&mut eager)), (vec![1], vec![1, 2, 3]));
    engine.sync().unwrap();
    engine.tick().unwrap();
    append_as(&engine, 4, 100, Durability::Written);
    assert_eq!((take(&mut proven), take(&mut eager)), (vec![2, 3], vec![4]));
    engine.close().unwrap();
    assert_eq!((take(&mut proven), take(&mut eager)), (vec![4], vec![]));
}

/// The files of the reader are renamed and overwritten: nothing of that is damage, and no byte of it is
/// shown.
#[test]
fn what_was_given_back_since_the_look_is_gone_and_no_damage() {
    let dir = tempfile::tempdir().unwrap();
    let engine = options().open(dir.path()).unwrap();
    for index in 1..=60 {
        append(&engine, index, 3000);
    }
    engine.tick().unwrap();
    let reader = read_all(dir.path());
    let mut next = 61;
    for _ in 0..6 {
        compact(&engine, R, next - 1).unwrap();
        engine.purge().unwrap();
        for index in next..next + 60 {
            append(&engine, index, 3000);
        }
        next += 60;
    }
    let (seen, other) = shown(&items(&reader, payloads()));
    assert_eq!(other, ["gone"]);
    assert!(seen.len() < 20, "{seen:?}");
    // A tail of that reader finds its way to what is there now.
    let mut tail = reader.follow(payloads());
    let mut found = Vec::new();
    while let Some(item) = tail.next_within(Duration::from_millis(100)).unwrap() {
        found.push(item);
    }
    let (seen, other) = shown(&found);
    assert!(!other.is_empty() && other.iter().all(|o| o == "gone"), "{other:?}");
    // What the first purge found is one piece, and what lives now is another.
    let jumps = seen.windows(2).filter(|w| w[0].0 + 1 != w[1].0).count();
    assert!(seen.len() >= 50 && jumps <= 1 && seen.last().unwrap().0 + 2 >= next, "{seen:?}");
}

fn change(path: &Path, at: u64, bytes: &[u8]) {
    let mut file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    file.seek(SeekFrom::Start(at)).unwrap();
    file.write_all(bytes).unwrap();
}

#[test]
fn a_record_that_is_damaged_is_named_and_those_after_it_are_shown() {
    let dir = tempfile::tempdir().unwrap();
    let engine = options().open(dir.path()).unwrap();
    let ends: Vec<Lsn> = (1..=9).map(|index| append(&engine, index, 1000)).collect();
    engine.close().unwrap();
    drop(engine);
    let path = dir.path().join("0000000001.log");
    // Header and description of the third: its successor alone does not bring it back.
    change(&path, u64::from(ends[1].offset()), &[0x5a; 90]);
    // One byte of the sixth's payload.
    change(&path, u64::from(ends[5].offset()) - 500, &[0xff]);
    let found = items(&read(dir.path()), payloads());
    let (seen, other) = shown(&found);
    assert_eq!(seen.iter().map(|s| s.0).collect::<Vec<_>>(), [1, 2, 4, 5, 7, 8, 9]);
    assert_eq!(other, [format!("damaged at Some({})", ends[1].offset())]);
    let wrong: Vec<_> = found
        .iter()
        .filter_map(|item| match item {
            LogItem::Record(r) => r.damage.first(),
            _ => None,
        })
        .collect();
    assert_eq!((wrong.len(), wrong[0].region(), wrong[0].entries()), (1, Some(R), Some(6..=6)));
    assert_eq!((wrong[0].kind(), wrong[0].path()), (ErrorKind::Damaged, Some(&*path)));
}

/// A header alone that has rotted is known from the record after it.
#[test]
fn a_record_whose_header_rotted_is_shown_all_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let engine = options().open(dir.path()).unwrap();
    let ends: Vec<Lsn> = (1..=5).map(|index| append(&engine, index, 1000)).collect();
    engine.close().unwrap();
    drop(engine);
    change(&dir.path().join("0000000001.log"), u64::from(ends[1].offset()), &[0x5a; 64]);
    let found = items(&read(dir.path()), payloads());
    assert_eq!(shown(&found).0.iter().map(|s| s.0).collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
    assert!(found.iter().any(|item| matches!(item, LogItem::Record(r) if r.mended)));
}

/// A mapping of a file that was cut would end the process with a signal.
#[test]
fn a_file_that_is_cut_under_a_walk_is_damage() {
    let dir = tempfile::tempdir().unwrap();
    let engine = options().open(dir.path()).unwrap();
    let ends: Vec<Lsn> = (1..=40).map(|index| append(&engine, index, 3000)).collect();
    engine.close().unwrap();
    drop(engine);
    let reader = read(dir.path());
    let mut walk = reader.records(payloads());
    assert!(walk.next().is_some());
    let file = std::fs::OpenOptions::new().write(true).open(dir.path().join("0000000001.log")).unwrap();
    file.set_len(u64::from(ends[2].offset()) + 100).unwrap();
    let found = items(&reader, payloads());
    let (seen, other) = shown(&found);
    assert!(!other.is_empty() && other.iter().all(|o| o.starts_with("damaged")), "{other:?}");
    assert_eq!((seen[0].0, seen.last().unwrap().0), (1, 40));
    assert!(walk.all(|item| item.is_ok()));
}

/// `RAFTWOOD_BESIDE_SECONDS` for longer. Each file is recycled within moments, under a tail that is slower
/// at times. Whatever was acknowledged
/// comes by, right, or is said to be gone.
#[test]
fn beside_a_writer_that_recycles_its_files_all_is_shown_or_said_to_be_gone() {
    for show_unproven in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let options = small().show_unproven(show_unproven);
        let engine = options.open(dir.path()).unwrap();
        let acked: Arc<Mutex<BTreeMap<Lsn, u64>>> = Arc::default();
        let stop = Arc::new(AtomicBool::new(false));
        let writer = {
            let (acked, stop) = (acked.clone(), stop.clone());
            std::thread::spawn(move || {
                for index in 1.. {
                    let end = append(&engine, index, 1500);
                    acked.lock().unwrap().insert(end, index);
                    if index % 60 == 0 {
                        compact(&engine, R, index - 15).unwrap();
                        engine.purge().unwrap();
                    }
                    if stop.load(Ordering::Relaxed) {
                        engine.close().unwrap();
                        return;
                    }
                }
            })
        };
        let reader = loop {
            match options.open_read_only(dir.path()) {
                Ok(reader) => break reader,
                Err(e) => assert_eq!(e.kind(), ErrorKind::Locked, "{e:?}"),
            }
        };
        let mut tail = reader.follow(payloads());
        let (mut seen, mut gone) = (BTreeMap::new(), Vec::new());
        let began = Instant::now();
        let mut taken = 0;
        loop {
            let is_over = began.elapsed() > beside_for(2);
            stop.store(is_over, Ordering::Relaxed);
            if writer.is_finished() && acked.lock().unwrap().keys().last() == seen.keys().last() {
                break;
            }
            assert!(
                began.elapsed() < beside_for(2) + Duration::from_secs(60),
                "{:?} of {:?}",
                seen.len(),
                acked.lock()
            );
            match tail.next_within(Duration::from_millis(50)) {
                Ok(Some(LogItem::Record(record))) => {
                    assert!(record.damage.is_empty(), "{:?}", record.damage);
                    assert!(record.durable || show_unproven);
                    for entry in entries(&record) {
                        assert_eq!(entry.payload, payload(entry.id.index, 1500));
                        assert_eq!(seen.insert(record.end, entry.id.index), None, "shown twice");
                    }
                }
                Ok(Some(LogItem::Gone { after, until })) => gone.push((after, until)),
                Ok(Some(other)) => panic!("{other:?}"),
                Ok(None) => {}
                Err(e) => assert_eq!(e.kind(), ErrorKind::Locked, "{e:?}"),
            }
            taken += 1;
            // At times it falls far back.
            if taken % 400 == 0 && !is_over {
                std::thread::sleep(Duration::from_millis(200));
            }
        }
        writer.join().unwrap();
        for (end, index) in acked.lock().unwrap().iter() {
            let is_gone = gone.iter().any(|(after, until)| after < end && end <= until);
            assert!(seen.get(end) == Some(index) || is_gone, "entry {index} at {end}: {gone:?}");
        }
        assert!(seen.len() > 100, "{}", seen.len());
    }
}

#[cfg(feature = "sim")]
mod killed {
    use super::*;
    use crate::support::engines::{DIR, kill, of_run};
    use raftwood::vfs::sim::SimVfs;

    /// An engine dies with records that were written and never synced. The next one copies them into another
    /// segment: their first places are no part of the log any more.
    #[test]
    fn a_follower_goes_on_across_a_restart_that_cuts_the_log_and_says_so() {
        let vfs = SimVfs::new(3);
        let engine = of_run(&vfs, 1).open(DIR).unwrap();
        append(&engine, 1, 100);
        append(&engine, 2, 100);
        engine.tick().unwrap();
        append_as(&engine, 3, 100, Durability::Written);
        append_as(&engine, 4, 100, Durability::Written);
        let read = |all: bool| of_run(&vfs, 9).show_unproven(all).open_read_only(DIR).unwrap();
        let (mut eager, mut proven) = (read(true).follow(payloads()), read(false).follow(payloads()));
        let take = |tail: &mut raftwood::Follow| {
            let mut all = Vec::new();
            while let Some(item) = tail.next_within(Duration::from_millis(150)).unwrap() {
                all.push(item);
            }
            let (seen, other) = shown(&all);
            (seen.iter().map(|s| s.0).collect::<Vec<_>>(), other)
        };
        assert_eq!(take(&mut eager), (vec![1, 2, 3, 4], vec![]));
        assert_eq!(take(&mut proven), (vec![1, 2], vec![]));
        kill(&vfs, engine);
        let engine = of_run(&vfs, 2).open(DIR).unwrap();
        append(&engine, 5, 100);
        engine.tick().unwrap();
        assert_eq!(take(&mut eager), (vec![3, 4, 5], vec!["taken back".to_string()]));
        assert_eq!(take(&mut proven), (vec![3, 4, 5], vec![]));
        engine.close().unwrap();
        let engine = of_run(&vfs, 3).open(DIR).unwrap();
        append(&engine, 6, 100);
        engine.tick().unwrap();
        assert_eq!((take(&mut eager), take(&mut proven)), ((vec![6], vec![]), (vec![6], vec![])));
    }
}
