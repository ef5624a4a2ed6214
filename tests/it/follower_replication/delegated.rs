//! One append without its entries, and what makes it whole again.

use crate::support::engines::on;
use raft::prelude::{Entry, Message, MessageType};
use raftwood::raft_rs::{Delegated, FILL_BYTES_MAX, ReadyBatch, RegionStorage, encode_entry};
use raftwood::vfs::sim::SimVfs;
use raftwood::{Background, Engine, EntryId, ErrorKind, RegionId, Result};
use std::sync::mpsc::channel;
use std::time::Duration;

pub(super) const GROUP: RegionId = RegionId(9);

pub(super) struct Log {
    pub(super) engine: Engine,
}

impl Log {
    pub(super) fn storage(&self) -> RegionStorage {
        RegionStorage::new(&self.engine, GROUP)
    }
}

/// A log with entries 1 to 10 of term 1, and 11 to 20 of term 2.
pub(super) fn with_log() -> Log {
    let disk = SimVfs::new(3);
    let engine = on(&disk).segment_bytes(1 << 20).background(Background::Manual).open("/db").unwrap();
    let log = Log { engine };
    write(&log, (1..=20).map(|i| entry(i, 1 + u64::from(i > 10))));
    log
}

pub(super) fn entry(index: u64, term: u64) -> Entry {
    Entry { index, term, data: vec![index as u8; 100].into(), ..Entry::default() }
}

pub(super) fn write(node: &Log, entries: impl Iterator<Item = Entry>) {
    let mut batch = ReadyBatch::new(&node.engine);
    for e in entries {
        batch.region(GROUP).append_with(EntryId::new(e.term, e.index), |out| encode_entry(&e, out)).unwrap();
    }
    batch.require_sync();
    batch.write(&node.engine).unwrap();
}

pub(super) fn message(before: EntryId, entries: Vec<Entry>) -> Message {
    let (index, log_term) = (before.index, before.term);
    let mut message = Message { index, log_term, from: 1, to: 4, term: 2, commit: 7, ..Message::default() };
    message.set_msg_type(MessageType::MsgAppend);
    message.set_entries(entries.into());
    message
}

fn fill(node: &Log, delegated: Delegated) -> Result<Message> {
    let (tell, told) = channel();
    delegated.fill(&node.storage(), move |filled| tell.send(filled).unwrap());
    told.recv_timeout(Duration::from_secs(30)).unwrap()
}

#[test]
fn a_delegated_message_becomes_what_it_was() {
    let node = with_log();
    for (before, last) in [(0, 1), (0, 20), (9, 10), (10, 11), (5, 15), (19, 20)] {
        let term = |i: u64| [0, 1, 2][usize::from(i > 0) + usize::from(i > 10)];
        let entries = (before + 1..=last).map(|i| entry(i, term(i))).collect();
        let whole = message(EntryId::new(term(before), before), entries);
        let delegated = Delegated::new(whole.clone()).unwrap();
        assert!(delegated.message.entries.is_empty());
        assert_eq!(fill(&node, delegated).unwrap(), whole);
    }
}

#[test]
fn only_appends_with_entries_are_delegated() {
    let empty = message(EntryId::new(1, 5), vec![]);
    assert_eq!(Delegated::new(empty.clone()), Err(empty));
    let mut heartbeat = message(EntryId::new(1, 5), vec![entry(6, 1)]);
    heartbeat.set_msg_type(MessageType::MsgHeartbeat);
    assert_eq!(Delegated::new(heartbeat.clone()), Err(heartbeat));
}

#[test]
fn an_agent_whose_log_is_not_the_leaders_fills_nothing_in() {
    let node = with_log();
    let refused = |before: EntryId, last: EntryId| {
        let mut delegated = Delegated::new(message(EntryId::new(0, 0), vec![entry(1, 1)])).unwrap();
        (delegated.message.index, delegated.message.log_term) = (before.index, before.term);
        delegated.last = last;
        fill(&node, delegated).unwrap_err().kind()
    };
    // Another leader's entries: at the end, and at the edge before the first.
    assert_eq!(refused(EntryId::new(1, 10), EntryId::new(3, 15)), ErrorKind::Unavailable);
    assert_eq!(refused(EntryId::new(1, 10), EntryId::new(1, 15)), ErrorKind::Unavailable);
    assert_eq!(refused(EntryId::new(1, 12), EntryId::new(2, 15)), ErrorKind::Unavailable);
    // Not there yet.
    assert_eq!(refused(EntryId::new(2, 18), EntryId::new(2, 21)), ErrorKind::Unavailable);
    // Nonsense off the wire.
    assert_eq!(refused(EntryId::new(2, 18), EntryId::new(2, 18)), ErrorKind::InvalidArgument);
    assert_eq!(refused(EntryId::new(2, u64::MAX), EntryId::new(2, 3)), ErrorKind::InvalidArgument);
}

#[test]
fn more_than_a_message_should_carry_is_not_filled_in() {
    // The wire says where it ends, and that may be anywhere in the log.
    let node = with_log();
    let (large, at_most) = (24 << 20, FILL_BYTES_MAX as usize / (24 << 20));
    for index in 21..=24 {
        write(&node, [Entry { index, term: 2, data: vec![7; large].into(), ..Entry::default() }].into_iter());
    }
    let to = |last| {
        let mut delegated = Delegated::new(message(EntryId::new(2, 20), vec![entry(21, 2)])).unwrap();
        delegated.last = EntryId::new(2, last);
        fill(&node, delegated)
    };
    assert_eq!(to(20 + at_most as u64).unwrap().entries.len(), at_most);
    assert_eq!(to(24).unwrap_err().kind(), ErrorKind::TooLarge);
}

#[test]
fn entries_that_are_overwritten_while_they_are_read_are_not_sent_on() {
    let node = with_log();
    let delegated = Delegated::new(message(EntryId::new(1, 10), vec![entry(11, 2), entry(12, 2)])).unwrap();
    // Both threads that read are busy until the log is another.
    let gates: Vec<_> = (0..2)
        .map(|_| {
            let (open, gate) = channel::<()>();
            node.engine.fetch(GROUP, 1..2, raftwood::ReadLimit::NONE, move |_| _ = gate.recv());
            open
        })
        .collect();
    let (tell, told) = channel();
    delegated.fill(&node.storage(), move |filled| tell.send(filled).unwrap());
    write(&node, (11..=20).map(|i| entry(i, 3)));
    drop(gates);
    let filled = told.recv_timeout(Duration::from_secs(30)).unwrap();
    assert_eq!(filled.unwrap_err().kind(), ErrorKind::Unavailable);
}
