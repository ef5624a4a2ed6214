//! openraft 0.10 on a runtime of one thread: commands that cannot leave it, callbacks on it.

use openraft::entry::RaftEntry;
use openraft::impls::leader_id_std;
use openraft::storage::{RaftLogStorage, RaftLogStorageExt};
use openraft::type_config::alias::{EntryOf, VoteOf};
use openraft::{EntryPayload, LogId, RaftLogReader};
use openraft_rt_tokio::TokioRuntime;
use raftwood::openraft_010::LogStore;
use raftwood::{Engine, RegionId};
use std::rc::Rc;

openraft::declare_raft_types!(
    pub Types:
        D = Rc<str>,
        R = (),
        LeaderId = leader_id_std::LeaderId<u64, u64>,
        AsyncRuntime = TokioRuntime,
);

fn entry(index: u64) -> EntryOf<Types> {
    EntryOf::<Types>::new(LogId::new_term_index(1, index), EntryPayload::Normal(Rc::from(index.to_string())))
}

async fn run(dir: &std::path::Path) -> Result<(), Box<dyn std::error::Error>> {
    let engine = Engine::open(dir)?;
    let mut local = LogStore::<Types>::new(&engine, RegionId(7)).on_this_thread();
    let mut direct = LogStore::<Types>::new(&engine, RegionId(8));
    local.save_vote(&VoteOf::<Types>::new(1, 1)).await?;
    for index in 1..=100 {
        local.blocking_append([entry(index)]).await?;
        direct.blocking_append([entry(index)]).await?;
    }
    let expected: Vec<_> = (1..=100).map(entry).collect();
    let mut reader = local.get_log_reader().await;
    assert_eq!(reader.try_get_log_entries(1..).await?, expected);
    assert_eq!(direct.get_log_reader().await.try_get_log_entries(1..).await?, expected);
    assert_eq!(reader.read_vote().await?, Some(VoteOf::<Types>::new(1, 1)));
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
