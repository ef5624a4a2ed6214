//! Damage is named, fenced, reported, looked up truthfully, and healed.

use crate::support::engines::{DIR, kill, of_run};
use crate::support::files::{newest, rot, ruin};
use crate::support::two_regions::*;
use raftwood::vfs::sim::{EIO, Fault, LossPolicy, OpKind, SimVfs};
use raftwood::{
    Compression, Durability, Engine, EntryId, ErrorKind, Health, Lookup, Options, Purge, ReadLimit, RegionId,
    ScrubOptions, TailPolicy,
};

fn reads_damaged(engine: &Engine, region: RegionId, index: u64) {
    let error = engine.region(region).entry(index).unwrap_err();
    assert_eq!((error.kind(), error.region()), (ErrorKind::Damaged, Some(region)), "{error}");
    assert!(error.path().is_some() && error.entries() == Some(index..=index), "{error}");
}

#[test]
fn a_read_that_finds_damage_tells_the_listener_and_fences_the_entry_alone() {
    for sealed in [false, true] {
        let mut f = Fixture::new();
        let engine = if sealed { f.sealed() } else { f.active() };
        f.rot(R, 5);
        assert_eq!((engine.region(R).health(), f.heard()), (Health::Healthy, 0));
        reads_damaged(&engine, R, 5);
        assert_eq!((damaged(&engine, R), f.heard()), (vec![5..=5], 1));
        // Once found, it is not reported again at every read.
        reads_damaged(&engine, R, 5);
        assert_eq!(f.heard(), 1);
        assert_eq!(engine.region(R).entries(.., ReadLimit::NONE).unwrap_err().kind(), ErrorKind::Damaged);
        is_whole(&engine, R, 1..=4);
        is_whole(&engine, R, 6..=8);
        is_whole(&engine, OTHER, 1..=8);
        assert_eq!(engine.region(R).term(5).unwrap(), term(5));
        append(&engine, R, 9..=9);
    }
}

#[test]
fn a_lookup_denies_an_entry_only_when_that_is_certain() {
    let mut f = Fixture::new();
    let engine = f.sealed();
    let mut batch = engine.batch();
    batch.region(R).compact_through(2).unwrap();
    engine.write(batch, Durability::Synced).unwrap();
    f.rot(R, 5);
    let region = engine.region(R);
    let lookup = |index: u64, term: u64| region.lookup(EntryId::new(term, index));
    assert_eq!(lookup(4, term(4)), Lookup::Have);
    assert_eq!(lookup(5, term(5)), Lookup::HaveDamaged);
    assert_eq!(lookup(5, 99), Lookup::DontHave);
    assert_eq!(lookup(1, term(1)), Lookup::Unknown);
    // The region is known to be damaged: what else is missing nobody can tell.
    assert_eq!(lookup(9, 3), Lookup::Unknown);
    assert_eq!(engine.region(OTHER).lookup(EntryId::new(3, 9)), Lookup::DontHave);
    assert_eq!(engine.region(RegionId(99)).lookup(EntryId::new(1, 1)), Lookup::DontHave);
}

#[test]
fn a_repair_takes_only_what_was_recorded_and_survives_a_reopen() {
    for sealed in [false, true] {
        let mut f = Fixture::new();
        let engine = if sealed { f.sealed() } else { f.active() };
        f.rot(R, 5);
        reads_damaged(&engine, R, 5);
        let region = engine.region(R);
        let right = payload(R, 5);
        let mut wrong = right.clone();
        wrong[0] ^= 1;
        let refused = [
            (EntryId::new(term(5), 5), wrong),
            (EntryId::new(term(5), 5), right[1..].to_vec()),
            (EntryId::new(term(5) + 1, 5), right.clone()),
            (EntryId::new(term(5), 5), payload(OTHER, 5)),
        ];
        for (id, bytes) in refused {
            assert_eq!(region.repair(id, &bytes).unwrap_err().kind(), ErrorKind::InvalidArgument);
            assert_eq!(damaged(&engine, R), [5..=5]);
        }
        region.repair(EntryId::new(term(5), 5), &right).unwrap();
        assert_eq!(region.health(), Health::Healthy);
        is_whole(&engine, R, 1..=8);
        drop(region);

        // After a power cut, and after a clean close.
        let cut = f.vfs.crash(LossPolicy::LoseAll);
        let after = of_run(&cut, 9).open(DIR).unwrap();
        is_whole(&after, R, 1..=8);
        is_whole(&after, OTHER, 1..=8);
        assert_eq!(after.region(R).health(), Health::Healthy);
        engine.close().unwrap();
        drop(engine);
        let engine = f.open();
        is_whole(&engine, R, 1..=8);
        append(&engine, R, 9..=9);
    }
}

