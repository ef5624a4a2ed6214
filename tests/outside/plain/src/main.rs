//! The library with its default features: a log of its own, written, closed, opened, read.

use raftwood::{Durability, Engine, EntryId, ReadLimit, RegionId};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = std::env::temp_dir().join(format!("raftwood-outside-{}", std::process::id()));
    let region = RegionId(7);
    let engine = Engine::open(&dir)?;
    for index in 1..=100 {
        let mut batch = engine.batch();
        batch.region(region).append([(EntryId::new(1, index), index.to_string().as_bytes())])?;
        engine.write(batch, Durability::Synced)?;
    }
    engine.close()?;
    let engine = Engine::open(&dir)?;
    let entries = engine.region(region).entries(1..=100, ReadLimit::NONE)?;
    let wrong = entries.iter().filter(|e| e.payload != e.id.index.to_string().as_bytes()).count();
    assert_eq!((entries.len(), wrong), (100, 0));
    engine.close()?;
    std::fs::remove_dir_all(&dir)?;
    println!("100 entries, read back after a restart");
    Ok(())
}
