//! openraft 0.9 with a format of the application's own: no type of it knows serde.

use openraft::storage::{RaftLogStorage, RaftLogStorageExt};
use openraft::{CommittedLeaderId, Entry, EntryPayload, LogId, RaftLogReader, Vote};
use raftwood::openraft_09::{Format, LogStore};
use raftwood::{Engine, RegionId};
use std::io::Cursor;

/// Neither `Serialize` nor `Deserialize`.
#[derive(Clone, PartialEq, Debug)]
pub struct Command(String);

openraft::declare_raft_types!(pub Types: D = Command, R = ());

type Failed = Box<dyn std::error::Error + Send + Sync>;

/// Numbers in eight bytes, then the text.
struct Plain;

fn number(bytes: &[u8], at: usize) -> Result<u64, Failed> {
    Ok(u64::from_le_bytes(bytes.get(at..at + 8).ok_or("too short")?.try_into()?))
}

impl Format<LogId<u64>> for Plain {
    fn encode(id: &LogId<u64>, out: &mut Vec<u8>) -> Result<(), Failed> {
        [id.leader_id.term, id.leader_id.node_id, id.index].iter().for_each(|n| out.extend(n.to_le_bytes()));
        Ok(())
    }

    fn decode(bytes: &[u8]) -> Result<LogId<u64>, Failed> {
        let leader = CommittedLeaderId::new(number(bytes, 0)?, number(bytes, 8)?);
        Ok(LogId::new(leader, number(bytes, 16)?))
    }
}

impl Format<Vote<u64>> for Plain {
    fn encode(vote: &Vote<u64>, out: &mut Vec<u8>) -> Result<(), Failed> {
        let node = vote.leader_id.voted_for().ok_or("no candidate")?;
        [vote.leader_id.term, node, vote.committed.into()].iter().for_each(|n| out.extend(n.to_le_bytes()));
        Ok(())
    }

    fn decode(bytes: &[u8]) -> Result<Vote<u64>, Failed> {
        let (term, node) = (number(bytes, 0)?, number(bytes, 8)?);
        Ok(if number(bytes, 16)? == 1 { Vote::new_committed(term, node) } else { Vote::new(term, node) })
    }
}

impl Format<Entry<Types>> for Plain {
    fn encode(entry: &Entry<Types>, out: &mut Vec<u8>) -> Result<(), Failed> {
        Plain::encode(&entry.log_id, out)?;
        match &entry.payload {
            EntryPayload::Normal(Command(text)) => out.extend(text.as_bytes()),
            _ => return Err("this program has commands only".into()),
        }
        Ok(())
    }

    fn decode(bytes: &[u8]) -> Result<Entry<Types>, Failed> {
        let text = String::from_utf8(bytes.get(24..).ok_or("too short")?.to_vec())?;
        Ok(Entry { log_id: Plain::decode(bytes)?, payload: EntryPayload::Normal(Command(text)) })
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = std::env::temp_dir().join(format!("raftwood-outside-bare-{}", std::process::id()));
    let vote = Vote::new_committed(1, 1);
    let entry = |index: u64| Entry {
        log_id: LogId::new(CommittedLeaderId::new(1, 1), index),
        payload: EntryPayload::Normal(Command(index.to_string())),
    };
    let entries: Vec<Entry<Types>> = (1..=100).map(entry).collect();
    let engine = Engine::open(&dir)?;
    let mut store = LogStore::<Types, Plain>::with_format(&engine, RegionId(7));
    store.save_vote(&vote).await?;
    store.blocking_append(entries.clone()).await?;
    engine.close()?;
    drop((store, engine));

    let engine = Engine::open(&dir)?;
    let mut store = LogStore::<Types, Plain>::with_format(&engine, RegionId(7));
    assert_eq!(store.read_vote().await?, Some(vote));
    assert_eq!(store.try_get_log_entries(1..).await?, entries);
    engine.close()?;
    std::fs::remove_dir_all(&dir)?;
    println!("100 entries came back in a format of their own");
    Ok(())
}
