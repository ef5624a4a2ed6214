//! What the test itself remembers of a store, and a writer that keeps it true.

use super::engines::{DIR, kill, of_run, pool_of};
use super::files::{Files, files};
use bytes::Bytes;
use raftwood::vfs::sim::{LossPolicy, SimVfs, Snapshot};
use raftwood::{Compression, Durability, Engine, EntryId, Options, RegionId, WriteBatch};
use std::collections::BTreeMap;

/// A small generator (splitmix64): the same seed gives the same run.
#[derive(Clone)]
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn new(seed: u64) -> Rng {
        Rng(seed.wrapping_mul(0x2545_f491_4f6c_dd1d) ^ 0x5bd1_e995)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.next() % n.max(1)
    }

    pub(crate) fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.next() as u8).collect()
    }
}

/// One region.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Log {
    pub(crate) base: Option<EntryId>,
    pub(crate) entries: Vec<(EntryId, Bytes)>,
    pub(crate) hard_state: Option<Bytes>,
    pub(crate) value: Option<Bytes>,
}

impl Log {
    pub(crate) fn last(&self) -> Option<EntryId> {
        self.entries.last().map(|e| e.0).or(self.base)
    }
}

/// All regions that exist.
pub(crate) type Model = BTreeMap<u64, Log>;

/// How a store is written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kind {
    pub(crate) lz4: bool,
    pub(crate) pool_files: usize,
}

impl Kind {
    pub(crate) const PLAIN: Kind = Kind { lz4: false, pool_files: 1 };

    /// The options for the run of this number: salts repeat for the same number and for no other.
    pub(crate) fn options(self, vfs: &SimVfs, run: u64) -> Options {
        pool_of(of_run(vfs, run), self.pool_files).compression(match self.lz4 {
            true => Compression::Lz4 { min_batch_bytes: 64 },
            false => Compression::None,
        })
    }
}

/// Where a batch lies: from the end of the one before, in the segment of its own end.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    pub(crate) segment: u32,
    pub(crate) start: u32,
    pub(crate) end: u32,
    pub(crate) entries: Vec<(u64, u64)>,
}

/// Writes a store and remembers.
pub(crate) struct Writer {
    pub(crate) vfs: SimVfs,
    pub(crate) kind: Kind,
    pub(crate) rng: Rng,
    pub(crate) regions: u64,
    /// The state after each acknowledged batch, the empty store first.
    pub(crate) models: Vec<Model>,
    pub(crate) records: Vec<Record>,
    /// The files as they were now and then.
    pub(crate) stages: Vec<Files>,
    /// Every state of the disk at which a crash is worth a look, if asked for.
    pub(crate) snapshots: Vec<Snapshot>,
    watched: bool,
    run: u64,
}

impl Writer {
    pub(crate) fn new(seed: u64, kind: Kind, watched: bool) -> Writer {
        let vfs = SimVfs::new(seed);
        let mut writer = Writer {
            vfs: vfs.clone(),
            kind,
            rng: Rng::new(seed),
            regions: 12,
            models: vec![Model::new()],
            records: Vec::new(),
            stages: Vec::new(),
            snapshots: Vec::new(),
            watched,
            run: seed << 8,
        };
        writer.on(vfs);
        writer
    }

    /// Goes on with this disk.
    fn on(&mut self, vfs: SimVfs) {
        self.snapshots.extend(self.vfs.take_snapshots());
        if self.watched {
            vfs.snapshot_every(Some(raftwood::vfs::sim::Moment::After));
        }
        vfs.set_mark(self.models.len() as u64 - 1);
        self.vfs = vfs;
    }

    pub(crate) fn open(&mut self) -> Engine {
        self.run += 1;
        self.kind.options(&self.vfs, self.run).open(DIR).unwrap()
    }

    /// The process is killed: what it wrote is there.
    pub(crate) fn kill(&mut self, engine: Engine) {
        let next = self.vfs.crash(LossPolicy::KeepAll);
        self.snapshots.extend(self.vfs.take_snapshots());
        self.vfs.snapshot_every(None);
        kill(&self.vfs, engine);
        self.on(next);
    }

    /// The power goes off.
    pub(crate) fn cut(&mut self, engine: Engine, policy: LossPolicy) {
        let next = self.vfs.crash(policy);
        self.snapshots.extend(self.vfs.take_snapshots());
        self.vfs.snapshot_every(None);
        kill(&self.vfs, engine);
        self.on(next);
    }

    pub(crate) fn model(&self) -> &Model {
        self.models.last().unwrap()
    }

    pub(crate) fn stage(&mut self) {
        self.stages.push(files(&self.vfs));
    }

    fn payload(&mut self) -> Bytes {
        let len = match self.rng.below(16) {
            0 => 2000 + self.rng.below(3500),
            1..=3 => 500 + self.rng.below(600),
            _ => 24 + self.rng.below(200),
        } as usize;
        match self.kind.lz4 {
            true => {
                let seed = self.rng.bytes(12);
                (0..len).map(|i| seed[i % 12]).collect()
            }
            false => self.rng.bytes(len).into(),
        }
    }

