//! What goes wrong on the way, and that the leader does it itself then.

use super::destroyed::{append, settled};
use super::net::{MAJORITY_AT_HOME, MAJORITY_AWAY, Net, Plan, TICK};
use super::node::store_of;
use super::proposals;
use raftwood::RegionId;
use raftwood::raft_rs::{DIRECT_TICKS, Outgoing, ReadyBatch, SLOW_TICKS};

#[test]
fn an_agent_stays_the_agent_while_it_is_good() {
    let mut net = Net::new(&MAJORITY_AWAY, true);
    let mut agents = Vec::new();
    net.load(1, proposals(1, 400, 2 << 10), 2, 10_000);
    for _ in 0..40 {
        net.run_for(TICK);
        agents.extend(net.agent(1, "east"));
    }
    net.agree();
    agents.dedup();
    assert_eq!(agents.len(), 1);
}

#[test]
fn an_agent_that_dies_is_replaced_and_catches_up_when_it_is_back() {
    let proposed = proposals(1, 900, 4 << 10);
    let mut net = Net::new(&MAJORITY_AWAY, true);
    net.load(1, proposed.clone(), 3, 10_000);
    // While messages are on their way to it, and while it holds some.
    net.run_for(1_003_000);
    let agent = net.agent(1, "east").unwrap();
    net.node(agent).power_cut();
    net.run_for(1_000_000);
    assert_ne!(net.agent(1, "east").unwrap(), agent);
    net.node(agent).start();
    net.agree();
    net.nodes.keys().for_each(|store| assert_eq!(net.has_applied(*store, 1, &proposed), 900));
    // Its own copy of what it has missed came by another.
    assert!(net.copies() < 1.25, "{}", net.copies());
}

/// Nobody says that the agent is cut off: its neighbours' acknowledgements are missing.
#[test]
fn an_agent_that_is_silent_is_found_out_and_not_chosen_again() {
    let proposed = proposals(1, 600, 4 << 10);
    for plan in [MAJORITY_AWAY, MAJORITY_AT_HOME] {
        let mut net = Net::new(&plan, true);
        net.load(1, proposed.clone(), 3, 20_000);
        net.run_for(500_000);
        let agent = net.agent(1, "east").unwrap();
        net.dark.insert(agent);
        net.run_for((SLOW_TICKS + 2) * TICK);
        for _ in 0..DIRECT_TICKS - 3 {
            net.run_for(TICK);
            assert_ne!(net.agent(1, "east"), Some(agent));
        }
        let others = || net.nodes.keys().filter(|store| **store != agent);
        let reached = others().map(|store| net.has_applied(*store, 1, &proposed)).min().unwrap();
        assert!(reached > 150, "{reached} of {} so far", proposed.len());
        net.dark.clear();
        net.agree();
    }
}

/// The learner has no other agent: it is sent to directly for as long as that one is not trusted.
#[test]
fn an_agent_that_was_silent_is_not_tried_again_at_once_although_it_is_the_only_one() {
    let mut net = Net::new(&Plan { east: &[4, 6], ..MAJORITY_AT_HOME }, true);
    // So few that raft's window for the agent does not fill up: by that alone it could go on.
    net.load(1, proposals(1, 40, 1 << 10), 1, 2 * TICK);
    net.run_for(10 * TICK);
    assert_eq!(net.agent(1, "east"), Some(4));
    net.dark.insert(4);
    net.run_for((2 * SLOW_TICKS + 2) * TICK);
    net.took.clear();
    net.run_for((DIRECT_TICKS - SLOW_TICKS - 6) * TICK);
    let longest = net.took[&6].iter().max().unwrap();
    assert!(*longest < 2 * TICK, "{longest}");
    net.dark.clear();
    net.agree();
}

#[test]
fn entries_that_raft_sends_once_more_go_in_a_broadcast_of_their_own() {
    let mut net = settled();
    let message = append(&net);
    let replica = net.node(1).replicas.get_mut(&1).unwrap();
    let out = replica.route.plan(&replica.raft, vec![message.clone(), message], store_of);
    assert_eq!(out.len(), 2);
    for outgoing in out {
        let Outgoing::Broadcast(broadcast) = outgoing else { panic!("{outgoing:?}") };
        broadcast.check().unwrap();
    }
}

