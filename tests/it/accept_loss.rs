//! Damage that was acknowledged and that nobody can tie to regions: refused, shown, and given up
//! only when told so.

use crate::support::engines::{DIR, by_hand, kill, of_run};
use crate::support::files::{of_kind, records, remove_all, ruin, wipe, wipe_copies};
use crate::support::stores::{self, REGIONS, State, Writer};
use raftwood::vfs::sim::{LossPolicy, Moment, Op, OpKind, SimVfs};
use raftwood::{CheckReport, TailPolicy};
use raftwood::{Durability, Engine, EntryId, ErrorKind, HardStateHealth, Health, ReadLimit, RegionId};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

/// A store that was killed, and what was acknowledged after each of its batches.
struct Killed {
    vfs: SimVfs,
    states: Vec<State>,
}

/// Batches in two segments, of which the second is unsealed, after the checkpoint of an empty store.
fn killed() -> Killed {
    let mut w = Writer::new(11);
    let mut states = vec![State::new()];
    for _ in 0..2 {
        let engine = w.open();
        for first in [1, 2, 3, 1, 2] {
            w.write(&engine, (first..=REGIONS).step_by(3));
            states.push(w.acked.clone());
        }
        kill(&w.vfs, engine);
    }
    w.vfs.settle();
    let vfs = w.vfs.crash(LossPolicy::KeepAll);
    Killed { vfs, states }
}

/// Where each batch stands: file and offset of its record.
fn batches(vfs: &SimVfs) -> Vec<(PathBuf, u64)> {
    let mut out = Vec::new();
    for path in of_kind(vfs, "log") {
        let records = records(&vfs.read_file(&path).unwrap());
        out.extend(records.iter().filter(|r| r.is_batch).map(|r| (path.clone(), r.at)));
    }
    out
}

fn open(vfs: &SimVfs, policy: TailPolicy) -> raftwood::Result<Engine> {
    of_run(vfs, 40).tail_policy(policy).open(DIR)
}

fn check(vfs: &SimVfs) -> CheckReport {
    of_run(vfs, 41).check(DIR, &Default::default(), |p| assert!(p.done_bytes <= p.total_bytes)).unwrap()
}

/// The description of a batch is ruined, wherever it stands.
fn rotten(vfs: &SimVfs, (path, at): &(PathBuf, u64)) {
    wipe_copies(vfs);
    ruin(vfs, path, at + 66, 7);
}

/// What an open store holds.
fn observed(engine: &Engine) -> State {
    let mut state = State::new();
    for id in engine.regions() {
        let region = engine.region(id);
        let entries = region.entries(.., ReadLimit::NONE).unwrap();
        let entries = entries.into_iter().map(|e| (e.id, e.payload)).collect();
        state.insert(id.0, stores::Acked { entries, hard_state: region.hard_state() });
    }
    state
}

#[track_caller]
fn all_lost_their_votes(engine: &Engine) {
    for id in engine.regions() {
        let lost = Health::Damaged { ranges: Vec::new(), hard_state: HardStateHealth::Lost };
        assert_eq!(engine.region(id).health(), lost, "{id}");
        assert_eq!(engine.region(id).hard_state_or_lost().unwrap_err().kind(), ErrorKind::HardStateLost);
    }
}

