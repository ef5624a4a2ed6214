//! The rules of the simulated disk, one test each.

use super::calls::SimDir;
use super::*;
use crate::clock;
use crate::vfs::io::{read_up_to, write_parts_at};
use crate::vfs::{LockMode, OpenMode, Vfs, VfsDir, VfsFile};
use std::collections::BTreeSet;
use std::io::{ErrorKind, IoSlice, Result};
use std::path::{Path, PathBuf};
use std::sync::mpsc;

fn disk() -> SimVfs {
    let disk = SimVfs::new(42);
    disk.create_dir_all(Path::new("/db")).unwrap();
    disk
}

/// The directory of all tests, without a call.
fn db(disk: &SimVfs) -> SimDir {
    disk.dir(Path::new("/db"))
}

fn path(name: &str) -> PathBuf {
    Path::new("/db").join(name)
}

fn create(disk: &SimVfs, name: &str) -> Arc<dyn VfsFile> {
    db(disk).open(name, OpenMode::CreateNew).unwrap()
}

/// A file that is durable with its name.
fn durable(disk: &SimVfs, name: &str, bytes: &[u8]) -> Arc<dyn VfsFile> {
    let file = create(disk, name);
    write(&*file, bytes, 0);
    file.sync_data().unwrap();
    db(disk).sync().unwrap();
    assert_eq!(disk.pending_count(), 0);
    file
}

fn write(file: &dyn VfsFile, bytes: &[u8], offset: u64) {
    write_parts_at(file, &[bytes], offset).unwrap();
}

fn write_once(file: &dyn VfsFile, bytes: &[u8], offset: u64) -> Result<usize> {
    file.write_at(&[IoSlice::new(bytes)], offset)
}

fn names(disk: &SimVfs) -> String {
    let names: Vec<String> =
        disk.list().iter().map(|(p, _)| p.file_name().unwrap().to_string_lossy().into_owned()).collect();
    names.join(" ")
}

/// All disks that a crash may leave, by the subset that survives.
fn all_crashes(disk: &SimVfs) -> impl Iterator<Item = SimVfs> {
    let snapshot = disk.freeze();
    let count = snapshot.pending_count();
    assert!(count <= 16, "too many: {:?}", snapshot.pending());
    (0..1 << count).map(move |bits| snapshot.crash(LossPolicy::Subset(bits)))
}

#[test]
fn synced_bytes_and_names_survive_every_crash() {
    for profile in [
        Profile::Strict,
        Profile::Ext4Ordered,
        Profile::GarbageOnTear,
        Profile::NoSafePartialSector,
        Profile::FailedSyncCleansPages,
    ] {
        let disk = disk().with_profile(profile);
        let file = durable(&disk, "a", &[1; 1000]);
        // In a sector of its own: a shared one is what the last profile but one is about.
        write(&*file, &[2; 1000], 1024);
        drop(create(&disk, "b"));
        for crashed in all_crashes(&disk) {
            assert_eq!(crashed.read_file(path("a")).unwrap()[..1000], [1; 1000]);
            assert_eq!(crashed.pending_count(), 0);
        }
    }
}

#[test]
fn unsynced_sectors_may_vanish_in_any_subset() {
    let disk = disk();
    let file = durable(&disk, "a", &[1; 2048]);
    write(&*file, &[2; 2048], 0);
    assert_eq!(disk.pending_count(), 4);
    let found: BTreeSet<Vec<u8>> = all_crashes(&disk)
        .map(|d| d.read_file(path("a")).unwrap().chunks(512).map(|s| s[0]).collect())
        .collect();
    assert_eq!(found.len(), 16);
    assert_eq!(disk.read_file(path("a")).unwrap(), [2; 2048]);
    assert_eq!(disk.durable_file(path("a")).unwrap(), [1; 2048]);
}

#[test]
fn a_sector_written_twice_may_survive_in_either_state() {
    let disk = disk();
    let file = durable(&disk, "a", &[0; 512]);
    write(&*file, b"one", 0);
    write(&*file, b"two", 3);
    let found: BTreeSet<Vec<u8>> =
        all_crashes(&disk).map(|d| d.read_file(path("a")).unwrap()[..6].to_vec()).collect();
    assert_eq!(found, [b"\0\0\0\0\0\0", b"one\0\0\0", b"onetwo"].map(|s| s.to_vec()).into());
}

