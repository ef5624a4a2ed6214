//! Reading a store that is not opened for writing, also beside an engine that is.

use crate::support::{beside_for, entries};
use bytes::Bytes;
use raftwood::{
    Background, Compression, Durability, Engine, EntryId, ErrorKind, Health, Options, ReadLimit, ReadMode,
    Reader, RegionId, ScrubOptions,
};
use std::io::{Seek, SeekFrom, Write};
use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

const SEGMENT: u64 = 64 << 10;

fn options() -> Options {
    Options::new().segment_bytes(SEGMENT).background(Background::Manual)
}

fn all() -> Options {
    options().show_unproven(true)
}

/// What an entry holds: no two have the same bytes.
fn payload(region: RegionId, index: u64, len: usize) -> Vec<u8> {
    let word = (region.0 << 32 | index).to_le_bytes();
    word.iter().copied().cycle().take(len).collect()
}

fn write_at(path: &Path, at: usize, bytes: &[u8]) {
    let mut file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    file.seek(SeekFrom::Start(at as u64)).unwrap();
    file.write_all(bytes).unwrap();
}

fn append(engine: &Engine, region: RegionId, indexes: RangeInclusive<u64>, len: usize) {
    append_as(engine, region, indexes, len, Durability::Synced);
}

fn append_as(engine: &Engine, region: RegionId, indexes: RangeInclusive<u64>, len: usize, as_of: Durability) {
    let mut batch = engine.batch();
    let all: Vec<_> = indexes.map(|index| (index, payload(region, index, len))).collect();
    let entries = all.iter().map(|(index, payload)| (EntryId::new(1 + index / 100, *index), &payload[..]));
    batch.region(region).append(entries).unwrap();
    engine.write(batch, as_of).unwrap();
}

fn compact(engine: &Engine, region: RegionId, through: u64) {
    entries::compact(engine, region, through).unwrap();
}

/// All that can be asked of a reader is what the engine says.
fn assert_same(reader: &Reader, engine: &Engine, regions: &[RegionId]) {
    for id in regions {
        let region = engine.region(*id);
        assert_eq!(reader.state(*id), region.state());
        assert_eq!(reader.hard_state(*id), region.hard_state());
        assert_eq!(reader.scan(*id, b""), region.scan(b""));
        assert_eq!(reader.get(*id, b"applied"), region.get(b"applied"));
        assert_eq!(reader.health(*id), region.health());
        let (first, last) = (region.first_index(), region.last_index());
        for index in first.saturating_sub(2)..=last + 2 {
            let kind = |e: raftwood::Error| (e.kind(), e.region(), e.entries());
            assert_eq!(reader.term(*id, index).map_err(kind), region.term(index).map_err(kind));
            assert_eq!(reader.entry(*id, index).map_err(kind), region.entry(index).map_err(kind));
            for limit in [ReadLimit::NONE, ReadLimit::bytes(3000), ReadLimit::entries(3), ReadLimit::bytes(0)]
            {
                let (here, there) = (reader.entries(*id, index.., limit), region.entries(index.., limit));
                assert_eq!(here.map_err(kind), there.map_err(kind), "{id:?} from {index}, {limit:?}");
            }
        }
    }
}

#[test]
fn a_reader_says_what_the_engine_says() {
    for (mode, compression) in [
        (ReadMode::Map, Compression::None),
        (ReadMode::Pread, Compression::None),
        (ReadMode::Map, Compression::Lz4 { min_batch_bytes: 100 }),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let options = options().read_mode(mode).compression(compression);
        let engine = options.open(dir.path()).unwrap();
        let regions = [RegionId(1), RegionId(2), RegionId(3), RegionId(4), RegionId(9)];
        for round in 0..12 {
            append(&engine, RegionId(1), round * 10 + 1..=round * 10 + 10, 900);
            append(&engine, RegionId(2), round * 3 + 1..=round * 3 + 3, 2500);
            let mut batch = engine.batch();
            batch.region(RegionId(2)).set_hard_state(format!("term {round}").as_bytes()).unwrap();
            batch.region(RegionId(3)).put(b"applied", format!("{round}").as_bytes()).unwrap();
            engine.write(batch, Durability::Synced).unwrap();
            if round == 6 {
                engine.purge().unwrap();
            }
        }
        compact(&engine, RegionId(1), 25);
        append(&engine, RegionId(2), 30..=31, 700); // a truncation
        append(&engine, RegionId(4), 1..=1, 10);
        let mut batch = engine.batch();
        batch.region(RegionId(4)).destroy();
        engine.write(batch, Durability::Synced).unwrap();
        engine.sync().unwrap();
        engine.tick().unwrap(); // writes the mark
        assert_same(&options.open_read_only(dir.path()).unwrap(), &engine, &regions);
        engine.purge().unwrap();
        assert_same(&options.open_read_only(dir.path()).unwrap(), &engine, &regions);
        engine.close().unwrap();
        assert_same(&options.open_read_only(dir.path()).unwrap(), &engine, &regions);
    }
}

