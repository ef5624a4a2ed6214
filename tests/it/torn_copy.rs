//! A batch was acknowledged, and the power went before its watermark was noted. Recovery copied it into the
//! next segment; the power went again and tore the copy. The next recovery read the batch from the old
//! segment and made a third copy, whole. While the store was closed the power went once more, with nothing
//! lost: and the batch was gone, because the torn copy still cut the old segment off.

use crate::support::engines::on;
use crate::support::entries::count;
use crate::support::files::{find, is_a, of_kind};
use raftwood::vfs::sim::{LossPolicy, Moment, OpKind, SimVfs};
use raftwood::{Background, Durability, Engine, EntryId, EntryRef, Options, RegionId};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

fn options(disk: &SimVfs) -> Options {
    on(disk).background(Background::Manual)
}

fn open(disk: &SimVfs) -> Engine {
    options(disk).open("/db").unwrap()
}

fn entries(engine: &Engine) -> usize {
    count(engine, RegionId(1))
}

#[test]
fn torn_copy_of_an_acknowledged_tail_takes_nothing_with_it() {
    let disk = SimVfs::new(1);
    let engine = open(&disk);
    let mut batch = engine.batch();
    batch.region(RegionId(1)).append([EntryRef { id: EntryId::new(1, 1), payload: &[7; 9000] }]).unwrap();
    engine.write(batch, Durability::Synced).unwrap();

    let disk = disk.crash(LossPolicy::KeepAll);
    disk.snapshot_every(Some(Moment::After));
    assert_eq!(entries(&open(&disk)), 1);
    let mut tried = 0;
    let mut wrong = Vec::new();
    for copying in disk.take_snapshots() {
        for kept in 0..=copying.pending_count() {
            let torn = copying.crash(LossPolicy::KeepFirst(kept));
            let engine = open(&torn);
            assert_eq!(entries(&engine), 1);
            torn.snapshot_every(Some(Moment::After));
            engine.close().unwrap();
            for closing in torn.take_snapshots() {
                let last = closing.crash(LossPolicy::KeepAll);
                tried += 1;
                if entries(&open(&last)) != 1 {
                    wrong.push(format!("{} with {kept} kept, then {}", copying.call(), closing.call()));
                }
            }
        }
    }
    assert!(tried > 100, "{tried}");
    assert!(wrong.is_empty(), "{} of {tried}: {:#?}", wrong.len(), &wrong[..wrong.len().min(8)]);
}

/// A tail of more than 8 MiB is synced while it is still being copied, by a thread of the engine. The
/// records that are copied after that must not say so: a watermark inside the copy is what the next recovery
/// believes a complete copy by.
#[test]
fn a_copy_that_is_synced_half_way_does_not_count_as_complete() {
    const SMALL: u64 = 200;
    let disk = SimVfs::new(2);
    let engine = open(&disk);
    let large = vec![7; 9 << 20];
    let tickets: Vec<_> = (1..=1 + SMALL)
        .map(|index| {
            let mut batch = engine.batch();
            let payload = if index == 1 { &large[..] } else { &[7; 100] };
            batch.region(RegionId(1)).append([EntryRef { id: EntryId::new(1, index), payload }]).unwrap();
            engine.submit(batch, Durability::Synced).unwrap()
        })
        .collect();
    // The sync of the first hangs, so that no record says that it is durable, until all are
    // written. Then the process dies.
    disk.block_syncs();
    let disk = std::thread::scope(|scope| {
        let mut tickets = tickets.into_iter();
        for ticket in [tickets.next(), tickets.next_back()].into_iter().flatten() {
            scope.spawn(move || ticket.wait().unwrap());
            disk.wait_for_syncs(1);
        }
        let patience = Instant::now();
        let killed = loop {
            let killed = disk.crash(LossPolicy::KeepAll);
            let written = entries(&open(&killed.crash(LossPolicy::KeepAll))) as u64;
            if written == 1 + SMALL || patience.elapsed() > Duration::from_secs(30) {
                break killed;
            }
        };
        disk.release_syncs();
        killed
    });

    // In the next run the copy waits for the sync of its first part.
    let (syncs, writes) = (Arc::new(AtomicU64::new(0)), AtomicU64::new(0));
    let seen = syncs.clone();
    disk.set_hook(Some(Arc::new(move |op| {
        let log = is_a(&op.path, "log");
        match op.kind {
            OpKind::SyncData if log && writes.load(Ordering::Acquire) > 0 => {
                seen.fetch_add(1, Ordering::AcqRel);
            }
            OpKind::Write if log && writes.fetch_add(1, Ordering::AcqRel) > 0 => {
                let patience = Instant::now();
                while seen.load(Ordering::Acquire) == 0 && patience.elapsed() < Duration::from_secs(5) {
                    std::thread::yield_now();
                }
                // Time for that sync to end, and to be believed, before all is copied.
                (0..200).for_each(|_| std::thread::yield_now());
            }
            _ => {}
        }
    })));
    disk.snapshot_every(Some(Moment::After));
    let engine = options(&disk).background(Background::Threads).open("/db").unwrap();
    assert_eq!(entries(&engine) as u64, 1 + SMALL);
    assert!(syncs.load(Ordering::Acquire) > 0, "the copy was never synced on its way");
    let copying = disk.take_snapshots();
    disk.set_hook(None);
    let writes = copying.iter().filter(|s| s.call().contains(".log") && s.call().contains("write"));
    let mut tried = 0;
    for moment in writes.step_by(8) {
        tried += 1;
        let cut = moment.crash(LossPolicy::KeepAll);
        assert_eq!(entries(&open(&cut)) as u64, 1 + SMALL, "killed after {}", moment.call());
    }
    assert!(tried > SMALL / 8, "{tried}");
}

