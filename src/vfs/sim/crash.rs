//! What a crash leaves.
//!
//! All pending changes of the disk, of files and directories alike, stand in one order: that in which they
//! were made. A crash decides the fate of each and replays the survivors, in this order, over what is
//! durable. A sector that was written three times since the last sync therefore counts three changes, and
//! ends as the last one that survives.

use super::content::{Content, SectorBytes};
use super::dir::{Dir, Ino, Names};
use super::disk::Disk;
use super::file::{Change, File};
use super::{Profile, SimVfs};
use crate::limits::SECTOR;
use crate::random::Rng;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Which of the pending changes a crash takes. Changes are counted from 0, in the order made;
/// [`SimVfs::pending`] lists them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LossPolicy {
    /// Nothing unsynced survives.
    LoseAll,
    /// Everything survives: what a killed process leaves.
    KeepAll,
    /// Only this one survives.
    KeepOnly(usize),
    /// Only this one is lost.
    LoseOnly(usize),
    /// The first so many survive.
    KeepFirst(usize),
    /// The first so many are lost.
    LoseFirst(usize),
    /// The i-th survives if bit i is set; from the 65th on all are lost. `0..1 << pending_count` is
    /// all there is.
    Subset(u64),
    /// Each survives, is lost or (where the profile has it) torn, by chance; also how many are lost is.
    Random(u64),
    /// The changes before this one survive, those after it are lost, and of the sector itself only the first
    /// so many bytes are new: a device that tears even sectors.
    Torn(usize, usize),
}

impl LossPolicy {
    fn salt(self) -> u64 {
        match self {
            LossPolicy::LoseAll | LossPolicy::KeepAll => 0,
            LossPolicy::KeepOnly(n)
            | LossPolicy::LoseOnly(n)
            | LossPolicy::KeepFirst(n)
            | LossPolicy::LoseFirst(n)
            | LossPolicy::Torn(n, _) => n as u64,
            LossPolicy::Subset(bits) => bits,
            LossPolicy::Random(seed) => seed,
        }
    }
}

/// The disk at some moment, with all that was pending: a crash that can still happen, in any way.
#[derive(Clone, Debug)]
pub struct Snapshot {
    pub(super) op: u64,
    pub(super) moment: Moment,
    pub(super) call: String,
    pub(super) mark: u64,
    pub(super) disk: Disk,
}

/// When, around a call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Moment {
    /// As if the call was never made.
    Before,
    /// Half the bytes of a write are in the cache; of any other call: before.
    Middle,
    /// Done, but the caller has no answer yet.
    After,
}

impl Snapshot {
    /// The number of the call; of a snapshot by hand, the last one begun.
    pub fn op(&self) -> u64 {
        self.op
    }

    /// When, around that call.
    pub fn moment(&self) -> Moment {
        self.moment
    }

    /// The call as a line of the transcript; empty for a snapshot by hand.
    pub fn call(&self) -> &str {
        &self.call
    }

    /// What [`SimVfs::set_mark`] was last given.
    pub fn mark(&self) -> u64 {
        self.mark
    }

    /// How many changes are pending.
    pub fn pending_count(&self) -> usize {
        self.disk.pending_order().len()
    }

    /// The pending changes, for people.
    pub fn pending(&self) -> Vec<String> {
        self.disk.pending_lines()
    }

    /// A new disk as a crash at this moment would leave it: nothing pending, nobody holding a lock,
    /// no faults set.
    pub fn crash(&self, policy: LossPolicy) -> SimVfs {
        SimVfs::from_disk(self.disk.crash(policy))
    }
}

/// What becomes of a change.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fate {
    Kept,
    Lost,
    /// The device was writing it: its bytes are anything.
    Garbled,
    /// So many bytes of it are new.
    Torn(usize),
}

/// A pending change, by where it is kept.
#[derive(Clone, Copy, Debug)]
pub(super) enum Slot<'a> {
    File(Ino, &'a Change),
    Dir(&'a Path, &'a super::dir::DirChange),
}

impl Slot<'_> {
    fn is_metadata(&self) -> bool {
        !matches!(self, Slot::File(_, Change::Sector { .. }))
    }
}

