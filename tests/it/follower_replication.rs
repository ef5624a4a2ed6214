//! Follower replication: the leader's entries cross into another zone once, and its followers
//! there have them all the same.

mod agents;
mod delegated;
mod destroyed;
mod failures;
mod figures;
mod frame;
mod histories;
mod membership;
mod net;
mod node;

use net::{MAJORITY_AT_HOME, MAJORITY_AWAY, Net, Plan};
use raftwood::random::Rng;

/// So many proposals of `len` bytes that do not compress, each another.
pub(crate) fn proposals(seed: u64, count: usize, len: usize) -> Vec<Vec<u8>> {
    let mut rng = Rng::new(seed);
    let one = |_| (0..len.div_ceil(8)).flat_map(|_| rng.next().to_le_bytes()).take(len).collect();
    (0..count).map(one).collect()
}

#[test]
fn entries_cross_into_a_zone_once_and_every_log_there_is_the_same() {
    for plan in [MAJORITY_AT_HOME, MAJORITY_AWAY] {
        let copies = [false, true].map(|relayed| {
            let mut net = Net::new(&plan, relayed);
            let proposed = proposals(1, 600, 6 << 10);
            net.load(1, proposed.clone(), 5, 5_000);
            net.agree();
            let seen = net.seen();
            assert_eq!(seen.handed_on > 0, relayed);
            assert_eq!((seen.refused, seen.rejections, seen.misdirected), (0, 0, 0), "nothing was in vain");
            net.nodes.keys().for_each(|store| assert_eq!(net.has_applied(*store, 1, &proposed), 600));
            net.copies()
        });
        assert!(copies[0] > 2.95 && copies[1] < 1.05, "{copies:?}");
    }
}

#[test]
fn what_the_leaders_own_zone_has_and_stores_of_no_known_zone_are_sent_to_directly() {
    let mut net = Net::new(&MAJORITY_AWAY, true);
    net.updates.replace([(1, "west"), (2, "west"), (3, "east"), (4, "east")]);
    net.load(1, proposals(1, 100, 1 << 10), 1, 5_000);
    net.agree();
    // Of the east, 5 is not known: it gets its own copy.
    assert!((1.9..2.4).contains(&net.copies()), "{}", net.copies());
    net.updates.replace([(3, "east"), (4, "east"), (5, "east")]);
    let before = net.seen().handed_on;
    net.load(1, proposals(2, 100, 1 << 10), 1, 5_000);
    net.agree();
    assert_eq!(net.seen().handed_on, before, "the leader does not know its own zone");
}

#[test]
fn many_groups_have_their_leaders_in_both_zones() {
    let leaders = &[1, 2, 3, 4, 5, 1, 2, 3, 4, 5, 1, 3];
    let mut net = Net::new(&Plan { leaders, ..MAJORITY_AWAY }, true);
    for group in 1..=net.groups {
        net.load(group, proposals(group, 60, 3 << 10), 2, 10_000);
    }
    net.agree();
    let leave_west = leaders.iter().filter(|store| **store < 3).count() as f64 / leaders.len() as f64;
    let enter_west = 1.0 - leave_west;
    let crossed = |leaves: bool| net.crossed[&leaves] as f64 / net.payload as f64;
    assert!(crossed(true) < leave_west * 1.15, "{} of {leave_west}", crossed(true));
    assert!(crossed(false) < enter_west * 1.15, "{} of {enter_west}", crossed(false));
}