#[test]
fn damage_below_the_watermark_is_refused_and_given_up_only_when_told_so() {
    let whole = killed();
    let batches = batches(&whole.vfs);
    let count = whole.states.len() - 1;
    assert!(batches.len() >= count);
    // The batches were copied by the second open, from where the watermark stood; the last copy is the log.
    let last = batches.len() - 1;
    for (n, place) in batches.iter().enumerate() {
        let vfs = whole.vfs.crash(LossPolicy::KeepAll);
        rotten(&vfs, place);
        let before =
            vfs.list().iter().map(|(p, _)| (p.clone(), vfs.read_file(p).unwrap())).collect::<Vec<_>>();
        let refused = open(&vfs, TailPolicy::Prove);
        if let Ok(engine) = &refused {
            // An original whose copy is the log.
            assert_eq!(&observed(engine), whole.states.last().unwrap());
            continue;
        }
        let error = refused.unwrap_err();
        assert_eq!((error.kind(), error.path()), (ErrorKind::Damaged, Some(place.0.as_path())), "{n}");
        assert_eq!(error.offset(), Some(place.1), "{n}");
        let assumed = open(&vfs.crash(LossPolicy::KeepAll), TailPolicy::AssumeTorn);
        assert_eq!(assumed.is_ok(), n == last, "{n}: only the last one may be torn");

        let report = check(&vfs);
        assert_eq!(report.refusals.len(), 1);
        assert_eq!((report.refusals[0].path(), report.refusals[0].offset()), (error.path(), error.offset()));
        // Neither of them changed anything.
        let after =
            vfs.list().iter().map(|(p, _)| (p.clone(), vfs.read_file(p).unwrap())).collect::<Vec<_>>();
        assert_eq!(before, after, "{n}");

        let engine = open(&vfs, TailPolicy::AcceptLoss).unwrap();
        let report = engine.open_report().clone();
        let found = observed(&engine);
        let kept = whole.states.iter().position(|s| *s == found);
        let kept = kept.unwrap_or_else(|| unreachable!("{n}: not a prefix"));
        assert!(kept < count, "{n}");
        assert!(report.accepted_loss || n == last && report.assumed_torn, "{report:?}");
        let named = report.damage.iter().chain(&report.suspects);
        assert!(named.filter(|e| e.offset() == Some(place.1)).count() >= 1, "{report:?}");
        assert_eq!(report.hard_states_lost as usize, whole.states[kept].len());
        all_lost_their_votes(&engine);

        // It stays so, and goes on from there.
        let cut = vfs.crash(LossPolicy::LoseAll);
        let engine_cut = open(&cut, TailPolicy::Prove).unwrap();
        assert_eq!(observed(&engine_cut), found, "{n}");
        all_lost_their_votes(&engine_cut);
        let mut batch = engine.batch();
        batch.region(RegionId(5000)).append([(EntryId::new(1, 1), &b"new"[..])]).unwrap();
        batch.region(RegionId(1)).set_hard_state(b"from elsewhere").unwrap();
        engine.write(batch, Durability::Synced).unwrap();
        engine.tick().unwrap();
        engine.purge().unwrap();
        engine.close().unwrap();
        drop(engine);
        let engine = open(&vfs, TailPolicy::Prove).unwrap();
        assert!(engine.open_report().damage.is_empty());
        assert_eq!(engine.region(RegionId(1)).health(), Health::Healthy);
        assert_eq!(&engine.region(RegionId(5000)).entry(1).unwrap().payload[..], b"new");
        engine.close().unwrap();
        drop(engine);
        assert!(check(&vfs).is_clean(), "{:?}", check(&vfs));
    }
}

#[test]
fn a_crash_anywhere_while_loss_is_accepted_leaves_a_store_that_refuses_or_says_what_it_lost() {
    let whole = killed();
    let batches = batches(&whole.vfs);
    for n in [batches.len() - 2, batches.len() - 4] {
        let vfs = whole.vfs.crash(LossPolicy::KeepAll);
        rotten(&vfs, &batches[n]);
        vfs.snapshot_every(Some(Moment::Before));
        drop(open(&vfs, TailPolicy::AcceptLoss).unwrap());
        let (mut refused, mut opened) = (0, 0);
        for snapshot in vfs.take_snapshots() {
            for loss in
                [LossPolicy::LoseAll, LossPolicy::KeepAll, LossPolicy::Random(1), LossPolicy::Random(2)]
            {
                match open(&snapshot.crash(loss), TailPolicy::Prove) {
                    Err(e) => {
                        assert_eq!(e.kind(), ErrorKind::Damaged, "{e}");
                        refused += 1;
                    }
                    Ok(engine) => {
                        all_lost_their_votes(&engine);
                        opened += 1;
                    }
                }
            }
        }
        assert!(refused > 20 && opened > 20, "{refused} refused, {opened} opened");
    }
}

