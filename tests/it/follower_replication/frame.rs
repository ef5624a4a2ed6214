//! What goes over a wire: one way to write a group's messages as bytes, and to read them without trust.

use protobuf::Message as _;
use raft::prelude::Message;
use raftwood::EntryId;
use raftwood::raft_rs::{Broadcast, Delegated, Neighbour, Refusal};

#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Frame {
    Raft(Message),
    /// From a leader to an agent.
    Broadcast(Broadcast),
    /// From an agent to a leader.
    Refusal(Refusal),
}

impl Frame {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        match self {
            Frame::Raft(message) => {
                out.push(0);
                put_message(&mut out, message);
            }
            Frame::Broadcast(Broadcast { to, append, neighbours }) => {
                out.push(1);
                put(&mut out, *to);
                out.push(u8::from(append.is_some()));
                append.iter().for_each(|own| put_message(&mut out, own));
                put(&mut out, neighbours.len() as u64);
                for Neighbour { store, append: Delegated { message, last } } in neighbours {
                    [*store, last.term, last.index].into_iter().for_each(|n| put(&mut out, n));
                    put_message(&mut out, message);
                }
            }
            Frame::Refusal(Refusal { from, to, term, neighbour }) => {
                out.push(2);
                [*from, *to, *term, *neighbour].into_iter().for_each(|n| put(&mut out, n));
            }
        }
        out
    }

    /// `None` for bytes that [`encode`](Self::encode) does not make.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Frame> {
        let (kind, mut rest) = bytes.split_first()?;
        let r = &mut rest;
        let frame = match kind {
            0 => Frame::Raft(message(r)?),
            1 => {
                let to = number(r)?;
                let append = match take(r, 1)?[0] {
                    0 => None,
                    _ => Some(message(r)?),
                };
                let mut neighbours = Vec::new();
                for _ in 0..number(r)? {
                    let (store, term, index) = (number(r)?, number(r)?, number(r)?);
                    let append = Delegated { message: message(r)?, last: EntryId::new(term, index) };
                    neighbours.push(Neighbour { store, append });
                }
                Frame::Broadcast(Broadcast { to, append, neighbours })
            }
            2 => Frame::Refusal(Refusal {
                from: number(r)?,
                to: number(r)?,
                term: number(r)?,
                neighbour: number(r)?,
            }),
            _ => return None,
        };
        r.is_empty().then_some(frame)
    }
}

fn put(out: &mut Vec<u8>, n: u64) {
    out.extend_from_slice(&n.to_le_bytes());
}

fn put_message(out: &mut Vec<u8>, message: &Message) {
    let bytes = message.write_to_bytes().unwrap();
    put(out, bytes.len() as u64);
    out.extend_from_slice(&bytes);
}

fn take<'a>(rest: &mut &'a [u8], len: usize) -> Option<&'a [u8]> {
    let (taken, after) = rest.split_at_checked(len)?;
    *rest = after;
    Some(taken)
}

fn number(rest: &mut &[u8]) -> Option<u64> {
    take(rest, 8).map(|b| u64::from_le_bytes(b.try_into().unwrap()))
}

fn message(rest: &mut &[u8]) -> Option<Message> {
    let len = usize::try_from(number(rest)?).ok()?;
    Message::parse_from_bytes(take(rest, len)?).ok()
}

#[test]
fn frames_survive_the_round_trip_and_no_prefix_of_one_is_a_frame() {
    let message = Message { index: 7, to: 105, from: 101, term: 9, ..Message::default() };
    let append = Delegated { message: message.clone(), last: EntryId::new(9, 12) };
    let neighbours = vec![Neighbour { store: 5, append: append.clone() }, Neighbour { store: 6, append }];
    let broadcast = Broadcast { to: 104, append: Some(message.clone()), neighbours };
    let refusal = Refusal { from: 104, to: 101, term: 9, neighbour: 105 };
    for frame in [Frame::Raft(message), Frame::Broadcast(broadcast), Frame::Refusal(refusal)] {
        let bytes = frame.encode();
        assert_eq!(Frame::decode(&bytes), Some(frame));
        (0..bytes.len()).for_each(|end| assert_eq!(Frame::decode(&bytes[..end]), None));
    }
}
