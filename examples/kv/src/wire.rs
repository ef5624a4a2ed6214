//! What goes over the sockets: framed raft messages between nodes, lines of JSON between clients and nodes.

use crate::clocks::Fault;
use crate::load::Rng;
use crate::region::{Change, Span};
use raft::prelude::{Entry, Message};
use raftwood::EntryId;
use raftwood::healing::{Answer, Question};
use raftwood::raft_rs::{Broadcast, Delegated, Neighbour, Refusal};
use serde::{Deserialize, Serialize};
use std::error::Error;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

pub type Result<T, E = Box<dyn Error + Send + Sync>> = std::result::Result<T, E>;

/// The first byte of a connection says who is calling.
pub const PEER: u8 = b'P';
pub const CLIENT: u8 = b'C';

const FRAME_MAX: usize = 64 << 20;

/// How a read makes sure that it is not stale.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Via {
    /// It goes through the log like a write.
    Log,
    /// The leader asks a majority whether it still leads.
    Index,
    /// The leader holds a lease: nobody else can have been elected yet.
    Lease,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Request {
    Write {
        group: u64,
        key: u64,
        value: u64,
    },
    /// A write that nobody waits for: `Done` says that it was proposed, no more.
    Propose {
        group: u64,
        key: u64,
        value: u64,
    },
    Read {
        group: u64,
        key: u64,
        via: Via,
    },
    Transfer {
        group: u64,
        to: u64,
    },
    /// Makes a node a learner, or a voter again.
    Demote {
        group: u64,
        node: u64,
    },
    Promote {
        group: u64,
        node: u64,
    },
    /// Keys from `at` on go to a new group.
    Split {
        group: u64,
        at: u64,
        child: u64,
    },
    /// The first half of a merge: answered with what the group holds and will hold.
    Freeze {
        group: u64,
    },
    /// The second half, for the group that takes it over.
    Absorb {
        group: u64,
        source: u64,
        state: Dump,
    },
    /// Messages to and from these nodes are lost from now on.
    Partition {
        from: Vec<u64>,
    },
    /// Messages of these groups, to and from this node, are lost from now on.
    Deafen {
        groups: Vec<u64>,
    },
    /// Whether the state machine keeps to itself from now on that it holds a snapshot durably.
    HoldInstalls {
        hold: bool,
    },
    /// Whether the state machine leaves undone from now on what it is given: entries are committed, and not
    /// applied.
    HoldApplies {
        hold: bool,
    },
    /// Whether the listener that saves rolled-back entries fails from now on.
    FailRollbacks {
        fail: bool,
    },
    /// The clocks of the node go like this from now on.
    Disturb {
        clocks: Fault,
    },
    Stats,
    Dump {
        group: u64,
    },
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Reply {
    Written {
        version: u64,
    },
    Value {
        version: u64,
        value: u64,
        /// No round was needed: the lease covered it.
        by_lease: bool,
    },
    Done,
    /// Nothing was done.
    NotLeader {
        leader: u64,
    },
    /// Nothing was done, and nothing will be.
    Failed {
        why: String,
    },
    /// Nothing was done: another group has the key, or is about to have it.
    Moved,
    /// What the group holds, and will hold until it is merged.
    Frozen(Dump),
    /// The group was merged already.
    Gone,
    /// It may or may not happen.
    Unknown,
    Stats(Stats),
    Dump(Dump),
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Stats {
    /// Groups that this node leads, by what it believes.
    pub leads: Vec<u64>,
    /// Writes of the log that the listener refused.
    pub refused: u64,
    pub compactions: u64,
    pub snapshots_installed: u64,
    /// Groups whose snapshot is on its way into the state machine, and from when to when there were others:
    /// nanoseconds of `CLOCK_MONOTONIC`.
    pub installing: Vec<u64>,
    pub installs: Vec<(u64, u64)>,
    /// Bytes that went into the socket to each other node, whole frames.
    pub sent: Vec<(u64, u64)>,
    /// What this node, as the agent of its zone, has handed on, and what it refused to.
    pub handed_on: u64,
    pub not_handed_on: u64,
    pub splits: u64,
    /// Logs of groups that were merged.
    pub buried: u64,
    /// The peer id of this node's replicas, peers that were exchanged in groups that it led, and messages
    /// that came for replicas which are no more.
    pub peer: u64,
    pub replaced: u64,
    pub late: u64,
    /// Group, voters, learners, by their peer ids: what raft itself goes by.
    pub configurations: Vec<(u64, Vec<u64>, Vec<u64>)>,
    /// How many groups have a configuration that is on its way from one to another.
    pub half_done: u64,
    /// Groups whose replica here has lost something, and those whose replica has lost its term and vote.
    pub fenced: Vec<u64>,
    pub lost: Vec<u64>,
    /// Entries that were put back, and replicas that run again.
    pub healed: u64,
    pub unfenced: u64,
    /// Votes that fenced replicas have given, by what of their logs is certain.
    pub fenced_votes: u64,
    /// Groups that have a replica here, and what they own by it.
    pub spans: Vec<(u64, Span)>,
}

/// A group's state machine, whole.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Dump {
    /// What it owns; `None` where it holds nothing yet.
    pub span: Option<Span>,
    pub applied: u64,
    pub term: u64,
    /// A hash over everything that was ever applied, in order.
    pub hash: u64,
    /// The conf state as the log's adapter encodes it.
    pub conf_state: Vec<u8>,
    /// Every write: key, version, value.
    pub writes: Vec<(u64, u64, u64)>,
}

/// What an entry delivers to the state machine: the payload of a proposal. Keys are places in the row of all
/// keys.
#[derive(Clone, PartialEq, Debug)]
pub enum Command {
    Write { key: u64, value: u64 },
    Read { key: u64 },
    Change(Change),
}

/// Writes that this process proposes are no shorter than this.
pub static PAYLOAD: AtomicUsize = AtomicUsize::new(0);

/// Real commands are not all of one size.
const PADDING: usize = 100;

impl Command {
    /// # Errors
    /// What the library makes of it that writes a change down.
    pub fn encode(&self) -> Result<Vec<u8>> {
        let (kind, key, value) = match self {
            Command::Write { key, value } => (1u8, key, value),
            Command::Read { key } => (2, key, &0),
            Command::Change(change) => {
                let mut out = vec![3];
                out.extend(serde_json::to_vec(change)?);
                return Ok(out);
            }
        };
        let mut out = vec![kind];
        out.extend_from_slice(&key.to_le_bytes());
        out.extend_from_slice(&value.to_le_bytes());
        out.resize(out.len() + *value as usize % PADDING, 0);
        // Where what goes over the sockets is counted: nothing on the way may compress it.
        let mut noise = Rng(*value);
        while kind == 1 && out.len() < PAYLOAD.load(Ordering::Relaxed) {
            out.extend(noise.below(u64::MAX).to_le_bytes());
        }
        Ok(out)
    }

    /// `None` for what a new leader appends, and for changes of the configuration.
    pub fn of(entry: &Entry) -> Option<Command> {
        if entry.get_entry_type() != raft::prelude::EntryType::EntryNormal {
            return None;
        }
        let data: &[u8] = &entry.data;
        let number = |at: usize| data.get(at..at + 8)?.try_into().ok().map(u64::from_le_bytes);
        match data.first()? {
            1 => Some(Command::Write { key: number(1)?, value: number(9)? }),
            2 => Some(Command::Read { key: number(1)? }),
            3 => serde_json::from_slice(&data[1..]).ok().map(Command::Change),
            _ => None,
        }
    }
}

/// What one node says to another about a group.
pub enum Said {
    Raft(Message),
    /// Who asks for copies of entries, and which.
    Question(u64, Question),
    Answers(u64, Vec<Answer>),
    /// From a leader to the agent of another zone, and what that says to it.
    Broadcast(Broadcast),
    Refusal(Refusal),
    /// The sender's replicas have a new id: what was sent to the old one came to nobody.
    Replaced {
        old: u64,
        new: u64,
    },
}

/// What a broadcast is on the wire: the agent, its own append, and for each neighbour its store, its append
/// and the last entry that belongs there.
type Relayed = (u64, Option<Vec<u8>>, Vec<(u64, Vec<u8>, u64, u64)>);

fn relayed(broadcast: &Broadcast) -> Result<Relayed> {
    let encode = |message: &Message| protobuf::Message::write_to_bytes(message);
    let neighbour = |n: &Neighbour| -> Result<_> {
        Ok((n.store, encode(&n.append.message)?, n.append.last.term, n.append.last.index))
    };
    let neighbours = broadcast.neighbours.iter().map(neighbour).collect::<Result<_>>()?;
    Ok((broadcast.to, broadcast.append.as_ref().map(encode).transpose()?, neighbours))
}

fn broadcast((to, append, neighbours): Relayed) -> Result<Broadcast> {
    let decode = |bytes: Vec<u8>| protobuf::Message::parse_from_bytes(&bytes);
    let neighbour = |(store, message, term, index)| -> Result<Neighbour> {
        let append = Delegated { message: decode(message)?, last: EntryId::new(term, index) };
        Ok(Neighbour { store, append })
    };
    let neighbours = neighbours.into_iter().map(neighbour).collect::<Result<_>>()?;
    Ok(Broadcast { to, append: append.map(decode).transpose()?, neighbours })
}

pub fn write_frame(out: &mut impl Write, group: u64, said: &Said) -> Result<()> {
    let (kind, body) = match said {
        Said::Raft(message) => (0u8, protobuf::Message::write_to_bytes(message)?),
        Said::Question(from, question) => (1, postcard::to_stdvec(&(from, question))?),
        Said::Answers(from, answers) => (2, postcard::to_stdvec(&(from, answers))?),
        Said::Broadcast(broadcast) => (3, postcard::to_stdvec(&relayed(broadcast)?)?),
        Said::Replaced { old, new } => (5, postcard::to_stdvec(&(old, new))?),
        Said::Refusal(r) => (4, postcard::to_stdvec(&(r.from, r.to, r.term, r.neighbour))?),
    };
    out.write_all(&(body.len() as u32).to_le_bytes())?;
    out.write_all(&group.to_le_bytes())?;
    out.write_all(&[kind])?;
    out.write_all(&body)?;
    Ok(())
}

pub fn read_frame(from: &mut impl Read) -> Result<(u64, Said)> {
    let mut head = [0; 13];
    from.read_exact(&mut head)?;
    let [a, b, c, d, group @ .., kind] = head;
    let len = u32::from_le_bytes([a, b, c, d]) as usize;
    if len > FRAME_MAX {
        return Err("a frame that is too long".into());
    }
    let mut body = vec![0; len];
    from.read_exact(&mut body)?;
    let said = match kind {
        0 => Said::Raft(protobuf::Message::parse_from_bytes(&body)?),
        1 => postcard::from_bytes(&body).map(|(from, question)| Said::Question(from, question))?,
        2 => postcard::from_bytes(&body).map(|(from, answers)| Said::Answers(from, answers))?,
        3 => Said::Broadcast(broadcast(postcard::from_bytes(&body)?)?),
        4 => postcard::from_bytes(&body)
            .map(|(from, to, term, neighbour)| Said::Refusal(Refusal { from, to, term, neighbour }))?,
        5 => postcard::from_bytes(&body).map(|(old, new)| Said::Replaced { old, new })?,
        _ => return Err("a frame of no known kind".into()),
    };
    Ok((u64::from_le_bytes(group), said))
}

/// A client's connection to one node: one request at a time.
pub struct Client {
    reader: BufReader<TcpStream>,
}

impl Client {
    pub fn connect(node: SocketAddr, patience: Duration) -> io::Result<Client> {
        let mut stream = TcpStream::connect_timeout(&node, patience)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(patience))?;
        stream.write_all(&[CLIENT])?;
        Ok(Client { reader: BufReader::new(stream) })
    }

    /// An error means that nobody knows what became of the request; the connection is of no further use.
    pub fn call(&mut self, request: &Request) -> Result<Reply> {
        self.send(request)?;
        self.receive()
    }

    /// The first half of a call: the node may get to it later.
    pub fn send(&mut self, request: &Request) -> Result<()> {
        let mut line = serde_json::to_string(request)?;
        line.push('\n');
        Ok(self.reader.get_mut().write_all(line.as_bytes())?)
    }

    /// The second half.
    pub fn receive(&mut self) -> Result<Reply> {
        let mut answer = String::new();
        if self.reader.read_line(&mut answer)? == 0 {
            return Err("the node hung up".into());
        }
        Ok(serde_json::from_str(&answer)?)
    }
}
