//! A whole store that somebody changed behind our back, opened and used.
//!
//! The input is a list of changes to a small valid store: bytes overwritten, inserted and removed,
//! files cut, lengthened, removed, swapped, copied and renamed. Then the checksums are made right, so
//! that the changes are believed.
//!
//! What must hold: nothing panics or allocates without bound; and no entry is handed out that was
//! never written. The one exception is an entry whose checksum the input forged: the checksum of its
//! very bytes stands in some file.

use arbitrary::{Result, Unstructured};
use raftwood::internals::{entry_checksum, fixup, put_varint};
use raftwood::vfs::sim::{LossPolicy, SimVfs, Snapshot};
use raftwood::{
    Background, Compression, Durability, Engine, Entry, EntryId, EntryRef, Options, Pool, Purge, ReadLimit,
    Reader, RegionId, ScrubOptions, TailPolicy,
};
use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

/// Where the store lies on the simulated disk.
pub(super) const DIR: &str = "/db";

/// The files of a store, by name.
pub(super) type Files = BTreeMap<String, Vec<u8>>;

/// A region, an entry's term, index and payload.
type Written = HashSet<(u64, u64, u64, Vec<u8>)>;

/// A small valid store: sealed, cold and unsealed segments, compressed and plain entries.
pub(super) struct Sample {
    disk: Snapshot,
    pub(super) files: Files,
    written: Written,
}

/// Changes the sample as the input says, and uses what became of it.
pub fn directory(data: &[u8]) {
    let sample = sample();
    let mut u = Unstructured::new(data);
    let mut files = sample.files.clone();
    // An input that ends early has said what it had to say.
    let _ = change(&mut u, &mut files);
    put_to_use(sample, &files);
}

/// Puts the files in the place of the sample's, and does everything with them that one can.
fn put_to_use(sample: &Sample, files: &Files) {
    let disk = sample.disk.crash(LossPolicy::KeepAll);
    for name in sample.files.keys().filter(|name| !files.contains_key(*name)) {
        disk.remove_file(Path::new(DIR).join(name)).expect("it was there");
    }
    for (name, bytes) in files.iter().filter(|(name, bytes)| sample.files.get(*name) != Some(*bytes)) {
        disk.write_file(Path::new(DIR).join(name), bytes).expect("the disk takes it");
    }
    let seen = Seen { written: &sample.written, files };
    seen.inspect(&disk);
    if let Some(appended) = seen.write(&disk) {
        super::take();
        seen.reopen(&disk, appended);
    }
}

/// The sample store, made once.
pub(super) fn sample() -> &'static Sample {
    static SAMPLE: OnceLock<Sample> = OnceLock::new();
    SAMPLE.get_or_init(|| make().expect("a sample store can be made"))
}

/// Small segments, nothing in the background; salts that are the same in every run, and others in
/// each run of the engine.
pub(super) fn options(disk: &SimVfs, run: u64) -> Options {
    let salt = AtomicU64::new(run.wrapping_mul(0xd134_2543_de82_ef95) | 1);
    Options::new()
        .segment_bytes(64 << 10)
        .pool(Pool::default().prewrite(false).files_max(2))
        .purge(Purge::default().garbage_percent_max(10))
        .background(Background::Manual)
        .compression(Compression::Lz4 { min_batch_bytes: 256 })
        .salt_source(Arc::new(move || salt.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed)))
        .vfs(Arc::new(disk.clone()))
}

/// Bytes that do not compress.
fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut x = seed | 1;
    let next = || {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        (x >> 32) as u8
    };
    std::iter::repeat_with(next).take(len).collect()
}

