//! What a listener adds to the batch that rolls entries back.

use crate::support::asked::with_causes;
use crate::support::engines::{DIR, kill, of_run};
use crate::support::two_regions::{OTHER, R, append, payload};
use raftwood::vfs::sim::{LossPolicy, Moment, SimVfs};
use raftwood::{
    BoxError, Compression, Durability, Engine, EntryId, ErrorKind, EventListener, Evidence, Options,
    ReadLimit, RegionId, Rollback, WriteBatch, limits,
};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

const KEPT: RegionId = RegionId(99);

type Adds = fn(&mut Evidence<'_>) -> Result<(), BoxError>;

/// Keeps each entry, and under the region's number how many there were.
#[derive(Default)]
struct Keeper {
    asked: AtomicU64,
    /// Done once, while it is asked.
    meanwhile: Mutex<Option<Box<dyn FnOnce() + Send>>>,
    adds: Mutex<Option<Adds>>,
}

impl EventListener for Keeper {
    fn before_rollback_with(&self, r: &Rollback<'_>, evidence: &mut Evidence<'_>) -> Result<(), BoxError> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let meanwhile = self.meanwhile.lock().unwrap().take();
        meanwhile.into_iter().for_each(|act| act());
        for entry in r.entries() {
            evidence.append_next(KEPT, &entry?.payload, 0)?;
        }
        let count = r.last() + 1 - r.first();
        evidence.put(KEPT, &r.region().0.to_be_bytes(), &count.to_le_bytes())?;
        let adds = *self.adds.lock().unwrap();
        adds.map_or(Ok(()), |add| add(evidence))
    }
}

fn opened(vfs: &SimVfs, run: u64, change: impl FnOnce(Options) -> Options) -> (Engine, Arc<Keeper>) {
    let keeper = Arc::new(Keeper::default());
    (change(of_run(vfs, run)).listener(keeper.clone()).open(DIR).unwrap(), keeper)
}

/// Entries 1 to 8 of two regions.
fn begun(vfs: &SimVfs, change: impl FnOnce(Options) -> Options) -> (Engine, Arc<Keeper>) {
    let (engine, keeper) = opened(vfs, 1, change);
    append(&engine, R, 1..=8);
    append(&engine, OTHER, 1..=8);
    (engine, keeper)
}

/// Another leader's entries 6 and 7.
fn overwriting(engine: &Engine) -> WriteBatch {
    let mut batch = engine.batch();
    batch.region(R).append([(EntryId::new(9, 6), &b"six"[..]), (EntryId::new(9, 7), b"seven")]).unwrap();
    batch
}

fn payloads(engine: &Engine, region: RegionId) -> Vec<Vec<u8>> {
    let entries = engine.region(region).entries(.., ReadLimit::NONE).unwrap();
    entries.iter().map(|e| e.payload.to_vec()).collect()
}

fn rolled_back(region: RegionId, indexes: std::ops::RangeInclusive<u64>) -> Vec<Vec<u8>> {
    indexes.map(|index| payload(region, index)).collect()
}

#[test]
fn evidence_is_written_with_the_batch_that_rolls_back_and_found_after_a_restart() {
    // Compressed payloads, and those that are not.
    for compression in [Compression::None, Compression::Lz4 { min_batch_bytes: 1 }] {
        let vfs = SimVfs::new(5);
        let (engine, _keeper) = begun(&vfs, |o| o.compression(compression));
        let mut batch = overwriting(&engine);
        let long = vec![b'x'; 3000];
        batch.region(R).append([(EntryId::new(9, 8), &long[..])]).unwrap();
        batch.region(OTHER).truncate_from(8).append_next([&long, &long], 9).unwrap();
        let outcome = engine.write_outcome(batch, Durability::Synced).unwrap();
        let appends: Vec<_> = outcome.appends.iter().map(|a| (a.region, a.first, a.last)).collect();
        assert_eq!(appends[0], (OTHER, 8, 9));
        assert!(appends[1..].iter().all(|a| a.0 == KEPT) && appends.len() == 5, "{appends:?}");
        let kept = [rolled_back(R, 6..=8), rolled_back(OTHER, 8..=8)].concat();
        let look = |engine: &Engine| {
            assert_eq!(payloads(engine, KEPT), kept);
            assert_eq!(engine.region(KEPT).get(&R.0.to_be_bytes()).unwrap(), 3u64.to_le_bytes()[..]);
            assert_eq!(payloads(engine, R)[5..], [b"six".to_vec(), b"seven".to_vec(), long.clone()]);
            assert_eq!(payloads(engine, OTHER)[7..], [long.clone(), long.clone()]);
        };
        look(&engine);
        kill(&vfs, engine);
        look(&opened(&vfs, 2, |o| o).0);
    }
}

