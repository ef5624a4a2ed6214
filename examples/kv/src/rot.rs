//! Rot in the log of a node that is down: of entries, or of its end, with all votes.

use crate::chaos::Chaos;
use crate::cluster::{Cluster, NODES};
use crate::load::Rng;
use crate::nursery::is_own;
use crate::wire::{Command, Reply, Request, Result, Stats};
use raftwood::raft_rs::decode_entry;
use raftwood::{Options, TailPolicy};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// So many groups at most lose something at once.
const GROUPS_MAX: u64 = 3;

/// So many of a log's newest entries are chosen from: what the state machine holds durably is not missed.
const NEWEST: u64 = 8;

/// A shorter payload may stand elsewhere too, in what is no entry.
const BYTES_MIN: usize = 24;

/// A node whose log was harmed is whole again by then, or something is wrong.
const PATIENCE: Duration = Duration::from_secs(60);

impl Chaos {
    /// Harms the log of a node that is about to come back, if all others are up and whole: then whatever was
    /// acknowledged is with them.
    pub fn harm(&mut self, cluster: &Cluster, id: u64) -> Result<()> {
        self.harmed.take_if(|node| is_whole(cluster, *node));
        let mut others = (1..=NODES).filter(|&node| node != id);
        if self.harms.rots == 0 && self.harms.lost_votes == 0
            || self.harmed.is_some_and(|node| node != id)
            || !others.all(|node| is_whole(cluster, node))
        {
            return Ok(());
        }
        let log = cluster.dir_of(id).join("log");
        self.harmed = Some(id);
        let harm = if self.harms.lost_votes > 0 {
            let harm = lose_votes(&log, &mut self.rng)?;
            self.harms.lost_votes -= u64::from(harm.groups > 0);
            self.done.votes_lost += harm.groups;
            harm
        } else {
            self.harms.rots -= 1;
            let harm = rot(&log, &mut self.rng)?;
            self.done.harmed += harm.groups;
            harm
        };
        self.rotten.extend(harm.values);
        Ok(())
    }

    pub fn wait_until_whole(&mut self, cluster: &Cluster) {
        let until = Instant::now() + PATIENCE;
        while self.harmed.take_if(|node| is_whole(cluster, *node)).is_none()
            && self.harmed.is_some()
            && Instant::now() < until
        {
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// Whether a node has a replica of each group that the others have, and nothing is missing in it. As long as
/// an exchange is half done, the old peer still counts: with another gone too, the group could never finish
/// it.
fn is_whole(cluster: &Cluster, node: u64) -> bool {
    let Some(own) = stats(cluster, node) else { return false };
    let others = (1..=NODES).filter(|&other| other != node && cluster.is_up(other));
    let has_all = |other: Stats| {
        other.half_done == 0 && other.spans.iter().all(|led| own.spans.iter().any(|its| its.0 == led.0))
    };
    let is_here = others.filter_map(|other| stats(cluster, other)).all(has_all);
    is_here && own.half_done == 0 && own.fenced.is_empty() && own.lost.is_empty()
}

fn stats(cluster: &Cluster, node: u64) -> Option<Stats> {
    match cluster.ask(node, &Request::Stats, Duration::from_secs(2)) {
        Ok(Reply::Stats(stats)) => Some(stats),
        _ => None,
    }
}

/// What was done to a log.
#[derive(Default)]
pub struct Harm {
    /// The groups that lost an entry, or their hard state.
    pub groups: u64,
    /// What was written there: nobody can save it from this log any more.
    pub values: Vec<u64>,
}

/// Flips a bit of one of the newest entries in some groups of this log, wherever its bytes stand.
pub fn rot(log: &Path, rng: &mut Rng) -> Result<Harm> {
    let reader = Options::new().show_unproven(true).open_read_only(log)?;
    let mut groups = reader.regions();
    let mut harm = Harm::default();
    while harm.groups < GROUPS_MAX && !groups.is_empty() {
        let group = groups.swap_remove(rng.below(groups.len() as u64) as usize);
        if group.log.is_empty() {
            continue;
        }
        let from = group.log.first.max(group.log.last.saturating_sub(NEWEST - 1));
        // What was harmed before, and is not whole again, cannot be read.
        let newest = (from..=group.log.last).filter_map(|index| reader.entry(group.id, index).ok());
        let long: Vec<_> = newest.filter(|entry| entry.payload.len() >= BYTES_MIN).collect();
        if long.is_empty() {
            continue;
        }
        let entry = &long[rng.below(long.len() as u64) as usize];
        if flip(log, &entry.payload, rng.below(entry.payload.len() as u64) as usize)? {
            harm.groups += 1;
            if let Some(Command::Write { value, .. }) = Command::of(&decode_entry(entry)?) {
                harm.values.push(value);
            }
        }
    }
    Ok(harm)
}

/// The end of the log is gone, and what an operator does then: the rest is opened all the same, and has lost
/// the hard state of every group, for the newest may have been in what is gone. Of groups that have begun
/// there nothing is left at all.
pub fn lose_votes(log: &Path, rng: &mut Rng) -> Result<Harm> {
    let before = values(log)?;
    let reader = Options::new().show_unproven(true).open_read_only(log)?;
    let groups = reader.regions().iter().filter(|region| !is_own(region.id)).count() as u64;
    let newest = reader.segments().into_iter().rfind(|segment| !segment.cold);
    drop(reader);
    let Some(newest) = newest else { return Ok(Harm::default()) };
    // Not of a file that lies ready to be written: there nothing would be lost.
    let file = File::options().write(true).open(log.join(format!("{:010}.log", newest.id)))?;
    file.set_len(newest.used_bytes / 2 + rng.below(newest.used_bytes / 4))?;
    if Options::new().open(log).is_ok() {
        return Err(format!("segment {} was cut short, and an open took no notice", newest.id).into());
    }
    Options::new().tail_policy(TailPolicy::AcceptLoss).open(log)?.close()?;
    let values = before.difference(&values(log)?).copied().collect();
    Ok(Harm { groups, values })
}

/// What was written, as far as the log can be read.
fn values(log: &Path) -> Result<BTreeSet<u64>> {
    let reader = Options::new().show_unproven(true).open_read_only(log)?;
    let mut values = BTreeSet::new();
    for group in reader.regions() {
        for index in group.log.first..=group.log.last {
            if let Ok(entry) = reader.entry(group.id, index)
                && let Some(Command::Write { value, .. }) = Command::of(&decode_entry(&entry)?)
            {
                values.insert(value);
            }
        }
    }
    Ok(values)
}

/// The files of the log with segments, in order.
fn segments(log: &Path) -> Result<Vec<PathBuf>> {
    let paths = fs::read_dir(log)?.map(|file| Ok(file?.path())).collect::<Result<Vec<_>>>()?;
    let mut segments: Vec<_> =
        paths.into_iter().filter(|path| path.extension().is_some_and(|ext| ext == "log")).collect();
    segments.sort();
    Ok(segments)
}

/// Flips a bit of this byte of what is looked for, in each place. Says whether there was one.
fn flip(log: &Path, wanted: &[u8], byte: usize) -> Result<bool> {
    let mut found = false;
    for path in segments(log)? {
        let bytes = fs::read(&path)?;
        let file = File::options().write(true).open(&path)?;
        for at in
            (0..bytes.len().saturating_sub(wanted.len() - 1)).filter(|&at| bytes[at..].starts_with(wanted))
        {
            file.write_all_at(&[bytes[at + byte] ^ 0x10], (at + byte) as u64)?;
            found = true;
        }
    }
    Ok(found)
}
