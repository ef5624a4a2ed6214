//! Which of the regions that had one id an entry was of.

use crate::support::engines::{DIR, kill, of_run};
use crate::support::two_regions::{R, append, term};
use raftwood::vfs::sim::SimVfs;
use raftwood::{BoxError, Durability, Engine, EntryId, EventListener, Lsn, Rollback};
use std::sync::{Arc, Mutex};

/// Remembers the incarnations that it was asked about.
#[derive(Default)]
struct Incarnations(Mutex<Vec<Lsn>>);

impl EventListener for Incarnations {
    fn before_rollback(&self, r: &Rollback<'_>) -> Result<(), BoxError> {
        self.0.lock().unwrap().push(r.incarnation());
        Ok(())
    }
}

impl Incarnations {
    fn take(&self) -> Vec<Lsn> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }
}

fn opened(vfs: &SimVfs, run: u64) -> (Engine, Arc<Incarnations>) {
    let listener = Arc::new(Incarnations::default());
    (of_run(vfs, run).listener(listener.clone()).open(DIR).unwrap(), listener)
}

#[test]
fn an_entry_is_named_by_the_incarnation_of_its_region_too() {
    let vfs = SimVfs::new(10);
    let (engine, listener) = opened(&vfs, 1);
    let made = |engine: &Engine| {
        let mut batch = engine.batch();
        batch.region(R).append([(EntryId::new(term(1), 1), &b"x"[..])]).unwrap();
        engine.write(batch, Durability::Synced).unwrap()
    };
    let asked = |engine: &Engine, listener: &Incarnations| {
        let next = engine.region(R).last_index() + 1;
        append(engine, R, next..=next);
        let mut batch = engine.batch();
        batch.region(R).truncate_from(next);
        engine.write(batch, Durability::Synced).unwrap();
        listener.take()
    };
    let first = made(&engine);
    assert_eq!(asked(&engine, &listener), [first]);
    // In one batch, what goes is of the region that goes.
    let mut batch = engine.batch();
    batch.region(R).committed(0).destroy().append([(EntryId::new(term(1), 1), &b"x"[..])]).unwrap();
    let second = engine.write(batch, Durability::Synced).unwrap();
    assert_eq!(listener.take(), [first]);
    assert_eq!(asked(&engine, &listener), [second]);
    assert!(second > first);
    engine.close().unwrap();
    drop(engine);
    let (engine, listener) = opened(&vfs, 2);
    assert_eq!(asked(&engine, &listener), [second]);
    let mut batch = engine.batch();
    batch.region(R).destroy();
    engine.write(batch, Durability::Synced).unwrap();
    let third = made(&engine);
    kill(&vfs, engine);
    let (engine, listener) = opened(&vfs, 3);
    let after = asked(&engine, &listener);
    assert!(after.len() == 1 && after[0] >= third, "{after:?}, made at {third}");
}