/// Two batches were acknowledged, and the power went before their watermark was noted. The next recovery was
/// cut off while it copied them, and then several bits of the original's description rotted. The unfinished
/// copy follows the same record as the rotten original, and was taken for its continuation: the log ended
/// with it, or in front of it, without a word. The same rot without the copy was refused.
#[test]
fn an_unfinished_copy_does_not_stand_for_its_original() {
    const LEN: usize = 3000;
    let mut tried = 0;
    let mut silent = Vec::new();
    for (seed, tick) in [(1, true), (1, false), (77, true), (77, false)] {
        let disk = SimVfs::new(seed);
        let engine = open(&disk);
        let append = |region: u64, index: u64, payload: &[u8]| {
            let mut batch = engine.batch();
            batch
                .region(RegionId(region))
                .append([EntryRef { id: EntryId::new(1, index), payload }])
                .unwrap();
            engine.submit(batch, Durability::Synced).unwrap()
        };
        append(9, 1, &[1; 100]).wait().unwrap();
        if tick {
            engine.tick().unwrap();
        }
        // One group: nothing proves either of them.
        let tickets = [append(1, 1, &[0xa1; LEN]), append(1, 2, &[0xb2; LEN])];
        for ticket in tickets {
            ticket.wait().unwrap();
        }

        let disk = disk.crash(LossPolicy::LoseAll);
        let (original, at) = find(&disk, &[0xa1; LEN]);
        disk.snapshot_every(Some(Moment::After));
        drop(open(&disk));
        for copying in disk.take_snapshots() {
            for kept in 0..=copying.pending_count() {
                for policy in [LossPolicy::KeepFirst(kept), LossPolicy::LoseOnly(kept)] {
                    let cut = copying.crash(policy);
                    if !cut.list().iter().any(|f| f.0 == original) {
                        continue;
                    }
                    for back in [3, 9, 14] {
                        cut.flip_bit(&original, (at - back) * 8 + back % 8).unwrap();
                    }
                    tried += 1;
                    let Ok(engine) = options(&cut).open("/db") else { continue };
                    if entries(&engine) < 2 && engine.open_report().suspects.is_empty() {
                        silent.push(format!("{} with {kept} kept", copying.call()));
                    }
                }
            }
        }
    }
    assert!(tried > 500, "{tried}");
    assert!(silent.is_empty(), "{} of {tried}: {:#?}", silent.len(), &silent[..silent.len().min(8)]);
}

/// Recovery was cut off while it copied; then a sector of the original was lost, which looks like a tear: the
/// sector reads as zeros, or, in a recycled file, as what stood there before. But that recovery had read the
/// record whole, and its copy began by saying so.
#[test]
fn rot_of_an_announced_record_is_never_taken_for_a_tear() {
    let disk = SimVfs::new(5);
    let engine = open(&disk);
    // A mark proves the first group of a segment, and no other.
    for (index, payload) in [(1, &[7; 10][..]), (2, &[7; 9000])] {
        let mut batch = engine.batch();
        batch.region(RegionId(1)).append([EntryRef { id: EntryId::new(1, index), payload }]).unwrap();
        engine.write(batch, Durability::Synced).unwrap();
    }
    let disk = disk.crash(LossPolicy::LoseAll);
    let original = of_kind(&disk, "log").remove(0);
    disk.snapshot_every(Some(Moment::After));
    drop(open(&disk));
    let (mut tried, mut missed) = (0, Vec::new());
    for copying in disk.take_snapshots() {
        let cut = copying.crash(LossPolicy::KeepAll);
        let files = of_kind(&cut, "log").into_iter().filter(|path| *path != original);
        // The copy has begun: its announcement is there.
        let announced =
            files.map(|path| cut.read_file(path).unwrap()).any(|bytes| bytes[4096..4100] == *b"\xd7rec");
        if !announced || !cut.list().iter().any(|f| f.0 == original) {
            continue;
        }
        for sector in 8..8 + 18 {
            let harmed = copying.crash(LossPolicy::KeepAll);
            harmed.zero_sector(&original, sector).unwrap();
            tried += 1;
            let Ok(engine) = options(&harmed).open("/db") else { continue };
            let report = engine.open_report();
            if engine.region(RegionId(1)).state().last < 2
                && report.suspects.is_empty()
                && report.damage.is_empty()
            {
                missed.push(format!("sector {sector} after {}", copying.call()));
            }
        }
    }
    assert!(tried > 30, "{tried}");
    assert!(missed.is_empty(), "{} of {tried}: {:#?}", missed.len(), &missed[..missed.len().min(8)]);
}
