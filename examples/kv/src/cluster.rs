//! The node processes, and how they are tormented.

use crate::clocks::Trust;
use crate::lease::Timing;
use crate::wire::{Client, Reply, Request, Result};
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

pub const NODES: u64 = 3;

/// A node that has not opened its store by then hangs.
const START_PATIENCE: Duration = Duration::from_secs(60);

/// Makes it a process group of its own: Ctrl-C goes to the program alone, and what it started ends with it.
pub fn apart(command: &mut Command) -> &mut Command {
    command.process_group(0)
}

pub struct Cluster {
    program: PathBuf,
    dir: PathBuf,
    groups: u64,
    timing: Timing,
    trust: Trust,
    /// What else its nodes are started with.
    others: Vec<String>,
    pub addrs: Vec<SocketAddr>,
    children: Vec<Option<Child>>,
    pub kills: u64,
    /// Committed entries that were applied again after a kill.
    pub replayed: u64,
}

impl Cluster {
    /// `program` is this package's `kv`.
    pub fn start(program: PathBuf, dir: &Path, groups: u64, timing: Timing, trust: Trust) -> Result<Cluster> {
        Cluster::start_with(program, dir, groups, timing, trust, Vec::new())
    }

    /// With these arguments too.
    pub fn start_with(
        program: PathBuf,
        dir: &Path,
        groups: u64,
        timing: Timing,
        trust: Trust,
        others: Vec<String>,
    ) -> Result<Cluster> {
        // Taken and given back: the nodes bind them in a moment.
        let free: Vec<TcpListener> =
            (0..NODES).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<std::io::Result<_>>()?;
        let addrs = free.iter().map(TcpListener::local_addr).collect::<std::io::Result<_>>()?;
        drop(free);
        let children = (0..NODES).map(|_| None).collect();
        let dir = dir.to_path_buf();
        let mut cluster =
            Cluster { program, dir, groups, timing, trust, others, addrs, children, kills: 0, replayed: 0 };
        for id in 1..=NODES {
            cluster.start_node(id)?;
        }
        Ok(cluster)
    }

    pub fn dir_of(&self, id: u64) -> PathBuf {
        self.dir.join(format!("node-{id}"))
    }

    /// Starts a node and waits until its store is open.
    pub fn start_node(&mut self, id: u64) -> Result<()> {
        let nodes: Vec<String> = self.addrs.iter().map(SocketAddr::to_string).collect();
        let mut child = apart(&mut Command::new(&self.program))
            .arg("node")
            .args(["--id", &id.to_string(), "--groups", &self.groups.to_string()])
            .args(["--nodes", &nodes.join(",")])
            .args(["--tick-ms", &self.timing.tick_ms.to_string()])
            .args(["--election-ticks", &self.timing.election_ticks.to_string()])
            .args(["--heartbeat-ticks", &self.timing.heartbeat_ticks.to_string()])
            .args(["--lease-ms", &self.timing.lease_ms.to_string()])
            .args(["--trust", self.trust.name()])
            .args(&self.others)
            .arg("--dir")
            .arg(self.dir_of(id))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let out = child.stdout.take().ok_or("a node without standard output")?;
        self.children[id as usize - 1] = Some(child);
        let (said, line) = channel();
        std::thread::spawn(move || {
            let mut line = String::new();
            let _ = BufReader::new(out).read_line(&mut line);
            let _ = said.send(line);
        });
        let Ok(line) = line.recv_timeout(START_PATIENCE) else {
            return Err(format!("node {id} has not started within {START_PATIENCE:?}").into());
        };
        let replayed = line.trim().strip_prefix("ready ").and_then(|n| n.parse::<u64>().ok());
        self.replayed += replayed.ok_or_else(|| format!("node {id} did not start"))?;
        Ok(())
    }

    /// SIGKILL.
    pub fn kill(&mut self, id: u64) -> Result<()> {
        if let Some(mut child) = self.children[id as usize - 1].take() {
            // One that is dead already died of itself.
            if let Some(status) = child.try_wait()? {
                return Err(format!("node {id} ended by itself: {status}").into());
            }
            child.kill()?;
            child.wait()?;
            self.kills += 1;
        }
        Ok(())
    }

    /// Stops the process where it stands (SIGSTOP), or lets it go on (SIGCONT).
    pub fn freeze(&self, id: u64, frozen: bool) -> Result<()> {
        let Some(child) = &self.children[id as usize - 1] else { return Ok(()) };
        let signal = if frozen { "-STOP" } else { "-CONT" };
        let status = Command::new("kill").args([signal, &child.id().to_string()]).status()?;
        if status.success() { Ok(()) } else { Err(format!("kill {signal}: {status}").into()) }
    }

    pub fn is_up(&self, id: u64) -> bool {
        self.children[id as usize - 1].is_some()
    }

    /// An error if a node died that nobody killed.
    pub fn check(&mut self) -> Result<()> {
        for (id, child) in (1..).zip(&mut self.children) {
            if let Some(child) = child
                && let Some(status) = child.try_wait()?
            {
                return Err(format!("node {id} ended by itself: {status}").into());
            }
        }
        Ok(())
    }

    pub fn ask(&self, id: u64, request: &Request, patience: Duration) -> Result<Reply> {
        Client::connect(self.addrs[id as usize - 1], patience)?.call(request)
    }

    pub fn partition(&self, id: u64, from: Vec<u64>) -> Result<()> {
        self.ask(id, &Request::Partition { from }, Duration::from_secs(5)).map(drop)
    }

    /// Asks the node that leads the group, until somebody does it or the time is over. Returns who did, and
    /// what came of it.
    pub fn ask_leader(&self, group: u64, request: &Request, patience: Duration) -> Option<(u64, Reply)> {
        let until = Instant::now() + patience;
        let mut at = group % NODES + 1;
        while Instant::now() < until {
            match self.ask(at, request, Duration::from_secs(2)) {
                Ok(Reply::NotLeader { leader }) if leader != 0 && leader != at => at = leader,
                Ok(reply @ (Reply::Done | Reply::Frozen(_) | Reply::Gone)) => return Some((at, reply)),
                _ => at = at % NODES + 1,
            }
            std::thread::sleep(Duration::from_millis(30));
        }
        None
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for child in self.children.iter_mut().flatten() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
