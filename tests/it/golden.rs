//! Stores of every released format stay readable, forever.
//!
//! `tests/golden/<version>/<name>/` holds the files of one small store, byte for byte but for trailing
//! zeros, which are left out; `MANIFEST` has the name and full length of each file, `expected.txt` what must
//! be read from them. Two tests look at them from both sides: what is kept must be read, and what is written
//! today (over a simulated disk, with the salts counted instead of drawn) must be what is kept. So no change
//! of the format goes unnoticed.
//!
//! `RAFTWOOD_REFRESH_GOLDEN=1 cargo test --features sim --test it golden::` rewrites them. Only before the
//! format is released; afterwards a changed format is a new version, with a directory of its own beside
//! this one.

use crate::support::engines::small;
use raftwood::{Background, Compacted, Durability, Engine, EntryId, ErrorKind, Options, ReadLimit};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

/// Full content by name.
type Files = BTreeMap<String, Vec<u8>>;

const STORES: [&str; 7] =
    ["clean-close", "unsealed-tail", "sealed", "cold", "compressed", "destroyed", "index-zero"];

/// Stores whose bytes depend on what is policy and not format: which segments the cleaner takes, say. They
/// are read forever, and not compared with what is written today. When a policy changes, its store comes
/// here. A refresh rewrites it with the others: where only the policy changed, take it back.
#[cfg(feature = "sim")]
const READ_ONLY: [&str; 1] = ["cold"];

/// Every version of the format, the one that is written today last.
const VERSIONS: [&str; 4] = ["v1", "v2", "v3", "v4"];
const TODAY: &str = VERSIONS[VERSIONS.len() - 1];

/// Each kept store, as version and name.
fn kept() -> impl Iterator<Item = (&'static str, &'static str)> {
    VERSIONS.into_iter().flat_map(|version| STORES.into_iter().map(move |name| (version, name)))
}

fn golden(version: &str, name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(version).join(name)
}

/// The kept files, with their zeros.
fn load(version: &str, name: &str) -> Files {
    let manifest = fs::read_to_string(golden(version, name).join("MANIFEST")).unwrap();
    let file = |line: &str| {
        let (file, len) = line.split_once(' ').unwrap();
        let mut bytes = fs::read(golden(version, name).join(file)).unwrap();
        bytes.resize(len.parse().unwrap(), 0);
        (file.to_owned(), bytes)
    };
    manifest.lines().map(file).collect()
}

fn unpack(files: &Files) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, bytes) in files {
        fs::write(dir.path().join(name), bytes).unwrap();
    }
    dir
}

fn contents(dir: &Path) -> Files {
    let entry = |entry: std::io::Result<fs::DirEntry>| {
        let path = entry.unwrap().path();
        (path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read(&path).unwrap())
    };
    fs::read_dir(dir).unwrap().map(entry).collect()
}

fn options() -> Options {
    small().background(Background::Manual)
}

/// Everything that can be read, as text.
fn listing(engine: &Engine) -> String {
    let mut out = String::new();
    for id in engine.regions() {
        let region = engine.region(id);
        let state = region.state();
        let base = state.base.map_or("none".to_owned(), |b| format!("{} term {}", b.index, b.term));
        let last = state.last;
        writeln!(
            out,
            "region {id}: base {base}, first {}, last {last} term {}",
            state.first,
            state.last_term.unwrap()
        )
        .unwrap();
        if let Some(hard_state) = region.hard_state() {
            writeln!(out, "  hard state {}", hard_state.escape_ascii()).unwrap();
        }
        for (key, value) in region.scan(b"") {
            writeln!(out, "  key {} = {}", key.escape_ascii(), value.escape_ascii()).unwrap();
        }
        for entry in region.entries(.., ReadLimit::NONE).unwrap() {
            assert_eq!(region.term(entry.id.index).unwrap(), entry.id.term);
            let (len, crc) = (entry.payload.len(), crc32fast::hash(&entry.payload));
            let text = entry.payload[..len.min(20)].escape_ascii();
            writeln!(out, "  entry {} term {}: {len} bytes {crc:08x} {text}", entry.id.index, entry.id.term)
                .unwrap();
        }
    }
    out
}

