//! The contract of a file system, an engine on it that is killed, and what is left for others to read.

#![allow(clippy::unwrap_used)] // a test that cannot go on should stop

use raftwood::vfs::conformance::{self, Means};
use raftwood::vfs::sim::{LossPolicy, SimVfs};
use raftwood::vfs::{OpenMode, OsVfs, Vfs, VfsDir, io};
use raftwood::{
    Background, Durability, Engine, EntryId, ErrorKind, Options, Pool, Purge, ReadLimit, RegionId,
    ScrubOptions,
};
use raftwood_encrypted::{EncryptedVfs, Key};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

const KEY: Key = {
    let mut key = [7; 64];
    key[0] = 1;
    key
};

fn over(below: impl Vfs + 'static) -> EncryptedVfs {
    EncryptedVfs::new(Arc::new(below), &KEY).unwrap()
}

#[test]
fn it_keeps_the_contract_over_the_real_file_system() {
    let dir = tempfile::tempdir().unwrap();
    let means =
        Means { link: Some(&|target, at| std::os::unix::fs::symlink(target, at)), ..Means::default() };
    let report = conformance::check_with(&over(OsVfs::new()), dir.path(), &means).unwrap();
    let skipped: Vec<&str> = report.skipped.iter().map(|(name, _)| *name).collect();
    assert_eq!(skipped[0], "a_mapping_shows_what_was_written");
    assert_eq!(skipped.len(), 4, "and three that need a power cut: {skipped:?}");
}

#[test]
fn it_keeps_the_contract_over_a_disk_that_loses_what_was_not_synced() {
    for seed in 0..5 {
        let disk = SimVfs::new(seed);
        if seed > 0 {
            disk.set_short_io(Some(3));
        }
        let cut = || -> Arc<dyn Vfs> { Arc::new(over(disk.crash(LossPolicy::LoseAll))) };
        let means = Means { power_cut: Some(&cut), ..Means::default() };
        let report = conformance::check_with(&over(disk.clone()), Path::new("/scratch"), &means).unwrap();
        assert_eq!(report.skipped.len(), 2, "{report:?}");
    }
}

const DIR: &str = "/store";

fn options(disk: &SimVfs) -> Options {
    Options::new()
        .vfs(Arc::new(over(disk.clone())))
        .segment_bytes(64 << 10)
        .pool(Pool::default().files_max(3).prewrite(false))
        .background(Background::Manual)
        .purge(Purge::default().background(false))
}

fn payload(region: u64, index: u64) -> Vec<u8> {
    let mut bytes = format!("<secret of region {region}, entry {index}>").into_bytes();
    bytes.resize(100 + (index as usize * 701) % 3000, b'=');
    bytes
}

fn append(engine: &Engine, index: u64) {
    let mut batch = engine.batch();
    for region in 1..=3 {
        let bytes = payload(region, index);
        batch.region(RegionId(region)).append([(EntryId::new(1, index), &bytes[..])]).unwrap();
        batch.region(RegionId(region)).set_hard_state(format!("<vote {index}>").as_bytes()).unwrap();
    }
    engine.write(batch, Durability::Synced).unwrap();
}

#[track_caller]
fn has(engine: &Engine, first: u64, last: u64) {
    assert!(engine.open_report().damage.is_empty(), "{:?}", engine.open_report());
    assert!(engine.open_report().suspects.is_empty(), "{:?}", engine.open_report());
    for region in 1..=3 {
        let entries = engine.region(RegionId(region)).entries(first.., ReadLimit::NONE).unwrap();
        assert!(entries.len() as u64 + first > last, "{} of {first}..={last}", entries.len());
        for entry in &entries {
            assert_eq!(&entry.payload[..], payload(region, entry.id.index));
        }
    }
}

/// Bytes of this kind stand nowhere below.
#[track_caller]
fn nothing_shows(disk: &SimVfs) {
    for (path, _) in disk.list() {
        let bytes = disk.read_file(&path).unwrap();
        for secret in [&b"secret"[..], b"======", b"<vote", b"RAFTWOOD", b"\xd7rec"] {
            assert!(!bytes.windows(secret.len()).any(|w| w == secret), "{}", path.display());
        }
    }
}