#[test]
fn the_length_may_come_ahead_of_the_bytes_or_not_at_all() {
    let disk = disk();
    let file = durable(&disk, "a", b"");
    write(&*file, b"abc", 0);
    assert_eq!(disk.pending(), ["/db/a: sector 0, bytes 0..3 of it written", "/db/a: length 3"]);
    let found: Vec<Vec<u8>> = all_crashes(&disk).map(|d| d.read_file(path("a")).unwrap()).collect();
    assert_eq!(found, [&b""[..], b"", b"\0\0\0", b"abc"]);
}

#[test]
fn a_truncate_may_be_undone_by_a_crash() {
    let disk = disk();
    let file = durable(&disk, "a", &[1; 1024]);
    file.set_len(10).unwrap();
    assert_eq!(disk.read_file(path("a")).unwrap(), [1; 10]);
    assert_eq!(disk.crash(LossPolicy::LoseAll).read_file(path("a")).unwrap(), [1; 1024]);
    file.sync_data().unwrap();
    file.set_len(20).unwrap();
    assert_eq!(disk.crash(LossPolicy::KeepAll).read_file(path("a")).unwrap()[8..12], [1, 1, 0, 0]);
}

#[test]
fn reservations_are_pending_too() {
    let disk = disk();
    let file = durable(&disk, "a", b"");
    file.allocate(8192).unwrap();
    assert_eq!((file.len().unwrap(), disk.allocated()), (8192, 8192));
    assert!(disk.crash(LossPolicy::LoseAll).read_file(path("a")).unwrap().is_empty());
    file.sync_all().unwrap();
    assert_eq!(disk.crash(LossPolicy::LoseAll).read_file(path("a")).unwrap(), [0; 8192]);
}

#[test]
fn creation_without_dir_sync_may_be_lost_though_the_file_was_synced() {
    let disk = disk();
    let file = create(&disk, "a");
    write(&*file, b"abc", 0);
    file.sync_all().unwrap();
    assert_eq!(disk.pending(), ["/db: create a"]);
    assert_eq!(names(&disk.crash(LossPolicy::LoseAll)), "");
    assert_eq!(disk.crash(LossPolicy::KeepAll).read_file(path("a")).unwrap(), b"abc");
}

#[test]
fn rename_without_dir_sync_may_be_lost() {
    let disk = disk();
    durable(&disk, "a", b"old");
    durable(&disk, "tmp", b"new");
    db(&disk).rename("tmp", "a").unwrap();
    assert_eq!(names(&disk), "a");
    let found: Vec<_> = all_crashes(&disk).map(|d| (names(&d), d.read_file(path("a")).unwrap())).collect();
    assert_eq!(found, [("a tmp".to_string(), b"old".to_vec()), ("a".to_string(), b"new".to_vec())]);
    db(&disk).sync().unwrap();
    assert_eq!(disk.crash(LossPolicy::LoseAll).read_file(path("a")).unwrap(), b"new");
}

#[test]
fn a_removed_file_may_come_back_and_an_open_one_stays_readable() {
    let disk = disk();
    let file = durable(&disk, "a", b"abc");
    db(&disk).remove("a").unwrap();
    assert_eq!(names(&disk), "");
    let mut buf = [0; 3];
    assert_eq!(read_up_to(&*file, &mut buf, 0).unwrap(), 3);
    assert_eq!(names(&disk.crash(LossPolicy::LoseAll)), "a");
    db(&disk).sync().unwrap();
    assert_eq!(names(&disk.crash(LossPolicy::LoseAll)), "");
    write(&*file, b"unreachable", 0);
    assert_eq!(disk.pending_count(), 0, "no crash can bring it back");
    drop(file);
    assert_eq!(disk.shared.lock().disk.files.len(), 0, "and nobody can reach it");
}

#[test]
fn directory_operations_survive_in_any_subset() {
    let disk = disk();
    durable(&disk, "a", b"a");
    db(&disk).hard_link("a", &db(&disk), "b").unwrap();
    db(&disk).remove("a").unwrap();
    drop(create(&disk, "c"));
    let found: BTreeSet<String> = all_crashes(&disk).map(|d| names(&d)).collect();
    let expected = ["", "a", "a b", "a b c", "a c", "b", "b c", "c"];
    assert_eq!(found, expected.map(str::to_string).into());
}