#[test]
fn kept_stores_are_read_as_they_were_written() {
    for (version, name) in kept() {
        let expected = fs::read_to_string(golden(version, name).join("expected.txt")).unwrap();
        let dir = unpack(&load(version, name));
        let reader = options().open_read_only(dir.path()).unwrap();
        assert_eq!(
            contents(dir.path()),
            load(version, name),
            "{version} {name}: an inspection changes nothing"
        );
        let regions = expected.lines().filter(|line| line.starts_with("region")).count();
        if name != "unsealed-tail" {
            // What is not yet proven durable is not shown by an inspection.
            assert_eq!(reader.regions().len(), regions, "{name}");
        }
        drop(reader);
        for _ in 0..2 {
            let engine = options().open(dir.path()).unwrap();
            assert_eq!(listing(&engine), expected, "{name}");
            engine.purge().unwrap();
            assert_eq!(listing(&engine), expected, "{name}, after a purge");
            engine.close().unwrap();
        }
    }
}

/// Changes a field of the file header at `at`, and makes its checksum right, as a newer release would have.
/// What made a region is not known of one that came to be before format 3.
#[test]
fn a_region_of_an_older_format_is_compacted_when_that_is_deferred() {
    for (version, name) in kept().filter(|(_, name)| *name != "destroyed") {
        let dir = unpack(&load(version, name));
        let engine = options().open(dir.path()).unwrap();
        for region in engine.regions() {
            let state = engine.region(region).state();
            let (mut batch, mut late) = (engine.batch(), engine.batch());
            batch.region(region).compact_to(state.last);
            late.region(region).compact_to(state.last);
            let done = engine.write_outcome(batch, Durability::Synced).unwrap().compactions[0].done;
            assert_eq!(
                matches!(done, Compacted::Dropped { .. }),
                !state.is_empty(),
                "{version} {name}: {done:?}"
            );
            let mut batch = engine.batch();
            batch.region(region).destroy().append([(EntryId::new(1, 1), &b"new"[..])]).unwrap();
            engine.write(batch, Durability::Synced).unwrap();
            let done = engine.write_outcome(late, Durability::Synced).unwrap().compactions[0].done;
            assert_eq!(done, Compacted::Gone, "{version} {name}");
        }
    }
}

fn forge(bytes: &mut [u8], at: usize, field: usize, value: u8) {
    if let Some(header) = bytes.get_mut(at..at + 128).filter(|h| h.starts_with(b"RAFTWOOD")) {
        header[field] = value;
        let crc = crc32fast::hash(&header[..124]);
        header[124..].copy_from_slice(&crc.to_le_bytes());
    }
}

const VERSION: (usize, u8) = (8, VERSIONS.len() as u8 + 1);
const FLAGS: (usize, u8) = (16, 1);

#[test]
fn newer_version_or_unknown_flag_is_refused_without_writing_a_byte() {
    for name in ["clean-close", "unsealed-tail", "cold"] {
        let files = load(TODAY, name);
        let newest = files.keys().rfind(|f| f.ends_with("ckpt")).unwrap();
        let segments = files.keys().filter(|f| f.ends_with("log") || f.ends_with("cold"));
        for file in segments.chain([newest]) {
            for (field, value) in [VERSION, FLAGS] {
                let mut files = files.clone();
                let bytes = files.get_mut(file).unwrap();
                for at in [0, bytes.len().saturating_sub(4096)] {
                    forge(bytes, at, field, value);
                }
                let dir = unpack(&files);
                let refused = options().open(dir.path()).unwrap_err();
                assert_eq!(refused.kind(), ErrorKind::Unsupported, "{name}/{file}: {refused}");
                let refused = options().open_read_only(dir.path()).unwrap_err();
                assert_eq!(refused.kind(), ErrorKind::Unsupported, "{name}/{file}: {refused}");
                assert_eq!(contents(dir.path()), files, "{name}/{file}");
            }
        }
    }
}

#[test]
fn footer_of_a_newer_release_is_rebuilt() {
    for name in ["sealed", "cold"] {
        let mut files = load(TODAY, name);
        for (_, footer) in files.iter_mut().filter(|(file, _)| file.ends_with("foot")) {
            forge(footer, 0, VERSION.0, VERSION.1);
        }
        let dir = unpack(&files);
        let engine = options().open(dir.path()).unwrap();
        assert_eq!(listing(&engine), fs::read_to_string(golden(TODAY, name).join("expected.txt")).unwrap());
    }
}

