//! openraft 0.9 on a runtime of one thread: commands that cannot leave it, callbacks on it.

use openraft::storage::{RaftLogStorage, RaftLogStorageExt};
use openraft::{CommittedLeaderId, Entry, EntryPayload, LogId, RaftLogReader, Vote};
use raftwood::openraft_09::LogStore;
use raftwood::{Engine, RegionId};
use std::io::Cursor;
use std::rc::Rc;

openraft::declare_raft_types!(pub Types: D = Rc<str>, R = ());

fn entry(index: u64) -> Entry<Types> {
    let log_id = LogId::new(CommittedLeaderId::new(1, 1), index);
    Entry { log_id, payload: EntryPayload::Normal(Rc::from(index.to_string())) }
}

async fn run(dir: &std::path::Path) -> Result<(), Box<dyn std::error::Error>> {
    let engine = Engine::open(dir)?;
    let mut local = LogStore::<Types>::new(&engine, RegionId(7)).on_this_thread();
    let mut direct = LogStore::<Types>::new(&engine, RegionId(8));
    local.save_vote(&Vote::new(1, 1)).await?;
    for index in 1..=100 {
        local.blocking_append([entry(index)]).await?;
        direct.blocking_append([entry(index)]).await?;
    }
    let expected: Vec<_> = (1..=100).map(entry).collect();
    assert_eq!(local.try_get_log_entries(1..).await?, expected);
    assert_eq!(direct.try_get_log_entries(1..).await?, expected);
    assert_eq!(local.read_vote().await?, Some(Vote::new(1, 1)));
    engine.close()?;
    Ok(())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = std::env::temp_dir().join(format!("raftwood-outside-{}", std::process::id()));
    tokio::task::LocalSet::new().run_until(run(&dir)).await?;
    std::fs::remove_dir_all(&dir)?;
    println!("200 appends called back, 100 of them on the runtime's thread");
    Ok(())
}
