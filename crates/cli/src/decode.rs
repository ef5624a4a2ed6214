//! What the adapters for the consensus libraries store, in words. Read by hand: the tool knows nothing of the
//! application's types, and no protobuf library is needed for the few fields that are the libraries' own.
//! What is not understood is shown as bytes.

use raftwood::Entry;
use std::fmt::Write;

/// Whose payloads and hard states these are.
#[derive(Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub(crate) enum Decode {
    /// Nobody's: bytes.
    #[default]
    None,
    /// Of the adapter for raft-rs: the entry's type, configuration changes, term, vote and commit.
    RaftRs,
    /// Of the adapter for openraft with its own format: log ids, the kind of entry, and votes.
    Openraft,
}

/// What was understood, and the bytes that were not.
#[derive(Debug, PartialEq)]
pub(crate) struct Decoded<'a> {
    pub(crate) words: String,
    pub(crate) rest: &'a [u8],
}

impl Decode {
    /// An entry's payload. `None` if it is not one of these.
    pub(crate) fn entry(self, entry: &Entry) -> Option<Decoded<'_>> {
        match self {
            Decode::None => None,
            Decode::RaftRs => raft_rs_entry(&entry.payload),
            Decode::Openraft => openraft_entry(&entry.payload, entry.id.index),
        }
    }

    /// A hard state. `None` if it is not one of these.
    pub(crate) fn hard_state(self, bytes: &[u8]) -> Option<Decoded<'_>> {
        match self {
            Decode::None => None,
            Decode::RaftRs => raft_rs_hard_state(bytes),
            Decode::Openraft => openraft_vote(bytes),
        }
    }
}

/// Takes what it reads off the front.
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn number(&mut self) -> Option<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }

    fn take(&mut self, len: u64) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(usize::try_from(len).ok()?)?;
        self.0 = rest;
        Some(taken)
    }

    fn after(&mut self, mark: &[u8]) -> Option<()> {
        self.0 = self.0.strip_prefix(mark)?;
        Some(())
    }
}

// ---- raft-rs ----------------------------------------------------------------------------------------------

/// A byte of type and flags, a context if there is one, and the data.
fn raft_rs_entry(payload: &[u8]) -> Option<Decoded<'_>> {
    let mut bytes = Bytes(payload);
    let Some(head) = bytes.byte() else { return Some(Decoded { words: "normal".into(), rest: &[] }) };
    if head & !0b1111 != 0 {
        return None;
    }
    let mut context = &[][..];
    if head & 0b100 != 0 {
        let len = bytes.number()?;
        context = bytes.take(len)?;
    }
    let (mut words, rest) = match head & 0b11 {
        0 => ("normal".to_string(), bytes.0),
        1 => known("conf change", bytes.0, conf_change(bytes.0)),
        2 => known("conf change v2", bytes.0, conf_change_v2(bytes.0)),
        _ => return None,
    };
    if !context.is_empty() {
        let _ = write!(words, ", context {}", context.escape_ascii());
    }
    Some(Decoded { words, rest })
}

fn known<'a>(what: &str, bytes: &'a [u8], read: Option<String>) -> (String, &'a [u8]) {
    match read {
        Some(words) => (format!("{what}:{words}"), &[]),
        None => (what.to_string(), bytes),
    }
}

/// A field of a protobuf message.
enum Field<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// The fields of a protobuf message with their numbers.
fn fields(message: &[u8]) -> Option<Vec<(u64, Field<'_>)>> {
    let mut bytes = Bytes(message);
    let mut found = Vec::new();
    while !bytes.0.is_empty() {
        let key = bytes.number()?;
        let field = match key & 7 {
            0 => Field::Number(bytes.number()?),
            2 => {
                let len = bytes.number()?;
                Field::Bytes(bytes.take(len)?)
            }
            _ => return None,
        };
        found.push((key >> 3, field));
    }
    Some(found)
}

fn change(kind: u64, node: u64) -> String {
    match kind {
        0 => format!(" add {node}"),
        1 => format!(" remove {node}"),
        2 => format!(" add learner {node}"),
        other => format!(" change {other} of {node}"),
    }
}

