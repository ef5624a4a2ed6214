//! Learners, changes of the configuration, changes of leader.

use super::net::{MAJORITY_AT_HOME, MAJORITY_AWAY, Net, Plan, TICK};
use super::node::first_peer;
use super::proposals;
use raft::prelude::{ConfChangeSingle, ConfChangeType, ConfChangeV2};

pub(super) fn change(parts: &[(ConfChangeType, u64)]) -> ConfChangeV2 {
    let single = |(kind, peer): &(ConfChangeType, u64)| {
        let mut change = ConfChangeSingle { node_id: *peer, ..ConfChangeSingle::default() };
        change.set_change_type(*kind);
        change
    };
    let mut changes = ConfChangeV2::default();
    changes.set_changes(parts.iter().map(single).collect::<Vec<_>>().into());
    changes
}

fn propose(net: &mut Net, parts: &[(ConfChangeType, u64)]) {
    let leader = net.leader(1).unwrap();
    let replica = net.node(leader).replicas.get_mut(&1).unwrap();
    replica.raft.propose_conf_change(vec![], change(parts)).unwrap();
    net.work(leader);
}

#[test]
fn a_learner_is_a_neighbour_and_no_agent() {
    let mut net = Net::new(&MAJORITY_AT_HOME, true);
    let proposed = proposals(1, 200, 2 << 10);
    net.load(1, proposed.clone(), 2, 10_000);
    net.run_for(500_000);
    // The voters of the east are gone; the learner is alone, and its own receiver.
    net.node(4).power_cut();
    net.node(5).power_cut();
    net.run_load();
    net.settle();
    assert_eq!(net.agent(1, "east"), None);
    assert_eq!(net.has_applied(6, 1, &proposed), 200);
}

#[test]
fn learners_are_agents_where_it_is_said_that_they_may_be() {
    for may in [false, true] {
        let mut net = Net::new(&Plan { learners: &[4, 5, 6], ..MAJORITY_AT_HOME }, true);
        if may {
            let replica = net.node(1).replicas.get_mut(&1).unwrap();
            let (updates, zones) = raftwood::raft_rs::Zones::shared();
            updates.replace((1..=6).map(|store| (store, if store < 4 { "west" } else { "east" })));
            replica.route = raftwood::raft_rs::Route::new(&zones, 1).learner_agents();
        }
        net.load(1, proposals(1, 300, 4 << 10), 3, 10_000);
        net.agree();
        assert_eq!(net.agent(1, "east").is_some(), may);
        assert_eq!(net.copies() < 1.1, may, "{}", net.copies());
    }
}

#[test]
fn a_replica_that_joins_by_a_joint_change_is_a_neighbour_at_once_and_then_perhaps_the_agent() {
    let plan = Plan { spare: &[6], ..MAJORITY_AWAY };
    let mut net = Net::new(&plan, true);
    let proposed = proposals(1, 900, 4 << 10);
    net.load(1, proposed.clone(), 3, 10_000);
    net.run_for(500_000);
    let agent = net.agent(1, "east").unwrap();
    net.node(6).join(1, first_peer(6));
    // 6 takes the agent's place.
    let (add, remove) = (ConfChangeType::AddNode, ConfChangeType::RemoveNode);
    propose(&mut net, &[(add, first_peer(6)), (remove, first_peer(agent))]);
    net.run_for(1_000_000);
    assert_ne!(net.agent(1, "east").unwrap(), agent);
    net.node(agent).destroy(1);
    net.agree();
    assert_eq!(net.has_applied(6, 1, &proposed), 900);
    assert!(net.copies() < 1.35, "{}", net.copies());
}

#[test]
fn a_new_leader_in_the_other_zone_has_agents_in_the_first() {
    let mut net = Net::new(&MAJORITY_AWAY, true);
    let proposed = proposals(1, 600, 4 << 10);
    net.load(1, proposed.clone(), 3, 10_000);
    net.run_for(700_000);
    net.campaign(4, 1);
    net.run_for(20 * TICK);
    assert_eq!(net.leader(1), Some(4));
    assert_eq!((net.agent(1, "east"), net.agent(1, "west").is_some()), (None, true));
    let (led, leads) = (&net.nodes[&1].replicas[&1].route, &net.nodes[&4].replicas[&1].route);
    assert_eq!(led.agent("east"), None, "one that does not lead has no agents");
    assert!(leads.agent("west").is_some());
    net.agree();
}