/// Runs an engine through seals, cleaning and recycled files, and cuts the power every so often.
#[test]
fn an_engine_on_it_loses_nothing_to_kills_and_power_cuts_and_shows_nothing() {
    for seed in 0..6 {
        let mut disk = SimVfs::new(seed);
        let (mut first, mut last) = (1, 0);
        for round in 0..12 {
            let engine = options(&disk).open(DIR).unwrap();
            has(&engine, first, last);
            for _ in 0..15 + seed {
                last += 1;
                append(&engine, last);
                if last % 7 == 0 {
                    engine.tick().unwrap();
                }
            }
            if last > first + 30 {
                first = last - 20;
                let mut batch = engine.batch();
                (1..=3).for_each(|region| {
                    batch.region(RegionId(region)).compact_to(first - 1);
                });
                engine.write(batch, Durability::Synced).unwrap();
                engine.purge().unwrap();
            }
            has(&engine, first, last);
            if round % 3 == 2 {
                engine.close().unwrap();
                let checked =
                    options(&disk).check(DIR, &ScrubOptions::default().rate_bytes(0), |_| {}).unwrap();
                assert!(checked.is_clean(), "{checked:?}");
                continue;
            }
            // One more, of which nothing but a part may reach the disk.
            let mut batch = engine.batch();
            let bytes = payload(1, last + 1);
            batch.region(RegionId(1)).append([(EntryId::new(1, last + 1), &bytes[..])]).unwrap();
            engine.write(batch, Durability::Written).unwrap();
            let loss = [LossPolicy::LoseAll, LossPolicy::KeepAll, LossPolicy::Random(seed)][round % 3];
            disk = disk.crash(loss);
            let engine = options(&disk).open(DIR).unwrap();
            has(&engine, first, last);
            if engine.region(RegionId(1)).last_index() > last {
                let mut batch = engine.batch();
                batch.region(RegionId(1)).truncate_from(last + 1);
                engine.write(batch, Durability::Synced).unwrap();
            }
            drop(engine);
        }
        nothing_shows(&disk);
        nothing_shows(&disk.crash(LossPolicy::LoseAll));
    }
}

/// The pool keeps files of segments in which nothing lives, and writes over them: under another identity.
#[test]
fn a_file_that_is_used_for_another_segment_gets_another_identity() {
    let disk = SimVfs::new(3);
    let engine = options(&disk).open(DIR).unwrap();
    let dir = disk.open_dir(Path::new(DIR)).unwrap();
    let mut identities: BTreeMap<u64, BTreeSet<Vec<u8>>> = BTreeMap::new();
    for index in 1..=150 {
        append(&engine, index);
        if index % 10 == 0 {
            let mut batch = engine.batch();
            (1..=3).for_each(|region| {
                batch.region(RegionId(region)).compact_to(index);
            });
            engine.write(batch, Durability::Synced).unwrap();
            engine.purge().unwrap();
            engine.tick().unwrap();
        }
        for entry in dir.list().unwrap().iter().filter(|entry| entry.name.ends_with(".log")) {
            let front = disk.read_file(Path::new(DIR).join(&entry.name)).unwrap();
            let inode = dir.id_of(&entry.name).unwrap().unwrap().inode;
            // Of one that was made and not written yet it is zeros.
            identities.entry(inode).or_default().insert(front[..64].to_vec());
        }
    }
    let reused = identities.values().filter(|of_file| of_file.len() > 2).count();
    assert!(reused > 0, "no file was used three times, or none got another identity: {}", identities.len());
}

#[test]
fn a_wrong_key_opens_nothing_and_changes_nothing() {
    let disk = SimVfs::new(1);
    let engine = options(&disk).open(DIR).unwrap();
    append(&engine, 1);
    engine.close().unwrap();
    let files = || -> Vec<(std::path::PathBuf, Vec<u8>)> {
        disk.list().into_iter().map(|(path, _)| (path.clone(), disk.read_file(path).unwrap())).collect()
    };
    let before = files();
    let mut key = KEY;
    key[63] ^= 1;
    let wrong = EncryptedVfs::new(Arc::new(disk.clone()), &key).unwrap();
    let error = options(&disk).vfs(Arc::new(wrong)).open(DIR).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io, "{error}");
    assert!(std::error::Error::source(&error).unwrap().to_string().contains("key"), "{error}");
    let plain = options(&disk).vfs(Arc::new(disk.clone())).open(DIR);
    assert!(plain.is_err());
    assert_eq!(files(), before);
    has(&options(&disk).open(DIR).unwrap(), 1, 1);
    assert!(EncryptedVfs::new(Arc::new(disk.clone()), &[3; 64]).is_err(), "halves that are the same");
}

fn directory(disk: &SimVfs) -> (EncryptedVfs, Arc<dyn VfsDir>) {
    let vfs = over(disk.clone());
    let dir = vfs.create_dir_all(Path::new("/d")).unwrap();
    (vfs, dir)
}

/// The same bytes at the same place of the same file, once for each generation.
#[test]
fn no_two_files_and_no_two_generations_of_a_file_are_encrypted_alike() {
    let disk = SimVfs::new(1);
    let (_, dir) = directory(&disk);
    let mut seen = BTreeSet::new();
    let mut keep = |name: &str| {
        let bytes = disk.read_file(format!("/d/{name}")).unwrap();
        bytes[8192..].chunks(16).for_each(|block| assert!(seen.insert(block.to_vec()), "{name}"));
    };
    let plain = vec![0x55; 2048];
    for name in ["a", "b"] {
        let file = dir.open(name, OpenMode::CreateNew).unwrap();
        io::write_parts_at(&*file, &[&plain], 0).unwrap();
        keep(name);
    }
    let file = dir.open("a", OpenMode::ReadWrite).unwrap();
    for _ in 0..3 {
        file.begin_generation().unwrap();
        assert_eq!(file.len().unwrap(), 2048);
        io::write_parts_at(&*file, &[&plain], 0).unwrap();
        keep("a");
        assert_eq!(io::read_file(&*dir, "a").unwrap(), plain);
    }
    // A file of the same name, and most likely of the same inode.
    drop(file);
    dir.remove("a").unwrap();
    let file = dir.open("a", OpenMode::CreateNew).unwrap();
    io::write_parts_at(&*file, &[&plain], 0).unwrap();
    keep("a");
}