fn conf_change(message: &[u8]) -> Option<String> {
    let (mut kind, mut node, mut more) = (0, 0, String::new());
    for (number, field) in fields(message)? {
        match (number, field) {
            (2, Field::Number(n)) => kind = n,
            (3, Field::Number(n)) => node = n,
            (1, Field::Number(id)) => drop(write!(more, ", id {id}")),
            (4, Field::Bytes(context)) => drop(write!(more, ", context {}", context.escape_ascii())),
            (number, field) => unknown(&mut more, number, &field),
        }
    }
    Some(change(kind, node) + &more)
}

fn conf_change_v2(message: &[u8]) -> Option<String> {
    let (mut words, mut more) = (String::new(), String::new());
    for (number, field) in fields(message)? {
        match (number, field) {
            (1, Field::Number(0)) => {}
            (1, Field::Number(1)) => more.push_str(", joint, left implicitly"),
            (1, Field::Number(2)) => more.push_str(", joint, left explicitly"),
            (2, Field::Bytes(single)) => {
                let (mut kind, mut node) = (0, 0);
                for (number, field) in fields(single)? {
                    match (number, field) {
                        (1, Field::Number(n)) => kind = n,
                        (2, Field::Number(n)) => node = n,
                        (number, field) => unknown(&mut more, number, &field),
                    }
                }
                words.push_str(&change(kind, node));
            }
            (3, Field::Bytes(context)) => drop(write!(more, ", context {}", context.escape_ascii())),
            (number, field) => unknown(&mut more, number, &field),
        }
    }
    if words.is_empty() {
        words.push_str(" leave joint");
    }
    Some(words + &more)
}

/// A field that a later release of the library has.
fn unknown(words: &mut String, number: u64, field: &Field<'_>) {
    let _ = match field {
        Field::Number(n) => write!(words, ", field {number} = {n}"),
        Field::Bytes(bytes) => write!(words, ", field {number} = 0x{}", crate::out::hex(bytes)),
    };
}

fn raft_rs_hard_state(bytes: &[u8]) -> Option<Decoded<'_>> {
    let mut bytes = Bytes(bytes);
    bytes.after(&[1])?;
    let (term, vote, commit) = (bytes.number()?, bytes.number()?, bytes.number()?);
    let vote = if vote == 0 { "nobody".to_string() } else { vote.to_string() };
    bytes
        .0
        .is_empty()
        .then(|| Decoded { words: format!("term {term}, vote for {vote}, commit {commit}"), rest: &[] })
}

// ---- openraft ---------------------------------------------------------------------------------------------

/// A mark, the log id, and the whole entry, which begins with the log id again.
fn openraft_entry(payload: &[u8], index: u64) -> Option<Decoded<'_>> {
    let mut bytes = Bytes(payload);
    bytes.after(&[0xff, 0xff, 0xff, 1])?;
    let len = u16::from_le_bytes([bytes.byte()?, bytes.byte()?]);
    let log_id = bytes.take(u64::from(len))?;
    let mut words =
        log_id_in_words(log_id, index).unwrap_or_else(|| format!("log id 0x{}", crate::out::hex(log_id)));
    if bytes.after(log_id).is_some() {
        let mut inner = Bytes(bytes.0);
        let kind = match inner.number() {
            Some(0) => Some("blank"),
            Some(1) => Some("normal"),
            Some(2) => Some("membership"),
            _ => None,
        };
        if let Some(kind) = kind {
            let _ = write!(words, ", {kind}");
            bytes = inner;
        }
    }
    Some(Decoded { words, rest: bytes.0 })
}

/// Term, node and index, or term and index, where ids are numbers.
fn log_id_in_words(log_id: &[u8], index: u64) -> Option<String> {
    let mut bytes = Bytes(log_id);
    let mut numbers = Vec::new();
    while !bytes.0.is_empty() {
        numbers.push(bytes.number()?);
    }
    match numbers[..] {
        [term, node, last] if last == index => Some(format!("term {term} of node {node}")),
        [term, last] if last == index => Some(format!("term {term}")),
        _ => None,
    }
}