#[test]
fn overwriting_compacting_and_resetting_heal() {
    for how in ["overwrite", "truncate", "compact", "reset", "destroy"] {
        let mut f = Fixture::new();
        let engine = f.sealed();
        f.rot(R, 5);
        reads_damaged(&engine, R, 5);
        let mut batch = engine.batch();
        let mut b = batch.region(R);
        match how {
            "overwrite" => drop(b.append([(EntryId::new(9, 5), &b"new"[..])]).unwrap()),
            "truncate" => drop(b.truncate_from(5)),
            "compact" => drop(b.compact_through(5).unwrap()),
            "reset" => drop(b.reset(EntryId::new(9, 20)).unwrap()),
            _ => drop(b.destroy()),
        }
        engine.write(batch, Durability::Synced).unwrap();
        assert_eq!(engine.region(R).health(), Health::Healthy, "{how}");
        engine.close().unwrap();
        drop(engine);
        let engine = f.open();
        assert_eq!(engine.region(R).health(), Health::Healthy, "{how}");
        assert!(engine.region(R).entries(.., ReadLimit::NONE).is_ok(), "{how}");
        is_whole(&engine, OTHER, 1..=8);
    }
}

#[test]
fn a_scrub_finds_rot_in_sealed_and_in_active_segments_and_names_each_entry() {
    for from_device in [false, true] {
        let mut f = Fixture::new();
        let engine = f.sealed();
        append(&engine, R, 9..=12);
        f.rot(R, 3);
        f.rot(OTHER, 4);
        f.rot(R, 10);
        let report = engine.scrub(&ScrubOptions::default().from_device(from_device)).unwrap();
        assert_eq!((report.entries, report.damage.len(), f.heard()), (20 - 3, 3, 3));
        assert_eq!(damaged(&engine, R), [3..=3, 10..=10]);
        assert_eq!(damaged(&engine, OTHER), [4..=4]);
        // A close leaves nothing to be replayed: what was found is known to the next run, wherever it lies.
        engine.close().unwrap();
        drop(engine);
        let engine = f.open();
        assert_eq!((damaged(&engine, R), damaged(&engine, OTHER)), (vec![3..=3, 10..=10], vec![4..=4]));
        engine.scrub(&ScrubOptions::default()).unwrap();
        assert_eq!(damaged(&engine, R), [3..=3, 10..=10]);
    }
}

#[test]
fn a_scrub_builds_a_rotten_footer_anew_on_disk_too() {
    let mut f = Fixture::new();
    let engine = f.sealed();
    let path = newest(&f.vfs, "foot");
    let before = f.vfs.read_file(&path).unwrap();
    engine.close().unwrap();
    drop(engine);
    // The last location: its checksum is looked at when an entry does not verify.
    rot(&f.vfs, &path, f.vfs.read_file(&path).unwrap().len() as u64 - 2);
    let engine = f.open();
    let report = engine.scrub(&ScrubOptions::default()).unwrap();
    assert_eq!((report.footers_rebuilt, report.damage.len(), f.heard()), (1, 0, 0));
    assert_eq!(f.vfs.read_file(&path).unwrap(), before);
    assert_eq!(engine.scrub(&ScrubOptions::default()).unwrap().footers_rebuilt, 0);
    is_whole(&engine, R, 1..=8);
    is_whole(&engine, OTHER, 1..=8);
}