/// What a listener writes by itself survives a power cut that the rollback does not.
#[test]
fn a_crash_leaves_the_rollback_with_its_evidence_or_neither() {
    let vfs = SimVfs::new(6);
    let (engine, _keeper) = begun(&vfs, |o| o);
    let mut seen = [false; 2];
    for moment in [Moment::Before, Moment::Middle, Moment::After] {
        let mut batch = overwriting(&engine);
        batch.region(OTHER).truncate_from(8);
        vfs.snapshot_every(Some(moment));
        engine.write(batch, Durability::Synced).unwrap();
        vfs.snapshot_every(None);
        let snapshots = vfs.take_snapshots();
        assert!(!snapshots.is_empty());
        for snapshot in &snapshots {
            let subsets = (0..1 << snapshot.pending_count().min(4)).map(LossPolicy::Subset);
            let chance = (0..8).map(LossPolicy::Random);
            for policy in subsets.chain(chance).chain([LossPolicy::KeepAll]) {
                let after = of_run(&snapshot.crash(policy), 7).open(DIR).unwrap();
                let is_back = after.region(R).term(6).unwrap() == 9;
                assert_eq!(payloads(&after, KEPT).len() == 4, is_back, "{} {policy:?}", snapshot.call());
                assert_eq!(after.region(KEPT).exists(), is_back, "{} {policy:?}", snapshot.call());
                seen[usize::from(is_back)] = true;
            }
        }
        // For the next moment as it was before.
        let mut batch = engine.batch();
        batch.region(KEPT).destroy();
        batch.region(R).destroy();
        batch.region(OTHER).destroy();
        engine.write(batch, Durability::Synced).unwrap();
        append(&engine, R, 1..=8);
        append(&engine, OTHER, 1..=8);
    }
    assert_eq!(seen, [true; 2], "with the rollback and without");
}

#[test]
fn a_batch_that_is_refused_comes_back_without_the_evidence() {
    let vfs = SimVfs::new(7);
    let (engine, keeper) = begun(&vfs, |o| o);
    // The listener refuses after it has added something, or acceptance does for what was added.
    let adds: [(Adds, ErrorKind, &str); 3] = [
        (|_| Err("not saved".into()), ErrorKind::Refused, "not saved"),
        (|e| Ok(e.put(R, b"k", b"v").map(drop)?), ErrorKind::Refused, "region 7: a listener that is asked"),
        (|e| Ok(e.append_next(OTHER, b"old", 1).map(drop)?), ErrorKind::TermRegression, "region 8"),
    ];
    for (add, kind, words) in adds {
        *keeper.adds.lock().unwrap() = Some(add);
        let batch = overwriting(&engine);
        let len = batch.encoded_len();
        let refused = engine.write(batch, Durability::Synced).unwrap_err();
        assert_eq!(refused.kind(), kind, "{refused}");
        let said = with_causes(refused.error());
        assert!(said.contains(words), "{said}");
        assert!(!engine.region(KEPT).exists());
        *keeper.adds.lock().unwrap() = None;
        let back = refused.into_batch().unwrap();
        assert_eq!((back.encoded_len(), back.entry_count()), (len, 2));
    }
    engine.write(overwriting(&engine), Durability::Synced).unwrap();
    assert_eq!(payloads(&engine, KEPT), rolled_back(R, 6..=8), "once");
}

/// A listener is asked again where the region moved on meanwhile, and what it added before would be there
/// twice.
#[test]
fn what_was_added_is_dropped_where_the_listener_is_asked_again() {
    let vfs = SimVfs::new(8);
    let (engine, keeper) = begun(&vfs, |o| o);
    let other = engine.clone();
    // Another thread's: its own write to the region would be refused.
    let meanwhile = move || std::thread::spawn(move || append(&other, R, 9..=9)).join().unwrap();
    *keeper.meanwhile.lock().unwrap() = Some(Box::new(meanwhile));
    engine.write(overwriting(&engine), Durability::Synced).unwrap();
    assert_eq!(payloads(&engine, KEPT), rolled_back(R, 6..=9));
    assert_eq!(keeper.asked.load(Ordering::Relaxed), 2);
}

#[test]
fn evidence_takes_what_there_is_room_for_beside_the_batch() {
    let vfs = SimVfs::new(9);
    let (engine, keeper) = begun(&vfs, |o| o);
    *keeper.adds.lock().unwrap() = Some(|evidence| {
        let value = vec![7; limits::VALUE_BYTES_MAX];
        for n in 0..u64::MAX {
            match evidence.put(KEPT, &n.to_le_bytes(), &value) {
                Ok(_) => {}
                Err(full) if full.kind() == ErrorKind::TooLarge && n > 0 => return Ok(()),
                Err(other) => return Err(other.into()),
            }
        }
        Err("it was never full".into())
    });
    // What the batch itself takes of it.
    let (mut batch, taken) = (overwriting(&engine), limits::DESC_BYTES_MAX / limits::VALUE_BYTES_MAX / 2);
    for n in 0..taken as u64 {
        batch.region(R).put(&n.to_le_bytes(), &vec![8; limits::VALUE_BYTES_MAX]).unwrap();
    }
    engine.write(batch, Durability::Synced).unwrap();
    let values = engine.region(KEPT).scan(b"");
    let full = values.iter().filter(|(_, value)| value.len() == limits::VALUE_BYTES_MAX).count();
    assert_eq!(full, (limits::DESC_BYTES_MAX - 1) / limits::VALUE_BYTES_MAX - taken);
    assert_eq!(payloads(&engine, KEPT), rolled_back(R, 6..=8));
}