    /// A batch over a few regions, and the model with it.
    fn random_batch(&mut self, engine: &Engine) -> (WriteBatch, Model, Vec<(u64, u64)>) {
        let mut batch = engine.batch();
        let mut model = self.models.last().unwrap().clone();
        let mut written = Vec::new();
        for _ in 0..1 + self.rng.below(4) {
            let id = 1 + self.rng.below(self.regions);
            if written.iter().any(|(r, _)| *r == id) {
                continue;
            }
            let log = model.entry(id).or_default();
            let mut region = batch.region(RegionId(id));
            match self.rng.below(24) {
                0 if log.entries.len() > 3 => {
                    let at = self.rng.below(log.entries.len() as u64 - 1) as usize;
                    let through = log.entries[at].0;
                    region.compact_through(through.index).unwrap();
                    log.entries.drain(..=at);
                    log.base = Some(through);
                }
                1 if log.entries.len() > 2 => {
                    // Overwrites its last two in a newer term.
                    let len = log.entries.len() - 2;
                    log.entries.truncate(len);
                }
                2 if id == 3 && !log.entries.is_empty() => {
                    region.destroy();
                    *log = Log::default();
                }
                3 if id == 5 => {
                    let base = EntryId::new(
                        log.last().map_or(1, |l| l.term),
                        log.last().map_or(10, |l| l.index + 10),
                    );
                    region.reset(base).unwrap();
                    log.entries.clear();
                    log.base = Some(base);
                }
                _ => {}
            }
            for _ in 0..1 + self.rng.below(3) {
                let last = log.last();
                let id_of = EntryId::new(
                    last.map_or(1, |l| l.term + self.rng.below(2)),
                    last.map_or(1, |l| l.index + 1),
                );
                let payload = self.payload();
                batch.region(RegionId(id)).append([(id_of, &payload[..])]).unwrap();
                log.entries.push((id_of, payload));
                written.push((id, id_of.index));
            }
            let hard: Bytes = self.rng.bytes(9).into();
            let mut region = batch.region(RegionId(id));
            region.set_hard_state(&hard).unwrap();
            log.hard_state = Some(hard);
            if self.rng.below(4) == 0 {
                let value: Bytes = self.rng.bytes(11).into();
                region.put(b"key", &value).unwrap();
                log.value = Some(value);
            }
        }
        (batch, model, written)
    }

    fn note(&mut self, lsn: raftwood::Lsn, model: Model, entries: Vec<(u64, u64)>) {
        let start = match self.records.last() {
            Some(r) if r.segment == lsn.segment() => r.end,
            _ => 4096,
        };
        self.records.push(Record { segment: lsn.segment(), start, end: lsn.offset(), entries });
        self.models.push(model);
        self.vfs.set_mark(self.models.len() as u64 - 1);
        if self.records.len().is_multiple_of(6) {
            self.stage();
        }
    }

    /// So many batches, each synced.
    pub(crate) fn write(&mut self, engine: &Engine, batches: usize) {
        for _ in 0..batches {
            let (batch, model, entries) = self.random_batch(engine);
            let lsn = engine.write(batch, Durability::Synced).unwrap();
            self.note(lsn, model, entries);
        }
    }

    /// Writes and ticks until so many more segments were begun.
    pub(crate) fn rotate(&mut self, engine: &Engine, segments: u32) {
        self.write(engine, 1);
        let begin = self.records.last().unwrap().segment;
        while self.records.last().unwrap().segment < begin + segments {
            self.write(engine, 1);
            engine.tick().unwrap();
        }
    }

    /// Batches that go to the disk as one group.
    pub(crate) fn write_group(&mut self, engine: &Engine, batches: usize) {
        let mut tickets = Vec::new();
        let (count, first) = (self.models.len(), self.records.len());
        for _ in 0..batches {
            let (batch, model, entries) = self.random_batch(engine);
            tickets.push((engine.submit(batch, Durability::Synced).unwrap(), entries));
            self.models.push(model);
        }
        let models = self.models.split_off(count);
        for ((ticket, entries), model) in tickets.into_iter().zip(models) {
            let lsn = ticket.wait().unwrap();
            self.note(lsn, model, entries);
        }
        assert_eq!(self.records.len(), first + batches);
    }

    /// Compacts all but the last entry of each region, in one batch.
    pub(crate) fn compact_all(&mut self, engine: &Engine) {
        let mut batch = engine.batch();
        let mut model = self.model().clone();
        for (id, log) in &mut model {
            if log.entries.len() > 1 {
                let keep = log.entries.split_off(log.entries.len() - 1);
                let through = log.entries.last().unwrap().0;
                batch.region(RegionId(*id)).compact_through(through.index).unwrap();
                log.base = Some(through);
                log.entries = keep;
            }
        }
        let lsn = engine.write(batch, Durability::Synced).unwrap();
        self.note(lsn, model, Vec::new());
    }

    /// What an engine does that has nothing to do for a while: the proof of its last batch is written.
    pub(crate) fn idle(&mut self, engine: &Engine) {
        for _ in 0..3 {
            engine.tick().unwrap();
        }
    }
}