#[test]
fn a_read_through_a_rotten_footer_is_right() {
    let mut f = Fixture::new();
    f.sealed().close().unwrap();
    let path = newest(&f.vfs, "foot");
    rot(&f.vfs, &path, f.vfs.read_file(&path).unwrap().len() as u64 - 2);
    let engine = f.open();
    is_whole(&engine, OTHER, 1..=8);
    assert_eq!((engine.region(OTHER).health(), f.heard()), (Health::Healthy, 0));
}

#[test]
fn no_flipped_bit_of_a_footer_that_is_replayed_changes_what_is_there() {
    let mut f = Fixture::new();
    let engine = f.active();
    let mut batch = engine.batch();
    batch.region(R).set_hard_state(b"term and vote").unwrap().put(b"key", b"value").unwrap();
    batch.region(OTHER).truncate_from(7).compact_through(2).unwrap();
    engine.write(batch, Durability::Synced).unwrap();
    kill(&f.vfs, engine);
    // The next run seals the segment and makes no checkpoint.
    let engine = f.open();
    engine.tick().unwrap();
    kill(&f.vfs, engine);
    f.vfs.settle();
    let footer = "/db/0000000001.foot";
    let bytes = f.vfs.read_file(footer).unwrap();
    let whole = f.vfs.freeze();
    let mut rebuilt = 0;
    for bit in 0..bytes.len() as u64 * 8 {
        let vfs = whole.crash(LossPolicy::KeepAll);
        vfs.flip_bit(footer, bit).unwrap();
        let engine = of_run(&vfs, 9).open(DIR).unwrap();
        assert_eq!(engine.open_report().replayed_segments, 2, "bit {bit}");
        rebuilt += engine.open_report().scanned_segments;
        is_whole(&engine, R, 1..=8);
        is_whole(&engine, OTHER, 3..=6);
        let r = engine.region(R);
        assert_eq!(
            (r.hard_state().unwrap(), r.get(b"key").unwrap()),
            ("term and vote".into(), "value".into())
        );
        assert_eq!(engine.region(OTHER).state().base, Some(EntryId::new(term(2), 2)), "bit {bit}");
        assert_eq!(engine.regions(), [R, OTHER], "bit {bit}");
        kill(&vfs, engine);
    }
    assert!(rebuilt > 2000, "{rebuilt} of {} flips found at open", bytes.len() * 8);
}

#[test]
fn the_digest_is_equal_on_replicas_with_another_layout_and_differs_by_one_entry() {
    let mut plain = Fixture::new();
    let a = plain.sealed();
    let mut other = Fixture::new();
    let b = other.open_with(|o| o.compression(Compression::Lz4 { min_batch_bytes: 64 }));
    let mut batch = b.batch();
    for index in 1..=8 {
        let bytes = payload(R, index);
        batch.region(R).append([(EntryId::new(term(index), index), &bytes[..])]).unwrap();
    }
    b.write(batch, Durability::Synced).unwrap();
    let digest = a.region(R).checksum(..).unwrap();
    assert_eq!(digest.entries(), 8);
    assert_eq!(digest, b.region(R).checksum(..).unwrap());
    assert_eq!(a.region(R).checksum(2..5).unwrap(), b.region(R).checksum(2..5).unwrap());
    assert_ne!(a.region(R).checksum(2..5).unwrap(), b.region(R).checksum(3..6).unwrap());
    // A repaired entry lies elsewhere.
    plain.rot(R, 5);
    assert_eq!(a.region(R).checksum(..).unwrap_err().kind(), ErrorKind::Damaged);
    a.region(R).repair(EntryId::new(term(5), 5), &payload(R, 5)).unwrap();
    assert_eq!(a.region(R).checksum(..).unwrap(), digest);
    // One entry with other bytes.
    let mut batch = b.batch();
    batch.region(R).append([(EntryId::new(term(8), 8), &b"another"[..])]).unwrap();
    b.write(batch, Durability::Synced).unwrap();
    assert_ne!(b.region(R).checksum(..).unwrap(), digest);
    assert_eq!(a.region(R).checksum(..=7).unwrap(), b.region(R).checksum(..=7).unwrap());
}

