//! What a replica says and does while something of its log is lost.

use super::image::{Copy, Disk, Images, R, TERM, data, id};
use crate::support::asked::Asked;
use crate::support::engines::{DIR, of_run};
use crate::support::files::{find, newest, of_kind, records, ruin, wipe, wipe_copies};
use Copy::{Faulty, Intact, Suspect};
use raft::prelude::{ConfState, Entry as RaftEntry, HardState, Message, MessageType};
use raft::storage::MemStorage;
use raft::{Config, RawNode, StateRole};
use raftwood::healing::{Answer, Healer, Question, Says, Standing, Taken};
use raftwood::raft_rs::{FencedVoter, RegionStorage, encode_entry, encode_hard_state};
use raftwood::vfs::sim::{LossPolicy, SimVfs};
use raftwood::{Durability, Engine, Entry, EntryId, ErrorKind, Options, RegionId, RollbackCause};

/// A store with this damage, looked through.
struct Fixture {
    vfs: SimVfs,
    engine: Engine,
    healer: Healer,
}

fn with(log: &[Copy], had: Option<usize>) -> Fixture {
    let disk = Disk { log: log.to_vec(), had };
    opened(Images::of([&disk]).disk(&disk), 9)
}

fn opened(vfs: SimVfs, run: u64) -> Fixture {
    opened_with(vfs, run, |o| o)
}

fn opened_with(vfs: SimVfs, run: u64, change: impl FnOnce(Options) -> Options) -> Fixture {
    let engine = change(of_run(&vfs, run)).open(DIR).unwrap();
    let mut healer = Healer::new(&engine, R);
    healer.look().unwrap();
    Fixture { vfs, engine, healer }
}

/// An entry as it is stored.
fn stored(n: usize) -> Vec<u8> {
    let mut entry = RaftEntry::default();
    entry.set_data(data(id(n).index).into());
    let mut out = Vec::new();
    encode_entry(&entry, &mut out);
    out
}

fn asked(healer: &Healer, ids: &[EntryId], term: Option<u64>, durable: u64) -> Vec<Says> {
    let question = Question { region: R, term, entries: ids.to_vec() };
    healer.answer(&question, durable).unwrap().into_iter().map(|answer| answer.says).collect()
}

fn answer(id: EntryId, says: Says) -> Answer {
    Answer { region: R, id, says }
}

#[test]
fn a_fenced_replica_gives_what_it_can_read_and_denies_nothing() {
    let ids = [id(0), id(2), EntryId::new(TERM + 1, id(0).index), id(3)];
    let whole = with(&[Intact; 3], None);
    assert_eq!(whole.healer.standing(), Standing::Whole);
    let denied = Says::DontHave { term: None };
    let says = asked(&whole.healer, &ids, None, TERM);
    assert_eq!(says, [Says::Have(stored(0)), Says::Have(stored(2)), denied.clone(), denied]);
    for (log, had, standing) in [
        (vec![Intact, Intact, Faulty], None, Standing::Fenced),
        (vec![Intact, Intact, Suspect], None, Standing::Fenced),
        (vec![Intact, Intact], Some(3), Standing::HardStateLost),
    ] {
        let f = with(&log, had);
        assert_eq!(f.healer.standing(), standing, "{log:?}");
        assert!(!standing.may_serve() && standing.may_vote() == had.is_none());
        let says = asked(&f.healer, &ids, Some(TERM), TERM);
        assert_eq!(says[0], Says::Have(stored(0)), "{log:?}");
        assert!(says[1..].iter().all(|says| *says == Says::Unknown), "{log:?}: {says:?}");
        assert_eq!(
            f.healer.question(None).is_some(),
            had.is_none(),
            "what is lost for good is not asked for"
        );
    }
}

