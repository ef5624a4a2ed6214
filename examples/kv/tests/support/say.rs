//! Messages to a node, as if they were of another one.

use raft::prelude::{Message, MessageType};
use raftwood_kv::cluster::Cluster;
use raftwood_kv::wire::{Dump, PEER, Said, write_frame};
use std::io::Write;
use std::net::TcpStream;

pub(crate) fn message(kind: MessageType, from: u64, to: u64, term: u64) -> Said {
    let mut message = Message::default();
    message.set_msg_type(kind);
    (message.from, message.to, message.term) = (from, to, term);
    (message.index, message.log_term) = (1 << 20, term - 1);
    // Read by a node whatever else it makes of the message: a snapshot of nothing.
    if kind == MessageType::MsgSnapshot {
        message.mut_snapshot().set_data(serde_json::to_vec(&Dump::default()).unwrap().into());
    }
    Said::Raft(message)
}

/// What is said in one call comes in this order.
pub(crate) fn say(cluster: &Cluster, node: u64, said: &[(u64, Said)]) {
    let mut stream = TcpStream::connect(cluster.addrs[node as usize - 1]).unwrap();
    stream.write_all(&[PEER]).unwrap();
    said.iter().for_each(|(group, said)| write_frame(&mut stream, *group, said).unwrap());
    stream.flush().unwrap();
}
