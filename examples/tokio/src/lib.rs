//! What a group's task needs of the engine.

use raftwood::{Change, Durability, Engine, EntryId, Error, Lsn, RegionId, Result};
use tokio::sync::mpsc::{Receiver, channel};

/// The index that the group's next entry takes.
pub fn next_index(engine: &Engine, group: u64) -> u64 {
    engine.region(RegionId(group)).last_index() + 1
}

/// Appends one entry, and comes back when it is on the device. Other tasks run meanwhile.
pub async fn append(engine: &Engine, group: u64, index: u64, command: &[u8]) -> Result<Lsn> {
    let mut batch = engine.batch();
    batch.region(RegionId(group)).append([(EntryId::new(1, index), command)])?;
    engine.write_async(batch, Durability::Synced).await.map_err(Error::from)
}

/// How the log goes on, for a task. A watch waits for its changes, so a thread does that; a task that is slow
/// makes it wait, and then the watch says what was missed.
pub fn watch(engine: &Engine) -> Result<Receiver<Change>> {
    let (send, receive) = channel(64);
    let watch = engine.watch()?;
    // Ends with the engine, or with the task.
    std::thread::spawn(move || watch.into_iter().try_for_each(|change| send.blocking_send(change)));
    Ok(receive)
}