#[test]
fn a_segment_of_the_replay_that_is_missing_cut_or_foreign_ends_the_log_when_told_so() {
    let whole = killed();
    let logs = of_kind(&whole.vfs, "log");
    // Another seed: another store.
    let other = SimVfs::new(1);
    let engine = of_run(&other, 900).open(DIR).unwrap();
    let mut batch = engine.batch();
    batch.region(RegionId(1)).set_hard_state(b"of another store").unwrap();
    engine.write(batch, Durability::Synced).unwrap();
    drop(engine);
    let foreign = other.read_file("/db/0000000001.log").unwrap();
    let mut refused = 0;
    for path in &logs {
        for how in ["missing", "cut", "foreign", "headless"] {
            let vfs = whole.vfs.crash(LossPolicy::KeepAll);
            match how {
                "missing" => vfs.remove_file(path).unwrap(),
                "cut" => vfs.set_file_len(path, 4096 + 700).unwrap(),
                "foreign" => vfs.write_file(path, &foreign).unwrap(),
                _ => vfs.write_bytes(path, 0, &[0xa7; 2200]).unwrap(),
            }
            let name = |p: &Path| format!("{how} {}", p.display());
            match open(&vfs.crash(LossPolicy::KeepAll), TailPolicy::Prove) {
                // The footer of one that is full says what is gone with its end.
                Ok(engine) if how == "cut" && !engine.open_report().damage.is_empty() => continue,
                Ok(engine) => {
                    let found = observed(&engine);
                    assert!(whole.states.contains(&found), "{}", name(path));
                    continue;
                }
                Err(e) => assert_eq!(e.kind(), ErrorKind::Damaged, "{}: {e}", name(path)),
            }
            refused += 1;
            assert_eq!(check(&vfs).refusals.len(), 1, "{}", name(path));
            let engine = open(&vfs, TailPolicy::AcceptLoss).unwrap();
            let found = observed(&engine);
            assert!(whole.states.contains(&found), "{}", name(path));
            assert!(engine.open_report().accepted_loss && !engine.open_report().damage.is_empty());
            all_lost_their_votes(&engine);
            engine.purge().unwrap();
            engine.close().unwrap();
            drop(engine);
            let engine = open(&vfs, TailPolicy::Prove).unwrap();
            assert_eq!(observed(&engine), found, "{}", name(path));
            all_lost_their_votes(&engine);
        }
    }
    assert!(refused >= 3, "{refused}");
}

/// A checkpoint is written while writes go on: what it captures of a region may lie in later segments
/// than its replay starts with.
#[test]
fn entries_that_a_checkpoint_knows_from_behind_the_end_are_named_and_truncated() {
    let mut w = Writer::new(12);
    let engine = w.open();
    w.write(&engine, 1..=REGIONS);
    w.write(&engine, 1..=REGIONS);
    let second = batches(&w.vfs)[1].clone();
    let writer = Mutex::new(Some((engine.clone(), w)));
    let vfs = writer.lock().unwrap().as_ref().unwrap().1.vfs.clone();
    let done = Arc::new(Mutex::new(None));
    let back = done.clone();
    vfs.set_hook(Some(Arc::new(move |op: &Op| {
        let is_checkpoint = op.kind == OpKind::Create && op.path.ends_with("checkpoint.tmp");
        // The writes below come here too.
        let taken = if is_checkpoint { writer.lock().unwrap().take() } else { None };
        let Some((engine, mut w)) = taken else { return };
        for _ in 0..2 {
            let mut batch = engine.batch();
            batch.region(RegionId(1)).put(b"filler", &[7; 36 << 10]).unwrap();
            engine.write(batch, Durability::Synced).unwrap();
        }
        w.write(&engine, 1..=REGIONS);
        *back.lock().unwrap() = Some(w);
    })));
    engine.backup("/copy").unwrap();
    vfs.set_hook(None);
    assert!(done.lock().unwrap().is_some());
    vfs.settle();
    let vfs = vfs.crash(LossPolicy::KeepAll);
    rotten(&vfs, &second);
    assert_eq!(
        open(&vfs.crash(LossPolicy::KeepAll), TailPolicy::Prove).unwrap_err().kind(),
        ErrorKind::Damaged
    );
    let engine = open(&vfs, TailPolicy::AcceptLoss).unwrap();
    let report = engine.open_report();
    let named = report.damage.iter().filter(|e| e.entries().is_some());
    assert_eq!(named.count() as u64, REGIONS, "{report:?}");
    let check = |engine: &Engine| {
        assert_eq!(engine.regions().len() as u64, REGIONS);
        for id in engine.regions() {
            assert_eq!(engine.region(id).entries(.., ReadLimit::NONE).unwrap().len(), 1, "{id}");
        }
        all_lost_their_votes(engine);
    };
    check(&engine);
    engine.purge().unwrap();
    engine.close().unwrap();
    drop(engine);
    check(&open(&vfs, TailPolicy::Prove).unwrap());
}