#[test]
fn a_slow_agent_holds_up_its_neighbours_for_a_few_ticks_and_no_longer() {
    let mut net = Net::new(&MAJORITY_AT_HOME, true);
    net.load(1, proposals(1, 400, 4 << 10), 2, 10_000);
    net.run_for(500_000);
    let agent = net.agent(1, "east").unwrap();
    net.slow.insert(agent, 600_000);
    net.run_for(1_000_000);
    assert_ne!(net.agent(1, "east"), Some(agent));
    net.agree();
    for (store, took) in net.took.iter().filter(|(store, _)| **store != agent) {
        let longest = took.iter().max().unwrap();
        assert!(*longest < (SLOW_TICKS + 4) * TICK, "store {store}: {longest}");
    }
}

#[test]
fn what_the_agent_no_longer_has_comes_from_the_leader() {
    let proposed = proposals(1, 300, 2 << 10);
    let mut net = Net::new(&MAJORITY_AWAY, true);
    net.node(5).power_cut();
    net.load(1, proposed.clone(), 3, 10_000);
    net.run_load();
    net.settle();
    net.run_for((DIRECT_TICKS + SLOW_TICKS) * TICK);
    // The agent, either of them, drops what it has applied; the leader still has it.
    for store in [3, 4] {
        let node = net.node(store);
        let mut batch = ReadyBatch::new(node.engine());
        batch.region(RegionId(1)).compact_through(node.region(1).last_index()).unwrap();
        batch.write(node.engine()).unwrap();
    }
    net.node(5).start();
    net.agree();
    assert!(net.seen().refused > 0, "the agent was asked for what it has not");
    assert_eq!(net.has_applied(5, 1, &proposed), 300);
}

#[test]
fn a_leader_whose_entries_are_far_back_reads_them_on_another_thread_meanwhile() {
    let proposed = proposals(1, 1200, 4 << 10);
    let mut net = Net::new(&MAJORITY_AWAY, true);
    net.node(5).power_cut();
    net.load(1, proposed[..1000].to_vec(), 10, 10_000);
    net.settle();
    net.run_for((DIRECT_TICKS + SLOW_TICKS) * TICK);
    let before = net.crossed[&true];
    net.node(5).start();
    net.load(1, proposed[1000..].to_vec(), 2, 10_000);
    net.agree();
    assert!(net.seen().fetched > 0);
    assert_eq!(net.has_applied(5, 1, &proposed), 1200);
    // What 5 had missed did not cross once more, but for what probed it.
    let new: usize = proposed[1000..].iter().map(Vec::len).sum();
    let copies = (net.crossed[&true] - before) as f64 / new as f64;
    assert!(copies < 1.5, "{copies}");
}

/// A leader is deposed while its broadcasts are on their way. Its agent has another log by then, and so have
/// its neighbours; none of them gets anything from it.
#[test]
fn a_broadcast_that_comes_after_the_agents_log_was_overwritten_is_refused() {
    let proposed = proposals(1, 60, 1 << 10);
    let mut net = Net::new(&Plan { max_size_per_msg: 4 << 10, ..MAJORITY_AWAY }, true);
    net.load(1, proposed[..20].to_vec(), 1, 5_000);
    net.settle();
    let agent = net.agent(1, "east").unwrap();
    let other = [3, 4, 5].into_iter().find(|store| *store != agent).unwrap();
    // What the leader sends now is on its way for longer than another one needs to be elected.
    net.load(1, proposed[20..40].to_vec(), 1, 1_000);
    net.run_for(10_000);
    // The west is cut off from here on; what it had sent before arrives.
    net.dark.extend([1, 2]);
    net.campaign(other, 1);
    let before = net.seen().refused;
    net.run_for(4 * TICK);
    assert!(net.seen().refused > before);
    net.load(1, proposed[40..].to_vec(), 1, 1_000);
    net.run_for(10 * TICK);
    net.dark.clear();
    net.agree();
    assert_eq!(net.leader(1), Some(other));
    net.nodes.keys().for_each(|store| assert_eq!(net.has_applied(*store, 1, &proposed[40..]), 20));
}