#[test]
fn a_crash_leaves_the_running_disk_alone() {
    let disk = disk();
    let file = durable(&disk, "a", &[1; 512]);
    write(&*file, &[2; 512], 0);
    let snapshot = disk.freeze();
    let crashed = snapshot.crash(LossPolicy::LoseAll);
    write(&*db(&crashed).open("a", OpenMode::ReadWrite).unwrap(), &[3; 512], 0);
    write(&*file, &[4; 512], 0);
    assert_eq!(disk.read_file(path("a")).unwrap(), [4; 512]);
    assert_eq!(crashed.read_file(path("a")).unwrap(), [3; 512]);
    assert_eq!(snapshot.crash(LossPolicy::KeepAll).read_file(path("a")).unwrap(), [2; 512]);
}

#[test]
fn policies_choose_what_they_say() {
    let disk = disk();
    let file = durable(&disk, "a", &[b'.'; 2048]);
    write(&*file, &[b'x'; 2048], 0);
    let left = |policy| -> String {
        disk.crash(policy).read_file(path("a")).unwrap().chunks(512).map(|s| char::from(s[0])).collect()
    };
    assert_eq!(left(LossPolicy::LoseAll), "....");
    assert_eq!(left(LossPolicy::KeepAll), "xxxx");
    assert_eq!(left(LossPolicy::KeepOnly(1)), ".x..");
    assert_eq!(left(LossPolicy::LoseOnly(1)), "x.xx");
    assert_eq!(left(LossPolicy::KeepFirst(3)), "xxx.");
    assert_eq!(left(LossPolicy::LoseFirst(3)), "...x");
    assert_eq!(left(LossPolicy::Subset(0b0110)), ".xx.");
    let torn = disk.crash(LossPolicy::Torn(1, 7)).read_file(path("a")).unwrap();
    assert!(torn[..519].iter().all(|b| *b == b'x') && torn[519..].iter().all(|b| *b == b'.'));
    let random: BTreeSet<String> = (0..200).map(|seed| left(LossPolicy::Random(seed))).collect();
    assert_eq!(random.len(), 16);
}

#[test]
fn ext4_keeps_metadata_in_order_and_data_ahead_of_the_length() {
    let disk = disk().with_profile(Profile::Ext4Ordered);
    let file = durable(&disk, "a", &[1; 512]);
    write(&*file, &[2; 1024], 0);
    drop(create(&disk, "b"));
    drop(create(&disk, "c"));
    let found: BTreeSet<(String, Vec<u8>)> = all_crashes(&disk)
        .map(|d| (names(&d), d.read_file(path("a")).unwrap().chunks(512).map(|s| s[0]).collect()))
        .collect();
    let case = |names: &str, sectors: &[u8]| (names.to_string(), sectors.to_vec());
    let expected = [
        case("a", &[1]),
        case("a", &[2]),
        case("a", &[1, 2]),
        case("a", &[2, 2]),
        case("a b", &[1, 2]),
        case("a b", &[2, 2]),
        case("a b c", &[1, 2]),
        case("a b c", &[2, 2]),
    ];
    assert_eq!(found, expected.into());
}

#[test]
fn a_torn_sector_holds_garbage_only_where_it_was_written() {
    let disk = disk().with_profile(Profile::GarbageOnTear);
    let file = durable(&disk, "a", &[1; 512]);
    write(&*file, &[2; 100], 200);
    let snapshot = disk.freeze();
    let mut torn = BTreeSet::new();
    for seed in 0..200 {
        let bytes = snapshot.crash(LossPolicy::Random(seed)).read_file(path("a")).unwrap();
        assert_eq!((&bytes[..200], &bytes[300..]), (&[1; 200][..], &[1; 212][..]));
        torn.insert(bytes);
    }
    assert!(torn.contains(&vec![1; 512]), "lost whole");
    assert!(torn.len() > 2, "lost, kept, and torn");
}

#[test]
fn without_safe_partial_sectors_synced_neighbours_are_lost_too() {
    let disk = disk().with_profile(Profile::NoSafePartialSector);
    let file = durable(&disk, "a", &[1; 1024]);
    write(&*file, &[2; 100], 200);
    let bytes = (0..100)
        .map(|seed| disk.crash(LossPolicy::Random(seed)).read_file(path("a")).unwrap())
        .find(|b| b[..200] != [1; 200])
        .expect("some crash hits the neighbours");
    assert_eq!(bytes[512..], [1; 512], "but never another sector");
}

