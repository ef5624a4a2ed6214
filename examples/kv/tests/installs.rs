//! A snapshot that is being installed: its group stands still until the state machine holds it and the log
//! fits it, and no other group does.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

#[path = "support/example.rs"]
mod example;
#[path = "support/nodes.rs"]
mod nodes;

use example::example;
use nodes::{PATIENCE, TIMING, dump, stats, until};
use raftwood::Options;
use raftwood_kv::clocks::{Trust, nanos};
use raftwood_kv::cluster::Cluster;
use raftwood_kv::machine::Machine;
use raftwood_kv::wire::{Client, Reply, Request, Via};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// The group that gets snapshots, who leads it, and who gets them.
const GROUP: u64 = 2;
const LEADER: u64 = 1;
const BYSTANDER: u64 = 2;
const INSTALLER: u64 = 3;
const GROUPS: u64 = 9;
/// More than a log keeps.
const BURST: u64 = 120;

/// Who leads a group: the one that installs has half of the others.
fn leader(group: u64) -> u64 {
    if group.is_multiple_of(2) { LEADER } else { INSTALLER }
}

fn others() -> Vec<u64> {
    (1..=GROUPS).filter(|group| *group != GROUP).collect()
}

/// Three nodes. The bystander is sent messages of the one group alone: writes to the others need both other
/// nodes.
fn start(dir: &std::path::Path) -> Cluster {
    let cluster = Cluster::start(example("kv"), dir, GROUPS, TIMING, Trust::Both).unwrap();
    for group in 1..=GROUPS {
        until("its leader", || {
            let to = leader(group);
            cluster.ask_leader(group, &Request::Transfer { group, to }, Duration::from_secs(1));
            stats(&cluster, to).leads.contains(&group)
        });
    }
    deafen(&cluster, BYSTANDER, others());
    cluster
}

fn deafen(cluster: &Cluster, node: u64, groups: Vec<u64>) {
    cluster.ask(node, &Request::Deafen { groups }, Duration::from_secs(5)).unwrap();
}

/// Writes to the group until its leader's log is shorter than what `INSTALLER` needs.
fn outrun(cluster: &Cluster, value: &mut u64) {
    deafen(cluster, INSTALLER, vec![GROUP]);
    let compactions = stats(cluster, LEADER).compactions;
    until("a compaction", || {
        for _ in 0..BURST {
            *value += 1;
            write(cluster, GROUP, *value);
        }
        stats(cluster, LEADER).compactions > compactions + 1
    });
}

fn write(cluster: &Cluster, group: u64, value: u64) {
    until("a write", || try_write(cluster, group, value, Duration::from_secs(2)));
}

fn try_write(cluster: &Cluster, group: u64, value: u64, patience: Duration) -> bool {
    let request = Request::Write { group, key: value % 4, value };
    matches!(cluster.ask(leader(group), &request, patience), Ok(Reply::Written { .. }))
}

/// Until the state machine of `INSTALLER` holds the snapshot, and nobody else there knows it.
fn park(cluster: &Cluster, value: &mut u64) {
    let hold = Request::HoldInstalls { hold: true };
    cluster.ask(INSTALLER, &hold, Duration::from_secs(5)).unwrap();
    outrun(cluster, value);
    deafen(cluster, INSTALLER, vec![]);
    until("a group that is parked", || stats(cluster, INSTALLER).installing == [GROUP]);
    let least = dump(cluster, LEADER, GROUP).applied - BURST;
    until("the snapshot in the state machine", || dump(cluster, INSTALLER, GROUP).applied >= least);
}

fn release(cluster: &Cluster) {
    let hold = Request::HoldInstalls { hold: false };
    cluster.ask(INSTALLER, &hold, Duration::from_secs(5)).unwrap();
}

/// Writes to the group through its leader.
fn write_anywhere(cluster: &Cluster, value: u64) {
    let mut node = LEADER;
    until("a write", || {
        let request = Request::Write { group: GROUP, key: 1, value };
        match cluster.ask(node, &request, Duration::from_secs(2)) {
            Ok(Reply::Written { .. }) => return true,
            Ok(Reply::NotLeader { leader }) if leader != 0 => node = leader,
            _ => node = node % 3 + 1,
        }
        false
    });
}