#[test]
fn a_denial_binds_in_a_term_that_was_asked_for_and_is_durable() {
    let peer = with(&[Intact; 2], None);
    let mut f = with(&[Intact, Intact, Faulty], None);
    for (asked_in, durable, bound) in
        [(None, TERM, None), (Some(TERM), TERM - 1, None), (Some(TERM), TERM + 1, Some(TERM))]
    {
        let says = asked(&peer.healer, &[id(2)], asked_in, durable);
        assert_eq!(says, [Says::DontHave { term: bound }]);
        assert_eq!(f.healer.take(2, answer(id(2), says[0].clone())).unwrap(), Taken::Denied);
        assert_eq!(f.healer.denied_by(id(2), TERM), bound.map(|_| 2).into_iter().collect::<Vec<_>>());
    }
    // However many deny it: it is kept.
    f.healer.take(3, answer(id(2), Says::DontHave { term: Some(TERM) })).unwrap();
    assert_eq!((f.healer.denied_by(id(2), TERM), f.healer.denied_by(id(2), TERM + 1)), (vec![2, 3], vec![]));
    assert_eq!((f.healer.open(), f.engine.region(R).last_index()), (vec![8..=8], id(2).index));
}

#[test]
fn only_what_is_identical_is_put_back_and_it_survives_a_power_cut() {
    let mut f = with(&[Intact, Faulty, Intact], None);
    assert_eq!(f.healer.question(Some(3)).unwrap().entries, [id(1)]);
    let mut other = stored(1);
    other[5] ^= 1;
    let later = EntryId::new(TERM + 1, id(1).index);
    for (id, says, taken) in [
        (id(1), Says::Have(other), Taken::Refused),
        (id(1), Says::Have(stored(2)), Taken::Refused),
        (id(1), Says::Unknown, Taken::Unknown),
        (later, Says::Have(stored(1)), Taken::NotOpen),
        (id(0), Says::Have(stored(0)), Taken::NotOpen),
        (id(7), Says::DontHave { term: Some(9) }, Taken::NotOpen),
    ] {
        assert_eq!(f.healer.take(2, answer(id, says)).unwrap(), taken);
        assert_eq!((f.healer.standing(), f.healer.open()), (Standing::Fenced, vec![7..=7]));
    }
    let foreign = Answer { region: RegionId(8), id: id(1), says: Says::Have(stored(1)) };
    assert_eq!(f.healer.take(2, foreign).unwrap_err().kind(), ErrorKind::InvalidArgument);
    assert_eq!(f.healer.take(2, answer(id(1), Says::Have(stored(1)))).unwrap(), Taken::PutBack);
    assert_eq!((f.healer.standing(), f.healer.question(None)), (Standing::Whole, None));
    let after = opened(f.vfs.crash(LossPolicy::LoseAll), 20);
    assert_eq!(after.healer.standing(), Standing::Whole);
    assert_eq!(&after.engine.region(R).entry(7).unwrap().payload[..], stored(1));
}

#[test]
fn where_the_checksum_is_lost_too_only_a_leaders_committed_entry_is_taken() {
    let mut f = with(&[Intact; 3], None);
    f.engine.purge().unwrap();
    // The second entry's payload, its record's description, and the footer that has a copy of that.
    let log = "/db/0000000001.log";
    let records = records(&f.vfs.read_file(log).unwrap());
    let batches: Vec<_> = records.iter().filter(|r| r.is_batch).collect();
    let second = batches[batches.len() - 2].at;
    ruin(&f.vfs, log, second + 66, 60);
    let footer = newest(&f.vfs, "foot");
    let len = f.vfs.read_file(&footer).unwrap().len();
    wipe(&f.vfs, &footer, 0, len);
    f.healer.look().unwrap();
    assert!(f.healer.open().iter().any(|range| range.contains(&7)), "{:?}", f.healer);
    let question = f.healer.question(None).unwrap();
    for id in question.entries {
        let copy = stored(id.index as usize - 6);
        let taken = f.healer.take(2, answer(id, Says::Have(copy))).unwrap();
        assert_eq!(taken, Taken::NeedsLeader, "{id}");
    }
    assert_eq!(f.healer.question(None), None, "no peer can help");
    assert!(f.healer.open().iter().any(|range| range.contains(&7)));

    let entries: Vec<Entry> = (0..3).map(|n| Entry { id: id(n), payload: stored(n).into() }).collect();
    let refused = f.healer.take_committed(TERM - 1, 9, TERM, &entries).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidArgument, "a leader of the past");
    assert!(
        f.healer.take_committed(TERM, 5, TERM, &entries).unwrap().is_empty(),
        "none of them is committed"
    );
    let without = [entries[0].clone(), entries[2].clone()];
    if let Ok(restored) = f.healer.take_committed(TERM, 9, TERM, &without) {
        assert!(!restored.contains(&7), "nobody has named it");
    }
    assert!(f.healer.open().iter().any(|range| range.contains(&7)));
    let restored = f.healer.take_committed(TERM, 9, TERM, &entries).unwrap();
    assert!(restored.contains(&7), "{restored:?}");
    let check = |f: &Fixture| {
        assert_eq!(f.healer.standing(), Standing::Whole);
        for n in 0..3 {
            let entry = f.engine.region(R).entry(id(n).index).unwrap();
            assert_eq!((entry.id, &entry.payload[..]), (id(n), &stored(n)[..]));
        }
    };
    check(&f);
}