#[test]
fn failed_sync_cleans_pages() {
    let disk = disk().with_profile(Profile::FailedSyncCleansPages);
    let file = durable(&disk, "a", &[1; 8192]);
    write(&*file, &[2; 8192], 0);
    disk.set_fault(Fault::error(EIO).on(OpKind::SyncData));
    assert_eq!(file.sync_data().unwrap_err().raw_os_error(), Some(EIO));
    file.sync_data().expect("the second sync knows of nothing");
    assert_eq!(disk.read_file(path("a")).unwrap(), [2; 8192], "the cache shows the new bytes");
    assert_eq!(disk.crash(LossPolicy::KeepAll).read_file(path("a")).unwrap(), [1; 8192]);
    file.drop_cache(0..8192).unwrap();
    assert_eq!(disk.read_file(path("a")).unwrap(), [1; 8192], "and the disk never got them");
}

#[test]
fn strictly_a_failed_sync_leaves_its_changes_pending() {
    let disk = disk();
    let file = durable(&disk, "a", &[1; 512]);
    write(&*file, &[2; 512], 0);
    disk.set_fault(Fault::error(EIO).on(OpKind::SyncData));
    file.sync_data().unwrap_err();
    assert_eq!(disk.pending_count(), 1);
    file.sync_data().unwrap();
    assert_eq!(disk.pending_count(), 0);
}

#[test]
fn every_open_handle_is_told_once_of_a_failed_sync() {
    let disk = disk();
    let [one, two] = [durable(&disk, "a", b"a"), db(&disk).open("a", OpenMode::ReadWrite).unwrap()];
    disk.set_fault(Fault::error(EIO).on(OpKind::SyncData));
    one.sync_data().unwrap_err();
    let three = db(&disk).open("a", OpenMode::Read).unwrap();
    one.sync_data().unwrap();
    two.sync_data().unwrap_err();
    two.sync_data().unwrap();
    three.sync_data().unwrap();
}

#[test]
fn dropping_the_cache_spares_what_is_not_synced() {
    let disk = disk();
    let file = durable(&disk, "a", &[1; 8192]);
    write(&*file, &[2; 10], 5000);
    file.drop_cache(0..u64::MAX).unwrap();
    assert_eq!(disk.read_file(path("a")).unwrap()[5000..5010], [2; 10]);
}

#[test]
fn a_lost_write_is_seen_until_the_cache_is_dropped() {
    let disk = disk();
    let file = durable(&disk, "a", &[1; 1024]);
    disk.set_fault(Fault::new(Effect::LoseWrite));
    write(&*file, &[2; 1024], 0);
    file.sync_data().unwrap();
    assert_eq!(disk.read_file(path("a")).unwrap(), [2; 1024]);
    file.drop_cache(0..1024).unwrap();
    assert_eq!(disk.read_file(path("a")).unwrap(), [1; 1024]);
}

#[test]
fn a_misdirected_write_lands_elsewhere() {
    let disk = disk();
    let file = durable(&disk, "a", &[1; 2048]);
    disk.set_fault(Fault::new(Effect::Misdirect(2)));
    write(&*file, &[2; 512], 512);
    file.sync_data().unwrap();
    let left = disk.crash(LossPolicy::LoseAll).read_file(path("a")).unwrap();
    assert_eq!(left.chunks(512).map(|s| s[0]).collect::<Vec<_>>(), [1, 1, 1, 2]);
}

#[test]
fn a_lying_sync_makes_nothing_durable() {
    let disk = disk();
    let file = durable(&disk, "a", b"old");
    write(&*file, b"new", 0);
    drop(create(&disk, "b"));
    disk.set_fault(Fault::new(Effect::LieSync).forever());
    file.sync_data().unwrap();
    file.sync_all().unwrap();
    db(&disk).sync().unwrap();
    assert_eq!(disk.pending_count(), 2);
    disk.clear_faults();
    file.sync_data().unwrap();
    assert_eq!(disk.pending_count(), 1);
}

