//! raft-engine's engine, which is Raftwood's.

use crate::EventListener;
use crate::batch::{LogBatch, MessageExt};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::translate::{Refusal, translate};
use protobuf::Message;
use raftwood::vfs::{OsVfs, Vfs};
use raftwood::{Compacted, Durability, ErrorKind, Options, ReadLimit, Region, RegionId, ScrubOptions};
use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

/// An open engine. It is closed when it is dropped, with everything that was written on the device.
///
/// One log is written by one thread at a time, as Raft does it; another may compact it meanwhile. Everything
/// else may be called by any thread.
///
/// ```
/// use raftwood_raft_engine::{Command, Config, Engine, LogBatch};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// # let dir = dir.path().to_str().ok_or("not UTF-8")?.to_owned();
/// let engine = Engine::open(Config { dir, ..Config::default() })?;
/// let mut batch = LogBatch::default();
/// batch.put(7, b"state".to_vec(), b"term 1, vote 3".to_vec())?;
/// engine.write(&mut batch, true)?; // on the device when this returns
/// assert!(batch.is_empty());
/// assert_eq!(engine.get(7, b"state").as_deref(), Some(&b"term 1, vote 3"[..]));
/// assert_eq!(engine.first_index(7), None);
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Engine {
    engine: raftwood::Engine,
    config: Config,
}

/// A batch that was built for a log which another thread has changed meanwhile is built again so often.
const ATTEMPTS: usize = 10;

/// How many regions a purge names at most.
const PINS_MAX: usize = 128;

impl Engine {
    /// Opens the store in `cfg.dir`, or makes one there.
    ///
    /// # Errors
    /// `InvalidArgument` for a configuration that cannot be, and for a directory that holds a store of
    /// raft-engine's: that has to be imported first. `Corruption` when the log is damaged so that it cannot
    /// be opened, `Other` when another process has it open.
    pub fn open(cfg: Config) -> Result<Engine> {
        Engine::open_with_listeners(cfg, Vec::new())
    }

    /// As [`open`](Engine::open), with listeners. They are Raftwood's: raft-engine's callbacks speak of its
    /// own files.
    ///
    /// # Errors
    /// As [`open`](Engine::open).
    pub fn open_with_listeners(cfg: Config, listeners: Vec<Arc<dyn EventListener>>) -> Result<Engine> {
        Engine::open_with(cfg, Arc::new(OsVfs::default()), listeners)
    }