#[test]
fn a_rotten_footer_is_not_what_a_copy_is_compared_with() {
    let mut f = with(&[Intact, Faulty, Intact], None);
    f.engine.purge().unwrap();
    let footer = newest(&f.vfs, "foot");
    let len = f.vfs.read_file(&footer).unwrap().len();
    wipe(&f.vfs, &footer, 0, len);
    f.healer.look().unwrap();
    assert_eq!(f.healer.take(2, answer(id(1), Says::Have(stored(1)))).unwrap(), Taken::PutBack);
    assert_eq!(f.healer.standing(), Standing::Whole);
}

fn request(kind: MessageType, from: u64, term: u64, last: EntryId) -> Message {
    let mut m = Message::default();
    m.set_msg_type(kind);
    (m.from, m.to, m.term, m.index, m.log_term) = (from, 1, term, last.index, last.term);
    m
}

fn voter(f: &Fixture) -> FencedVoter {
    FencedVoter::new(RegionStorage::new(&f.engine, R), 1).unwrap()
}

#[test]
fn a_fenced_voter_votes_once_a_term_for_who_has_its_log_also_after_a_power_cut() {
    use MessageType::{MsgRequestPreVote, MsgRequestVote};
    let f = with(&[Intact, Faulty], None);
    let mut v = voter(&f);
    let mut ask = |kind, from, term, last| {
        let m = v.step(&request(kind, from, term, last)).unwrap().unwrap();
        assert_eq!((m.to, m.from), (from, 1));
        (m.term, m.reject)
    };
    assert_eq!(ask(MsgRequestVote, 2, 7, id(0)), (7, true), "its log ends before ours");
    assert_eq!(ask(MsgRequestPreVote, 2, 8, id(1)), (8, false));
    assert_eq!(ask(MsgRequestPreVote, 2, 6, id(1)), (7, true));
    assert_eq!(ask(MsgRequestVote, 3, 7, id(1)), (7, false));
    assert_eq!(ask(MsgRequestVote, 3, 7, id(1)), (7, false), "the same once more");
    assert_eq!(ask(MsgRequestVote, 2, 7, id(3)), (7, true));
    assert_eq!(ask(MsgRequestVote, 2, 6, id(3)), (7, true));

    let after = opened(f.vfs.crash(LossPolicy::LoseAll), 20);
    let mut v = voter(&after);
    let again =
        |v: &mut FencedVoter, from| v.step(&request(MsgRequestVote, from, 7, id(3))).unwrap().unwrap();
    assert!(again(&mut v, 2).reject && !again(&mut v, 3).reject);
    let is_there = v.step(&request(MessageType::MsgHeartbeat, 2, 9, id(1))).unwrap().unwrap();
    assert_eq!((is_there.get_msg_type(), is_there.term), (MessageType::MsgHeartbeatResponse, 9));
    // It said so of term 9: there is no way back from that.
    let says = v.step(&request(MessageType::MsgHeartbeat, 2, 8, id(1))).unwrap().unwrap();
    assert_eq!((says.get_msg_type(), says.term, says.reject), (MessageType::MsgAppendResponse, 9, false));

    let lost = with(&[Intact], Some(2));
    let refused = FencedVoter::new(RegionStorage::new(&lost.engine, R), 1).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::HardStateLost);
}