#[test]
fn faults_strike_the_call_that_was_meant() {
    let disk = disk();
    let (a, b) = (durable(&disk, "a", b"a"), durable(&disk, "b", b"b"));
    disk.set_fault(Fault::error(ENOSPC).on(OpKind::Write).path("/b").skip(1));
    write(&*a, b"1", 0);
    write(&*b, b"1", 0);
    write(&*a, b"2", 0);
    assert_eq!(write_once(&*b, b"2", 0).unwrap_err().kind(), ErrorKind::StorageFull);
    write(&*b, b"3", 0);
    assert_eq!(disk.faults_struck(), 1);

    disk.set_fault(Fault::error(EROFS).at(disk.ops() + 2).forever());
    write(&*a, b"4", 0);
    for _ in 0..3 {
        assert_eq!(write_once(&*a, b"5", 0).unwrap_err().raw_os_error(), Some(EROFS));
    }
    disk.clear_faults();
    disk.set_fault(Fault::error(EMFILE).at(disk.ops() + 1));
    assert_eq!(db(&disk).open("a", OpenMode::Read).unwrap_err().raw_os_error(), Some(EMFILE));
    assert_eq!(disk.read_file(path("a")).unwrap(), b"4");
}

#[test]
fn a_call_may_fail_though_it_was_done() {
    let disk = disk();
    disk.set_fault(Fault::new(Effect::ErrorAfter(EIO)).on(OpKind::Create));
    disk.set_fault(Fault::new(Effect::ErrorAfter(EIO)).on(OpKind::Lock));
    assert!(db(&disk).open("a", OpenMode::CreateNew).is_err());
    assert!(db(&disk).lock_file("LOCK", LockMode::Exclusive).is_err());
    assert_eq!(names(&disk), "LOCK a");
    drop(db(&disk).lock_file("LOCK", LockMode::Exclusive).unwrap());
    assert!(disk.shared.lock().disk.files.values().all(|f| f.handles == 0));
}

#[test]
fn short_and_interrupted_io_is_resumed_by_the_layer_above() {
    let disk = disk();
    let file = create(&disk, "a");
    disk.set_fault(Fault::new(Effect::Short(3)).on(OpKind::Write));
    assert_eq!(write_once(&*file, b"abcdef", 0).unwrap(), 3);
    disk.set_fault(Fault::error(EINTR).on(OpKind::Write));
    assert_eq!(write_once(&*file, b"abcdef", 0).unwrap_err().kind(), ErrorKind::Interrupted);
    disk.set_short_io(Some(2));
    let bytes: Vec<u8> = (0..20_000u32).map(|i| i as u8).collect();
    write(&*file, &bytes, 0);
    let mut back = vec![0; bytes.len()];
    assert_eq!(read_up_to(&*file, &mut back, 0).unwrap(), bytes.len());
    assert_eq!(back, bytes);
}

#[test]
fn snapshots_show_the_disk_around_a_call() {
    let disk = disk();
    let file = durable(&disk, "a", b"old!");
    let next = disk.ops() + 1;
    for moment in [Moment::Before, Moment::Middle, Moment::After] {
        disk.snapshot_at(next, moment);
    }
    disk.set_mark(7);
    write(&*file, b"new?", 0);
    write(&*file, b"late", 0);
    let snapshots = disk.take_snapshots();
    let left: Vec<Vec<u8>> =
        snapshots.iter().map(|s| s.crash(LossPolicy::KeepAll).read_file(path("a")).unwrap()).collect();
    assert_eq!(left, [b"old!", b"ned!", b"new?"]);
    assert!(snapshots.iter().all(|s| s.op() == next && s.mark() == 7 && s.call() == "write /db/a 0..4"));
}

#[test]
fn snapshots_are_taken_at_every_call_that_changes_the_disk() {
    let disk = disk();
    disk.snapshot_every(Some(Moment::Before));
    let file = create(&disk, "a");
    write(&*file, b"abc", 0);
    file.len().unwrap();
    file.sync_data().unwrap();
    db(&disk).sync().unwrap();
    let snapshots = disk.take_snapshots();
    let calls: Vec<&str> = snapshots.iter().map(|s| s.call()).collect();
    assert_eq!(calls, ["create /db/a", "write /db/a 0..3", "sync_data /db/a", "sync_dir /db"]);
    assert_eq!(snapshots.iter().map(|s| s.pending_count()).collect::<Vec<_>>(), [0, 1, 3, 1]);
}

