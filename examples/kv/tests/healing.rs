//! A node whose log was harmed while it was down: fenced, healed by the others, and nothing lost.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test")]

#[path = "support/example.rs"]
mod example;
#[path = "support/harm.rs"]
mod harm;
#[path = "support/nodes.rs"]
mod nodes;

use example::example;
use harm::harm;
use nodes::{TIMING, dump, stats, until};
use raftwood_kv::clocks::Trust;
use raftwood_kv::cluster::{Cluster, NODES};
use raftwood_kv::machine::Machine;
use raftwood_kv::wire::{Dump, Reply, Request, Via};
use std::time::Duration;

const GROUP: u64 = 1;
const KEY: u64 = 2;
const VICTIM: u64 = 3;

/// Writes the value, and comes back when it is acknowledged.
fn write(cluster: &Cluster, value: u64) {
    let mut node = 1;
    until("a write", || {
        let request = Request::Write { group: GROUP, key: KEY, value };
        match cluster.ask(node, &request, Duration::from_secs(2)) {
            Ok(Reply::Written { .. }) => return true,
            Ok(Reply::NotLeader { leader }) if leader != 0 => node = leader,
            _ => node = node % NODES + 1,
        }
        false
    });
}

#[test]
fn a_node_whose_log_was_harmed_is_fenced_healed_and_has_lost_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::start(example("kv"), dir.path(), GROUP, TIMING, Trust::Both).unwrap();
    let mut acknowledged = Vec::new();
    // What the state machine holds durably is not missed in the log: a round may find nothing to heal.
    for round in 0..10u64 {
        let values: Vec<u64> =
            (1..=20).map(|n| 0x5eed_cafe_0000_0000 | round << 16 | n << 8 | 0xb1).collect();
        values.iter().for_each(|value| write(&cluster, *value));
        acknowledged.extend(values.iter().copied());
        (1..=NODES).for_each(|node| cluster.kill(node).unwrap());
        let harmed = harm(&cluster.dir_of(VICTIM).join("log"), &values[10..]);

        cluster.start_node(VICTIM).unwrap();
        let alone = stats(&cluster, VICTIM);
        assert!(alone.lost.is_empty(), "{alone:?}");
        let is_fenced = alone.fenced == [GROUP];
        if is_fenced {
            assert!(harmed > 0);
            // Long enough for a follower to stand for election.
            std::thread::sleep(TIMING.election() * 3);
            for via in [Via::Index, Via::Lease, Via::Log] {
                let read = Request::Read { group: GROUP, key: KEY, via };
                let reply = cluster.ask(VICTIM, &read, Duration::from_secs(5)).unwrap();
                assert!(matches!(reply, Reply::NotLeader { leader: 0 }), "{reply:?}");
            }
            let alone = stats(&cluster, VICTIM);
            assert_eq!((alone.fenced, alone.leads, alone.fenced_votes), (vec![GROUP], vec![], 0));
        }
        (1..VICTIM).for_each(|node| cluster.start_node(node).unwrap());
        until("a whole replica", || stats(&cluster, VICTIM).fenced.is_empty());
        write(&cluster, 0x1000 + round);
        acknowledged.push(0x1000 + round);
        let all = |dump: &Dump| {
            let values: Vec<u64> = dump.writes.iter().map(|w| w.2).collect();
            acknowledged.iter().all(|value| values.iter().filter(|v| *v == value).count() == 1)
        };
        for node in 1..=NODES {
            until("all that was acknowledged, once", || all(&dump(&cluster, node, GROUP)));
        }
        cluster.check().unwrap();
        if is_fenced {
            let healed = stats(&cluster, VICTIM);
            println!("round {round}: {harmed} places, {healed:?}");
            assert!(healed.healed > 0 && healed.unfenced == 1, "{healed:?}");
            return;
        }
    }
    panic!("the state machine was always further than what was harmed");
}

#[test]
fn what_the_state_machine_holds_durably_is_not_missed_in_a_log_that_was_harmed() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::start(example("kv"), dir.path(), GROUP, TIMING, Trust::Both).unwrap();
    let values: Vec<u64> = (1..=10).map(|n| 0x5eed_cafe_0000_0000 | n << 8 | 0xb1).collect();
    values.iter().for_each(|value| write(&cluster, *value));
    let has_all = |dump: &Dump| values.iter().all(|value| dump.writes.iter().any(|w| w.2 == *value));
    until("all of them", || has_all(&dump(&cluster, VICTIM, GROUP)));
    let applied = dump(&cluster, VICTIM, GROUP).applied;
    // The state machine is durable a few times a second; here it has nothing else to do.
    std::thread::sleep(Duration::from_secs(1));
    (1..=NODES).for_each(|node| cluster.kill(node).unwrap());
    let machine = Machine::open(&cluster.dir_of(VICTIM).join("state.redb")).unwrap();
    assert!(machine.stands(None, &[]).unwrap()[&GROUP].applied.index >= applied);
    drop(machine);
    assert!(harm(&cluster.dir_of(VICTIM).join("log"), &values) > 0);
    // Alone: nobody is there to heal it.
    cluster.start_node(VICTIM).unwrap();
    let alone = stats(&cluster, VICTIM);
    assert!(alone.fenced.is_empty() && alone.lost.is_empty(), "{alone:?}");
    assert!(has_all(&dump(&cluster, VICTIM, GROUP)));
    (1..VICTIM).for_each(|node| cluster.start_node(node).unwrap());
    write(&cluster, 0x1000);
    cluster.check().unwrap();
}