#[test]
fn a_fenced_voter_takes_an_append_that_replaces_the_damage_and_no_other() {
    let f = with(&[Intact, Suspect], None);
    let mut v = voter(&f);
    let append = |term: u64, after: EntryId, of: &[(u64, u64)]| {
        let mut m = request(MessageType::MsgAppend, 2, term, after);
        let entry = |&(term, index): &(u64, u64)| {
            let mut e = RaftEntry::default();
            (e.term, e.index) = (term, index);
            e
        };
        m.set_entries(of.iter().map(entry).collect::<Vec<_>>().into());
        m
    };
    let whole = |f: &Fixture| f.healer.standing() == Standing::Whole;
    // The same entry, by name: nothing is replaced, and nothing acknowledged.
    assert!(v.step(&append(7, id(0), &[(TERM, 7), (7, 8)])).unwrap().is_none());
    // A leader of the past is shown the term.
    let says = v.step(&append(5, id(0), &[(5, 7)])).unwrap().unwrap();
    assert_eq!((says.get_msg_type(), says.term, says.reject), (MessageType::MsgAppendResponse, TERM, false));
    assert!(!whole(&f) && f.engine.region(R).last_index() == 7);
    // It does not meet the log: the leader has to go back.
    let declined = v.step(&append(7, EntryId::new(7, 8), &[(7, 9)])).unwrap().unwrap();
    assert!(declined.reject && declined.get_msg_type() == MessageType::MsgAppendResponse);
    assert_eq!((declined.index, declined.reject_hint, declined.log_term), (8, 7, TERM));
    assert!(v.step(&append(7, id(0), &[(7, 7), (7, 8)])).unwrap().is_none());
    assert!(whole(&f));
    let after = opened(f.vfs.crash(LossPolicy::LoseAll), 20);
    assert!(whole(&after));
    assert_eq!((after.engine.region(R).last_index(), after.engine.region(R).term(7).unwrap()), (8, 7));
    let state = RegionStorage::new(&after.engine, R).hard_state().unwrap();
    assert_eq!((state.term, state.vote), (7, 0));
}

fn snapshot(term: u64, at: EntryId, voters: &[u64]) -> Message {
    let mut m = request(MessageType::MsgSnapshot, 2, term, EntryId::default());
    let meta = m.mut_snapshot().mut_metadata();
    (meta.index, meta.term) = (at.index, at.term);
    meta.set_conf_state(ConfState::from((voters.to_vec(), vec![])));
    m
}

#[test]
fn a_snapshot_of_the_present_leader_ends_the_damage_and_keeps_what_goes_on_after_it() {
    let f = with(&[Intact, Faulty, Intact], None);
    let mut v = voter(&f);
    let storage = |f: &Fixture| RegionStorage::new(&f.engine, R);
    for (m, why) in [
        (snapshot(TERM - 1, id(1), &[1, 2, 3]), "of a leader of the past"),
        (snapshot(7, id(0), &[1, 2, 3]), "it ends before the damage"),
        (snapshot(7, id(1), &[2, 3]), "for a group without this replica"),
    ] {
        assert!(!v.takes(&m).unwrap(), "{why}");
        assert_eq!(v.install(&m).unwrap_err().kind(), ErrorKind::InvalidArgument, "{why}");
    }
    let m = snapshot(7, id(1), &[1, 2, 3]);
    assert!(v.step(&m).unwrap().is_none());
    assert!(v.takes(&m).unwrap());
    // Nothing but the leader's term, before the state machine has it.
    assert_eq!((f.healer.standing(), storage(&f).hard_state().unwrap().term), (Standing::Fenced, 7));
    v.install(&m).unwrap();
    let after = opened(f.vfs.crash(LossPolicy::LoseAll), 20);
    for f in [&f, &after] {
        let log = f.engine.region(R).state();
        assert_eq!((f.healer.standing(), log.base, log.last), (Standing::Whole, Some(id(1)), id(2).index));
        assert_eq!(&f.engine.region(R).entry(id(2).index).unwrap().payload[..], stored(2));
        let state = storage(f).hard_state().unwrap();
        assert_eq!((state.term, state.vote, state.commit), (7, 0, id(1).index));
        assert_eq!(storage(f).conf_state().unwrap().unwrap().0, id(1).index);
    }
    // No damage, no snapshot.
    assert!(!v.takes(&snapshot(7, id(2), &[1, 2, 3])).unwrap());
}

