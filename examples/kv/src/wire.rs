//! What goes over the sockets: framed raft messages between nodes, lines of JSON between clients and nodes.

use raft::prelude::{Entry, Message};
use serde::{Deserialize, Serialize};
use std::error::Error;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
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
    /// Messages to and from these nodes are lost from now on.
    Partition {
        from: Vec<u64>,
    },
    /// Whether the listener that saves rolled-back entries fails from now on.
    FailRollbacks {
        fail: bool,
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
    /// Group, voters, learners: what raft itself goes by.
    pub configurations: Vec<(u64, Vec<u64>, Vec<u64>)>,
}

/// A group's state machine, whole.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Dump {
    pub applied: u64,
    pub term: u64,
    /// A hash over everything that was ever applied, in order.
    pub hash: u64,
    /// The conf state as the log's adapter encodes it.
    pub conf_state: Vec<u8>,
    /// Every write: key, version, value.
    pub writes: Vec<(u64, u64, u64)>,
}

/// What an entry delivers to the state machine: the payload of a proposal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Command {
    Write { key: u64, value: u64 },
    Read { key: u64 },
}

/// Real commands are not all of one size.
const PADDING: usize = 100;

impl Command {
    pub fn encode(self) -> Vec<u8> {
        let (kind, key, value) = match self {
            Command::Write { key, value } => (1u8, key, value),
            Command::Read { key } => (2, key, 0),
        };
        let mut out = vec![kind];
        out.extend_from_slice(&key.to_le_bytes());
        out.extend_from_slice(&value.to_le_bytes());
        out.resize(out.len() + value as usize % PADDING, 0);
        out
    }

    /// `None` for what a new leader appends, and for changes of the configuration.
    pub fn of(entry: &Entry) -> Option<Command> {
        let data: &[u8] = &entry.data;
        let number = |at: usize| data.get(at..at + 8)?.try_into().ok().map(u64::from_le_bytes);
        match data.first()? {
            1 if entry.get_entry_type() == raft::prelude::EntryType::EntryNormal => {
                Some(Command::Write { key: number(1)?, value: number(9)? })
            }
            2 if entry.get_entry_type() == raft::prelude::EntryType::EntryNormal => {
                Some(Command::Read { key: number(1)? })
            }
            _ => None,
        }
    }
}

/// One raft message of one group.
pub fn write_frame(out: &mut impl Write, group: u64, message: &Message) -> Result<()> {
    let body = protobuf::Message::write_to_bytes(message)?;
    out.write_all(&(body.len() as u32).to_le_bytes())?;
    out.write_all(&group.to_le_bytes())?;
    out.write_all(&body)?;
    Ok(())
}

pub fn read_frame(from: &mut impl Read) -> Result<(u64, Message)> {
    let mut head = [0; 12];
    from.read_exact(&mut head)?;
    let [a, b, c, d, group @ ..] = head;
    let len = u32::from_le_bytes([a, b, c, d]) as usize;
    if len > FRAME_MAX {
        return Err("a frame that is too long".into());
    }
    let mut body = vec![0; len];
    from.read_exact(&mut body)?;
    Ok((u64::from_le_bytes(group), protobuf::Message::parse_from_bytes(&body)?))
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
