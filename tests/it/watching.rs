//! Watching the log of an open engine from inside the process.

use crate::support::engines::by_hand;
use crate::support::threads::*;
use raftwood::limits::WATCHED_CHANGES_MAX;
use raftwood::vfs::sim::{EIO, Fault, OpKind, SimVfs};
use raftwood::{Change, Durability, Engine, EntryId, ErrorKind, Lsn, RegionId, Watch};
use std::collections::BTreeMap;
use std::thread;
use std::time::Duration;

const R: RegionId = RegionId(7);

fn write(engine: &Engine, region: RegionId, term: u64, indexes: std::ops::RangeInclusive<u64>) -> Lsn {
    let mut batch = engine.batch();
    batch.region(region).append(indexes.map(|index| (EntryId::new(term, index), &b"x"[..]))).unwrap();
    engine.write(batch, Durability::Written).unwrap()
}

/// All that there is to show now.
fn shown(watch: &mut Watch) -> Vec<Change> {
    std::iter::from_fn(|| watch.next_within(Duration::ZERO).unwrap()).collect()
}

#[test]
fn what_a_batch_takes_back_is_shown_in_its_order_and_what_nobody_saw_is_not() {
    let engine = by_hand(&SimVfs::new(1)).open("/db").unwrap();
    write(&engine, R, 1, 1..=9);
    let mut watch = engine.watch().unwrap();
    assert_eq!(shown(&mut watch), [], "what was before the watch");

    let mut batch = engine.batch();
    // Of its own entries it takes one back, too.
    batch
        .region(R)
        .append((8..=11).map(|index| (EntryId::new(2, index), &b"y"[..])))
        .unwrap()
        .truncate_from(11);
    batch.region(RegionId(8)).append([(EntryId::new(1, 1), &b"x"[..])]).unwrap().destroy();
    batch.region(R).truncate_from(5).put(b"key", b"value").unwrap();
    let cut = engine.write(batch, Durability::Written).unwrap();
    let truncated = |first, last| Change::Truncated { region: R, first, last, lsn: cut };
    assert_eq!(shown(&mut watch), [truncated(8, 9), truncated(5, 7)], "accepted, and not durable");

    let mut batch = engine.batch();
    batch.region(R).reset(EntryId::new(3, 100)).unwrap();
    let reset = engine.write(batch, Durability::Written).unwrap();
    let durable = engine.sync().unwrap();
    let was_reset = Change::Reset { region: R, base: Some(EntryId::new(3, 100)), lsn: reset };
    assert_eq!(shown(&mut watch), [was_reset, Change::Durable { lsn: durable }]);
    assert_eq!(watch.durable(), durable);

    let mut batch = engine.batch();
    batch.region(R).forget_log().append([(EntryId::new(1, 1), &b"z"[..])]).unwrap();
    let forgot = engine.write(batch, Durability::Synced).unwrap();
    let mut batch = engine.batch();
    batch.region(R).destroy();
    batch.region(RegionId(9)).destroy();
    let gone = engine.write(batch, Durability::Synced).unwrap();
    let expected = [
        Change::Reset { region: R, base: None, lsn: forgot },
        Change::Destroyed { region: R, lsn: gone },
        Change::Durable { lsn: gone },
    ];
    assert_eq!(shown(&mut watch), expected);
}