#[test]
fn a_snapshot_replaces_a_log_that_ends_before_it_or_contradicts_it_unless_that_was_committed() {
    for at in [EntryId::new(7, 7), EntryId::new(7, 30)] {
        let f = with(&[Intact, Suspect], None);
        let mut v = voter(&f);
        v.install(&snapshot(7, at, &[1, 2, 3])).unwrap();
        let log = f.engine.region(R).state();
        assert!(log.is_empty() && log.base == Some(at));
        assert_eq!(f.healer.standing(), Standing::Whole);
    }
    let listener = Asked::new();
    let disk = Disk { log: vec![Intact, Faulty, Intact], had: None };
    let f = opened_with(Images::of([&disk]).disk(&disk), 9, |o| o.listener(listener.clone()));
    voter(&f).install(&snapshot(7, EntryId::new(7, 7), &[1, 2, 3])).unwrap();
    let asked = [(R, 7, id(2).index, RollbackCause::Reset)];
    assert_eq!(listener.take(), asked, "what is damaged may be the only copy too");
    let f = with(&[Intact, Faulty], None);
    let mut state = RegionStorage::new(&f.engine, R).hard_state().unwrap();
    state.commit = 7;
    let mut batch = f.engine.batch();
    batch.region(R).set_hard_state(&encode_hard_state(&state)).unwrap();
    f.engine.write(batch, Durability::Synced).unwrap();
    let refused = voter(&f).takes(&snapshot(7, EntryId::new(7, 7), &[1, 2, 3])).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Damaged);
}

/// A leader's message that says so much to be committed, and meets the log at `at`.
fn committed(kind: MessageType, term: u64, at: EntryId, commit: u64) -> Message {
    let mut m = request(kind, 2, term, at);
    m.commit = commit;
    m
}

#[test]
fn a_fenced_voter_asks_for_a_snapshot_when_it_is_told_to_and_for_nothing_uncommitted() {
    use MessageType::{MsgAppend, MsgHeartbeat};
    let f = with(&[Intact, Faulty, Intact], None);
    let mut v = voter(&f);
    assert!(v.step(&committed(MsgAppend, 7, id(2), 6)).unwrap().is_none(), "it was not told to");
    v.request_snapshot();
    let is_there = v.step(&committed(MsgHeartbeat, 7, id(2), 6)).unwrap().unwrap();
    assert_eq!(is_there.get_msg_type(), MessageType::MsgHeartbeatResponse, "nothing committed is lost");
    let asks = v.step(&committed(MsgAppend, 7, id(2), 8)).unwrap().unwrap();
    assert_eq!((asks.get_msg_type(), asks.reject), (MessageType::MsgAppendResponse, true));
    assert_eq!((asks.term, asks.index, asks.log_term, asks.request_snapshot), (7, 8, TERM, 7));
    let says = v.step(&committed(MsgHeartbeat, TERM, id(2), 8)).unwrap().unwrap();
    assert_eq!((says.term, says.request_snapshot), (7, 0), "to a leader of the past");
    assert!(v.step(&committed(MsgHeartbeat, 7, id(2), 0)).unwrap().is_some());
    v.install(&snapshot(7, id(1), &[1, 2, 3])).unwrap();
    let is_there = v.step(&committed(MsgHeartbeat, 7, id(2), 8)).unwrap().unwrap();
    assert_eq!(is_there.get_msg_type(), MessageType::MsgHeartbeatResponse, "it is whole");
}

/// A leader counts on it that nobody who answered it falls back into an older term.
#[test]
fn the_term_that_a_fenced_voter_answers_in_is_durable_whatever_it_answers() {
    use MessageType::{MsgAppend, MsgAppendResponse, MsgHeartbeat, MsgHeartbeatResponse};
    let at = id(2);
    for (message, requests_snapshot, answers) in [
        (committed(MsgAppend, 9, at, at.index), true, "asks for a snapshot"),
        (committed(MsgHeartbeat, 9, at, at.index), true, "asks for a snapshot"),
        (committed(MsgHeartbeat, 9, at, 0), false, "is there"),
        (committed(MsgAppend, 9, EntryId::new(9, at.index), 0), false, "declines"),
    ] {
        let f = with(&[Intact, Faulty, Intact], None);
        let mut v = voter(&f);
        if requests_snapshot {
            v.request_snapshot();
        }
        let says = v.step(&message).unwrap().unwrap();
        let is_there = says.get_msg_type() == MsgHeartbeatResponse;
        let told = (is_there, says.reject, says.request_snapshot > 0);
        let wanted = (answers == "is there", answers != "is there", answers == "asks for a snapshot");
        assert_eq!((says.term, told), (9, wanted), "{answers}");
        let after = opened(f.vfs.crash(LossPolicy::LoseAll), 20);
        let says = voter(&after).step(&committed(MsgHeartbeat, 8, at, 0)).unwrap().unwrap();
        assert_eq!((says.get_msg_type(), says.term), (MsgAppendResponse, 9), "{answers}");
    }
}