#[test]
fn the_digest_covers_each_bit_of_payloads_and_terms() {
    let digest = |term: u64, payload: &[u8]| {
        let mut f = Fixture::new();
        let engine = f.open();
        let mut batch = engine.batch();
        let entries = [(EntryId::new(1, 1), &b"same"[..]), (EntryId::new(term, 2), payload)];
        batch.region(R).append(entries).unwrap();
        engine.write(batch, Durability::Synced).unwrap();
        engine.region(R).checksum(..).unwrap()
    };
    let one = digest(2, b"payload");
    assert_eq!(digest(2, b"payload"), one);
    assert_ne!(digest(2, b"paylobd"), one, "another payload of the same length");
    assert_ne!(digest(3, b"payload"), one, "another term");
}

#[test]
fn a_bad_sector_fails_the_reads_of_its_entries_and_no_later_ones() {
    for sealed in [false, true] {
        let mut f = Fixture::new();
        let engine = if sealed { f.sealed() } else { f.active() };
        let (path, at) = f.find(R, 5);
        let sector = at / 512;
        f.vfs.add_bad_sector(&path, sector).unwrap();
        reads_damaged(&engine, R, 5);
        let error = engine.region(R).entry(5).unwrap_err();
        assert_eq!(error.entries(), Some(5..=5));
        let cause = std::error::Error::source(&error).unwrap().downcast_ref::<std::io::Error>().unwrap();
        assert_eq!(cause.raw_os_error(), Some(EIO));
        is_whole(&engine, OTHER, 8..=8);
        // Health once said nothing of it. It may have been the cable: nothing is fenced, and one
        // is reported once.
        assert_eq!((damaged(&engine, R), f.heard()), (vec![5..=5], 1));
        f.vfs.heal_sector(&path, sector).unwrap();
        let healed = match engine.region(R).entry(5) {
            Ok(entry) => entry,
            Err(e) => unreachable!("{e}"),
        };
        assert_eq!(healed.payload, payload(R, 5));
        assert_eq!(engine.region(R).health(), Health::Healthy);
        // Refused once only, it is as if nothing had been.
        f.vfs.set_fault(Fault::error(EIO).on(OpKind::Read));
        is_whole(&engine, R, 1..=8);
        assert!(f.vfs.faults_struck() > 0 && engine.region(R).health() == Health::Healthy);
    }
}

/// The blocks of a compressed batch went on from one region into the next: one flipped bit cost
/// up to 200 regions an entry.
#[test]
fn a_flipped_bit_in_a_compressed_batch_costs_one_region() {
    let mut f = Fixture::new();
    let engine = f.open_with(|o| o.compression(Compression::Lz4 { min_batch_bytes: 64 }));
    let regions: Vec<RegionId> = (100..140).map(RegionId).collect();
    let mut batch = engine.batch();
    for &region in &regions {
        for index in 1..=2 {
            let bytes = format!("region {region}, index {index}; ").repeat(8).into_bytes();
            batch.region(region).append([(EntryId::new(1, index), &bytes[..])]).unwrap();
        }
    }
    let uncompressed = batch.encoded_len() as u64;
    engine.write(batch, Durability::Synced).unwrap();
    let stats = engine.stats();
    assert!(stats.batch_bytes < uncompressed / 2, "it was compressed: {stats:?}");
    let mut costs = std::collections::BTreeMap::new();
    for at in (4096..u64::from(stats.accepted.offset())).step_by(7) {
        f.vfs.flip_bit("/db/0000000001.log", at * 8 + at % 8).unwrap();
        let harmed = |r: &&RegionId| engine.region(**r).entries(.., ReadLimit::NONE).is_err();
        let harmed: Vec<&RegionId> = regions.iter().filter(harmed).collect();
        *costs.entry(harmed.len()).or_insert(0) += 1;
        assert!(harmed.len() <= 1, "one flipped bit at {at} costs {harmed:?}");
        f.vfs.flip_bit("/db/0000000001.log", at * 8 + at % 8).unwrap();
    }
    assert!(costs.get(&1).is_some_and(|n| *n > 100), "payloads were hit: {costs:?}");
}