/// What was written and not synced is shown where that is asked for, and is not called durable.
#[test]
fn what_is_not_known_to_be_on_the_device_is_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let engine = options().open(dir.path()).unwrap();
    append(&engine, RegionId(1), 1..=3, 100);
    append_as(&engine, RegionId(1), 4..=5, 100, Durability::Written);
    append_as(&engine, RegionId(1), 6..=6, 100, Durability::Written);
    let reader = all().open_read_only(dir.path()).unwrap();
    let state = reader.state(RegionId(1));
    assert_eq!((state.last, reader.entries(RegionId(1), .., ReadLimit::NONE).unwrap().len()), (6, 6));
    assert!(state.durable < 6, "{state:?}");
    assert!(reader.durable() < reader.end() && reader.end() == reader.written());
    let known = options().open_read_only(dir.path()).unwrap();
    let log = known.state(RegionId(1));
    assert_eq!((log.last, log.durable), (state.durable, state.durable));
    assert_eq!((known.end(), known.written()), (reader.durable(), reader.written()));
    engine.close().unwrap();
    assert_eq!(options().open_read_only(dir.path()).unwrap().state(RegionId(1)).durable, 6);
}

fn the_end_is_not_judged_beside_an_engine(dir: &Path) {
    let why = options().explain(dir).unwrap();
    assert!(why.in_use && why.refusal.is_none() && why.trail.judged.is_empty(), "{why:?}");
    assert!(why.report.suspects.is_empty() && why.report.torn_bytes == 0, "{:?}", why.report);
    let found = options().check(dir, &ScrubOptions::default(), |_| ()).unwrap();
    assert!(found.in_use && found.is_clean() && found.torn_bytes == 0, "{found:?}");
}

/// A record may be on its way into the file while somebody looks, or have been torn by a crash: nobody was
/// answered for it, so it is not shown, and it is no damage.
#[test]
fn a_record_of_which_a_part_is_there_is_not_shown() {
    for length in [0, 1, 700, 2100] {
        let dir = tempfile::tempdir().unwrap();
        let engine = options().open(dir.path()).unwrap();
        append(&engine, RegionId(1), 1..=3, 100);
        append_as(&engine, RegionId(1), 4..=4, 100, Durability::Written);
        append_as(&engine, RegionId(1), 5..=5, 3000, Durability::Written);
        append_as(&engine, RegionId(1), 6..=6, 100, Durability::Written);
        let path = dir.path().join("0000000001.log");
        let bytes = std::fs::read(&path).unwrap();
        let wanted = payload(RegionId(1), 5, 3000);
        let at = bytes.windows(3000).position(|w| w == wanted).unwrap();
        let missing = vec![0; 3000 - length];
        write_at(&path, at + length, &missing);
        let reader = all().open_read_only(dir.path()).unwrap();
        let state = reader.state(RegionId(1));
        assert_eq!((state.first, state.last), (1, 4), "{length} bytes of it");
        assert_eq!(reader.entries(RegionId(1), .., ReadLimit::NONE).unwrap().len(), 4);
        assert_eq!(reader.health(RegionId(1)), Health::Healthy);
        assert!(reader.report().suspects.is_empty() && reader.report().torn_bytes > 0);
        the_end_is_not_judged_beside_an_engine(dir.path());
        // Wrong, and not as a write on its way is.
        write_at(&path, at, &wanted);
        write_at(&path, at + 1000, &[0xAA; 5]);
        let reader = all().open_read_only(dir.path()).unwrap();
        assert_eq!(reader.health(RegionId(1)), Health::Suspect { ranges: vec![5..=5] });
        the_end_is_not_judged_beside_an_engine(dir.path());
        // The rest of it has come.
        write_at(&path, at, &wanted);
        let reader = all().open_read_only(dir.path()).unwrap();
        assert_eq!(reader.entries(RegionId(1), .., ReadLimit::NONE).unwrap().len(), 6);
    }
}