/// A leader of term 20 that has compacted its log beyond all that node 1 has, and has not heard of it.
fn leader() -> RawNode<MemStorage> {
    let storage = MemStorage::new();
    let compacted = snapshot(19, EntryId::new(19, 90), &[1, 2, 3]).take_snapshot();
    storage.wl().apply_snapshot(compacted).unwrap();
    let mut state = HardState::default();
    (state.term, state.commit) = (19, 90);
    storage.wl().set_hardstate(state);
    let config = Config { id: 2, applied: 90, check_quorum: true, ..Config::default() };
    let mut node = RawNode::new(&config, storage, &slog::Logger::root(slog::Discard, slog::o!())).unwrap();
    node.raft.become_candidate();
    node.raft.become_leader();
    node.raft.bcast_append();
    node
}

/// What it sends, once it has persisted all; node 3 follows it.
fn sent(leader: &mut RawNode<MemStorage>) -> Vec<Message> {
    let mut all = Vec::new();
    while leader.has_ready() {
        let mut ready = leader.ready();
        leader.store().wl().append(ready.entries()).unwrap();
        if let Some(state) = ready.hs() {
            leader.store().wl().set_hardstate(state.clone());
        }
        let mut messages = ready.take_messages();
        messages.extend(ready.take_persisted_messages());
        messages.extend(leader.advance(ready).take_messages());
        leader.advance_apply();
        for m in messages {
            if m.to == 3 && m.get_msg_type() == MessageType::MsgAppend {
                let mut acked = request(MessageType::MsgAppendResponse, 3, m.term, EntryId::default());
                (acked.to, acked.index) = (2, m.index + m.entries.len() as u64);
                leader.step(acked).unwrap();
            }
            all.push(m);
        }
    }
    all
}

/// A leader sends one append to a follower of which it knows nothing, and waits for the answer. Where that
/// message was lost, heartbeats are all that comes, and they do not say what is committed beyond what the
/// follower is known to have.
#[test]
fn a_leader_whose_first_message_was_lost_still_sends_a_snapshot() {
    let f = with(&[Intact, Faulty, Intact], None);
    let mut v = voter(&f);
    v.request_snapshot();
    let mut leader = leader();
    let lost = sent(&mut leader);
    assert!(lost.iter().any(|m| m.to == 1 && m.get_msg_type() == MessageType::MsgAppend), "{lost:?}");
    assert_eq!(leader.raft.raft_log.committed, 91);
    for _ in 0..5 {
        leader.ping();
        let mut queue = sent(&mut leader);
        while let Some(m) = queue.pop() {
            if m.to == 1 && m.get_msg_type() == MessageType::MsgSnapshot {
                assert!(v.takes(&m).unwrap());
                v.install(&m).unwrap();
                assert_eq!(f.healer.standing(), Standing::Whole);
                return;
            }
            if let Some(mut answer) = v.step(&m).unwrap() {
                assert!(answer.context.is_empty(), "it confirms no read");
                answer.from = 1;
                leader.step(answer).unwrap();
            }
            queue.extend(sent(&mut leader));
        }
    }
    panic!("no snapshot came");
}

/// It voted in a later term, and the one that asked for that vote is gone: its leader takes nothing from it,
/// and it nothing from the leader.
#[test]
fn a_leader_of_a_past_term_gives_up_for_a_fenced_replica_that_voted_since() {
    let f = with(&[Intact, Faulty, Intact], None);
    let mut v = voter(&f);
    v.request_snapshot();
    let mut leader = leader();
    sent(&mut leader);
    let vote = v.step(&request(MessageType::MsgRequestVote, 3, 30, EntryId::new(19, 95))).unwrap().unwrap();
    assert_eq!((vote.term, vote.reject), (30, false));
    leader.ping();
    let heartbeats = sent(&mut leader).into_iter().filter(|m| m.to == 1);
    for answer in heartbeats.filter_map(|m| v.step(&m).unwrap()) {
        leader.step(answer).unwrap();
    }
    assert_eq!((leader.raft.term, leader.raft.state), (30, StateRole::Follower));
}

