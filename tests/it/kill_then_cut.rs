//! The process dies, and the power fails while the next one opens the store: what the first had done to names
//! and files is then still pending, and may be lost in part, while the second builds on it.

use crate::support::engines::{DIR, kill, of_run, pool_of};
use crate::support::entries::{append, compact, payload};
use raftwood::vfs::sim::{LossPolicy, Moment, SimVfs};
use raftwood::{Durability, Engine, EntryId, Options, ReadLimit, RegionId};
use std::collections::HashSet;

const R: RegionId = RegionId(7);
const LAST: u64 = 16;

fn options(vfs: &SimVfs, run: u64) -> Options {
    // Room in the pool, so that dead segments are used again.
    pool_of(of_run(vfs, run), 3)
}

fn open(vfs: &SimVfs, run: u64) -> Engine {
    options(vfs, run).open(DIR).unwrap()
}

type Act = fn(&Engine) -> bool;

/// A store with several dead segments; a purge gives their files back.
fn dead_segments() -> (SimVfs, Engine, Act) {
    let vfs = SimVfs::new(4);
    let engine = open(&vfs, 1);
    for index in 1..=LAST {
        append(&engine, R, index, 20 << 10).unwrap();
    }
    compact(&engine, R, LAST - 1).unwrap();
    (vfs, engine, |engine| engine.purge().is_ok())
}

/// A store whose former run had prepared a segment that it did not come to use; a tick gives it back.
fn unused_segment() -> (SimVfs, Engine, Act) {
    let vfs = SimVfs::new(5);
    let engine = open(&vfs, 1);
    let mut batch = engine.batch();
    batch.region(R).reset(EntryId::new(1, LAST - 1)).unwrap();
    batch.region(R).append([(EntryId::new(1, LAST), &[LAST as u8; 20 << 10][..])]).unwrap();
    engine.write(batch, Durability::Synced).unwrap();
    engine.tick().unwrap();
    kill(&vfs, engine);
    vfs.settle();
    let engine = open(&vfs, 2);
    (vfs, engine, |engine| engine.tick().is_ok())
}

fn check(engine: &Engine, what: &str) {
    assert!(engine.open_report().damage.is_empty(), "{what}");
    let read = engine.region(R).entries(.., ReadLimit::NONE).unwrap();
    assert_eq!(read.len(), 1, "{what}");
    assert_eq!((read[0].id.index, &read[0].payload[..]), (LAST, &payload(LAST, 20 << 10)[..]), "{what}");
}

#[test]
fn a_power_cut_while_a_killed_store_is_opened_loses_nothing() {
    let (mut tried, mut seen) = (0, HashSet::new());
    for make in [dead_segments, unused_segment] {
        for kill_at in 0.. {
            let (vfs, engine, act) = make();
            vfs.halt_after(vfs.ops() + kill_at);
            let done = act(&engine);
            kill(&vfs, engine);
            vfs.snapshot_every(Some(Moment::Before));
            let engine = open(&vfs, 3);
            check(&engine, "after a kill alone");
            engine.tick().unwrap();
            kill(&vfs, engine);
            for snapshot in vfs.take_snapshots() {
                for loss in losses(snapshot.pending_count()) {
                    tried += 1;
                    let what = format!("killed at {kill_at}, then {} with {loss:?}", snapshot.call());
                    let cut = snapshot.crash(loss);
                    // Most cuts leave a disk that another one left, and it is opened in the same way.
                    if !seen.insert(cut.digest()) {
                        continue;
                    }
                    match options(&cut, 4).open(DIR) {
                        Ok(engine) => check(&engine, &what),
                        Err(e) => unreachable!("{what}: {e}"),
                    }
                }
            }
            if done {
                break;
            }
        }
    }
    assert!(tried > 1000 && seen.len() > 100, "{tried} cuts, {} disks", seen.len());
}

fn losses(pending: usize) -> Vec<LossPolicy> {
    let mut losses = vec![LossPolicy::LoseAll, LossPolicy::KeepAll];
    for n in 0..pending.min(12) {
        losses.extend([LossPolicy::LoseOnly(n), LossPolicy::KeepOnly(n), LossPolicy::KeepFirst(n)]);
    }
    losses.extend((0..4).map(LossPolicy::Random).filter(|_| pending > 1));
    losses
}