/// Each writer rolls its region back now and then, and knows what it discarded.
#[test]
fn a_watcher_is_shown_all_that_writers_took_back_and_before_it_is_durable() {
    let engine = open(&SimVfs::new(2));
    begin(&engine);
    let mut watch = engine.watch().unwrap();
    let e = engine.clone();
    let watching = thread::spawn(move || {
        let (mut truncated, mut durable) = (BTreeMap::<RegionId, Vec<(u64, u64, Lsn)>>::new(), Lsn::ZERO);
        // Ends with the engine.
        for change in &mut watch {
            assert!(change.lsn() > durable, "{change:?} is shown after everything up to {durable}");
            match change {
                Change::Durable { lsn } => durable = lsn,
                Change::Truncated { region, first, last, lsn } => {
                    truncated.entry(region).or_default().push((first, last, lsn));
                }
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(watch.next_within(Duration::ZERO).unwrap_err().kind(), ErrorKind::Closed);
        (truncated, durable)
    });
    let done = in_time("the writers", move || {
        let writers: Vec<_> = (1..=4)
            .map(|region| {
                let (engine, region) = (e.clone(), RegionId(region));
                thread::spawn(move || {
                    let (mut last, mut discarded) = (0, Vec::new());
                    for term in 1..=200u64 {
                        let back = if term % 3 == 0 { last.min(term % 7) } else { 0 };
                        let lsn = write(&engine, region, term, last - back + 1..=last - back + 3);
                        if back > 0 {
                            discarded.push((last - back + 1, last, lsn));
                        }
                        last = last - back + 3;
                        if term % 5 == 0 {
                            engine.sync().unwrap();
                        }
                    }
                    (region, discarded)
                })
            })
            .collect();
        let done: BTreeMap<_, _> = writers.into_iter().map(|writer| writer.join().unwrap()).collect();
        e.close().unwrap();
        done
    });
    let (truncated, durable) = in_time("the watcher", move || watching.join().unwrap());
    assert!(done.values().all(|discarded| discarded.len() > 50));
    assert_eq!(truncated, done);
    assert_eq!(durable, engine.durable_lsn(), "all that was accepted before the close");
}

#[test]
fn a_slow_watcher_holds_up_no_writer_and_is_shown_what_it_missed() {
    let engine = by_hand(&SimVfs::new(3)).open("/db").unwrap();
    let mut watch = engine.watch().unwrap();
    let mut quick = engine.watch().unwrap();
    write(&engine, R, 1, 1..=1);
    let (max, more) = (WATCHED_CHANGES_MAX as u64, 100);
    let cuts: Vec<Lsn> = (0..max + more)
        .map(|term| {
            let lsn = write(&engine, R, term + 2, 1..=1);
            let one = shown(&mut quick);
            let cut = Change::Truncated { region: R, first: 1, last: 1, lsn };
            assert!(one.contains(&cut), "{one:?}");
            lsn
        })
        .collect();
    let durable = engine.sync().unwrap();
    let mut all = shown(&mut watch);
    assert_eq!(all.pop(), Some(Change::Durable { lsn: durable }));
    let missed = Change::Missed { changes: more, first: cuts[max as usize], last: cuts[cuts.len() - 1] };
    assert_eq!(all.pop(), Some(missed));
    assert_eq!(all.iter().map(Change::lsn).collect::<Vec<_>>(), cuts[..max as usize]);

    // From then on nothing is missing.
    let lsn = write(&engine, R, max * 2, 1..=1);
    assert_eq!(shown(&mut watch), [Change::Truncated { region: R, first: 1, last: 1, lsn }]);
}

#[test]
fn a_watcher_that_sleeps_is_woken_by_a_sync_and_by_what_it_concerns() {
    let vfs = SimVfs::new(4);
    let engine = open(&vfs);
    begin(&engine);
    let mut watch = engine.watch().unwrap();
    let (send, receive) = std::sync::mpsc::channel();
    let watching = thread::spawn(move || {
        // Without an end: only being woken shows anything.
        for change in watch.by_ref() {
            send.send(change).unwrap();
        }
        watch.next_within(Duration::ZERO).unwrap_err().kind()
    });
    let next = || receive.recv_timeout(Duration::from_secs(20)).expect("the watcher was not woken");
    submit(&engine, 1, 1).wait().unwrap();
    assert_eq!(next(), Change::Durable { lsn: engine.durable_lsn() });
    // While the disk hangs the change is shown, and not as durable.
    vfs.block_syncs();
    let first = submit(&engine, 2, 1);
    vfs.wait_for_syncs(1);
    let over = submit(&engine, 1, 1);
    assert_eq!(next(), Change::Truncated { region: RegionId(1), first: 1, last: 1, lsn: over.lsn() });
    vfs.release_syncs();
    first.wait().unwrap();
    let durable = over.wait().unwrap();
    while next() != (Change::Durable { lsn: durable }) {}
    // The first I/O error ends it.
    vfs.set_fault(Fault::error(EIO).on(OpKind::SyncData).forever());
    submit(&engine, 1, 2).wait().unwrap_err();
    let end = in_time("the end of the watch", move || watching.join().unwrap());
    assert_eq!(end, ErrorKind::Poisoned);
}

#[test]
fn a_closed_engine_is_not_watched_and_a_watch_keeps_none_open() {
    let vfs = SimVfs::new(5);
    let engine = open(&vfs);
    let mut watch = engine.watch().unwrap();
    drop(engine);
    assert_eq!(watch.next(), None);
    let again = open(&vfs);
    again.close().unwrap();
    assert_eq!(again.watch().unwrap_err().kind(), ErrorKind::Closed);
}
