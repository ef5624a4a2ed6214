//! What it saves, and what it costs: a table, by `-- --nocapture`.

use super::net::{MAJORITY_AT_HOME, MAJORITY_AWAY, Net, Plan, TICK};
use super::proposals;

/// What happens in a run.
#[derive(Clone, Copy, PartialEq)]
enum Events {
    Nothing,
    /// An agent that is slow for a second, one that is cut off with its log, a change of leader within the
    /// zone, and with it entries that conflict.
    Everything,
}

struct Row {
    copies: f64,
    back: f64,
    /// From the proposal until a majority has it, and until the other zone has applied it: half of the
    /// entries, 99 of 100, all.
    committed: [u64; 3],
    applied: [u64; 3],
}

fn run(plan: &Plan, relayed: bool, events: Events) -> Row {
    let mut net = Net::new(plan, relayed);
    let proposed = proposals(7, 2000, 6 << 10);
    net.load(1, proposed.clone(), 4, 6_000);
    if events == Events::Everything {
        net.run_for(500_000);
        let slow = net.agent(1, "east").unwrap_or(plan.east[0]);
        net.slow.insert(slow, 400_000);
        net.run_for(1_000_000);
        net.slow.clear();
        // What the leader sends from here on stays in its zone's wires: its successor overwrites it.
        net.dark.insert(1);
        net.run_for(20_000);
        net.campaign(2, 1);
        net.run_for(5 * TICK);
        net.dark.clear();
        net.run_for(250_000);
        let dies = net.agent(1, "east").unwrap_or(plan.east[0]);
        net.node(dies).power_cut();
        net.run_for(400_000);
        net.node(dies).start();
    }
    net.agree();
    for store in net.nodes.keys() {
        assert!(net.has_applied(*store, 1, &proposed) > 1950, "store {store}");
    }
    let at = |stores: &[u64]| {
        let mut took: Vec<_> = stores.iter().flat_map(|store| net.took[store].iter().copied()).collect();
        took.sort();
        [took[took.len() / 2], took[took.len() * 99 / 100], took[took.len() - 1]]
    };
    let leader = net.leader(1).unwrap();
    let back = net.crossed[&false] as f64 / net.payload as f64;
    Row { copies: net.copies(), back, committed: at(&[leader]), applied: at(plan.east) }
}

#[test]
fn a_zone_of_three_gets_one_copy_instead_of_three() {
    let ms = |micros: [u64; 3]| micros.map(|us| format!("{:.1}", us as f64 / 1000.0)).join(" / ");
    println!("| majority | run | relayed | copies out | copies back | committed, ms | applied there, ms |");
    println!("|---|---|---|---|---|---|---|");
    for (name, plan) in [("at home", MAJORITY_AT_HOME), ("away", MAJORITY_AWAY)] {
        for (what, events) in [("steady", Events::Nothing), ("eventful", Events::Everything)] {
            let [without, with] = [false, true].map(|relayed| {
                let row = run(&plan, relayed, events);
                let Row { copies, back, committed, applied } = &row;
                println!(
                    "| {name} | {what} | {} | {copies:.2} | {back:.2} | {} | {} |",
                    if relayed { "yes" } else { "no" },
                    ms(*committed),
                    ms(*applied)
                );
                row
            });
            assert!(without.copies > 2.9, "{}", without.copies);
            match events {
                Events::Nothing => assert!(with.copies < 1.05, "{}", with.copies),
                Events::Everything => assert!(with.copies < 1.6, "{}", with.copies),
            }
        }
    }
}
