//! openraft over several log stores: one group, one node, many clients.
//!
//! An acknowledged write has gone through all of openraft: `client_write`, the append, its callback, the
//! commit, the state machine. With one node nothing of it waits for a network, so that what differs is the
//! log. Every store but the one in memory calls an append back when it is synced.

mod group;
mod memory;
#[cfg(feature = "raft-log")]
mod raft_log;

use crate::environment::{Environment, version};
use crate::log::Result;
use crate::measure::{histogram, nanos};
use crate::scratch::Scratch;
use group::{Alone, Machine, Raft, Types};
use memory::MemoryStore;
use openraft::storage::{RaftLogReader, RaftLogStorage};
use openraft::{Config, SnapshotPolicy};
use raftwood::openraft_010::LogStore;
use raftwood::{Engine, RegionId};
use serde::Serialize;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Clients that write at the same time, one command each at a time.
const CLIENTS: [usize; 3] = [1, 64, 1024];
const COMMAND_BYTES: usize = 128;
/// Threads of the runtime. The stores have others of their own.
const WORKERS: usize = 2;
const PATIENCE: Duration = Duration::from_secs(30);

/// As `Cargo.toml` pins it.
const OPENRAFT: &str = "0.10.0-alpha.37";

/// What the ratios are to.
const BASE: &str = "raft-log";

#[derive(Clone, Copy, PartialEq, Eq)]
enum Store {
    Raftwood,
    #[cfg(feature = "raft-log")]
    RaftLog,
    #[cfg(feature = "raft-log")]
    RaftLogAtOnce,
    Memory,
}

impl Store {
    const ALL: &[Store] = &[
        Store::Raftwood,
        #[cfg(feature = "raft-log")]
        Store::RaftLog,
        #[cfg(feature = "raft-log")]
        Store::RaftLogAtOnce,
        Store::Memory,
    ];

    fn name(self) -> &'static str {
        match self {
            Store::Raftwood => "raftwood",
            #[cfg(feature = "raft-log")]
            Store::RaftLog => BASE,
            #[cfg(feature = "raft-log")]
            Store::RaftLogAtOnce => "raft-log, no wait",
            Store::Memory => "memory",
        }
    }
}

/// Of one run, or the medians of several.
#[derive(Clone, Copy, Serialize)]
pub(crate) struct Figures {
    writes_per_second: f64,
    p50_ms: f64,
    p99_ms: f64,
    p999_ms: f64,
    p9999_ms: f64,
    longest_ms: f64,
    /// Acknowledged writes that were not there when the store was opened again.
    lost: u64,
}

#[derive(Serialize)]
struct Row {
    store: &'static str,
    clients: usize,
    median: Figures,
    rounds: Vec<Figures>,
}

/// All that was measured.
#[derive(Serialize)]
pub(crate) struct Measured {
    environment: Environment,
    openraft: &'static str,
    raft_log: String,
    seconds: f64,
    rounds: u32,
    rows: Vec<Row>,
}

impl Measured {
    /// Acknowledged writes that were lost, over all runs.
    pub(crate) fn lost(&self) -> u64 {
        self.rows.iter().flat_map(|row| &row.rounds).map(|figures| figures.lost).sum()
    }
}

/// All stores run the first round, then all the second, the other way round.
pub(crate) fn measure(seconds: f64, rounds: u32, scratch: &Scratch) -> Result<Measured> {
    let time = Duration::try_from_secs_f64(seconds)?;
    let environment = Environment::here(scratch.path())?;
    let mut rows: Vec<Row> = Vec::new();
    for round in 0..rounds.max(1) {
        let mut turns: Vec<_> =
            CLIENTS.iter().flat_map(|clients| Store::ALL.iter().map(|store| (*store, *clients))).collect();
        if round % 2 == 1 {
            turns.reverse();
        }
        for (store, clients) in turns {
            let figures = run(store, clients, time, &scratch.store()?)?;
            let name = store.name();
            match rows.iter_mut().find(|row| row.store == name && row.clients == clients) {
                Some(row) => row.rounds.push(figures),
                None => rows.push(Row { store: name, clients, median: figures, rounds: vec![figures] }),
            }
        }
    }
    for row in &mut rows {
        let median = |of: fn(&Figures) -> f64| {
            let mut all: Vec<f64> = row.rounds.iter().map(of).collect();
            all.sort_by(f64::total_cmp);
            all[all.len() / 2]
        };
        row.median = Figures {
            writes_per_second: median(|f| f.writes_per_second),
            p50_ms: median(|f| f.p50_ms),
            p99_ms: median(|f| f.p99_ms),
            p999_ms: median(|f| f.p999_ms),
            p9999_ms: median(|f| f.p9999_ms),
            longest_ms: median(|f| f.longest_ms),
            lost: row.rounds.iter().map(|f| f.lost).sum(),
        };
    }
    let raft_log = version("raft-log");
    Ok(Measured { environment, openraft: OPENRAFT, raft_log, seconds, rounds: rounds.max(1), rows })
}

fn run(store: Store, clients: usize, time: Duration, dir: &Path) -> Result<Figures> {
    let threads = tokio::runtime::Builder::new_multi_thread().worker_threads(WORKERS).enable_all().build()?;
    threads.block_on(async {
        match store {
            Store::Raftwood => {
                let engine = Engine::open(dir)?;
                let written = write(LogStore::new(&engine, RegionId(1)), clients, time).await?;
                engine.close()?;
                let engine = Engine::open(dir)?;
                let figures = written.found(&mut LogStore::<Types>::new(&engine, RegionId(1))).await?;
                engine.close()?;
                Ok(figures)
            }
            #[cfg(feature = "raft-log")]
            Store::RaftLog => over_raft_log(dir, None, clients, time).await,
            #[cfg(feature = "raft-log")]
            Store::RaftLogAtOnce => over_raft_log(dir, Some(Duration::ZERO), clients, time).await,
            Store::Memory => {
                let store = MemoryStore::default();
                write(store.clone(), clients, time).await?.found(&mut store.clone()).await
            }
        }
    })
}