#[test]
fn after_the_power_is_off_nothing_works_and_nothing_changes() {
    let disk = disk();
    let file = durable(&disk, "a", b"a");
    disk.halt_after(disk.ops() + 1);
    write(&*file, b"b", 0);
    assert_eq!(write_once(&*file, b"c", 0).unwrap_err().raw_os_error(), Some(EIO));
    assert!(file.sync_data().is_err() && db(&disk).remove("a").is_err());
    assert_eq!(disk.crash(LossPolicy::KeepAll).read_file(path("a")).unwrap(), b"b");
    let alive = disk.crash(LossPolicy::LoseAll);
    drop(db(&alive).open("a", OpenMode::Read).unwrap());
}

#[test]
fn transcripts_name_every_call() {
    let disk = disk();
    disk.transcript_start();
    let file = create(&disk, "tmp");
    write(&*file, b"abc", 5);
    db(&disk).rename("tmp", "a").unwrap();
    file.sync_data().unwrap();
    db(&disk).sync().unwrap();
    assert!(db(&disk).open("none", OpenMode::Read).is_err());
    let expected = [
        "create /db/tmp",
        "write /db/tmp 5..8",
        "rename /db/tmp -> /db/a",
        "sync_data /db/a",
        "sync_dir /db",
        "open /db/none = No such file or directory (os error 2)",
    ];
    assert_eq!(disk.take_transcript(), expected);
    assert!(disk.take_transcript().is_empty());
}

#[test]
fn a_blocked_sync_waits_and_covers_only_what_came_before_it() {
    let disk = disk();
    let file = durable(&disk, "a", &[0; 1024]);
    write(&*file, &[1; 512], 0);
    disk.block_syncs();
    std::thread::scope(|scope| {
        let sync = scope.spawn(|| file.sync_data());
        disk.wait_for_syncs(1);
        assert_eq!(disk.durable_file(path("a")).unwrap(), [0; 1024]);
        write(&*file, &[2; 512], 512);
        disk.release_syncs();
        sync.join().unwrap().unwrap();
    });
    assert_eq!(disk.syncs_waiting(), 0);
    let left = disk.durable_file(path("a")).unwrap();
    assert_eq!((left[0], left[512]), (1, 0));
}

#[test]
fn a_power_cut_fails_the_syncs_that_wait() {
    let disk = disk();
    let file = durable(&disk, "a", b"a");
    disk.block_syncs();
    std::thread::scope(|scope| {
        let sync = scope.spawn(|| file.sync_data());
        disk.wait_for_syncs(1);
        disk.power_off();
        sync.join().unwrap().unwrap_err();
    });
}

#[test]
fn the_hook_sees_every_call_and_may_use_the_disk() {
    let disk = disk();
    let (sender, receiver) = mpsc::channel();
    let inner = disk.clone();
    disk.set_hook(Some(Arc::new(move |op: &Op| {
        sender.send((op.kind, inner.crash(LossPolicy::KeepAll).list().len())).unwrap();
    })));
    drop(create(&disk, "a"));
    db(&disk).sync().unwrap();
    disk.set_hook(None);
    assert_eq!(receiver.try_iter().collect::<Vec<_>>(), [(OpKind::Create, 0), (OpKind::SyncDir, 1)]);
}

#[test]
fn a_full_disk_takes_what_fits_and_then_nothing() {
    let disk = disk();
    disk.set_capacity(Some(8192 + 100));
    let file = create(&disk, "a");
    assert_eq!(db(&disk).free_space().unwrap(), 8192);
    assert_eq!(write_once(&*file, &[1; 10_000], 0).unwrap(), 8192);
    assert_eq!(write_once(&*file, b"x", 8192).unwrap_err().kind(), ErrorKind::StorageFull);
    assert_eq!(file.allocate(8193).unwrap_err().kind(), ErrorKind::StorageFull);
    write(&*file, &[2; 8192], 0);
    assert_eq!(db(&disk).free_space().unwrap(), 0);
    db(&disk).remove("a").unwrap();
    assert_eq!(db(&disk).free_space().unwrap(), 0, "still open");
    drop(file);
    assert_eq!(db(&disk).free_space().unwrap(), 8192);
}

