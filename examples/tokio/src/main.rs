//! Many groups on a runtime of one thread: what waits for the disk does so on the engine's threads.
//!
//! ```sh
//! cargo run --example tokio_tasks -- /tmp/raftwood-tokio
//! ```

use raftwood::{Change, Engine, Lsn};
use raftwood_tokio::{append, next_index, watch};
use std::error::Error;
use std::path::PathBuf;
use tokio::task::JoinSet;

const GROUPS: u64 = 64;
const ENTRIES: u64 = 20;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let default = || std::env::temp_dir().join("raftwood-tokio");
    let dir = std::env::args_os().nth(1).map_or_else(default, PathBuf::from);
    let engine = Engine::open_async(&dir).await?;

    // Somebody waits for positions that others write: what may be sent, say.
    let mut changes = watch(&engine)?;
    let sender = tokio::spawn(async move {
        let mut durable = Lsn::ZERO;
        while let Some(change) = changes.recv().await {
            if let Change::Durable { lsn } = change {
                durable = lsn;
            }
        }
        durable
    });

    let mut groups = JoinSet::new();
    for group in 1..=GROUPS {
        let engine = engine.clone();
        groups.spawn(async move {
            let first = next_index(&engine, group);
            for index in first..first + ENTRIES {
                append(&engine, group, index, format!("command {index}").as_bytes()).await?;
            }
            Ok::<_, raftwood::Error>(())
        });
    }
    while let Some(group) = groups.join_next().await {
        group??;
    }
    let stats = engine.stats();
    engine.close_async().await?;
    println!("{} batches of {GROUPS} groups shared {} syncs", stats.batches, stats.syncs);
    println!("durable up to {}, in {}", sender.await?, dir.display());
    Ok(())
}