#[cfg(feature = "raft-log")]
async fn over_raft_log(
    dir: &Path,
    batch_wait: Option<Duration>,
    clients: usize,
    time: Duration,
) -> Result<Figures> {
    let written = write(raft_log::RaftLogStore::open(dir, batch_wait)?, clients, time).await?;
    // openraft's tasks hold the store for a moment after the shutdown, and a directory is opened once.
    let begun = Instant::now();
    let mut again = loop {
        match raft_log::RaftLogStore::open(dir, batch_wait) {
            Ok(store) => break store,
            Err(e) if begun.elapsed() > PATIENCE => return Err(e),
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    };
    written.found(&mut again).await
}

/// A run, before its store was opened again.
struct Written {
    times: Vec<u64>,
    seconds: f64,
    /// The index of the last write that was acknowledged.
    last: u64,
}

async fn write<L: RaftLogStorage<Types>>(log: L, clients: usize, time: Duration) -> Result<Written> {
    let config = Config { snapshot_policy: SnapshotPolicy::Never, ..Config::default() };
    let raft = Raft::new(1, Arc::new(config.validate()?), Alone, log, Machine::default()).await?;
    raft.initialize(BTreeSet::from([1])).await?;
    raft.wait(Some(PATIENCE)).current_leader(1, "it leads").await?;
    let command = "c".repeat(COMMAND_BYTES);
    let begun = Instant::now();
    let end = begun + time;
    let clients: Vec<_> = (0..clients)
        .map(|_| {
            let (raft, command) = (raft.clone(), command.clone());
            tokio::spawn(async move {
                let (mut times, mut last) = (Vec::new(), 0);
                loop {
                    let at = Instant::now();
                    if at >= end {
                        return Ok((times, last));
                    }
                    match raft.client_write(command.clone()).await {
                        Ok(answer) => last = answer.log_id.index,
                        Err(e) => return Err(e.to_string()),
                    }
                    times.push(nanos(at.elapsed()));
                }
            })
        })
        .collect();
    let mut written = Written { times: Vec::new(), seconds: 0.0, last: 0 };
    for client in clients {
        let (times, last) = client.await??;
        written.times.extend(times);
        written.last = written.last.max(last);
    }
    written.seconds = begun.elapsed().as_secs_f64();
    raft.shutdown().await?;
    Ok(written)
}

impl Written {
    /// Looks for what was acknowledged in the store, opened again.
    async fn found<L: RaftLogStorage<Types>>(self, log: &mut L) -> Result<Figures> {
        let entries = log.get_log_reader().await.try_get_log_entries(..=self.last).await?;
        let commands = entries.iter().filter(
            |entry| matches!(&entry.payload, openraft::EntryPayload::Normal(c) if c.len() == COMMAND_BYTES),
        );
        let lost = (self.times.len() as u64).saturating_sub(commands.count() as u64);
        let mut times = histogram()?;
        for time in &self.times {
            times.record(*time)?;
        }
        let ms = |quantile| times.value_at_quantile(quantile) as f64 / 1e6;
        Ok(Figures {
            writes_per_second: self.times.len() as f64 / self.seconds,
            p50_ms: ms(0.5),
            p99_ms: ms(0.99),
            p999_ms: ms(0.999),
            p9999_ms: ms(0.9999),
            longest_ms: times.max() as f64 / 1e6,
            lost,
        })
    }
}

/// For people.
pub(crate) fn text(measured: &Measured) -> String {
    let mut lines = vec![
        format!(
            "openraft {}, one group, one node, {COMMAND_BYTES} bytes a command, {WORKERS} threads of tokio; raft-log {}; \
             medians of {} rounds of {} s; {}, {} cores, load {:.1} before",
            measured.openraft,
            measured.raft_log,
            measured.rounds,
            measured.seconds,
            measured.environment.processor,
            measured.environment.cores,
            measured.environment.load_before
        ),
        String::new(),
        "| clients | log store | writes/s | p50 ms | p99 | p99.9 | p99.99 | longest | writes/s to raft-log's | p99 to \
         raft-log's |"
            .to_owned(),
        "|---|---|---|---|---|---|---|---|---|---|".to_owned(),
    ];
    for row in &measured.rows {
        let (m, mut base) = (&row.median, measured.rows.iter());
        let base = base.find(|other| other.store == BASE && other.clients == row.clients);
        let ratio = |of: fn(&Figures) -> f64| {
            base.map_or("-".to_owned(), |base| format!("{:.2}", of(m) / of(&base.median)))
        };
        lines.push(format!(
            "| {} | {} | {:.0} | {:.2} | {:.2} | {:.2} | {:.2} | {:.1} | {} | {} |",
            row.clients,
            row.store,
            m.writes_per_second,
            m.p50_ms,
            m.p99_ms,
            m.p999_ms,
            m.p9999_ms,
            m.longest_ms,
            ratio(|f| f.writes_per_second),
            ratio(|f| f.p99_ms)
        ));
    }
    lines.push(format!("\nlost: {}\n", measured.lost()));
    lines.join("\n")
}