/// Entry `index` of this term, a vote of its own, and filling, so that a segment ends soon.
fn step(engine: &Engine, region: u64, index: u64, term: u64) {
    let mut batch = engine.batch();
    let payload = format!("{region}:{index} of term {term}");
    batch.region(RegionId(region)).append([(EntryId::new(term, index), payload.as_bytes())]).unwrap();
    batch.region(RegionId(region)).set_hard_state(format!("vote {term}").as_bytes()).unwrap();
    batch.region(RegionId(9)).reset(EntryId::new(term, term * 10)).unwrap();
    batch.region(RegionId(9)).append([(EntryId::new(term, term * 10 + 1), &vec![7; 20 << 10][..])]).unwrap();
    engine.write(batch, Durability::Synced).unwrap();
    engine.tick().unwrap();
}

/// All checkpoints were lost, and with them a segment amidst the log: its entries had replaced others, it
/// had destroyed a region, and voted. A replay of the rest brings all of that back, so the store was
/// refused, whatever was accepted.
#[test]
fn what_stood_before_a_gap_is_given_up_when_all_checkpoints_are_lost() {
    let vfs = SimVfs::new(51);
    let engine = of_run(&vfs, 1).open(DIR).unwrap();
    // The first segment: three regions, all of term 1.
    let mut batch = engine.batch();
    for id in 1..=3 {
        let entries = [1, 2].map(|index| (EntryId::new(1, index), &b"of term 1"[..]));
        batch.region(RegionId(id)).append(entries).unwrap().set_hard_state(b"vote 1").unwrap();
    }
    engine.write(batch, Durability::Synced).unwrap();
    step(&engine, 4, 1, 1);
    let first = of_kind(&vfs, "log")[0].clone();
    // Then: region 1 replaces its first entry, region 2 is destroyed, all vote; region 3 goes on.
    for term in 2..=9 {
        step(&engine, 1, 1, term);
        let mut batch = engine.batch();
        batch.region(RegionId(2)).destroy();
        engine.write(batch, Durability::Synced).unwrap();
        step(&engine, 4, term, term);
    }
    kill(&vfs, engine);
    vfs.settle();
    let logs = of_kind(&vfs, "log");
    assert!(logs.len() > 5 && logs[0] == first);
    remove_all(&vfs, "ckpt");
    for gone in 1..logs.len() - 2 {
        let harmed = vfs.crash(LossPolicy::KeepAll);
        // All but the first segment and the last ones, of which the very last was only prepared.
        for log in &logs[1..=gone] {
            harmed.remove_file(log).unwrap();
            drop(harmed.remove_file(log.with_extension("foot")));
        }
        let refused = open(&harmed, TailPolicy::Prove).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Damaged, "without {gone}: {refused}");
        let engine = open(&harmed, TailPolicy::AcceptLoss).unwrap();
        let look = |engine: &Engine| {
            for id in engine.regions() {
                let region = engine.region(id);
                let lost =
                    matches!(region.health(), Health::Damaged { hard_state: HardStateHealth::Lost, .. });
                assert!(lost && region.hard_state_or_lost().is_err(), "without {gone}: region {id}");
            }
            for id in 1..=3 {
                for index in 1..=2 {
                    let Ok(entry) = engine.region(RegionId(id)).entry(index) else { continue };
                    assert!(entry.id.term > 1, "without {gone}: region {id} answers {:?}", entry.id);
                }
            }
            // What came after the gap is there.
            assert_eq!(engine.region(RegionId(4)).state().last, 9, "without {gone}");
            assert_eq!(engine.region(RegionId(4)).entry(9).unwrap().id.term, 9);
        };
        look(&engine);
        assert!(
            engine.open_report().damage.iter().any(|e| e.region() == Some(RegionId(3))),
            "without {gone}"
        );
        kill(&harmed, engine);
        let engine = open(&harmed, TailPolicy::Prove).unwrap();
        look(&engine);
        if gone == 1 {
            assert_eq!(engine.region(RegionId(1)).entry(1).unwrap().id.term, 9, "replaced after the gap");
        }
        // Reset, it is healthy again.
        let mut batch = engine.batch();
        batch.region(RegionId(3)).reset(EntryId::new(99, 5)).unwrap().set_hard_state(b"vote 99").unwrap();
        engine.write(batch, Durability::Synced).unwrap();
        let region = engine.region(RegionId(3));
        assert_eq!(region.health(), Health::Healthy);
        assert_eq!(region.hard_state_or_lost().unwrap().as_deref(), Some(&b"vote 99"[..]));
    }
}

