//! Small complete stores, harmed in every way: each bit flipped, each sector zeroed, each file cut,
//! removed or swapped.
//!
//! Nothing that was acknowledged may be lost without a word, and nothing that is wrong may be
//! handed out. The counts are printed: run with `--nocapture`. The ordinary run flips every
//! seventh bit; `FLIP=all` flips all.

mod oracle;

use crate::support::files::is_a;
use crate::support::stores::{self, Store, third_of};
use oracle::{Outcome, sweep};
use raftwood::vfs::sim::{LossPolicy, SimVfs};
use std::path::{Path, PathBuf};

fn stores() -> [Store; 3] {
    [stores::closed(), stores::proven_tail(), stores::unproven_group()]
}

/// Every bit of the bytes that mean something.
fn bits(store: &Store) -> Vec<(PathBuf, u64)> {
    let mut out = Vec::new();
    for (path, _) in store.files() {
        let used = store.used_bytes(&path);
        println!("    {}: {} bytes", path.display(), used.len());
        out.extend(used.iter().flat_map(|at| (at * 8..at * 8 + 8).map(|bit| (path.clone(), bit))));
    }
    out
}

#[test]
fn no_flipped_bit_loses_an_acknowledged_entry_or_stops_more_than_its_own_region() {
    let (mut flips, mut stopped) = (0, 0);
    let all = std::env::var("FLIP").is_ok_and(|which| which == "all");
    for (n, store) in stores().into_iter().enumerate() {
        let mut bits = bits(&store);
        if !all {
            // Seven and eight have no factor in common: each bit of a byte has its turn.
            bits = bits.into_iter().skip(n).step_by(7).collect();
        }
        let (tally, _) = sweep(&store, &bits, false, |vfs, (path, bit)| vfs.flip_bit(path, *bit).unwrap());
        tally.check(store.name);
        assert!(tally.mean() < 1.1, "{}: {} regions stop on average", store.name, tally.mean());
        flips += tally.tried;
        stopped += tally.stopped;
    }
    println!("{flips} flips, {:.4} regions stopped on average", stopped as f64 / flips as f64);
    assert!(flips >= if all { 131_072 } else { 18_724 }, "only {flips} flips");
}

#[test]
fn no_zeroed_sector_loses_an_acknowledged_entry_without_a_word() {
    for store in stores().into_iter().chain([stores::thirds(), stores::idle()]) {
        let mut sectors: Vec<(PathBuf, u64)> = Vec::new();
        for (path, _) in store.files() {
            let mut used: Vec<u64> = store.used_bytes(&path).iter().map(|at| at / 512).collect();
            used.dedup();
            sectors.extend(used.into_iter().map(|sector| (path.clone(), sector)));
        }
        let zero = |vfs: &SimVfs, (path, sector): &(PathBuf, u64)| vfs.zero_sector(path, *sector).unwrap();
        // Of a store that was killed in the midst of writing, nothing but the last groups themselves says
        // that they were acknowledged.
        let (proven, last): (Vec<_>, Vec<_>) =
            sectors.into_iter().partition(|(path, sector)| store.is_proven(path, *sector));
        sweep(&store, &proven, false, zero).0.check(store.name);
        sweep(&store, &last, true, zero).0.check(&format!("{}, its last groups", store.name));
    }
}

#[test]
fn no_cut_file_loses_an_acknowledged_entry_without_a_word() {
    for store in stores().into_iter().chain([stores::thirds()]) {
        let mut cuts: Vec<(PathBuf, u64)> = Vec::new();
        for (path, len) in store.files() {
            let end = store.used_bytes(&path).last().map_or(0, |last| last + 1);
            let odd = [1, 127, 129, 4095, 4097, end / 2, end.saturating_sub(1), end, len - 1];
            let mut lens: Vec<u64> = (0..len).step_by(512).chain(odd).filter(|l| *l < len).collect();
            lens.sort_unstable();
            lens.dedup();
            cuts.extend(lens.into_iter().map(|l| (path.clone(), l)));
        }
        let cut = |vfs: &SimVfs, (path, len): &(PathBuf, u64)| vfs.set_file_len(path, *len).unwrap();
        sweep(&store, &cuts, true, cut).0.check(store.name);
    }
}

/// A segment that nothing has named yet, neither a checkpoint nor a later segment, can only vanish
/// without a trace.
fn is_known(store: &Store, path: &Path) -> bool {
    let newest = store.files().into_iter().map(|f| f.0).filter(|p| is_a(p, "log")).max();
    store.prefixes.is_empty() || Some(path) != newest.as_deref()
}

#[test]
fn no_removed_file_loses_an_acknowledged_entry_without_a_word() {
    for store in stores().into_iter().chain([stores::thirds()]) {
        let files: Vec<PathBuf> =
            store.files().into_iter().map(|f| f.0).filter(|path| is_known(&store, path)).collect();
        let remove = |vfs: &SimVfs, path: &PathBuf| vfs.remove_file(path).unwrap();
        sweep(&store, &files, true, remove).0.check(store.name);
    }
}

#[test]
fn no_two_files_swapped_lose_an_acknowledged_entry_without_a_word() {
    for store in stores().into_iter().chain([stores::thirds()]) {
        let files: Vec<PathBuf> = store.files().into_iter().map(|f| f.0).collect();
        let mut pairs = Vec::new();
        for (n, a) in files.iter().enumerate() {
            pairs.extend(files[n + 1..].iter().map(|b| (a.clone(), b.clone())));
        }
        let swap = |vfs: &SimVfs, (a, b): &(PathBuf, PathBuf)| {
            let (x, y) = (vfs.read_file(a).unwrap(), vfs.read_file(b).unwrap());
            vfs.write_file(a, &y).unwrap();
            vfs.write_file(b, &x).unwrap();
        };
        sweep(&store, &pairs, true, swap).0.check(store.name);
    }
}

#[test]
fn a_sealed_segment_cut_missing_or_foreign_damages_only_the_entries_in_it() {
    let store = stores::thirds();
    let foreign = stores::proven_tail().disk.crash(LossPolicy::KeepAll);
    let foreign = foreign.read_file("/db/0000000001.log").unwrap();
    let mut logs: Vec<PathBuf> = store.files().into_iter().map(|f| f.0).collect();
    logs.retain(|path| is_a(path, "log"));
    logs.sort();
    for third in 0..3 {
        let path = &logs[third as usize];
        let harm = |vfs: &SimVfs, how: &&str| match *how {
            "cut" => vfs.set_file_len(path, 4096).unwrap(),
            "gone" => vfs.remove_file(path).unwrap(),
            "empty" => vfs.set_file_len(path, 0).unwrap(),
            _ => vfs.write_file(path, &foreign).unwrap(),
        };
        let (tally, outcomes) = sweep(&store, &["cut", "gone", "empty", "foreign"], false, harm);
        tally.check(&format!("segment {}", path.display()));
        for (n, outcome) in outcomes {
            let expected = Outcome::Open { damaged: third_of(third).collect() };
            assert_eq!(outcome, expected, "harm {n} to {}", path.display());
        }
    }
}