/// A mark, the run in which it was saved, and the vote.
fn openraft_vote(bytes: &[u8]) -> Option<Decoded<'_>> {
    let mut bytes = Bytes(bytes);
    bytes.after(&[0xff; 10])?;
    bytes.after(&[1])?;
    let run = u64::from_le_bytes(bytes.take(8)?.try_into().ok()?);
    let vote = bytes.0;
    let read = || {
        let mut bytes = Bytes(vote);
        let (term, node) = (bytes.number()?, bytes.number()?);
        let state = match bytes.byte()? {
            0 => "not committed",
            1 => "committed",
            _ => return None,
        };
        bytes.0.is_empty().then(|| format!("term {term}, vote for {node}, {state}, saved in run {run}"))
    };
    Some(match read() {
        Some(words) => Decoded { words, rest: &[] },
        None => Decoded { words: format!("a vote that was saved in run {run}"), rest: vote },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use raftwood::EntryId;

    fn words(decode: Decode, payload: &[u8]) -> Option<(String, Vec<u8>)> {
        let entry = Entry { id: EntryId::new(3, 9), payload: payload.to_vec().into() };
        decode.entry(&entry).map(|d| (d.words, d.rest.to_vec()))
    }

    #[test]
    fn entries_of_raft_rs_say_their_type_and_what_they_change() {
        let said = |payload: &[u8], says: &str, rest: &[u8]| {
            assert_eq!(words(Decode::RaftRs, payload), Some((says.to_string(), rest.to_vec())));
        };
        said(b"", "normal", b"");
        said(b"\x00set x", "normal", b"set x");
        said(b"\x04\x02abrest", "normal, context ab", b"rest");
        said(b"\x01\x08\x05\x10\x01\x18\x04", "conf change: remove 4, id 5", b"");
        said(b"\x01\x18\x04\x30\x07", "conf change: add 4, field 6 = 7", b"");
        said(b"\x02", "conf change v2: leave joint", b"");
        said(
            b"\x02\x08\x02\x12\x04\x08\x02\x10\x09\x12\x02\x10\x03",
            "conf change v2: add learner 9 add 3, joint, left explicitly",
            b"",
        );
        // Not a message: bytes.
        said(b"\x01\x18", "conf change", b"\x18");
        assert_eq!(words(Decode::RaftRs, b"\xf0"), None);
        let hard = Decode::RaftRs.hard_state(b"\x01\x07\x03\x8c\x01").unwrap();
        assert_eq!(hard.words, "term 7, vote for 3, commit 140");
        assert_eq!(Decode::RaftRs.hard_state(b"\x01\x07\x03"), None);
    }

    #[test]
    fn entries_of_openraft_say_their_log_id_and_kind() {
        let stored = [&[0xff, 0xff, 0xff, 1, 3, 0, 2, 1, 9, 2, 1, 9, 1][..], b"set x"].concat();
        let said = words(Decode::Openraft, &stored).unwrap();
        assert_eq!(said, ("term 2 of node 1, normal".to_string(), b"set x".to_vec()));
        let stored = [&[0xff; 10][..], &[1], &4u64.to_le_bytes(), &[7, 3, 1]].concat();
        let vote = Decode::Openraft.hard_state(&stored).unwrap();
        assert_eq!(vote.words, "term 7, vote for 3, committed, saved in run 4");
        assert_eq!(words(Decode::Openraft, b"set x"), None);
    }

    #[test]
    fn any_bytes_are_read_or_left() {
        let mut word = 1u64;
        for _ in 0..20_000 {
            word = word.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let bytes = [&word.to_le_bytes()[(word >> 61) as usize..], &[0xff; 3][..]].concat();
            let entry = Entry { id: EntryId::new(1, 1), payload: bytes.into() };
            for decode in [Decode::RaftRs, Decode::Openraft] {
                let _ = (decode.entry(&entry), decode.hard_state(&entry.payload));
            }
        }
    }
}