fn make() -> raftwood::Result<Sample> {
    let disk = SimVfs::new(1);
    let engine = options(&disk, 0).open(DIR)?;
    let mut written = Written::new();
    let mut append =
        |region: u64, term: u64, index: u64, payload: Vec<u8>, durability| -> raftwood::Result<()> {
            let mut batch = engine.batch();
            let mut r = batch.region(RegionId(region));
            r.append([EntryRef { id: EntryId::new(term, index), payload: &payload }])?;
            r.set_hard_state(&[term as u8, index as u8])?.put(b"applied", &index.to_le_bytes())?;
            written.insert((region, term, index, payload));
            engine.write(batch, durability)?;
            Ok(())
        };
    // Region 2 is written now and then and never compacted: what the cleaner moves.
    for index in 1..=6 {
        append(1, 1, index, noise(50_000, index), Durability::Synced)?;
        append(2, index / 3, index, vec![index as u8; 700], Durability::Synced)?;
        engine.tick()?;
    }
    let mut batch = engine.batch();
    batch.region(RegionId(1)).compact_through(5)?;
    engine.write(batch, Durability::Synced)?;
    engine.purge()?;
    for index in 7..=9 {
        append(1, 1, index, noise(50_000, index), Durability::Synced)?;
        append(2, 3, index, vec![index as u8; 300], Durability::Synced)?;
        engine.tick()?;
    }
    // A rollback, an index 0, a reset with a gap, a region that is gone.
    append(2, 3, 8, b"in place of another".to_vec(), Durability::Synced)?;
    append(3, 0, 0, Vec::new(), Durability::Synced)?;
    append(3, 0, 1, b"one".to_vec(), Durability::Synced)?;
    append(4, 1, 1, b"gone".to_vec(), Durability::Synced)?;
    let mut batch = engine.batch();
    batch.region(RegionId(5)).reset(EntryId::new(7, 1 << 40))?;
    batch.region(RegionId(4)).destroy();
    engine.write(batch, Durability::Synced)?;
    append(5, 7, (1 << 40) + 1, b"behind a snapshot".to_vec(), Durability::Synced)?;
    append(2, 4, 9, noise(100, 9), Durability::Written)?;
    let frozen = disk.freeze();
    drop(engine);
    let frozen_disk = frozen.crash(LossPolicy::KeepAll);
    let files = frozen_disk
        .list()
        .into_iter()
        .filter_map(|(path, _)| {
            Some((path.file_name()?.to_str()?.to_owned(), frozen_disk.read_file(&path).ok()?))
        })
        .collect();
    Ok(Sample { disk: frozen, files, written })
}

/// Carries out the changes, and makes the checksums right where the input asks for that.
fn change(u: &mut Unstructured<'_>, files: &mut Files) -> Result<()> {
    let flags: u8 = u.arbitrary()?;
    let mut outcome = Ok(());
    for _ in 0..u.int_in_range(0..=12)? {
        outcome = change_one(u, files);
        if outcome.is_err() {
            break;
        }
    }
    if flags & 1 == 0 {
        fix(files, flags & 2 == 0);
    }
    outcome
}

/// Makes all checksums right; with `chain` each record also follows the one before it.
pub(super) fn fix(files: &mut Files, chain: bool) {
    // What the oldest record follows may be purged: that stays as it says.
    let oldest =
        files.iter().find(|(name, _)| name.ends_with(".log")).and_then(|(_, log)| log.get(4136..4160));
    let mut last = oldest.map_or([0; 24], |shape| std::array::from_fn(|i| shape[i]));
    for (name, bytes) in files.iter_mut() {
        match name.rsplit_once('.').map_or("", |n| n.1) {
            "log" => fixup::segment(bytes, chain.then_some(&mut last)),
            "cold" => fixup::segment(bytes, chain.then_some(&mut [0; 24])),
            "foot" => fixup::footer(bytes),
            "ckpt" => fixup::checkpoint(bytes),
            _ => {}
        }
    }
}

fn pick(u: &mut Unstructured<'_>, files: &Files) -> Result<String> {
    let names: Vec<&String> = files.keys().collect();
    u.choose(&names).map(|name| (*name).clone())
}

/// An offset in the part of a file that is more than zeros, or a little past it.
fn offset(u: &mut Unstructured<'_>, bytes: &[u8]) -> Result<usize> {
    let used = bytes.iter().rposition(|b| *b != 0).map_or(0, |at| at + 1);
    u.int_in_range(0..=(used + 16).min(bytes.len()))
}

/// Around the limits of every width, and some that are beyond what a small store can have.
const NUMBERS: [u64; 12] = [
    0,
    1,
    127,
    255,
    4096,
    65_536,
    u32::MAX as u64 - 1,
    u32::MAX as u64,
    1 << 40,
    1 << 63,
    u64::MAX - 1,
    u64::MAX,
];