/// A power cut inside the change of an identity leaves the one or the other, and a file that can be used.
#[test]
fn a_crash_while_a_generation_begins_leaves_a_file_with_an_identity() {
    let disk = SimVfs::new(1);
    let (_, dir) = directory(&disk);
    let file = dir.open("a", OpenMode::CreateNew).unwrap();
    io::write_parts_at(&*file, &[&[1; 1024]], 0).unwrap();
    file.sync_all().unwrap();
    dir.sync().unwrap();
    disk.snapshot_every(Some(raftwood::vfs::sim::Moment::Before));
    file.begin_generation().unwrap();
    io::write_parts_at(&*file, &[&[2; 512]], 0).unwrap();
    file.sync_data().unwrap();
    let mut snapshots = disk.take_snapshots();
    snapshots.push(disk.freeze());
    assert!(snapshots.len() > 5);
    for snapshot in snapshots {
        for loss in [LossPolicy::LoseAll, LossPolicy::KeepAll, LossPolicy::Random(1), LossPolicy::Random(2)] {
            let disk = snapshot.crash(loss);
            let (_, dir) = directory(&disk);
            let file = dir.open("a", OpenMode::ReadWrite).unwrap();
            assert_eq!(file.len().unwrap(), 1024);
            file.begin_generation().unwrap();
            io::write_parts_at(&*file, &[&[3; 512]], 0).unwrap();
            file.sync_data().unwrap();
            let disk = disk.crash(LossPolicy::LoseAll);
            let (_, dir) = directory(&disk);
            assert_eq!(io::read_file(&*dir, "a").unwrap()[..512], [3; 512]);
        }
    }
}

/// What was written and not synced may be gone, all or a part of it. Sectors without an identity that
/// they could be read under are never what is left.
#[test]
fn a_crash_after_the_first_write_leaves_a_file_that_can_be_read() {
    for seed in 0..40 {
        let disk = SimVfs::new(seed);
        let (_, dir) = directory(&disk);
        let file = dir.open("a", OpenMode::CreateNew).unwrap();
        dir.sync().unwrap();
        file.allocate(8 * 512).unwrap();
        file.sync_all().unwrap();
        io::write_parts_at(&*file, &[&[1; 8 * 512]], 0).unwrap();
        let disk = disk.crash(LossPolicy::Random(seed));
        let (_, dir) = directory(&disk);
        let bytes = io::read_file(&*dir, "a").unwrap();
        assert!(bytes.chunks(512).all(|sector| sector == [0; 512] || sector == [1; 512]), "seed {seed}");
    }
}

#[test]
fn a_lost_copy_of_the_identity_affects_no_entry_and_both_are_an_error() {
    for block in 0..2 {
        let disk = SimVfs::new(1);
        let (_, dir) = directory(&disk);
        let file = dir.open("a", OpenMode::CreateNew).unwrap();
        io::write_parts_at(&*file, &[b"the bytes"], 0).unwrap();
        file.sync_all().unwrap();
        drop(file);
        disk.write_bytes("/d/a", block * 4096, &[0xEE; 4096]).unwrap();
        let (_, dir) = directory(&disk);
        assert_eq!(io::read_file(&*dir, "a").unwrap(), b"the bytes");
        disk.write_bytes("/d/a", (1 - block) * 4096, &[0xEE; 4096]).unwrap();
        let (_, dir) = directory(&disk);
        let error = dir.open("a", OpenMode::Read).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidData);
    }
}

/// Lengths that end within a sector, cut and grown in every order: what a file of plain bytes would hold.
#[test]
fn it_holds_what_a_plain_file_holds() {
    let disk = SimVfs::new(1);
    let (vfs, dir) = directory(&disk);
    let file = dir.open("a", OpenMode::CreateNew).unwrap();
    let mut plain: Vec<u8> = Vec::new();
    let mut random = 88_172_645_463_325_252_u64;
    let mut below = |n: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % n
    };
    for step in 0..3000_u64 {
        let at = below(3000) as usize;
        match below(4) {
            0 => {
                file.set_len(at as u64).unwrap();
                plain.resize(at, 0);
            }
            1 => {
                file.allocate(at as u64).unwrap();
                plain.resize(plain.len().max(at), 0);
            }
            _ => {
                let bytes = vec![step as u8 | 1; 1 + below(1200) as usize];
                io::write_parts_at(&*file, &[&bytes], at as u64).unwrap();
                plain.resize(plain.len().max(at + bytes.len()), 0);
                plain[at..at + bytes.len()].copy_from_slice(&bytes);
            }
        }
        let dir = vfs.open_dir(Path::new("/d")).unwrap();
        assert_eq!(io::read_file(&*dir, "a").unwrap(), plain, "step {step}");
        assert_eq!(dir.list().unwrap()[0].len, plain.len() as u64);
    }
}
