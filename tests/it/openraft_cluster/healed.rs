//! Replicas of which entries are damaged, under openraft: they heal each other before the group is started,
//! those that are whole are started, and those that are not answer nothing.

use super::cluster::{Cluster, paused};
use super::on_09::Openraft09;
use super::on_010::Openraft010;
use super::release::Release;
use crate::support::engines::DIR;
use crate::support::files::{find, ruin};
use crate::support::openraft::{R, options};
use raftwood::Engine;
use raftwood::healing::{Healer, Standing};
use raftwood::vfs::sim::{LossPolicy, SimVfs};
use std::collections::BTreeSet;

const REPLICAS: usize = 3;
const ENTRIES: usize = 2;

struct Base {
    disks: Vec<SimVfs>,
    stored: [Vec<u8>; ENTRIES],
    acknowledged: BTreeSet<u64>,
}

/// The disks of a group that was closed, and how two acknowledged entries are stored on all of them.
async fn base<N: Release>() -> Base {
    let mut cluster = Cluster::<N>::start(95).await;
    let mut stored = [const { Vec::new() }; ENTRIES];
    let mut acknowledged = BTreeSet::new();
    for (n, stored) in (1..).zip(&mut stored) {
        let (leader, command) = cluster.write_somewhere(1000 * n).await;
        acknowledged.insert(command);
        let last = cluster.seen(leader).applied;
        *stored = cluster.nodes[&leader].engine.region(R).entry(last).unwrap().payload.to_vec();
    }
    cluster.settles_with(&acknowledged).await;
    let mut disks = Vec::new();
    for id in 1..=REPLICAS as u64 {
        disks.push(cluster.close(id).await);
    }
    Base { disks, stored, acknowledged }
}

/// Each replica asks the others until nothing more comes back.
fn heal(engines: &[Engine]) -> Vec<Standing> {
    let mut healers: Vec<Healer> = engines.iter().map(|engine| Healer::new(engine, R)).collect();
    for healer in &mut healers {
        healer.look().unwrap();
    }
    for n in 0..healers.len() {
        for peer in (0..healers.len()).filter(|peer| *peer != n) {
            let Some(question) = healers[n].question(None) else { continue };
            for answer in healers[peer].answer(&question, 0).unwrap() {
                healers[n].take(peer as u64, answer).unwrap();
            }
        }
    }
    healers.iter().map(Healer::standing).collect()
}

/// One bit for each entry of each replica: whether it is damaged. Returns whether the group recovered.
async fn case<N: Release>(damage: usize, base: &Base) -> bool {
    let is_damaged = |replica: usize, entry: usize| damage >> (replica * ENTRIES + entry) & 1 == 1;
    let disks: Vec<SimVfs> = base.disks.iter().map(|disk| disk.crash(LossPolicy::KeepAll)).collect();
    for (replica, disk) in disks.iter().enumerate() {
        for entry in (0..ENTRIES).filter(|entry| is_damaged(replica, *entry)) {
            let (path, at) = find(disk, &base.stored[entry]);
            ruin(disk, path, at + 4, 6);
        }
    }
    // From the damage alone: what nobody can give is missing at everybody.
    let is_lost = |entry: usize| (0..REPLICAS).all(|replica| is_damaged(replica, entry));
    let recovers = !(0..ENTRIES).any(is_lost);
    let engines: Vec<Engine> = disks.iter().map(|disk| options(disk).open(DIR).unwrap()).collect();
    let expected = if recovers { Standing::Whole } else { Standing::Fenced };
    assert_eq!(heal(&engines), [expected; REPLICAS], "damage {damage:06b}");

    let mut cluster = Cluster::<N>::new();
    for (id, (disk, engine)) in (1..).zip(disks.into_iter().zip(engines)) {
        if Healer::new(&engine, R).standing() == Standing::Whole {
            cluster.run_on(id, disk, engine).await;
        }
    }
    if recovers {
        cluster.settles_with(&base.acknowledged).await;
    }
    recovers && cluster.nodes.len() == REPLICAS
}

fn matrix<N: Release>(release: &str) {
    let base = paused(base::<N>());
    let cases = 1 << (REPLICAS * ENTRIES);
    let recovered = (0..cases).filter(|damage| paused(case::<N>(*damage, &base))).count();
    println!("{release}: {cases} cases, {recovered} recovered, {} unavailable, 0 unsafe", cases - recovered);
    // Each entry is whole somewhere in 7 of 8 patterns.
    assert_eq!(recovered, 7 * 7);
}

#[test]
fn replicas_heal_each_other_before_openraft_09_runs() {
    matrix::<Openraft09>("openraft 0.9");
}

#[test]
fn replicas_heal_each_other_before_openraft_010_runs() {
    matrix::<Openraft010>("openraft 0.10");
}