fn change_one(u: &mut Unstructured<'_>, files: &mut Files) -> Result<()> {
    let kind = u.int_in_range(0..=9)?;
    let name = pick(u, files)?;
    let mut bytes = files.get(&name).cloned().unwrap_or_default();
    let at = offset(u, &bytes)?;
    match kind {
        // Overwrite.
        0 => {
            let len = u.int_in_range(1..=8)?.min(bytes.len() - at);
            u.fill_buffer(&mut bytes[at..at + len])?;
        }
        // A number that is telling: as a field of fixed width, or in the place of a varint.
        1 => {
            let number = u.choose(&NUMBERS)?.to_le_bytes();
            let len = (*u.choose(&[1, 4, 8])?).min(bytes.len() - at);
            bytes[at..at + len].copy_from_slice(&number[..len]);
        }
        2 => {
            let mut number = Vec::new();
            put_varint(&mut number, *u.choose(&NUMBERS)?);
            let len = u.int_in_range(0..=2)?.min(bytes.len() - at);
            bytes.splice(at..at + len, number);
        }
        3 => {
            let extra: [u8; 4] = u.arbitrary()?;
            let len = u.int_in_range(0..=4)?;
            bytes.splice(at..at, extra[..len].iter().copied());
        }
        4 => {
            let len = u.int_in_range(1..=32)?.min(bytes.len() - at);
            bytes.drain(at..at + len);
        }
        5 => bytes.truncate(at),
        6 => bytes.resize(bytes.len() + u.int_in_range(1..=8192)?, u.arbitrary()?),
        7 => {
            files.remove(&name);
            return Ok(());
        }
        8 => {
            // A piece of another file.
            let other = files.get(&pick(u, files)?).cloned().unwrap_or_default();
            let from = offset(u, &other)?;
            let len = u.int_in_range(1..=4096)?.min(other.len() - from).min(bytes.len() - at);
            bytes[at..at + len].copy_from_slice(&other[from..from + len]);
        }
        _ => {
            // Under another name, perhaps in place of another file.
            let kind = *u.choose(&["log", "cold", "foot", "ckpt", "free", "tmp"])?;
            let number = match u.arbitrary()? {
                n @ 0..=31u8 => u32::from(n),
                n => u32::MAX - u32::from(n % 4),
            };
            files.insert(format!("{number:010}.{kind}"), bytes);
            return Ok(());
        }
    }
    files.insert(name, bytes);
    Ok(())
}

/// What was ever written, and what the files hold.
struct Seen<'a> {
    written: &'a Written,
    files: &'a Files,
}

impl Seen<'_> {
    fn inspect(&self, disk: &SimVfs) {
        let before = disk.digest();
        for show_unproven in [false, true] {
            if let Ok(reader) = options(disk, 1).show_unproven(show_unproven).open_read_only(DIR) {
                assert!(reader.written() >= reader.end());
                let _ = (reader.report(), reader.durable(), reader.segments());
                self.look(&reader);
            }
        }
        let _ = options(disk, 1).check(DIR, &unhurried(), |p| assert!(p.done_bytes <= p.total_bytes));
        assert_eq!(disk.digest(), before, "an inspection changes nothing");
    }

    /// Opens, reads everything, gives space back, and appends. Returns the entry that was
    /// acknowledged, if one was.
    fn write(&self, disk: &SimVfs) -> Option<(RegionId, EntryId)> {
        let engine = options(disk, 1).open(DIR);
        let engine =
            engine.or_else(|_| options(disk, 1).tail_policy(TailPolicy::AcceptLoss).open(DIR)).ok()?;
        self.read(&engine);
        let _ = engine.scrub(&unhurried());
        self.read(&engine);
        let _ = (engine.stats(), engine.pins(10), engine.open_report());
        let _ = engine.purge();
        self.read(&engine);
        let mut acknowledged = None;
        for region in [RegionId(2), RegionId(77)] {
            let state = engine.region(region).state();
            let index = if state.is_empty() { state.first } else { state.last + 1 };
            let id = EntryId::new(state.last_term.unwrap_or(0), index);
            let mut batch = engine.batch();
            let entry = EntryRef { id, payload: FRESH };
            if batch.region(region).append([entry]).is_err() {
                continue;
            }
            if engine.write(batch, Durability::Synced).is_ok() {
                let read = engine.region(region).entry(index).expect("what was accepted can be read");
                assert_eq!((read.id, &read.payload[..]), (id, FRESH));
                acknowledged = Some((region, id));
            }
        }
        let _ = engine.tick();
        let _ = engine.close();
        acknowledged
    }

    /// What was acknowledged is there, or the store says that it is damaged.
    fn reopen(&self, disk: &SimVfs, (region, id): (RegionId, EntryId)) {
        let Ok(engine) = options(disk, 2).open(DIR) else { return };
        self.read(&engine);
        if let Ok(read) = engine.region(region).entry(id.index) {
            assert_eq!((read.id, &read.payload[..]), (id, FRESH));
        }
    }

    fn read(&self, engine: &Engine) {
        for region in engine.regions().into_iter().take(64) {
            let r = engine.region(region);
            let state = r.state();
            let _ = (r.hard_state(), r.scan(b""), r.get(b"applied"), r.stats(), r.health());
            let all = r.entries_clamped(.., ReadLimit::entries(64));
            all.unwrap_or_default().iter().for_each(|e| self.check(region, e));
            for index in
                [0, state.first, state.first.saturating_add(1), state.last, state.last.saturating_add(1)]
            {
                let _ = (r.term(index), r.lookup(EntryId::new(1, index)));
                if let Ok(entry) = r.entry(index) {
                    self.check(region, &entry);
                }
            }
            let _ = r.entries(state.first.., ReadLimit::bytes(1000).overhead(8));
        }
    }

    /// The same of a store that is not opened for writing.
    fn look(&self, reader: &Reader) {
        for info in reader.regions().into_iter().take(64) {
            let (region, state) = (info.id, reader.state(info.id));
            assert_eq!(info.log, state);
            assert!(state.durable <= state.last);
            let _ = (reader.hard_state(region), reader.scan(region, b""), reader.health(region));
            let _ = reader.get(region, b"applied");
            let all = reader.entries(region, .., ReadLimit::entries(64));
            all.unwrap_or_default().iter().for_each(|e| self.check(region, e));
            for index in [0, state.first, state.last, state.last.saturating_add(1)] {
                let _ = reader.term(region, index);
                if let Ok(entry) = reader.entry(region, index) {
                    self.check(region, &entry);
                }
            }
        }
    }

    fn check(&self, region: RegionId, entry: &Entry) {
        let key = (region.0, entry.id.term, entry.id.index, entry.payload.to_vec());
        if self.written.contains(&key) || entry.payload[..] == *FRESH {
            return;
        }
        let crc = entry_checksum(region, entry.id, &entry.payload).to_le_bytes();
        let forged = self.files.values().any(|bytes| bytes.windows(4).any(|w| w == crc));
        assert!(forged, "region {region} handed out {entry:?}, which was never written");
    }
}