/// Where the index that knows the last term could not be read, the log's state said 0, and an
/// adapter believed it.
#[test]
fn a_last_term_that_cannot_be_read_is_not_zero() {
    let mut f = Fixture::new();
    let engine = f.sealed();
    let mut batch = engine.batch();
    // In the middle of a term, whose entries only the footer tells apart.
    batch.region(R).truncate_from(6);
    engine.write(batch, Durability::Synced).unwrap();
    assert_eq!(engine.region(R).state().last_term, Some(term(5)));
    engine.close().unwrap();
    drop(engine);
    f.vfs.remove_file("/db/0000000001.log").unwrap();
    let engine = f.open();
    let region = engine.region(R);
    assert_eq!(region.term(5).unwrap_err().kind(), ErrorKind::Damaged);
    assert_eq!((region.last_index(), region.state().last_term), (5, None));
}

#[test]
fn a_failed_read_names_the_entry_that_cannot_be_read() {
    let mut f = Fixture::new();
    let engine = f.open();
    let mut batch = engine.batch();
    for index in 1..=100 {
        let bytes = payload(R, index);
        batch.region(R).append([(EntryId::new(term(index), index), &bytes[..])]).unwrap();
    }
    engine.write(batch, Durability::Synced).unwrap();
    let (path, at) = f.find(R, 60);
    f.vfs.add_bad_sector(&path, at / 512).unwrap();
    let error = engine.region(R).entries(.., ReadLimit::NONE).unwrap_err();
    let mut readable = 0;
    while engine.region(R).entry(readable + 1).is_ok() {
        readable += 1;
    }
    assert!(readable > 40 && readable < 60, "{readable}");
    assert_eq!(error.entries(), Some(readable + 1..=readable + 1), "{error}");
}

#[test]
fn the_cleaner_leaves_a_damaged_entry_where_it_is_and_loses_nothing() {
    let mut f = Fixture::new();
    let purge = |o: Options| o.purge(Purge::default().background(false).garbage_percent_max(10));
    let engine = f.open_with(purge);
    append(&engine, R, 1..=8);
    // Garbage: rolled segments of a region that is compacted.
    let filler = vec![b'.'; 20 << 10];
    for index in 1..=24 {
        let mut batch = engine.batch();
        batch.region(OTHER).append([(EntryId::new(1, index), &filler[..])]).unwrap();
        engine.write(batch, Durability::Synced).unwrap();
        if index % 3 == 0 {
            append(&engine, RegionId(100 + index), 1..=2);
        }
    }
    engine.tick().unwrap();
    let mut batch = engine.batch();
    batch.region(OTHER).compact_through(24).unwrap();
    engine.write(batch, Durability::Synced).unwrap();
    f.rot(R, 5);
    let old = f.find(R, 4).0;
    let report = engine.purge().unwrap();
    assert!(report.moved_bytes > 0, "{report:?}");
    assert_ne!(f.find(R, 4).0, old, "its neighbours were moved");
    assert_eq!((damaged(&engine, R), f.heard()), (vec![5..=5], 1));
    let check = |engine: &Engine| {
        reads_damaged(engine, R, 5);
        is_whole(engine, R, 1..=4);
        is_whole(engine, R, 6..=8);
        (1..=8).for_each(|n| is_whole(engine, RegionId(100 + 3 * n), 1..=2));
    };
    check(&engine);
    engine.close().unwrap();
    drop(engine);
    let engine = f.open_with(purge);
    check(&engine);
    engine.region(R).repair(EntryId::new(term(5), 5), &payload(R, 5)).unwrap();
    is_whole(&engine, R, 1..=8);
}

