//! Replicas heal each other: every pattern of damage within small bounds, against what the damage alone says
//! must come of it.
//!
//! The base is the matrix of Alagappan et al., "Protocol-Aware Recovery for Consensus-Based Storage" (FAST
//! '18): four entries, each intact or faulty at each of three nodes. Real engines on simulated disks, rotten
//! bytes in real segments, and raft-rs as it is.

mod fence;
mod group;
mod image;

use group::{Begin, Group, Outcome};
use image::{Copy, Disk, Images};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use Copy::{Faulty, Intact, Suspect};

/// How many cases came out how.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Counts {
    recovered: usize,
    unavailable: usize,
}

/// Runs every combination of `disks` at three replicas, and holds each against `recovers`, which knows the
/// damage and nothing else.
fn matrix(name: &str, begin: Begin, disks: &[Disk], recovers: impl Fn(&[&Disk]) -> bool + Sync) -> Counts {
    let images = Images::of(disks);
    let count = disks.len().pow(3);
    let (next, wrong, sum) = (AtomicUsize::new(0), Mutex::new(Vec::new()), Mutex::new(Counts::default()));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, |n| n.get().min(4)) {
            scope.spawn(|| {
                loop {
                    let case = next.fetch_add(1, Ordering::Relaxed);
                    if case >= count || wrong.lock().unwrap().len() > 5 {
                        return;
                    }
                    let (n, digit) = (disks.len(), |place: u32| case / disks.len().pow(place));
                    let three = [&disks[digit(0) % n], &disks[digit(1) % n], &disks[digit(2) % n]];
                    let expected = if recovers(&three) { Outcome::Recovered } else { Outcome::Unavailable };
                    let outcome = Group::new(&three, &images).run(begin);
                    if outcome != expected {
                        let what = format!("case {case}: {outcome:?} instead of {expected:?}: {three:?}");
                        wrong.lock().unwrap().push(what);
                    }
                    let mut sum = sum.lock().unwrap();
                    sum.recovered += usize::from(outcome == Outcome::Recovered);
                    sum.unavailable += usize::from(outcome == Outcome::Unavailable);
                }
            });
        }
    });
    let (wrong, sum) = (wrong.into_inner().unwrap(), sum.into_inner().unwrap());
    assert!(wrong.is_empty(), "{name}:\n{}", wrong.join("\n"));
    println!(
        "{name}: {count} cases, {} recovered, {} unavailable, {} unsafe",
        sum.recovered,
        sum.unavailable,
        count - sum.recovered - sum.unavailable
    );
    sum
}

/// All logs of `len` entries, each a copy of one of these kinds.
fn logs(len: usize, kinds: &[Copy]) -> Vec<Vec<Copy>> {
    (0..len).fold(vec![Vec::new()], |logs, _| {
        let longer = logs.iter().flat_map(|log| kinds.iter().map(|kind| [&log[..], &[*kind]].concat()));
        longer.collect()
    })
}

fn kept(logs: Vec<Vec<Copy>>) -> Vec<Disk> {
    logs.into_iter().map(|log| Disk { log, had: None }).collect()
}

/// Whether somebody can give the n-th entry.
fn is_somewhere(disks: &[&Disk], n: usize) -> bool {
    disks.iter().any(|disk| disk.log.get(n) == Some(&Intact))
}

/// Whether each entry that may be committed, for two have acknowledged it, is whole somewhere. One that a
/// single replica has is not: the other two elect a leader, which replaces it.
fn what_two_had_is_somewhere(disks: &[&Disk]) -> bool {
    let held = |n: usize| disks.iter().filter(|disk| disk.held() > n).count();
    (0..).take_while(|&n| held(n) >= 2).all(|n| is_somewhere(disks, n))
}

#[test]
fn every_pattern_of_faulty_entries_is_recovered_where_each_entry_is_whole_somewhere() {
    let disks = kept(logs(4, &[Intact, Faulty]));
    let counts = matrix("faulty", Begin::Healed, &disks, |disks| (0..4).all(|n| is_somewhere(disks, n)));
    assert_eq!(counts, Counts { recovered: 2401, unavailable: 4096 - 2401 });
}

#[test]
fn a_fenced_replica_votes_for_one_that_is_whole_and_is_healed_by_it() {
    let disks = kept(logs(3, &[Intact, Faulty]));
    let counts = matrix("not healed before", Begin::AtOnce, &disks, |disks| {
        disks.iter().any(|disk| disk.log == [Intact; 3])
    });
    assert_eq!(counts, Counts { recovered: 512 - 7 * 7 * 7, unavailable: 7 * 7 * 7 });
}

#[test]
fn entries_that_some_never_had_are_kept_unless_a_leader_replaces_them() {
    let disks = kept((0..=3).flat_map(|len| logs(len, &[Intact, Faulty])).collect());
    let counts = matrix("missing", Begin::Healed, &disks, what_two_had_is_somewhere);
    assert_eq!(counts, Counts { recovered: 2140, unavailable: 1235 });
}

#[test]
fn suspect_tails_are_put_back_or_replaced_and_never_dropped_by_guess() {
    let mut disks =
        kept((0..=3).flat_map(|len| logs(len, &[Intact, Faulty])).filter(|l| l.len() >= 2).collect());
    for before in logs(2, &[Intact, Faulty]) {
        disks.push(Disk { log: [&before[..], &[Suspect]].concat(), had: None });
    }
    let counts = matrix("suspect", Begin::Healed, &disks, what_two_had_is_somewhere);
    assert_eq!(counts, Counts { recovered: 2156, unavailable: 1940 });
}

#[test]
fn of_lost_hard_states_none_votes_and_each_comes_back_under_a_new_id() {
    let mut disks = kept((0..=2).flat_map(|len| logs(len, &[Intact, Faulty])).collect());
    disks.extend((0..2).map(|len| Disk { log: vec![Intact; len], had: Some(2) }));
    let counts = matrix("lost hard states", Begin::Healed, &disks, |disks| {
        let stay: Vec<&Disk> = disks.iter().copied().filter(|disk| disk.had.is_none()).collect();
        let longest = stay.iter().map(|disk| disk.log.len()).max().unwrap_or(0);
        match stay.len() {
            3 => what_two_had_is_somewhere(disks),
            // Two of three can elect only with each other's vote, and the one with the longer log.
            2 => (0..longest).all(|n| is_somewhere(disks, n)),
            _ => false,
        }
    });
    assert_eq!(counts, Counts { recovered: 420, unavailable: 309 });
}