#[cfg(feature = "sim")]
mod written_today {
    use super::*;
    use raftwood::vfs::sim::{LossPolicy, SimVfs};
    use raftwood::{Compression, Durability, EntryId, EntryRef, Pool, Purge, RegionBatch, RegionId};
    use std::sync::Arc;

    #[test]
    fn same_operations_give_the_same_bytes() {
        for name in STORES {
            let (files, expected) = make(name);
            if std::env::var_os("RAFTWOOD_REFRESH_GOLDEN").is_some() {
                save(name, &files, &expected);
            }
            if READ_ONLY.contains(&name) {
                continue;
            }
            // How many files lie free is no matter of the format.
            let (mut files, mut kept) = (files, load(TODAY, name));
            files.retain(|file, _| !file.ends_with(".free"));
            kept.retain(|file, _| !file.ends_with(".free"));
            let names =
                |files: &Files| files.iter().map(|f| format!("{} {}", f.0, f.1.len())).collect::<Vec<_>>();
            assert_eq!(names(&files), names(&kept), "{name}");
            for (file, bytes) in &files {
                let at = bytes.iter().zip(&kept[file]).position(|(a, b)| a != b);
                assert_eq!(
                    at, None,
                    "{name}/{file} differs from there on: was the format changed on purpose?"
                );
            }
            assert_eq!(fs::read_to_string(golden(TODAY, name).join("expected.txt")).unwrap(), expected);
        }
    }

    fn save(name: &str, files: &Files, expected: &str) {
        let _ = fs::remove_dir_all(golden(TODAY, name));
        fs::create_dir_all(golden(TODAY, name)).unwrap();
        let mut manifest = String::new();
        for (file, bytes) in files {
            writeln!(manifest, "{file} {}", bytes.len()).unwrap();
            let used = bytes.iter().rposition(|b| *b != 0).map_or(0, |at| at + 1);
            fs::write(golden(TODAY, name).join(file), &bytes[..used]).unwrap();
        }
        fs::write(golden(TODAY, name).join("MANIFEST"), manifest).unwrap();
        fs::write(golden(TODAY, name).join("expected.txt"), expected).unwrap();
    }

    /// Makes a store and returns its files and what is in it.
    fn make(name: &str) -> (Files, String) {
        let disk = SimVfs::new(1);
        let mut options = options()
            .pool(Pool::default().prewrite(false).files_max(1))
            .purge(Purge::default().garbage_percent_max(10))
            .salt_source(crate::support::engines::salts(1))
            .vfs(Arc::new(disk.clone()));
        if name == "compressed" {
            options = options.compression(Compression::Lz4 { min_batch_bytes: 1 });
        }
        let engine = options.open("/db").unwrap();
        match name {
            "clean-close" => clean_close(&engine),
            "unsealed-tail" => unsealed_tail(&engine),
            "sealed" => sealed(&engine),
            "cold" => cold(&engine),
            "compressed" => compressed(&engine),
            "destroyed" => destroyed(&engine),
            "index-zero" => index_zero(&engine),
            _ => unreachable!("{name}"),
        }
        let expected = listing(&engine);
        // Those that are not closed are killed: what was written stays, and nothing more is.
        if name != "unsealed-tail" && name != "sealed" {
            engine.close().unwrap();
        }
        let killed = disk.crash(LossPolicy::KeepAll);
        let file = |(path, _): (PathBuf, u64)| {
            let name = path.file_name()?.to_str()?.to_owned();
            Some((name, killed.read_file(&path).ok()?))
        };
        (killed.list().into_iter().filter_map(file).collect(), expected)
    }