fn equal(cluster: &Cluster, value: u64) {
    until("equal replicas", || {
        let (one, other) = (dump(cluster, LEADER, GROUP), dump(cluster, INSTALLER, GROUP));
        one == other && one.writes.iter().any(|w| w.2 == value)
    });
}

#[test]
fn only_its_own_group_is_parked_while_a_snapshot_is_installed() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = start(dir.path());
    let mut value = 0;
    park(&cluster, &mut value);
    // Each needs the node that installs, as its leader or as its majority.
    for round in 0..20 {
        for group in others() {
            assert!(try_write(&cluster, group, 1 << 32 | round, Duration::from_secs(5)), "group {group}");
        }
    }
    // Without the bystander the group needs it too: for its writes, and then for a leader.
    let read = Request::Read { group: GROUP, key: 1, via: Via::Index };
    let reply = cluster.ask(INSTALLER, &read, Duration::from_secs(5)).unwrap();
    assert!(matches!(reply, Reply::NotLeader { .. }), "{reply:?}");
    deafen(&cluster, BYSTANDER, (1..=GROUPS).collect());
    assert!(!try_write(&cluster, GROUP, 1 << 33, Duration::from_secs(1)), "acknowledged by a parked replica");
    until("a leader that has lost its majority", || !stats(&cluster, LEADER).leads.contains(&GROUP));
    std::thread::sleep(TIMING.election() * 4);
    for node in 1..=3 {
        assert!(!stats(&cluster, node).leads.contains(&GROUP), "a parked replica has voted, or leads");
    }
    assert_eq!(stats(&cluster, INSTALLER).installing, [GROUP]);

    release(&cluster);
    write_anywhere(&cluster, 1 << 34);
    equal(&cluster, 1 << 34);
    let stats = stats(&cluster, INSTALLER);
    assert!(stats.installing.is_empty() && stats.snapshots_installed > 0, "{stats:?}");
    cluster.check().unwrap();
}

#[test]
fn a_kill_between_the_state_machine_and_the_log_leaves_a_log_that_the_start_makes_fit() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = start(dir.path());
    let mut value = 0;
    park(&cluster, &mut value);
    cluster.kill(INSTALLER).unwrap();
    {
        let node = cluster.dir_of(INSTALLER);
        let stands = Machine::open(&node.join("state.redb")).unwrap().stands(1..=GROUPS, &[]).unwrap();
        let log = Options::new().show_unproven(true).open_read_only(node.join("log")).unwrap();
        let last = log.regions().into_iter().find(|r| r.id.0 == GROUP).unwrap().log.last;
        assert!(last < stands[&GROUP].applied.index, "{last}: the log has been reset");
    }
    cluster.start_node(INSTALLER).unwrap();
    deafen(&cluster, BYSTANDER, (1..=GROUPS).collect());
    write_anywhere(&cluster, 1 << 34);
    equal(&cluster, 1 << 34);
    for group in others() {
        until("a leader", || (1..=3).any(|node| stats(&cluster, node).leads.contains(&group)));
    }
    cluster.check().unwrap();
}

#[test]
fn a_merge_ends_a_group_that_is_parked() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = start(dir.path());
    let mut value = 0;
    park(&cluster, &mut value);
    let frozen = cluster.ask_leader(GROUP, &Request::Freeze { group: GROUP }, PATIENCE);
    let Some((_, Reply::Frozen(state))) = frozen else { panic!("{frozen:?}") };
    // Its neighbour is led by the node that installs.
    let absorb = Request::Absorb { group: GROUP - 1, source: GROUP, state };
    let absorbed = cluster.ask_leader(GROUP - 1, &absorb, PATIENCE);
    assert!(matches!(absorbed, Some((INSTALLER, Reply::Done))), "{absorbed:?}");
    until("its end", || stats(&cluster, INSTALLER).buried > 0);
    release(&cluster);
    // The state machine wakes up several times a second.
    std::thread::sleep(Duration::from_secs(1));
    deafen(&cluster, BYSTANDER, vec![]);
    write_anywhere(&cluster, 1 << 34);
    until("the same groups everywhere", || {
        (1..=3).all(|node| {
            let stats = stats(&cluster, node);
            stats.installing.is_empty() && stats.spans.len() as u64 == GROUPS - 1
        })
    });
    cluster.check().unwrap();
}