    /// As [`open`](Engine::open), on another file system: Raftwood's [`Vfs`] takes the place of raft-engine's
    /// `FileSystem`.
    ///
    /// # Errors
    /// As [`open`](Engine::open).
    pub fn open_with_file_system<F: Vfs + 'static>(cfg: Config, file_system: Arc<F>) -> Result<Engine> {
        Engine::open_with(cfg, file_system, Vec::new())
    }

    /// Both.
    ///
    /// # Errors
    /// As [`open`](Engine::open).
    pub fn open_with<F: Vfs + 'static>(
        mut cfg: Config,
        file_system: Arc<F>,
        listeners: Vec<Arc<dyn EventListener>>,
    ) -> Result<Engine> {
        cfg.sanitize()?;
        refuse_raft_engine(&*file_system, Path::new(&cfg.dir))?;
        let options = listeners.into_iter().fold(cfg.options().vfs(file_system), Options::listener);
        Ok(Engine { engine: options.open(&cfg.dir)?, config: cfg })
    }

    /// The engine below: for what raft-engine has no call for, as a backup, a scrub, a region's health.
    pub fn raftwood(&self) -> &raftwood::Engine {
        &self.engine
    }

    fn region(&self, id: u64) -> Region {
        self.engine.region(RegionId(id))
    }

    /// Writes a batch and empties it. With `sync` it is on the device when this returns, without it is handed
    /// to the operating system: it survives a kill of the process, not a power cut. An empty batch with
    /// `sync` is a [`sync`](Engine::sync). Returns about how many bytes it takes in the log, uncompressed.
    ///
    /// # Errors
    /// Refused, nothing is written, and the batch is as it was: `InvalidArgument` for an append that would
    /// leave a gap, lies before the first entry, or lowers a term that was given; `Full` for a batch that is
    /// too large. `Io` may also mean that writing has stopped; whether this batch survives is then unknown.
    pub fn write(&self, log_batch: &mut LogBatch, sync: bool) -> Result<usize> {
        if log_batch.is_empty() {
            if sync {
                self.engine.sync()?;
            }
            return Ok(0);
        }
        let durability = if sync { Durability::Synced } else { Durability::Written };
        for _ in 1..ATTEMPTS {
            match self.try_write(log_batch, durability) {
                Err(Refusal::ByEngine(e)) if may_be_outdated(e.kind()) => {}
                outcome => return Ok(outcome?),
            }
        }
        Ok(self.try_write(log_batch, durability)?)
    }

    fn try_write(
        &self,
        log_batch: &mut LogBatch,
        durability: Durability,
    ) -> std::result::Result<usize, Refusal> {
        let batch = translate(&self.engine, log_batch)?;
        let bytes = batch.encoded_len();
        self.engine.write(batch, durability).map_err(raftwood::Error::from)?;
        log_batch.clear();
        Ok(bytes)
    }

    /// Makes everything that was written durable.
    ///
    /// # Errors
    /// `Io` from the device; writing has stopped then.
    pub fn sync(&self) -> Result<()> {
        self.engine.sync()?;
        Ok(())
    }

    /// The message under a key of a region.
    ///
    /// # Errors
    /// `Protobuf` when the value is no such message.
    pub fn get_message<S: Message>(&self, region_id: u64, key: &[u8]) -> Result<Option<S>> {
        let value = self.region(region_id).get(key);
        Ok(value.map(|bytes| S::parse_from_bytes(&bytes)).transpose()?)
    }

    /// The value of a key of a region.
    pub fn get(&self, region_id: u64, key: &[u8]) -> Option<Vec<u8>> {
        self.region(region_id).get(key).map(Vec::from)
    }

    /// Calls `callback` with the keys of `start_key..end_key` in order, or from the last on if `reverse`, and
    /// their values as messages, until it answers `false`. Values that are no such message are left out.
    ///
    /// # Errors
    /// None so far.
    pub fn scan_messages<S, C>(
        &self,
        region_id: u64,
        start_key: Option<&[u8]>,
        end_key: Option<&[u8]>,
        reverse: bool,
        mut callback: C,
    ) -> Result<()>
    where
        S: Message,
        C: FnMut(&[u8], S) -> bool,
    {
        self.scan_raw_messages(region_id, start_key, end_key, reverse, |key, value| {
            S::parse_from_bytes(value).map_or(true, |message| callback(key, message))
        })
    }

    /// As [`scan_messages`](Engine::scan_messages), with the values as bytes. They are those of one moment,
    /// and the callback may write.
    ///
    /// # Errors
    /// None so far.
    pub fn scan_raw_messages<C>(
        &self,
        region_id: u64,
        start_key: Option<&[u8]>,
        end_key: Option<&[u8]>,
        reverse: bool,
        mut callback: C,
    ) -> Result<()>
    where
        C: FnMut(&[u8], &[u8]) -> bool,
    {
        let mut pairs = self.region(region_id).scan(b"");
        pairs.retain(|(key, _)| {
            start_key.is_none_or(|start| key[..] >= *start) && end_key.is_none_or(|end| key[..] < *end)
        });
        if reverse {
            pairs.reverse();
        }
        let _ = pairs.iter().all(|(key, value)| callback(key, value));
        Ok(())
    }

    /// One entry, if it is there.
    ///
    /// # Errors
    /// `Corruption` when its bytes are not those that were written, `Protobuf` when they are no such message.
    pub fn get_entry<M: MessageExt>(&self, region_id: u64, log_idx: u64) -> Result<Option<M::Entry>> {
        match self.region(region_id).entry(log_idx) {
            Ok(entry) => Ok(Some(M::Entry::parse_from_bytes(&entry.payload)?)),
            Err(e) if matches!(e.kind(), ErrorKind::Compacted | ErrorKind::Unavailable) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    /// Adds the entries of `begin..end` to `vec` and returns how many there were: all, or as many as have no
    /// more than `max_size` bytes together, but one at least. None of a region that does not exist.
    ///
    /// # Errors
    /// `EntryCompacted` when the range begins before the first entry, `EntryNotFound` when it ends after the
    /// last, or the log is empty; else as [`get_entry`](Engine::get_entry). `vec` is then as it was.
    pub fn fetch_entries_to<M: MessageExt>(
        &self,
        region_id: u64,
        begin: u64,
        end: u64,
        max_size: Option<usize>,
        vec: &mut Vec<M::Entry>,
    ) -> Result<usize> {
        let region = self.region(region_id);
        if end <= begin || !region.exists() {
            return Ok(0);
        }
        let state = region.state();
        if state.is_empty() {
            return Err(Error::EntryNotFound);
        }
        if begin < state.first {
            return Err(Error::EntryCompacted);
        }
        let limit = max_size.map_or(ReadLimit::NONE, |bytes| ReadLimit::bytes(bytes as u64));
        let found = region.entries(begin..end, limit)?;
        let parsed = found.iter().map(|entry| M::Entry::parse_from_bytes(&entry.payload));
        let parsed: Vec<M::Entry> = parsed.collect::<std::result::Result<_, _>>()?;
        vec.extend(parsed);
        Ok(found.len())
    }

    /// The index of the first entry, if there is any.
    pub fn first_index(&self, region_id: u64) -> Option<u64> {
        let state = self.region(region_id).state();
        (!state.is_empty()).then_some(state.first)
    }

    /// The index of the last entry, if there is any.
    pub fn last_index(&self, region_id: u64) -> Option<u64> {
        let state = self.region(region_id).state();
        (!state.is_empty()).then_some(state.last)
    }

    /// Drops the entries before `index`, without a sync, and returns how many that were. A failure drops
    /// none; the next write says what it was.
    pub fn compact_to(&self, region_id: u64, index: u64) -> u64 {
        let Some(last) = index.checked_sub(1) else { return 0 };
        let mut batch = self.engine.batch();
        batch.region(RegionId(region_id)).compact_to(last);
        let outcome = self.engine.write_outcome(batch, Durability::Written);
        match outcome.ok().and_then(|outcome| outcome.compactions.first().map(|compaction| compaction.done)) {
            Some(Compacted::Dropped { first, base }) => base.index - first + 1,
            _ => 0,
        }
    }

    /// Gives space back, if more than `purge_threshold` is used, and returns the regions to compact if that
    /// was not enough: those whose entries keep the oldest files. A thread of the engine gives space back as
    /// files fill anyway: what a program that never calls this misses is those names.
    ///
    /// # Errors
    /// `Io` from the operating system.
    pub fn purge_expired_files(&self) -> Result<Vec<u64>> {
        let is_over = || self.get_used_size() as u64 > self.config.purge_threshold.0;
        if !is_over() {
            return Ok(Vec::new());
        }
        self.engine.purge()?;
        let pins = if is_over() { self.engine.pins(PINS_MAX) } else { Vec::new() };
        Ok(pins.iter().map(|pin| pin.region.0).collect())
    }

    /// The regions that exist, sorted.
    pub fn raft_groups(&self) -> Vec<u64> {
        self.engine.regions().iter().map(|id| id.0).collect()
    }

    /// Whether there is no region.
    pub fn is_empty(&self) -> bool {
        self.engine.stats().regions == 0
    }

    /// Bytes of the store's files, those not counted that lie ready for use. Walks all regions.
    pub fn get_used_size(&self) -> usize {
        let stats = self.engine.stats();
        usize::try_from(stats.disk_bytes - stats.pool_bytes).unwrap_or(usize::MAX)
    }

    /// The directory.
    pub fn path(&self) -> &str {
        &self.config.dir
    }

    /// Reads a store that nobody has open, changes nothing, and returns the regions that have a damaged
    /// entry, each with the last index before the first of those.
    ///
    /// # Errors
    /// `InvalidArgument` when there is no such directory, `Corruption` when the store cannot be opened as it
    /// is.
    pub fn consistency_check(path: &Path) -> Result<Vec<(u64, u64)>> {
        if !path.exists() {
            return Err(Error::invalid(format!("there is no directory {}", path.display())));
        }
        let report = Options::new().check(path, &ScrubOptions::default().rate_bytes(0), |_| {})?;
        if let Some(refusal) = report.refusals.into_iter().next() {
            return Err(refusal.into());
        }
        let mut last_valid = BTreeMap::new();
        for error in report.damage.iter().chain(&report.suspects) {
            if let (Some(region), Some(entries)) = (error.region(), error.entries()) {
                let last = entries.start().saturating_sub(1);
                last_valid
                    .entry(region.0)
                    .and_modify(|known: &mut u64| *known = last.min(*known))
                    .or_insert(last);
            }
        }
        Ok(last_valid.into_iter().collect())
    }
}

/// Whether a batch may be refused for this because its log has changed since it was built.
fn may_be_outdated(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::Gap
            | ErrorKind::Compacted
            | ErrorKind::TermRegression
            | ErrorKind::Unavailable
            | ErrorKind::InvalidArgument
    )
}

/// Refuses a directory with raft-engine's files: a new store beside them would begin with empty logs, and a
/// replica that has forgotten its vote votes twice.
fn refuse_raft_engine(vfs: &dyn Vfs, dir: &Path) -> Result<()> {
    let names = match vfs.open_dir(dir).and_then(|opened| opened.list()) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        names => names?,
    };
    let is_theirs = |name: &str| [".raftlog", ".rewrite"].iter().any(|end| name.ends_with(end));
    match names.iter().find(|entry| is_theirs(&entry.name)) {
        None => Ok(()),
        Some(found) => Err(Error::invalid(format!(
            "{} holds a store of raft-engine's ({}): import it into another directory with \
             `raftwood-migrate import --from raft-engine`, and open that",
            dir.display(),
            found.name
        ))),
    }
}