/// An engine renames and overwrites the files whose entries are dead. A reader that still knows them has
/// to say so: it is no damage, and what stands there now is not what was asked for.
#[test]
fn a_file_that_was_given_back_is_no_damage_and_none_of_its_bytes_get_out() {
    let dir = tempfile::tempdir().unwrap();
    let engine = options().open(dir.path()).unwrap();
    let (old, new) = (RegionId(1), RegionId(2));
    // Through the sealed segments into the one that is written to.
    append(&engine, old, 1..=1, 3000);
    for index in 2..=60 {
        append(&engine, old, index..=index, 3000);
    }
    engine.purge().unwrap();
    append(&engine, old, 61..=64, 3000);
    let reader = all().open_read_only(dir.path()).unwrap();
    assert_eq!(reader.entries(old, .., ReadLimit::NONE).unwrap().len(), 64);

    compact(&engine, old, 64);
    let mut next = 1;
    for _ in 0..8 {
        for index in next..next + 60 {
            append(&engine, new, index..=index, 3000);
        }
        next += 60;
        compact(&engine, new, next - 1);
        engine.purge().unwrap();
    }
    let mut lost = 0;
    for index in 1..=64 {
        match reader.entry(old, index) {
            Ok(entry) => assert_eq!(entry.payload, payload(old, index, 3000), "entry {index}"),
            Err(e) => {
                assert_eq!(e.kind(), ErrorKind::Locked, "entry {index}: {e:?}");
                assert_eq!((e.region(), e.entries()), (Some(old), Some(index..=index)));
                assert!(e.path().is_some());
                lost += 1;
            }
        }
    }
    assert_eq!(lost, 64, "all its files were used again");
    assert_eq!(reader.health(old), Health::Healthy);
    // A new look goes on.
    let reader = all().open_read_only(dir.path()).unwrap();
    assert_eq!(reader.entries(old, 64.., ReadLimit::NONE).unwrap_err().kind(), ErrorKind::Compacted);
    assert_eq!(reader.state(new), engine.region(new).state());
}

/// `RAFTWOOD_BESIDE_SECONDS` for longer. Each segment is recycled within moments. A reader gets the right
/// bytes, or is told that its place is gone.
#[test]
fn beside_a_writer_that_recycles_every_file_no_wrong_bytes_are_read() {
    for mode in [ReadMode::Map, ReadMode::Pread] {
        let dir = tempfile::tempdir().unwrap();
        let options = Options::new().segment_bytes(SEGMENT).read_mode(mode).show_unproven(true);
        let engine = options.open(dir.path()).unwrap();
        let (stop, written) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let writer = {
            let (engine, stop, written) = (engine.clone(), stop.clone(), written.clone());
            std::thread::spawn(move || {
                for index in 1.. {
                    append(&engine, RegionId(1), index..=index, 2000);
                    written.store(index, Ordering::Release);
                    if index % 40 == 0 {
                        compact(&engine, RegionId(1), index - 20);
                        engine.purge().unwrap();
                    }
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                }
            })
        };
        let began = Instant::now();
        let (mut read, mut lost) = (0, 0);
        let most = beside_for(3) + Duration::from_secs(120);
        while began.elapsed() < beside_for(3) || (read, lost) < (1000, 1) {
            assert!(began.elapsed() < most, "{read} entries read, {lost} lost");
            let acknowledged = written.load(Ordering::Acquire);
            let reader = options.open_read_only(dir.path()).unwrap();
            // What was acknowledged before the look began is in it.
            let state = reader.state(RegionId(1));
            assert!(state.last >= acknowledged, "{state:?} after {acknowledged}");
            while began.elapsed() < most {
                let mut gone = false;
                for index in state.first..=state.last {
                    match reader.entry(RegionId(1), index) {
                        Ok(e) => assert_eq!(e.payload, payload(RegionId(1), index, 2000)),
                        Err(e) if e.kind() == ErrorKind::Locked => gone = true,
                        Err(e) => panic!("{mode:?}, entry {index} of {state:?}: {e:?}"),
                    }
                    read += 1;
                }
                if gone || state.is_empty() {
                    lost += 1;
                    break;
                }
            }
        }
        stop.store(true, Ordering::Relaxed);
        writer.join().unwrap();
    }
}

