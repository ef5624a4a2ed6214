//! What is done to a store, one thing at a time.

use super::stores::Store;
use crate::support::files::{Files, is_a};
use crate::support::model::Rng;
use crate::support::oracle::Entries;
use raftwood::vfs::sim::SimVfs;
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

/// Bytes written over bytes, or a file gone or cut.
#[derive(Clone)]
pub(crate) struct Harm {
    pub(crate) what: String,
    /// What stands at these places afterwards.
    pub(crate) writes: Vec<(PathBuf, usize, Vec<u8>)>,
    pub(crate) removed: Vec<PathBuf>,
    /// Bytes that the device cannot read any more, whole sectors.
    pub(crate) unreadable: Option<(PathBuf, usize, usize)>,
    pub(crate) cut: Option<(PathBuf, usize)>,
    /// How many bits were flipped, if that is what was done.
    pub(crate) bits: u64,
}

/// What stood in the harmed bytes.
pub(crate) struct Hit {
    /// Live payloads.
    pub(crate) entries: Entries,
    /// What describes batches in an unsealed log, of which there is one copy.
    pub(crate) describes: bool,
    /// Bytes of the last group, which nothing proves.
    pub(crate) unproven: bool,
    /// A segment and its footer, or all checkpoints and something else: more than one fault may cost more.
    pub(crate) both_homes: bool,
}

impl fmt::Debug for Harm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl Harm {
    fn new(what: String) -> Harm {
        Harm { what, writes: Vec::new(), removed: Vec::new(), unreadable: None, bits: 0, cut: None }
    }

    pub(crate) fn apply(&self, vfs: &SimVfs) {
        for (path, at, bytes) in &self.writes {
            vfs.write_bytes(path, *at as u64, bytes).unwrap();
        }
        for path in &self.removed {
            vfs.remove_file(path).unwrap();
        }
        if let Some((path, at, len)) = &self.unreadable {
            for sector in at / 512..(at + len).div_ceil(512) {
                vfs.add_bad_sector(path, sector as u64).unwrap();
            }
        }
        if let Some((path, len)) = &self.cut {
            vfs.set_file_len(path, *len as u64).unwrap();
        }
    }

    /// The bytes that are other ones than before.
    fn changed(&self, store: &Store) -> BTreeMap<PathBuf, Vec<usize>> {
        let mut changed: BTreeMap<PathBuf, Vec<usize>> = BTreeMap::new();
        for (path, at, bytes) in &self.writes {
            let old = &store.files[path][*at..*at + bytes.len()];
            let other = old.iter().zip(bytes).enumerate().filter(|(_, (o, n))| o != n);
            changed.entry(path.clone()).or_default().extend(other.map(|(i, _)| at + i));
        }
        for path in &self.removed {
            changed.insert(path.clone(), (0..store.files[path].len()).collect());
        }
        if let Some((path, at, len)) = &self.unreadable {
            changed.insert(path.clone(), (*at..at + len).collect());
        }
        if let Some((path, len)) = &self.cut {
            changed.insert(path.clone(), (*len..store.files[path].len()).collect());
        }
        changed.retain(|_, at| !at.is_empty());
        changed
    }

    /// What stood there; `None` when every byte is what it was.
    pub(crate) fn hit(&self, store: &Store) -> Option<Hit> {
        let changed = self.changed(store);
        if changed.is_empty() {
            return None;
        }
        let mut entries = Entries::new();
        let mut describes = false;
        let mut unproven = false;
        let footer_too =
            changed.keys().any(|p| changed.contains_key(&p.with_extension("foot")) && Store::is_segment(p));
        let checkpoints = |p: &&PathBuf| is_a(p, "ckpt");
        let no_checkpoint =
            changed.keys().filter(checkpoints).count() == store.files.keys().filter(checkpoints).count();
        for (path, changed) in &changed {
            let placed = store.placed.get(path).map_or(&[][..], |p| p);
            let unsealed = store.is_unsealed(path);
            let used = store.used(path);
            let group = store.group.as_ref().filter(|(log, _)| log == path);
            for at in changed {
                let mut payload = false;
                unproven |= group.is_some_and(|(_, start)| at >= start);
                for (range, id, index) in placed {
                    if range.contains(at) {
                        payload = true;
                        entries.insert((*id, *index));
                    }
                }
                // A record may stand where the next one's header would: if that cannot be read, nobody knows.
                let next = self.unreadable.is_some() && *at < used + 64;
                let may_describe = *at < used && (!payload || store.kind.lz4) || next && !payload;
                describes |= unsealed && *at >= 4096 && may_describe;
            }
        }
        Some(Hit {
            entries,
            describes,
            unproven,
            both_homes: footer_too || no_checkpoint && changed.len() > 1,
        })
    }
}