/// By environment variable: how long writes to the other groups take while snapshots are installed.
/// `RAFTWOOD_KV_INSTALLS=30 cargo test --release -p raftwood-kv --test installs -- --nocapture`
#[test]
fn writes_to_other_groups_while_snapshots_are_installed() {
    let Some(rounds) = std::env::var("RAFTWOOD_KV_INSTALLS").ok().and_then(|n| n.parse::<u64>().ok()) else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let cluster = start(dir.path());
    let addrs = cluster.addrs.clone();
    let (stop, taken) = (AtomicBool::new(false), Mutex::new(Vec::new()));
    let client = |n: u64, groups: Vec<u64>| {
        let mut own = Vec::new();
        let mut clients: Vec<_> =
            addrs.iter().map(|addr| Client::connect(*addr, Duration::from_secs(10)).unwrap()).collect();
        let mut value = n << 40;
        while !stop.load(Ordering::Relaxed) {
            for &group in &groups {
                value += 1;
                let from = nanos();
                let request = Request::Write { group, key: value % 4, value };
                let reply = clients[leader(group) as usize - 1].call(&request);
                if matches!(reply, Ok(Reply::Written { .. })) {
                    own.push((leader(group), from, nanos()));
                }
            }
        }
        taken.lock().unwrap().extend(own);
    };
    std::thread::scope(|scope| {
        let mut value = 0;
        // The group of the snapshots has something to install.
        let (addrs, stop) = (&addrs, &stop);
        let fill = move |n: u64| {
            let mut client = Client::connect(addrs[LEADER as usize - 1], Duration::from_secs(10)).unwrap();
            for value in 0..1000 {
                let value = (1 << 50) + n * 1000 + value;
                client.call(&Request::Write { group: GROUP, key: value % 4, value }).unwrap();
            }
        };
        let fillers: Vec<_> = (0..16).map(|n| scope.spawn(move || fill(n))).collect();
        fillers.into_iter().for_each(|f| f.join().unwrap());
        for n in 0..4 {
            let client = &client;
            let node = if n < 2 { INSTALLER } else { LEADER };
            let led = others().into_iter().filter(|group| leader(*group) == node).collect();
            scope.spawn(move || client(n + 1, led));
        }
        let stop = Stop(stop);
        for _ in 0..rounds {
            let before = stats(&cluster, INSTALLER).snapshots_installed;
            let installed = || stats(&cluster, INSTALLER).snapshots_installed > before;
            // Whether it was this group's log that was compacted, nobody says.
            until("a snapshot", || {
                outrun(&cluster, &mut value);
                deafen(&cluster, INSTALLER, vec![]);
                let end = Instant::now() + Duration::from_secs(2);
                while !installed() && Instant::now() < end {
                    std::thread::sleep(Duration::from_millis(5));
                }
                installed()
            });
        }
        drop(stop);
    });
    let windows = stats(&cluster, INSTALLER).installs;
    let lengths = sorted(windows.iter().map(|w| w.1 - w.0).collect());
    println!(
        "{} installs, median {:.1} ms, longest {:.1} ms",
        lengths.len(),
        ms(&lengths, 0.5),
        ms(&lengths, 1.0)
    );
    let taken = taken.into_inner().unwrap();
    let meets = |op: &(u64, u64, u64)| windows.iter().any(|w| op.1 < w.1 && w.0 < op.2);
    for (what, node) in
        [("led by the one that installs", INSTALLER), ("led by another, with its vote", LEADER)]
    {
        for during in [true, false] {
            let ops = taken.iter().filter(|op| op.0 == node && meets(op) == during);
            let times = sorted(ops.map(|op| op.2 - op.1).collect());
            let when = if during { "during installs" } else { "at other times" };
            println!(
                "{what}, {when}: {} writes, ms: median {:.1}, p99 {:.1}, p99.9 {:.1}, longest {:.1}",
                times.len(),
                ms(&times, 0.5),
                ms(&times, 0.99),
                ms(&times, 0.999),
                ms(&times, 1.0)
            );
        }
    }
}

/// Ends the clients, also where the test fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn sorted(mut times: Vec<u64>) -> Vec<u64> {
    times.sort_unstable();
    times
}

fn ms(sorted: &[u64], part: f64) -> f64 {
    let at = ((sorted.len() as f64 * part).ceil() as usize).clamp(1, sorted.len().max(1)) - 1;
    sorted.get(at).map_or(0.0, |nanos| *nanos as f64 / 1e6)
}
