//! A group of raft-rs with one replica, whose application chose the codec.

use raft::prelude::ConfState;
use raft::{Config, RawNode};
use raftwood::raft_rs::{ReadyBatch, RegionStorage};
use raftwood::{Engine, RegionId};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = std::env::temp_dir().join(format!("raftwood-outside-{}", std::process::id()));
    let engine = Engine::open(&dir)?;
    let region = RegionId(7);
    let storage = RegionStorage::new(&engine, region);
    let applied = storage.bootstrap(&ConfState::from((vec![1], vec![])))?.index;
    let config = Config { id: 1, applied, election_tick: 10, heartbeat_tick: 3, ..Config::default() };
    let mut node = RawNode::new(&config, storage, &slog::Logger::root(slog::Discard, slog::o!()))?;
    node.campaign()?;
    let mut applied = Vec::new();
    for number in 0..10 {
        while node.has_ready() {
            let mut ready = node.ready();
            let mut batch = ReadyBatch::new(&engine);
            batch.add_as(region, node.raft.id, &ready)?;
            batch.write(&engine)?;
            applied.extend(ready.take_committed_entries());
            let mut light = node.advance(ready);
            applied.extend(light.take_committed_entries());
            node.advance_apply();
        }
        node.propose(Vec::new(), vec![number])?;
    }
    let commands: Vec<u8> = applied.iter().flat_map(|e| e.data.to_vec()).collect();
    assert_eq!(commands, (0..9).collect::<Vec<u8>>());
    drop(node);
    engine.close()?;
    std::fs::remove_dir_all(&dir)?;
    println!("9 commands proposed, persisted and applied");
    Ok(())
}