/// The sectors worth a look: all that are used, and some of those that are not.
fn sectors(store: &Store, size: usize, every_unused: usize) -> Vec<(PathBuf, usize)> {
    let mut all = Vec::new();
    for (path, bytes) in &store.files {
        let used = store.used(path);
        // The last block of a segment may have a meaning of its own.
        let last = bytes.len().saturating_sub(4096);
        for at in (0..bytes.len()).step_by(size) {
            let worth = at < used || at >= last || (at / size).is_multiple_of(every_unused);
            if worth {
                all.push((path.clone(), at));
            }
        }
    }
    all
}

fn slice(files: &Files, path: &Path, at: usize, size: usize) -> Vec<u8> {
    let bytes = &files[path];
    bytes[at..bytes.len().min(at + size)].to_vec()
}

/// What stood there once: in an older state of the file, or in another generation of a recycled one.
fn older(store: &Store, path: &Path, at: usize, now: &[u8]) -> Option<Vec<u8>> {
    let fits = |bytes: &[u8]| {
        let old = bytes.get(at..at + now.len())?;
        (old != now).then(|| old.to_vec())
    };
    for stage in store.older.iter().rev() {
        if let Some(old) = stage.get(path).and_then(|b| fits(b)) {
            return Some(old);
        }
    }
    if !Store::is_segment(path) {
        return None;
    }
    let used = |bytes: &Vec<u8>| bytes.iter().any(|b| *b != 0);
    let others = store.older.iter().flat_map(|s| s.iter().filter(|(p, _)| Store::is_segment(p)));
    others.filter_map(|(_, bytes)| fits(bytes)).find(used)
}