#[test]
fn a_flip_in_memory_behind_the_hand_over_is_found_by_the_first_read() {
    for compression in [Compression::None, Compression::Lz4 { min_batch_bytes: 16 }] {
        let mut f = Fixture::new();
        let engine = f.open_with(|o| o.compression(compression));
        let mut batch = engine.batch();
        let bytes = payload(R, 1);
        let mut b = batch.region(R);
        b.append([(EntryId::new(1, 1), &bytes[..])]).unwrap();
        // The buffer is the batch's own: this stands for a bit that flips between the hand-over
        // and the write.
        b.append_with(EntryId::new(1, 2), |buffer| {
            buffer[5] ^= 1;
            buffer.extend_from_slice(b"second");
        })
        .unwrap();
        engine.write(batch, Durability::Synced).unwrap();
        reads_damaged(&engine, R, 1);
        assert_eq!(&engine.region(R).entry(2).unwrap().payload[..], b"second");
        assert_eq!(f.heard(), 1);
    }
}

/// Where a record rots before its segment is sealed: the description of the first batch, beyond mending.
fn rot_before_the_seal(f: &Fixture, engine: &Engine, small_records: u64) {
    append(engine, OTHER, 9..=8 + small_records);
    ruin(&f.vfs, "/db/0000000001.log", 4096 + 66, 8);
    let filler = vec![b'.'; 20 << 10];
    for index in 9 + small_records..=24 + small_records {
        let mut batch = engine.batch();
        batch.region(OTHER).append([(EntryId::new(90, index), &filler[..])]).unwrap();
        engine.write(batch, Durability::Synced).unwrap();
    }
    engine.tick().unwrap();
    assert!(f.vfs.read_file("/db/0000000002.foot").is_ok(), "{:?}", f.vfs.list());
    assert!(f.vfs.list().iter().any(|(p, _)| p.ends_with("0000000002.ckpt")), "{:?}", f.vfs.list());
    is_whole(engine, R, 1..=8);
}

/// What the engine wrote itself it knows: the footer is right whatever became of the bytes that it
/// repeats, and a scrub reports them.
#[test]
fn a_description_that_rots_before_its_segment_is_sealed_affects_no_entry_and_a_scrub_reports_it() {
    let mut f = Fixture::new();
    let engine = f.active();
    rot_before_the_seal(&f, &engine, 0);
    assert_eq!(f.heard(), 0);
    let report = engine.scrub(&ScrubOptions::default()).unwrap();
    assert!(!report.rot.is_empty() && report.damage.is_empty(), "{report:?}");
    kill(&f.vfs, engine);
    let engine = f.open();
    is_whole(&engine, R, 1..=8);
}

#[test]
fn a_record_that_rots_where_the_file_has_to_be_read_stops_neither_sealing_nor_checkpoints() {
    let mut f = Fixture::new();
    let engine = f.active();
    // More descriptions than are kept.
    rot_before_the_seal(&f, &engine, 100);
    assert!(f.heard() > 0);
}

#[test]
fn a_bad_sector_under_a_payload_fails_its_entry_and_not_the_open() {
    let mut f = Fixture::new();
    let engine = f.open();
    let mut batch = engine.batch();
    let large = vec![b'x'; 3 << 10];
    batch.region(R).append([(EntryId::new(1, 1), &large[..])]).unwrap();
    engine.write(batch, Durability::Synced).unwrap();
    append(&engine, OTHER, 1..=8);
    kill(&f.vfs, engine);
    f.vfs.settle();
    f.vfs.add_bad_sector("/db/0000000001.log", (4096 + 1024) / 512).unwrap();
    let engine = f.open();
    reads_damaged(&engine, R, 1);
    is_whole(&engine, OTHER, 1..=8);
    engine.tick().unwrap();
    append(&engine, R, 2..=4);
    is_whole(&engine, R, 2..=4);
}