/// At any rate.
fn unhurried() -> ScrubOptions {
    ScrubOptions::default().rate_bytes(0)
}

/// What is appended to a store that opened.
const FRESH: &[u8] = b"written after the damage";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_of_a_good_store_are_right_already() {
        let mut files = sample().files.clone();
        fix(&mut files, true);
        for (name, bytes) in &sample().files {
            let at = bytes.iter().zip(&files[name]).position(|(a, b)| a != b);
            assert_eq!(at, None, "{name} differs");
        }
    }

    /// A few minutes: `cargo test --release -p raftwood-torture --lib every_number -- --ignored`.
    #[test]
    #[ignore = "takes minutes"]
    fn every_number_in_place_of_every_byte_of_an_index_is_survived() {
        let sample = sample();
        let indexes =
            sample.files.iter().filter(|(name, _)| name.ends_with("ckpt") || name.ends_with("foot"));
        let (mut runs, mut failed) = (0, Vec::new());
        for (name, good) in indexes {
            for (at, number, gone) in (128..good.len()).flat_map(|at| {
                NUMBERS.iter().flat_map(move |number| (0..=2).map(move |gone| (at, *number, gone)))
            }) {
                let mut varint = Vec::new();
                put_varint(&mut varint, number);
                let mut files = sample.files.clone();
                let bytes = files.get_mut(name).unwrap();
                let end = (at + gone).min(bytes.len());
                bytes.splice(at..end, varint);
                fix(&mut files, false);
                let run = std::panic::AssertUnwindSafe(|| put_to_use(sample, &files));
                if std::panic::catch_unwind(run).is_err() {
                    failed.push(format!("{name}: {number} at {at} in place of {gone} bytes"));
                }
                runs += 1;
            }
        }
        assert!(
            failed.is_empty(),
            "{} of {runs} runs panicked: {:#?}",
            failed.len(),
            &failed[..failed.len().min(20)]
        );
    }

    #[test]
    fn sample_has_every_kind_of_file_that_matters() {
        let names: Vec<_> = sample().files.keys().map(String::as_str).collect();
        for kind in ["log", "cold", "foot", "ckpt", "free"] {
            assert!(names.iter().any(|name| name.ends_with(kind)), "no {kind} among {names:?}");
        }
        let disk = sample().disk.crash(LossPolicy::KeepAll);
        let engine = options(&disk, 1).open(DIR).unwrap();
        let regions: Vec<_> = engine.regions().iter().map(|r| r.0).collect();
        assert_eq!(regions, [1, 2, 3, 5]);
        let all = engine.region(RegionId(2)).entries(.., ReadLimit::NONE).unwrap();
        assert_eq!(all.len(), 9);
    }
}
