//! Sockets of a node: messages to and from its peers, requests of clients.

use crate::machine::Holds;
use crate::node::Input;
use crate::rollback::SaveRollbacks;
use crate::wire::{CLIENT, PEER, Reply, Request, Result, Said, read_frame, write_frame};
use std::io::{BufRead, BufReader, BufWriter, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::time::Duration;

/// Messages that wait for a peer; beyond it they are lost, as on any network.
const QUEUE: usize = 8192;

/// The way to a peer. Connects when there is something to say, and again when the connection breaks.
pub struct Peer {
    queue: SyncSender<(u64, Said)>,
    sent: Arc<AtomicU64>,
}

impl Peer {
    pub fn new(addr: SocketAddr) -> Peer {
        let (send, queue) = sync_channel(QUEUE);
        let sent = Arc::new(AtomicU64::new(0));
        let counter = sent.clone();
        std::thread::spawn(move || deliver(addr, &queue, &counter));
        Peer { queue: send, sent }
    }

    pub fn send(&self, group: u64, said: Said) {
        let _ = self.queue.try_send((group, said));
    }

    /// Bytes that the socket has taken.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }
}

/// Counts what a socket takes.
struct Counted {
    stream: TcpStream,
    sent: Arc<AtomicU64>,
}

impl Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let taken = self.stream.write(bytes)?;
        self.sent.fetch_add(taken as u64, Ordering::Relaxed);
        Ok(taken)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.stream.flush()
    }
}

fn deliver(addr: SocketAddr, queue: &Receiver<(u64, Said)>, sent: &Arc<AtomicU64>) {
    let mut connection: Option<BufWriter<Counted>> = None;
    while let Ok(first) = queue.recv() {
        if connection.is_none() {
            connection = connect(addr, sent).ok();
        }
        let Some(out) = &mut connection else {
            // Nobody there: what has gathered is lost, or it would be stale when the peer is back.
            std::thread::sleep(Duration::from_millis(20));
            queue.try_iter().for_each(drop);
            continue;
        };
        let send = || -> Result<()> {
            for (group, said) in std::iter::once(first).chain(queue.try_iter().take(1000)) {
                write_frame(out, group, &said)?;
            }
            Ok(out.flush()?)
        };
        if send().is_err() {
            connection = None;
        }
    }
}

fn connect(addr: SocketAddr, sent: &Arc<AtomicU64>) -> Result<BufWriter<Counted>> {
    let stream = TcpStream::connect_timeout(&addr, Duration::from_millis(200))?;
    stream.set_nodelay(true)?;
    let mut stream = Counted { stream, sent: sent.clone() };
    stream.write_all(&[PEER])?;
    Ok(BufWriter::with_capacity(64 << 10, stream))
}

/// Takes connections forever.
pub fn listen(listener: TcpListener, node: Sender<Input>, rollbacks: Arc<SaveRollbacks>, holds: Arc<Holds>) {
    for stream in listener.incoming().flatten() {
        let (node, rollbacks, holds) = (node.clone(), rollbacks.clone(), holds.clone());
        std::thread::spawn(move || {
            // A connection that breaks is the other side's affair.
            let _ = serve(stream, &node, &rollbacks, &holds);
        });
    }
}

fn serve(
    mut stream: TcpStream,
    node: &Sender<Input>,
    rollbacks: &SaveRollbacks,
    holds: &Holds,
) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut kind = [0];
    stream.read_exact(&mut kind)?;
    match kind[0] {
        PEER => {
            let mut reader = BufReader::with_capacity(64 << 10, stream);
            loop {
                let (group, said) = read_frame(&mut reader)?;
                node.send(Input::Said(group, said))?;
            }
        }
        CLIENT => {
            let mut reader = BufReader::new(stream.try_clone()?);
            let mut line = String::new();
            while reader.read_line(&mut line)? > 0 {
                let reply = match serde_json::from_str(&line)? {
                    // Not for the thread that drives the groups: it may be waiting for just this.
                    Request::FailRollbacks { fail } => {
                        rollbacks.fail.store(fail, Ordering::SeqCst);
                        Reply::Done
                    }
                    Request::HoldInstalls { hold } => {
                        holds.installs.store(hold, Ordering::SeqCst);
                        Reply::Done
                    }
                    Request::HoldApplies { hold } => {
                        holds.applies.store(hold, Ordering::SeqCst);
                        Reply::Done
                    }
                    request => ask(node, request)?,
                };
                let mut text = serde_json::to_string(&reply)?;
                text.push('\n');
                stream.write_all(text.as_bytes())?;
                line.clear();
            }
            Ok(())
        }
        _ => Err("neither a peer nor a client".into()),
    }
}

fn ask(node: &Sender<Input>, request: Request) -> Result<Reply> {
    let (waiter, answer) = channel();
    node.send(Input::Request(request, waiter))?;
    // The thread that dropped the waiter did not say what became of the request.
    Ok(answer.recv().unwrap_or(Reply::Unknown))
}