#[test]
fn bad_sectors_cannot_be_read_until_they_are_written_whole() {
    let disk = disk();
    let file = durable(&disk, "a", &[1; 2048]);
    disk.add_bad_sector(path("a"), 1).unwrap();
    let mut buf = [0; 2048];
    assert_eq!(file.read_at(&mut buf, 0).unwrap(), 512);
    assert_eq!(file.read_at(&mut buf, 600).unwrap_err().raw_os_error(), Some(EIO));
    assert_eq!(file.read_at(&mut buf, 1024).unwrap(), 1024);
    let crashed = db(&disk.crash(LossPolicy::LoseAll)).open("a", OpenMode::ReadWrite).unwrap();
    crashed.read_at(&mut buf, 512).unwrap_err();
    write(&*crashed, &[2; 511], 512);
    crashed.read_at(&mut buf, 512).unwrap_err();
    write(&*crashed, &[2; 512], 512);
    assert_eq!(crashed.read_at(&mut buf, 0).unwrap(), 2048);
}

#[test]
fn a_lock_is_exclusive_and_dies_with_its_process() {
    let disk = disk();
    let lock = db(&disk).lock_file("LOCK", LockMode::Exclusive).unwrap();
    assert_eq!(
        db(&disk.clone()).lock_file("LOCK", LockMode::Exclusive).err().map(|e| e.kind()),
        Some(ErrorKind::WouldBlock)
    );
    drop(db(&disk.crash(LossPolicy::LoseAll)).lock_file("LOCK", LockMode::Exclusive).unwrap());
    drop(lock);
    drop(db(&disk).lock_file("LOCK", LockMode::Exclusive).unwrap());
}

#[test]
fn names_obey_the_rules_of_a_file_system() {
    let disk = disk();
    let kind = |r: Result<()>| r.unwrap_err().kind();
    let open = |name: &str, mode| db(&disk).open(name, mode).map(drop);
    assert_eq!(kind(open("a", OpenMode::ReadWrite)), ErrorKind::NotFound);
    drop(create(&disk, "a"));
    assert_eq!(kind(open("a", OpenMode::CreateNew)), ErrorKind::AlreadyExists);
    let root = disk.dir(Path::new("/"));
    assert_eq!(kind(root.open("db", OpenMode::Read).map(drop)), ErrorKind::IsADirectory);
    assert_eq!(kind(disk.open_dir(Path::new("/no")).map(drop)), ErrorKind::NotFound);
    assert_eq!(kind(disk.create_dir_all(&path("a")).map(drop)), ErrorKind::NotADirectory);
    assert_eq!(kind(db(&disk).remove("b")), ErrorKind::NotFound);
    assert_eq!(kind(db(&disk).rename("b", "a")), ErrorKind::NotFound);
    db(&disk).hard_link("a", &db(&disk), "b").unwrap();
    assert_eq!(kind(db(&disk).hard_link("a", &db(&disk), "b")), ErrorKind::AlreadyExists);
    db(&disk).rename("a", "b").unwrap();
    assert_eq!(names(&disk), "a b", "two names of one file: a rename does nothing");
    assert_eq!(kind(db(&disk).rename_new("a", "b")), ErrorKind::AlreadyExists);
    let elsewhere = SimVfs::new(1);
    assert_eq!(kind(db(&disk).hard_link("a", &db(&elsewhere), "a")), ErrorKind::CrossesDevices);
    let id = db(&disk).id_of("a").unwrap();
    assert!(id.is_some() && id == db(&disk).id_of("b").unwrap());
    let read_only = db(&disk).open("a", OpenMode::Read).unwrap();
    assert!(write_once(&*read_only, b"x", 0).is_err() && read_only.set_len(0).is_err());
    assert_eq!(root.list().unwrap()[0].name, "db");
    assert_eq!(kind(disk.dir(Path::new("/no")).sync()), ErrorKind::NotFound);
    let file = db(&disk).open("a", OpenMode::ReadWrite).unwrap();
    assert_eq!(file.set_len(1 << 40).unwrap_err().raw_os_error(), Some(EFBIG));
    assert!(write_once(&*file, b"x", u64::MAX).is_err());
    assert!(file.map(10).unwrap().is_none());
}