#[test]
fn a_bad_sector_at_the_end_of_the_log_is_never_taken_for_the_end() {
    let mut f = Fixture::new();
    let engine = f.active();
    kill(&f.vfs, engine);
    f.vfs.settle();
    let (path, at) = f.find(OTHER, 8);
    f.vfs.add_bad_sector(&path, at / 512).unwrap();
    match of_run(&f.vfs, 9).open(DIR) {
        Err(e) => assert_eq!((e.kind(), e.path()), (ErrorKind::Damaged, Some(path.as_path())), "{e}"),
        Ok(engine) => reads_damaged(&engine, OTHER, 8),
    }
}

#[test]
fn a_last_record_that_rotted_beyond_mending_is_not_taken_for_a_tear() {
    for at in [8, 20, 70] {
        let mut f = Fixture::new();
        let engine = f.active();
        let before = engine.stats().accepted;
        append(&engine, R, 9..=9);
        kill(&f.vfs, engine);
        f.vfs.settle();
        let log = "/db/0000000001.log";
        ruin(&f.vfs, log, u64::from(before.offset()) + at, 4);
        let error = of_run(&f.vfs, 9).open(DIR).err().map(|e| (e.kind(), e.path().is_some()));
        assert_eq!(error, Some((ErrorKind::Damaged, true)), "garbage at {at}");
        // A caller that decides that losing it is acceptable gets the rest.
        let engine = of_run(&f.vfs, 9).tail_policy(TailPolicy::AssumeTorn).open(DIR).unwrap();
        is_whole(&engine, R, 1..=8);
        append(&engine, R, 9..=10);
        engine.close().unwrap();
        drop(engine);
        is_whole(&f.open(), R, 1..=10);
    }
}

#[test]
fn a_missing_segment_is_known_by_the_footer_that_it_left() {
    let mut f = Fixture::new();
    let engine = f.active();
    kill(&f.vfs, engine);
    let engine = f.open();
    engine.tick().unwrap();
    kill(&f.vfs, engine);
    f.vfs.settle();
    let log = std::path::Path::new("/db/0000000001.log");
    assert!(f.vfs.read_file("/db/0000000001.foot").is_ok(), "{:?}", f.vfs.list());
    f.vfs.remove_file(log).unwrap();
    let error = of_run(&f.vfs, 9).open(DIR).err().unwrap();
    assert_eq!((error.kind(), error.path()), (ErrorKind::Damaged, Some(log)), "{error}");
}

#[test]
fn a_segment_of_another_store_is_never_taken_for_ours() {
    let mut ours = Fixture::new();
    let engine = ours.active();
    kill(&ours.vfs, engine);
    // Another store, written in the same way, with other entries.
    let theirs = SimVfs::new(6);
    let engine = of_run(&theirs, 77).open(DIR).unwrap();
    append(&engine, RegionId(99), 1..=16);
    kill(&theirs, engine);
    let foreign = theirs.read_file("/db/0000000001.log").unwrap();
    for name in ["0000000001.log", "0000000005.log"] {
        let vfs = ours.vfs.crash(LossPolicy::KeepAll);
        let path = format!("{DIR}/{name}");
        // Under another number it has to say that number.
        let mut bytes = foreign.clone();
        for at in [0, 2048].into_iter().filter(|_| name.contains('5')) {
            bytes[at + 40] = 5;
            let crc = crc32fast::hash(&bytes[at..at + 124]);
            bytes[at + 124..at + 128].copy_from_slice(&crc.to_le_bytes());
        }
        vfs.write_file(&path, &bytes).unwrap();
        if name.contains('1') {
            // What stood there is missed.
            let missed = of_run(&vfs, 90).open(DIR).unwrap_err();
            assert_eq!(missed.kind(), ErrorKind::Damaged, "{missed}");
            assert_eq!(vfs.read_file(&path).unwrap(), bytes);
            let accepted = of_run(&vfs, 90).tail_policy(TailPolicy::AcceptLoss).open(DIR).unwrap();
            accepted.close().unwrap();
        }
        for life in 91..93 {
            let engine = of_run(&vfs, life).open(DIR).unwrap();
            assert!(!engine.region(RegionId(99)).exists(), "{name}: entries of another store");
            assert_eq!(engine.open_report().foreign, [name]);
            if name.contains('5') {
                is_whole(&engine, R, 1..=8);
                is_whole(&engine, OTHER, 1..=8);
            }
            engine.purge().unwrap();
            engine.close().unwrap();
        }
        assert_eq!(vfs.read_file(&path).unwrap(), bytes, "it is not ours to change");
    }
}