/// A mapping of a file that was cut would end the process with a signal.
#[test]
fn a_file_that_is_cut_under_a_reader_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let engine = options().open(dir.path()).unwrap();
    for index in 1..=40 {
        append(&engine, RegionId(1), index..=index, 3000);
    }
    engine.close().unwrap();
    drop(engine);
    let reader = options().open_read_only(dir.path()).unwrap();
    std::fs::OpenOptions::new()
        .write(true)
        .open(dir.path().join("0000000001.log"))
        .unwrap()
        .set_len(8192)
        .unwrap();
    let e = reader.entries(RegionId(1), 1..=10, ReadLimit::NONE).unwrap_err();
    assert!(matches!(e.kind(), ErrorKind::Damaged | ErrorKind::Io), "{e:?}");
    assert!(e.entries().is_some() && e.path().is_some(), "{e:?}");
    assert_eq!(reader.entry(RegionId(1), 40).unwrap().payload, payload(RegionId(1), 40, 3000));
}

/// Where the entries are stands in the footer, which the engine maps.
#[test]
fn a_footer_that_is_cut_under_a_reader_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let engine = options().open(dir.path()).unwrap();
    for index in 1..=40 {
        append(&engine, RegionId(1), index..=index, 3000);
    }
    engine.close().unwrap();
    drop(engine);
    let reader = options().open_read_only(dir.path()).unwrap();
    std::fs::OpenOptions::new()
        .write(true)
        .open(dir.path().join("0000000001.foot"))
        .unwrap()
        .set_len(0)
        .unwrap();
    let e = reader.entries(RegionId(1), 1..=10, ReadLimit::NONE).unwrap_err();
    assert!(matches!(e.kind(), ErrorKind::Damaged | ErrorKind::Io), "{e:?}");
    assert_eq!(e.region(), Some(RegionId(1)));
    assert_eq!(reader.entry(RegionId(1), 40).unwrap().payload, payload(RegionId(1), 40, 3000));
}

#[test]
fn an_entry_that_is_wrong_is_named_and_its_neighbours_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let engine = options().open(dir.path()).unwrap();
    append(&engine, RegionId(1), 1..=9, 1000);
    engine.close().unwrap();
    drop(engine);
    let path = dir.path().join("0000000001.log");
    let bytes = std::fs::read(&path).unwrap();
    let wanted = payload(RegionId(1), 5, 1000);
    let at = bytes.windows(1000).position(|w| w == wanted).unwrap();
    write_at(&path, at + 500, &[0xFF; 3]);
    let reader = options().open_read_only(dir.path()).unwrap();
    let e = reader.entries(RegionId(1), .., ReadLimit::NONE).unwrap_err();
    assert_eq!((e.kind(), e.region(), e.entries()), (ErrorKind::Damaged, Some(RegionId(1)), Some(5..=5)));
    assert_eq!(e.path(), Some(&*path));
    assert_eq!(reader.entries(RegionId(1), ..5, ReadLimit::NONE).unwrap().len(), 4);
    assert_eq!(reader.entries(RegionId(1), 6.., ReadLimit::NONE).unwrap().len(), 4);
}