// Found by the model of the log (`crates/model`). A batch rotted, open refused, and the loss was accepted.
// The announcement of the copy was written, and the power went before the checkpoint that says of every
// region that its hard state is lost. The announcement followed the last good record and ended the log there:
// the next open, by the default policy, found a log without a hole, and answered a vote from before.
#[test]
fn a_loss_that_an_open_accepted_and_did_not_note_is_noted_by_the_next() {
    const R: RegionId = RegionId(1);
    let disk = SimVfs::new(1);
    let engine = by_hand(&disk).open(DIR).unwrap();
    for index in 1..=2u64 {
        let mut batch = engine.batch();
        let payload = vec![index as u8; 2000];
        let entry = [(EntryId::new(1, index), &payload[..])];
        batch.region(R).append(entry).unwrap().set_hard_state(&index.to_le_bytes()).unwrap();
        engine.write(batch, Durability::Synced).unwrap();
    }
    engine.tick().unwrap();
    let harmed = disk.crash(LossPolicy::KeepAll);
    kill(&disk, engine);
    let log = of_kind(&harmed, "log").remove(0);
    let second = records(&harmed.read_file(&log).unwrap())[1].at;
    // Header and description.
    wipe_copies(&harmed);
    wipe(&harmed, &log, second, 200);
    harmed.settle();
    assert!(by_hand(&harmed).open(DIR).is_err(), "refused as long as nobody accepts the loss");

    harmed.snapshot_every(Some(Moment::After));
    let engine = by_hand(&harmed).tail_policy(TailPolicy::AcceptLoss).open(DIR).unwrap();
    kill(&harmed, engine);
    let (mut opened, mut wrong) = (0, Vec::new());
    for snapshot in harmed.take_snapshots() {
        let each = (0..snapshot.pending_count().min(12))
            .flat_map(|n| [LossPolicy::LoseOnly(n), LossPolicy::KeepOnly(n), LossPolicy::KeepFirst(n)]);
        for loss in each.chain([LossPolicy::LoseAll, LossPolicy::KeepAll]) {
            let Ok(engine) = by_hand(&snapshot.crash(loss)).open(DIR) else { continue };
            opened += 1;
            if engine.region(R).last_index() < 2 && engine.region(R).hard_state_or_lost().is_ok() {
                wrong.push(format!("{} {loss:?}", snapshot.call()));
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {opened}: {:#?}", wrong.len(), &wrong[..wrong.len().min(6)]);
    assert!(opened > 20, "{opened}");
}
