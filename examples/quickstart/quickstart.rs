//! The smallest useful program: write for two regions, roll one back, compact the other, reopen, read.
//!
//! `cargo run -p raftwood-quickstart --example quickstart -- some-directory`

use raftwood::{Durability, Engine, EntryId, EntryRef, ReadLimit, RegionId};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = std::env::args().nth(1).unwrap_or_else(|| "quickstart-data".to_string());
    let (a, b) = (RegionId(7), RegionId(9));

    let engine = Engine::open(&dir)?;
    let next = engine.region(a).last_index() + 1;
    let entry = |term, index, payload| EntryRef { id: EntryId::new(term, index), payload };

    // One batch, two regions, one sync: after a crash all of it is there or none.
    let mut batch = engine.batch();
    batch
        .region(a)
        .append([entry(1, next, b"put x 1".as_slice()), entry(1, next + 1, b"put x 2")])?
        .set_hard_state(b"term 1, vote 3")?;
    batch.region(b).append([entry(1, engine.region(b).last_index() + 1, b"put y 1".as_slice())])?;
    let lsn = engine.write(batch, Durability::Synced)?;
    println!("durable up to {lsn}");

    // A new leader's entry at an index that exists discards what stood there.
    let mut batch = engine.batch();
    batch.region(a).append([entry(2, next + 1, b"put x 3".as_slice())])?;
    batch.region(b).compact_through(engine.region(b).last_index())?;
    engine.write(batch, Durability::Synced)?;
    engine.close()?;

    let engine = Engine::open(&dir)?;
    for e in engine.region(a).entries(next.., ReadLimit::NONE)? {
        println!("region {a}, entry {}: {}", e.id, String::from_utf8_lossy(&e.payload));
    }
    println!("region {b}: {:?}", engine.region(b).state());
    println!("reopened in {:?}", engine.open_report().times.total);
    Ok(())
}