    fn write(engine: &Engine, durability: Durability, region: u64, fill: impl FnOnce(RegionBatch<'_>)) {
        let mut batch = engine.batch();
        fill(batch.region(RegionId(region)));
        engine.write(batch, durability).unwrap();
    }

    fn append(mut r: RegionBatch<'_>, term: u64, indexes: std::ops::RangeInclusive<u64>, len: usize) {
        for index in indexes {
            let payload: Vec<u8> =
                format!("entry {index} of term {term}. ").bytes().cycle().take(len).collect();
            r.append([EntryRef { id: EntryId::new(term, index), payload: &payload }]).unwrap();
        }
    }

    /// Two regions, hard states and keys, a rollback.
    fn clean_close(engine: &Engine) {
        write(engine, Durability::Synced, 1, |mut r| {
            r.set_hard_state(b"term 1, vote 3").unwrap().put(b"applied", b"7").unwrap();
            append(r, 1, 1..=10, 40);
        });
        write(engine, Durability::Synced, u64::MAX, |r| append(r, 5, 1..=3, 0));
        write(engine, Durability::Synced, 1, |r| append(r, 2, 8..=9, 25));
        write(engine, Durability::Synced, 1, |mut r| {
            r.compact_through(2).unwrap().put(b"gone", b"").unwrap().delete(b"gone").unwrap();
        });
    }

    /// Killed with batches that no sync covered, one of them over two regions.
    fn unsealed_tail(engine: &Engine) {
        write(engine, Durability::Synced, 1, |r| append(r, 1, 1..=5, 30));
        write(engine, Durability::Written, 1, |r| append(r, 1, 6..=8, 30));
        let mut batch = engine.batch();
        append(batch.region(RegionId(1)), 2, 9..=9, 10);
        append(batch.region(RegionId(2)), 2, 1..=1, 10);
        batch.region(RegionId(2)).set_hard_state(b"never synced").unwrap();
        engine.write(batch, Durability::Written).unwrap();
    }

    /// Three segments, the first two with footers, killed.
    fn sealed(engine: &Engine) {
        for index in 1..=3 {
            write(engine, Durability::Synced, 1, |r| append(r, index, index..=index, 33_000));
            write(engine, Durability::Synced, 2, |mut r| {
                r.set_hard_state(format!("vote {index}").as_bytes()).unwrap();
                append(r, 1, index * 4..=index * 4 + 3, 100);
            });
            engine.tick().unwrap();
        }
    }

    /// A region that never compacts, moved out of the way of one that does.
    fn cold(engine: &Engine) {
        for index in 1..=7 {
            write(engine, Durability::Synced, 1, |r| append(r, 1, index..=index, 33_000));
            write(engine, Durability::Synced, 2, |r| append(r, index / 3, index..=index, 50));
            engine.tick().unwrap();
        }
        write(engine, Durability::Synced, 1, |mut r| {
            r.compact_through(7).unwrap();
        });
        let report = engine.purge().unwrap();
        assert!(report.segments_cleaned > 0 && report.segments_freed > 0, "{report:?}");
    }

    /// Blocks that shrink, blocks that do not, and an entry that is larger than a block.
    fn compressed(engine: &Engine) {
        write(engine, Durability::Synced, 1, |r| append(r, 1, 1..=20, 300));
        write(engine, Durability::Synced, 1, |r| append(r, 1, 21..=22, 20_000));
        write(engine, Durability::Synced, 1, |r| append(r, 1, 23..=23, 5));
        write(engine, Durability::Synced, 2, |r| append(r, 1, 1..=2, 0));
    }

    /// One region gone, one gone and recreated, one cleared after a snapshot that lies ahead.
    fn destroyed(engine: &Engine) {
        for region in 1..=4 {
            write(engine, Durability::Synced, region, |r| append(r, 1, 1..=3, 20));
        }
        write(engine, Durability::Synced, 1, |mut r| {
            r.destroy();
        });
        write(engine, Durability::Synced, 2, |mut r| {
            r.destroy();
            append(r, 9, 5..=6, 20);
        });
        write(engine, Durability::Synced, 3, |mut r| {
            r.reset(EntryId::new(7, 1 << 40)).unwrap();
            append(r, 8, (1 << 40) + 1..=(1 << 40) + 2, 20);
        });
        write(engine, Durability::Synced, 4, |mut r| {
            r.truncate_from(2);
        });
    }

    /// A log that starts at 0, regions with metadata only, and the bounds of ids.
    fn index_zero(engine: &Engine) {
        write(engine, Durability::Synced, 0, |r| append(r, 0, 0..=4, 15));
        write(engine, Durability::Synced, 6, |mut r| {
            r.set_hard_state(&[0, 255, 10]).unwrap();
        });
        write(engine, Durability::Synced, 7, |mut r| {
            r.put(b"", b"empty key").unwrap().put(&[0xff; 3], b"").unwrap();
        });
        write(engine, Durability::Synced, 8, |r| append(r, u64::MAX - 1, u64::MAX - 2..=u64::MAX - 1, 12));
    }
}