#[test]
fn vandalism_is_on_the_device_and_in_the_cache() {
    let disk = disk();
    disk.write_file(path("a"), &[0xff; 1024]).unwrap();
    disk.flip_bit(path("a"), 9).unwrap();
    disk.zero_sector(path("a"), 1).unwrap();
    disk.write_bytes(path("a"), 1022, b"!").unwrap();
    disk.flip_bit(path("a"), 1 << 20).unwrap();
    assert_eq!(disk.pending_count(), 0);
    for disk in [disk.clone(), disk.crash(LossPolicy::LoseAll)] {
        let bytes = disk.read_file(path("a")).unwrap();
        assert_eq!((bytes[0], bytes[1], bytes[511], bytes[512], bytes[1022]), (0xff, 0xfd, 0xff, 0, b'!'));
        assert_eq!(bytes.len(), 1024);
    }
    disk.set_file_len(path("a"), 3).unwrap();
    assert_eq!(disk.list(), [(path("a"), 3)]);
    disk.remove_file(path("a")).unwrap();
    assert_eq!(names(&disk.crash(LossPolicy::LoseAll)), "");
}

/// A few hundred calls at random; what they leave, in all its crashes, is a function of the seed.
fn scramble(seed: u64) -> Vec<u64> {
    let disk = SimVfs::new(seed).with_profile(Profile::NoSafePartialSector);
    disk.create_dir_all(Path::new("/db")).unwrap();
    disk.set_short_io(Some(5));
    disk.snapshot_every(Some(Moment::After));
    let mut rng = crate::random::Rng::at(seed);
    for _ in 0..300 {
        let name = rng.below(4).to_string();
        let bytes = vec![rng.next() as u8; rng.below(3000) as usize];
        let Ok(file) = db(&disk)
            .open(&name, OpenMode::ReadWrite)
            .or_else(|_| db(&disk).open(&name, OpenMode::CreateNew))
        else {
            continue;
        };
        match rng.below(10) {
            0 => file.sync_data().unwrap(),
            1 => db(&disk).sync().unwrap(),
            2 => db(&disk).remove(&name).unwrap(),
            3 => db(&disk).rename(&name, "x").unwrap(),
            4 => file.set_len(rng.below(9000)).unwrap(),
            5 => drop(file.allocate(rng.below(9000)).unwrap()),
            6 => file.drop_cache(0..rng.below(9000)).unwrap(),
            _ => write(&*file, &bytes, rng.below(6000)),
        }
    }
    disk.take_snapshots().iter().map(|s| s.crash(LossPolicy::Random(seed)).digest()).collect()
}

#[test]
fn the_same_seed_gives_the_same_disk() {
    assert_eq!(scramble(1), scramble(1));
    assert_ne!(scramble(1), scramble(2));
}

#[test]
fn keeping_everything_is_what_the_cache_shows_and_settling_agrees() {
    for seed in 0..20 {
        let disk = disk();
        let mut rng = crate::random::Rng::at(seed);
        for _ in 0..200 {
            let name = rng.below(3).to_string();
            let file = db(&disk)
                .open(&name, OpenMode::ReadWrite)
                .or_else(|_| db(&disk).open(&name, OpenMode::CreateNew))
                .unwrap();
            match rng.below(8) {
                0 => file.sync_data().unwrap(),
                1 => db(&disk).sync().unwrap(),
                2 => db(&disk).remove(&name).unwrap(),
                3 => db(&disk).rename(&name, "x").unwrap(),
                4 => file.set_len(rng.below(9000)).unwrap(),
                5 => drop(file.allocate(rng.below(9000)).unwrap()),
                6 => file.drop_cache(0..rng.below(9000)).unwrap(),
                _ => write(&*file, &vec![seed as u8 + 1; rng.below(3000) as usize], rng.below(6000)),
            }
            assert_eq!(disk.crash(LossPolicy::KeepAll).digest(), disk.digest());
        }
        let digest = disk.digest();
        disk.settle();
        assert_eq!(disk.pending_count(), 0);
        assert_eq!(disk.crash(LossPolicy::LoseAll).digest(), digest);
    }
}

/// Explorers take tens of thousands of crashes; each must cost microseconds, not a copy of the disk.
#[test]
fn a_crash_copies_only_what_was_pending() {
    let disk = disk();
    for name in ["a", "b", "c", "d"] {
        durable(&disk, name, &vec![7; 1 << 20]);
    }
    let file = db(&disk).open("a", OpenMode::ReadWrite).unwrap();
    write(&*file, &[8; 2048], 1000);
    let snapshot = disk.freeze();
    let start = clock::now();
    for seed in 0..10_000 {
        snapshot.crash(LossPolicy::Random(seed));
    }
    let each = clock::since(start) / 10_000;
    eprintln!("{each:?} a crash");
    assert!(each < std::time::Duration::from_millis(1), "{each:?} a crash");
}