#[test]
fn entries_outlive_the_reader_and_its_files() {
    let dir = tempfile::tempdir().unwrap();
    let engine = options().open(dir.path()).unwrap();
    append(&engine, RegionId(1), 1..=3, 5000);
    let reader = all().open_read_only(dir.path()).unwrap();
    let entries = reader.entries(RegionId(1), .., ReadLimit::NONE).unwrap();
    drop((reader, engine));
    drop(dir);
    let all: Vec<Bytes> = entries.into_iter().map(|e| e.payload).collect();
    assert_eq!(all, (1..=3).map(|index| payload(RegionId(1), index, 5000)).collect::<Vec<_>>());
}

#[cfg(feature = "sim")]
mod power_cut {
    use super::*;
    use crate::support::engines::{DIR, of_run};
    use raftwood::random::Rng;
    use raftwood::vfs::sim::{LossPolicy, SimVfs};
    use std::collections::BTreeMap;

    const REGIONS: u64 = 3;

    /// What a reader shows of a region: its compaction point, its hard state, and its entries.
    type Shown = (u64, u64, BTreeMap<u64, Bytes>);

    fn shown(reader: &Reader, region: RegionId) -> Shown {
        let entries = reader.entries(region, .., ReadLimit::NONE);
        let entries = entries.unwrap().into_iter().map(|e| (e.id.index, e.payload));
        (reader.state(region).first, number(reader.hard_state(region)), entries.collect())
    }

    /// Hard states are counted here.
    fn number(hard_state: Option<Bytes>) -> u64 {
        hard_state.map_or(0, |bytes| u64::from_le_bytes(bytes[..].try_into().unwrap()))
    }

    /// Writes, syncs, compactions and rotations by chance. None of them takes an entry back.
    fn step(engine: &Engine, rng: &mut Rng, count: u64) {
        let id = RegionId(1 + rng.below(REGIONS));
        let log = engine.region(id).state();
        let mut batch = engine.batch();
        match rng.below(12) {
            0 => engine.tick().unwrap(),
            1 => drop(engine.sync().unwrap()),
            2 => drop(engine.purge().unwrap()),
            3 if !log.is_empty() => drop(batch.region(id).compact_to(log.first + rng.below(3))),
            4 => drop(batch.region(id).set_hard_state(&count.to_le_bytes()).unwrap()),
            _ => {
                let index = log.last + 1;
                let payload = payload(id, index, 1 + rng.below(9000) as usize);
                batch.region(id).append([(EntryId::new(1, index), &payload[..])]).unwrap();
            }
        }
        let synced = rng.below(3) > 0;
        engine.write(batch, if synced { Durability::Synced } else { Durability::Written }).unwrap();
    }

    #[test]
    fn no_power_cut_takes_what_a_reader_showed() {
        let mut unproven = 0;
        for seed in 0..60 {
            let (disk, mut rng) = (SimVfs::new(seed), Rng::new(seed + 1));
            let engine = of_run(&disk, seed).open(DIR).unwrap();
            for count in 1..=60 {
                step(&engine, &mut rng, count);
                if count % 5 > 0 {
                    continue;
                }
                let reader = of_run(&disk, 100).open_read_only(DIR).unwrap();
                let before: Vec<Shown> = (1..=REGIONS).map(|id| shown(&reader, RegionId(id))).collect();
                unproven += u64::from(reader.written() > reader.end());
                for loss in [LossPolicy::LoseAll, LossPolicy::Random(count)] {
                    let after = of_run(&disk.crash(loss), 101).open(DIR).unwrap();
                    for (id, (first, hard_state, entries)) in (1..).map(RegionId).zip(&before) {
                        let region = after.region(id);
                        assert!(number(region.hard_state()) >= *hard_state, "seed {seed}, {count}: {id}");
                        assert!(region.first_index() >= *first, "seed {seed}, {count}: {id}");
                        for (index, payload) in entries.range(region.first_index()..) {
                            let entry = region.entry(*index);
                            let entry =
                                entry.unwrap_or_else(|e| panic!("seed {seed}, {count}, {loss:?}: {e}"));
                            assert_eq!(entry.payload, payload);
                        }
                    }
                }
            }
        }
        assert!(unproven > 100, "{unproven}: there was hardly anything that it might have shown");
    }
}