/// All harms of one family.
pub(crate) fn harms(store: &Store, family: &str, large: bool) -> Vec<Harm> {
    let mut rng = Rng::new(0x5eed ^ store.name.len() as u64);
    let mut all = Vec::new();
    let every_unused = if large { 1 } else { 24 };
    let sizes: &[usize] = &[512, 4096];
    match family {
        "zeroed" | "random" | "older" | "exchanged" => {
            for size in sizes {
                let places = sectors(store, *size, every_unused);
                // The first rule is tried on each sector always, the others on every third small one.
                let step = if *size == 512 && family != "zeroed" && !large { 3 } else { 1 };
                for (path, at) in places.iter().step_by(step) {
                    let now = slice(&store.files, path, *at, *size);
                    let mut harm = Harm::new(format!("{family} {size} B at {} of {}", at, path.display()));
                    match family {
                        "zeroed" => harm.writes.push((path.clone(), *at, vec![0; now.len()])),
                        "random" => harm.writes.push((path.clone(), *at, rng.bytes(now.len()))),
                        "older" => match older(store, path, *at, &now) {
                            Some(old) => harm.writes.push((path.clone(), *at, old)),
                            None => continue,
                        },
                        _ => {
                            let (other, there) = &places[rng.below(places.len() as u64) as usize];
                            let that = slice(&store.files, other, *there, *size);
                            if that.len() != now.len() || that == now {
                                continue;
                            }
                            harm.what += &format!(" with {there} of {}", other.display());
                            harm.writes.push((path.clone(), *at, that));
                            harm.writes.push((other.clone(), *there, now));
                        }
                    }
                    all.push(harm);
                }
            }
        }
        "flips in a block" | "flips in a file" | "flips all over" => {
            let rounds = if large { 100 } else { 6 };
            let places: Vec<(PathBuf, usize)> = store
                .files
                .keys()
                .map(|p| (p.clone(), store.used(p)))
                .filter(|(_, used)| *used > 0)
                .collect();
            let total: usize = places.iter().map(|p| p.1).sum();
            for bits in [1, 2, 3, 4, 6, 8, 16, 32, 64] {
                for round in 0..rounds {
                    // A file by how long it is, but small ones too.
                    let (path, used) = match round % 2 {
                        0 => &places[rng.below(places.len() as u64) as usize],
                        _ => pick(&places, rng.below(total as u64) as usize).0,
                    };
                    let block = rng.below(used.div_ceil(4096) as u64) as usize * 4096;
                    let mut files: BTreeMap<PathBuf, Vec<u8>> = BTreeMap::new();
                    let mut where_ = Vec::new();
                    for _ in 0..bits {
                        let (path, at) = match family {
                            "flips in a block" => {
                                (path, block + rng.below((used - block).min(4096) as u64) as usize)
                            }
                            "flips in a file" => (path, rng.below(*used as u64) as usize),
                            _ => {
                                let ((path, _), at) = pick(&places, rng.below(total as u64) as usize);
                                (path, at)
                            }
                        };
                        let bit = rng.below(8);
                        let bytes = files.entry(path.clone()).or_insert_with(|| store.files[path].clone());
                        bytes[at] ^= 1 << bit;
                        where_.push(format!("{}:{at}.{bit}", path.file_name().unwrap().to_string_lossy()));
                    }
                    where_.truncate(8);
                    let mut harm = Harm::new(format!("{bits} {family}, round {round}: {}", where_.join(" ")));
                    harm.bits = bits;
                    for (path, bytes) in files {
                        // Looked up once: there are millions of bytes.
                        let before = &store.files[&path];
                        for (at, byte) in bytes.iter().enumerate() {
                            if *byte != before[at] {
                                harm.writes.push((path.clone(), at, vec![*byte]));
                            }
                        }
                    }
                    all.push(harm);
                }
            }
        }
        "removed" => {
            for path in store.files.keys() {
                let mut harm = Harm::new(format!("removed {}", path.display()));
                harm.removed.push(path.clone());
                all.push(harm);
            }
            let mut harm = Harm::new("removed all footers".to_string());
            harm.removed = store.files.keys().filter(|p| is_a(p, "foot")).cloned().collect();
            all.push(harm);
        }
        "unreadable" => {
            for size in sizes {
                let step = if *size == 512 && !large { 3 } else { 1 };
                for (path, at) in sectors(store, *size, every_unused).into_iter().step_by(step) {
                    let mut harm = Harm::new(format!("unreadable {size} B at {at} of {}", path.display()));
                    let len = store.files[&path].len().min(at + size) - at;
                    harm.unreadable = Some((path, at, len));
                    all.push(harm);
                }
            }
        }
        "cut" => {
            for path in store.files.keys() {
                let used = store.used(path);
                let mut lens: Vec<usize> = (0..used).step_by(if large { 512 } else { 4096 }).collect();
                lens.extend([1, 100, used / 2, used.saturating_sub(1), used, used + 1]);
                lens.push(store.files[path].len().saturating_sub(1));
                lens.retain(|l| *l < store.files[path].len());
                lens.sort_unstable();
                lens.dedup();
                for len in lens {
                    let mut harm = Harm::new(format!("cut to {len} {}", path.display()));
                    harm.cut = Some((path.clone(), len));
                    all.push(harm);
                }
            }
        }
        _ => unreachable!("{family}"),
    }
    all
}

fn pick(places: &[(PathBuf, usize)], mut at: usize) -> (&(PathBuf, usize), usize) {
    for place in places {
        if at < place.1 {
            return (place, at);
        }
        at -= place.1;
    }
    unreachable!()
}

pub(crate) const FAMILIES: &[&str] = &[
    "zeroed",
    "random",
    "older",
    "exchanged",
    "unreadable",
    "flips in a block",
    "flips in a file",
    "flips all over",
    "removed",
    "cut",
];