/// Of the entry in the middle not even the term is known: its description is lost, and the footer.
fn unsure() -> Fixture {
    let mut f = with(&[Intact], None);
    let mut state = HardState::default();
    (state.term, state.vote, state.commit) = (9, 1, id(0).index);
    for n in 1..4 {
        let mut batch = f.engine.batch();
        batch.region(R).set_hard_state(&encode_hard_state(&state)).unwrap();
        batch.region(R).append([(EntryId::new(TERM + n as u64, id(n).index), &stored(n)[..])]).unwrap();
        f.engine.write(batch, Durability::Synced).unwrap();
    }
    f.engine.close().unwrap();
    f.vfs.settle();
    let disk = f.vfs.crash(LossPolicy::KeepAll);
    let (log, payload) = find(&disk, &data(id(2).index));
    let all = records(&disk.read_file(&log).unwrap());
    let second = all.iter().rev().find(|r| r.at < payload).unwrap();
    wipe_copies(&disk);
    ruin(&disk, &log, second.at + 66, 60);
    for footer in of_kind(&disk, "foot") {
        let len = disk.read_file(&footer).unwrap().len();
        wipe(&disk, &footer, 0, len);
    }
    f = opened(disk, 11);
    f.healer.look().unwrap();
    f
}

#[test]
fn an_unsure_replica_neither_votes_nor_takes_an_append_until_a_snapshot_reaches_its_end() {
    use MessageType::{MsgAppend, MsgHeartbeat, MsgRequestPreVote, MsgRequestVote};
    let f = unsure();
    let region = f.engine.region(R);
    assert!(region.term(8).is_err() && region.term(9).unwrap() == 9);
    let standing = f.healer.standing();
    assert_eq!((standing, standing.may_vote(), standing.may_serve()), (Standing::Unsure, false, false));
    // Nobody can be asked for what has no name, and nothing is denied.
    assert!(f.healer.question(None).is_none_or(|q| q.entries.iter().all(|id| id.index != 8)));
    let says = asked(&f.healer, &[id(0), EntryId::new(8, 8), EntryId::new(9, 30)], Some(9), 9);
    assert_eq!(says, [Says::Have(stored(0)), Says::Unknown, Says::Unknown]);

    let mut v = voter(&f);
    let beyond = EntryId::new(11, 99);
    assert!(v.step(&request(MsgRequestVote, 2, 12, beyond)).unwrap().is_none());
    assert!(v.step(&request(MsgRequestPreVote, 2, 12, beyond)).unwrap().is_none());
    assert!(v.step(&committed(MsgAppend, 12, beyond, 8)).unwrap().is_none());
    // The eighth may be another one here: what comes after it may have been acknowledged, or not.
    assert!(!v.takes(&snapshot(12, EntryId::new(8, 8), &[1, 2, 3])).unwrap());
    v.request_snapshot();
    let is_there = v.step(&committed(MsgHeartbeat, 12, beyond, 8)).unwrap().unwrap();
    assert_eq!((is_there.get_msg_type(), is_there.term), (MessageType::MsgHeartbeatResponse, 12));
    let asks = v.step(&committed(MsgHeartbeat, 12, beyond, 9)).unwrap().unwrap();
    assert_eq!((asks.request_snapshot, region.last_index()), (9, 9));
    v.install(&snapshot(12, EntryId::new(12, 20), &[1, 2, 3])).unwrap();
    assert_eq!((f.healer.standing(), region.state().base), (Standing::Whole, Some(EntryId::new(12, 20))));
    let mut vote = |from, last| v.step(&request(MsgRequestVote, from, 13, last)).unwrap().unwrap().reject;
    assert!(vote(2, EntryId::new(9, 9)) && !vote(3, EntryId::new(12, 20)));
}

#[cfg(feature = "serde")]
#[test]
fn messages_go_through_serde() {
    let question = Question { region: R, term: Some(7), entries: vec![id(0), id(3)] };
    let answers = [Says::Have(b"x".to_vec()), Says::DontHave { term: Some(7) }, Says::Unknown]
        .map(|s| answer(id(1), s));
    let text = serde_json::to_string(&(&question, &answers)).unwrap();
    let back: (Question, [Answer; 3]) = serde_json::from_str(&text).unwrap();
    assert_eq!(back, (question, answers));
}