impl Disk {
    /// All changes that a crash could take, in the order made, each with its number. Files without a name
    /// that could come back do not count.
    pub(super) fn pending_order(&self) -> Vec<(u64, Slot<'_>)> {
        let mut order = Vec::new();
        for (path, dir) in &self.dirs {
            order.extend(dir.pending.iter().map(|(seq, change)| (*seq, Slot::Dir(path, change))));
        }
        for (ino, file) in &self.files {
            if !file.pending.is_empty() && (file.links > 0 || self.dirs.values().any(|d| d.may_hold(*ino))) {
                order.extend(file.pending.iter().map(|(seq, change)| (*seq, Slot::File(*ino, change))));
            }
        }
        order.sort_unstable_by_key(|(seq, _)| *seq);
        order
    }

    pub(super) fn pending_lines(&self) -> Vec<String> {
        let line = |slot: &Slot<'_>| match slot {
            Slot::Dir(path, change) => format!("{}: {change}", path.display()),
            Slot::File(ino, change) => {
                let path = self.files.get(ino).map_or(Path::new("?"), |f| &f.path);
                format!("{}: {change}", path.display())
            }
        };
        self.pending_order().iter().map(|(_, slot)| line(slot)).collect()
    }

    pub(super) fn crash(&self, policy: LossPolicy) -> Disk {
        let order = self.pending_order();
        let mut fates = self.fates(policy, &order);
        if self.profile == Profile::Ext4Ordered {
            self.obey_journal(&order, &mut fates);
        }

        // What garbage looks like differs from crash to crash.
        let salt = policy.salt();
        let mut contents: BTreeMap<Ino, Content> =
            self.files.iter().map(|(ino, f)| (*ino, f.durable.clone())).collect();
        let mut names: BTreeMap<&Path, Names> =
            self.dirs.iter().map(|(path, d)| (path.as_path(), Arc::clone(&d.durable))).collect();
        for ((seq, slot), fate) in order.iter().zip(fates) {
            match slot {
                Slot::Dir(path, change) => {
                    if let (Fate::Kept, Some(names)) = (fate, names.get_mut(path)) {
                        change.apply(names);
                    }
                }
                Slot::File(ino, change) => {
                    if let Some(content) = contents.get_mut(ino) {
                        self.settle(content, change, fate, Rng::mixed(salt ^ self.seed, *seq));
                    }
                }
            }
        }
        self.remount(&contents, &names)
    }

    fn fates(&self, policy: LossPolicy, order: &[(u64, Slot<'_>)]) -> Vec<Fate> {
        let tears = self.profile.tears();
        if let LossPolicy::Random(seed) = policy {
            let mut rng = Rng::mixed(seed, self.seq);
            // From nearly nothing to nearly everything: an even coin would leave long runs unexplored.
            let kept_of_16 = 1 + rng.below(15);
            let fate = |_| match (rng.below(16) < kept_of_16, tears && rng.below(2) == 0) {
                (true, _) => Fate::Kept,
                (false, true) => Fate::Garbled,
                (false, false) => Fate::Lost,
            };
            return order.iter().map(fate).collect();
        }
        let lost = if tears { Fate::Garbled } else { Fate::Lost };
        let fate = |i: usize| {
            let kept = match policy {
                LossPolicy::LoseAll | LossPolicy::Random(_) => false,
                LossPolicy::KeepAll => true,
                LossPolicy::KeepOnly(n) => i == n,
                LossPolicy::LoseOnly(n) => i != n,
                LossPolicy::KeepFirst(n) => i < n,
                LossPolicy::LoseFirst(n) => i >= n,
                LossPolicy::Subset(bits) => i < 64 && bits >> i & 1 == 1,
                LossPolicy::Torn(n, bytes) if i == n => return Fate::Torn(bytes),
                LossPolicy::Torn(n, _) => i < n,
            };
            if kept { Fate::Kept } else { lost }
        };
        (0..order.len()).map(fate).collect()
    }

    /// ext4 with `data=ordered`: metadata reaches the disk in the order made, and no length before the bytes
    /// that it makes visible. Bytes overwritten in place are free to go when they like.
    fn obey_journal(&self, order: &[(u64, Slot<'_>)], fates: &mut [Fate]) {
        let mut committed = true;
        let mut lengthened = BTreeSet::new();
        for (i, (_, slot)) in order.iter().enumerate() {
            if slot.is_metadata() {
                committed &= fates[i] == Fate::Kept;
                if !committed {
                    fates[i] = Fate::Lost;
                }
            }
        }
        // Backwards: a length that survives takes along all that was written before it.
        for (i, (_, slot)) in order.iter().enumerate().rev() {
            match slot {
                Slot::File(ino, Change::Len(_)) if fates[i] == Fate::Kept => drop(lengthened.insert(*ino)),
                Slot::File(ino, Change::Sector { sector, .. }) if lengthened.contains(ino) => {
                    let durable = self.files.get(ino).map_or(0, |f| f.durable.len());
                    if (sector + 1) * SECTOR > durable {
                        fates[i] = Fate::Kept;
                    }
                }
                _ => {}
            }
        }
    }

    /// Brings one change into a content, as its fate has it.
    fn settle(&self, content: &mut Content, change: &Change, fate: Fate, mut rng: Rng) {
        match (fate, change) {
            (Fate::Kept, _) => change.apply(content),
            (Fate::Garbled, Change::Sector { sector, bytes, span }) => {
                let span = if self.profile == Profile::NoSafePartialSector {
                    0..SECTOR as usize
                } else {
                    span.clone()
                };
                let torn = mix(&content.sector(*sector), bytes, |old, new| {
                    let cut = span.start + rng.below(span.len() as u64 + 1) as usize;
                    match rng.below(4) {
                        // Half of it was written; or the other half.
                        0 => old[span.start..cut].copy_from_slice(&new[span.start..cut]),
                        1 => old[cut..span.end].copy_from_slice(&new[cut..span.end]),
                        2 => old[span].fill(if rng.below(2) == 0 { 0 } else { 0xff }),
                        _ => rng.fill(&mut old[span]),
                    }
                });
                content.put_sector(*sector, &torn);
            }
            (Fate::Torn(n), Change::Sector { sector, bytes, .. }) => {
                let n = n.min(SECTOR as usize);
                let torn =
                    mix(&content.sector(*sector), bytes, |old, new| old[..n].copy_from_slice(&new[..n]));
                content.put_sector(*sector, &torn);
            }
            (Fate::Lost | Fate::Garbled | Fate::Torn(_), _) => {}
        }
    }

    /// A disk on which nothing is pending: the files that still have a name, under it.
    fn remount(&self, contents: &BTreeMap<Ino, Content>, names: &BTreeMap<&Path, Names>) -> Disk {
        let mut files: BTreeMap<Ino, File> = BTreeMap::new();
        for (dir, names) in names {
            for (name, ino) in names.iter() {
                let Some(content) = contents.get(ino) else { continue };
                let file = files.entry(*ino).or_insert_with(|| {
                    let mut content = content.clone();
                    content.trim();
                    File {
                        cached: content.clone(),
                        durable: content,
                        bad: self.files.get(ino).map(|f| f.bad.clone()).unwrap_or_default(),
                        ..File::new(dir.join(&**name))
                    }
                });
                file.links += 1;
            }
        }
        let dir = |names: &Names| Dir {
            cached: Arc::clone(names),
            durable: Arc::clone(names),
            pending: Vec::new(),
        };
        let dirs: BTreeMap<PathBuf, Dir> = names.iter().map(|(p, n)| (p.to_path_buf(), dir(n))).collect();
        let seed = Rng::mixed(self.seed, self.seq).next();
        Disk {
            seed,
            rng: Rng::at(seed),
            profile: self.profile,
            capacity: self.capacity,
            files,
            dirs,
            last_ino: self.last_ino,
            seq: 0,
        }
    }
}

fn mix(old: &SectorBytes, new: &SectorBytes, edit: impl FnOnce(&mut [u8], &[u8])) -> SectorBytes {
    const ZERO: [u8; SECTOR as usize] = [0; SECTOR as usize];
    let mut bytes = old.as_deref().copied().unwrap_or(ZERO);
    edit(&mut bytes, new.as_deref().unwrap_or(&ZERO));
    Some(Arc::new(bytes))
}