#[test]
fn a_check_finds_what_is_wrong_in_each_kind_of_file_and_changes_nothing() {
    let check = |vfs: &SimVfs| {
        let before = vfs.digest();
        let report = of_run(vfs, 60).check(DIR, &ScrubOptions::default().rate_bytes(0), |_| {}).unwrap();
        assert_eq!(vfs.digest(), before);
        report
    };
    let mut f = Fixture::new();
    f.sealed().close().unwrap();
    let clean = check(&f.vfs);
    assert!(clean.is_clean() && !clean.in_use, "{clean:?}");
    assert_eq!((clean.regions, clean.entries), (2, 16));
    let harmed = |harm: &dyn Fn(&Fixture)| {
        let f = Fixture { vfs: f.vfs.crash(LossPolicy::KeepAll), ..Fixture::new() };
        harm(&f);
        check(&f.vfs)
    };
    let of_entry = harmed(&|f| f.rot(R, 5));
    assert_eq!((of_entry.damage.len(), of_entry.rot.len()), (1, 0), "{of_entry:?}");
    assert_eq!(of_entry.damage[0].region(), Some(R));
    let of_footer = harmed(&|f| rot(&f.vfs, newest(&f.vfs, "foot"), 200));
    assert_eq!((of_footer.damage.len(), of_footer.rot.len()), (0, 1), "{of_footer:?}");
    let of_checkpoint = harmed(&|f| rot(&f.vfs, newest(&f.vfs, "ckpt"), 200));
    assert_eq!((of_checkpoint.damage.len(), of_checkpoint.rot.len()), (0, 1), "{of_checkpoint:?}");
    let of_header = harmed(&|f| rot(&f.vfs, "/db/0000000001.log", 50));
    assert_eq!((of_header.damage.len(), of_header.rot.len()), (0, 1), "{of_header:?}");
    let of_record = harmed(&|f| ruin(&f.vfs, "/db/0000000001.log", 4096 + 64, 3));
    assert_eq!((of_record.damage.len(), of_record.rot.len()), (0, 1), "{of_record:?}");
    let missing = harmed(&|f| f.vfs.remove_file("/db/0000000001.log").unwrap());
    assert!(!missing.damage.is_empty() && missing.refusals.is_empty(), "{missing:?}");
    let bad_sector = harmed(&|f| {
        let (path, at) = f.find(R, 5);
        f.vfs.add_bad_sector(&path, at / 512).unwrap();
    });
    assert!(!bad_sector.damage.is_empty(), "{bad_sector:?}");

    // Beside a running engine.
    let engine = f.open();
    let beside = check(&f.vfs);
    assert!(beside.is_clean() && beside.in_use, "{beside:?}");
    drop(engine);
    let nothing = SimVfs::new(1);
    assert!(of_run(&nothing, 1).check(DIR, &ScrubOptions::default(), |_| {}).is_err());
}
