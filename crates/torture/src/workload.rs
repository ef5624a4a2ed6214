//! What is done to an engine: acts, in a fixed order or by chance, made concrete against the
//! model as it stands.

use super::batch::{Batch, Op};
use super::model::{Log, Model};
use bytes::Bytes;
use raftwood::EntryId;
use raftwood::limits::INDEX_MAX;
use raftwood::random::Rng;

/// One act of a workload. What it means in figures depends on the state and the seed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Act {
    /// Entries after the last of one region.
    Append,
    /// One batch over several regions.
    MultiAppend,
    /// An append at an index that exists, or a truncation.
    Rollback,
    /// The hard state alone.
    HardState,
    /// Keys set and removed.
    Kv,
    /// A compaction.
    Compact,
    /// A compaction of all regions to their ends.
    CompactAll,
    /// A reset, mostly with a gap.
    Reset,
    /// A region destroyed.
    Destroy,
    /// A region destroyed and recreated, in one batch or two.
    Recreate,
    /// Several operations on several regions in one batch, whatever comes up.
    Mixed,
    /// A batch that must be refused.
    Refused,
    /// A batch larger than a segment.
    Oversized,
    /// Enough bytes that the log moves on to the next segment.
    Rotate,
    /// Batches that are submitted and not waited for.
    Submit,
    /// Batches that are only handed to the operating system.
    Written,
    /// Waits for all that was submitted.
    Wait,
    /// Makes everything durable.
    Sync,
    /// What the threads of the engine would do: seals full segments.
    Tick,
    /// A checkpoint.
    Checkpoint,
    /// A purge.
    Purge,
    /// One round of the cleaner, needed or not.
    Clean,
    /// Closes and opens.
    CloseOpen,
    /// The process dies, the machine does not.
    Kill,
    /// The power fails.
    Crash,
}

/// What is done in pairs and triples, and its name.
const VERBS: [(&str, &[Act]); 13] = [
    ("append", &[Act::Append]),
    ("multi-region append", &[Act::MultiAppend]),
    ("rollback", &[Act::Rollback]),
    ("hard state", &[Act::HardState]),
    ("rotate", &[Act::Rotate]),
    ("seal", &[Act::Rotate, Act::Tick]),
    ("checkpoint", &[Act::Checkpoint]),
    ("purge", &[Act::CompactAll, Act::Purge]),
    ("clean", &[Act::Clean]),
    ("reset", &[Act::Reset]),
    ("destroy", &[Act::Destroy]),
    ("re-create", &[Act::Recreate]),
    ("close and open", &[Act::CloseOpen]),
];

/// A named order of acts.
#[derive(Clone, Debug)]
pub struct Workload {
    /// For people.
    pub name: String,
    /// In order.
    pub acts: Vec<Act>,
    /// How many regions it is spread over.
    pub regions: usize,
}

impl Workload {
    fn of(name: &str, regions: usize, acts: &[Act]) -> Workload {
        Workload { name: name.to_string(), acts: acts.to_vec(), regions }
    }

    /// The bounded workloads: pairs and triples of what can get in each other's way.
    pub fn named() -> Vec<Workload> {
        use Act::*;
        vec![
            Workload::of("append", 1, &[Append, Append, Append]),
            Workload::of("multi-region append", 4, &[MultiAppend, MultiAppend, MultiAppend]),
            Workload::of("append, rollback, append", 1, &[Append, Append, Rollback, Append]),
            Workload::of("hard state only", 3, &[HardState, HardState, Append, HardState]),
            Workload::of(
                "submit in groups",
                3,
                &[Submit, Submit, Submit, Wait, Submit, Written, Submit, Wait],
            ),
            Workload::of("written, then synced", 2, &[Written, Written, Sync, Written, Append]),
            Workload::of("append, rotate, append", 2, &[Append, Rotate, Append, MultiAppend]),
            Workload::of("rotate, rollback, rotate", 2, &[Append, Rotate, Rollback, Rotate, Append]),
            Workload::of("rotate, seal, append", 2, &[Append, Rotate, Tick, Append, Rotate, Tick]),
            Workload::of(
                "checkpoint amid appends",
                3,
                &[Append, Checkpoint, MultiAppend, Checkpoint, Rollback],
            ),
            Workload::of(
                "rotate, checkpoint, rollback",
                2,
                &[Rotate, Tick, Checkpoint, Rollback, Checkpoint],
            ),
            Workload::of(
                "rotate, compact, purge",
                2,
                &[Append, Rotate, Rotate, CompactAll, Purge, Append, Rotate, Purge, MultiAppend],
            ),
            Workload::of(
                "purge and recycle",
                2,
                &[Rotate, CompactAll, Purge, Rotate, CompactAll, Purge, Rotate, Append, Tick],
            ),
            Workload::of(
                "clean, rollback",
                4,
                &[MultiAppend, Rotate, Compact, Rotate, Tick, Compact, Clean, Rollback, MultiAppend, Purge],
            ),
            Workload::of(
                "clean twice, checkpoint between",
                4,
                &[
                    MultiAppend,
                    Rotate,
                    Rotate,
                    Tick,
                    CompactAll,
                    Clean,
                    Checkpoint,
                    MultiAppend,
                    Rotate,
                    Tick,
                    Clean,
                ],
            ),
            Workload::of("reset with a gap", 2, &[Append, Reset, Append, Rollback, Reset, MultiAppend]),
            Workload::of("destroy, re-create", 2, &[Append, Destroy, Append, Recreate, Append]),
            Workload::of(
                "destroy, checkpoint, re-create",
                3,
                &[MultiAppend, Rotate, Destroy, Checkpoint, Tick, Append, Purge, Recreate, Checkpoint],
            ),
            // A purge forgets what was destroyed; what it then writes must not be replayed over
            // what came after.
            Workload::of(
                "destroy, purge, re-create",
                3,
                &[
                    MultiAppend,
                    HardState,
                    Destroy,
                    Purge,
                    Recreate,
                    Append,
                    Destroy,
                    Purge,
                    Crash,
                    MultiAppend,
                ],
            ),
            Workload::of(
                "close and open",
                3,
                &[MultiAppend, CloseOpen, Append, CloseOpen, Rollback, CloseOpen],
            ),
            Workload::of(
                "kill and open",
                3,
                &[Submit, Append, Kill, Append, Written, Submit, Kill, MultiAppend],
            ),
            Workload::of(
                "kill around rotations",
                3,
                &[Append, Rotate, Written, Kill, Rotate, Tick, Append, Kill, CloseOpen, Append],
            ),
            Workload::of(
                "crash upon crash",
                3,
                &[
                    MultiAppend,
                    Submit,
                    Crash,
                    Append,
                    Written,
                    Crash,
                    Rotate,
                    Crash,
                    Append,
                    Tick,
                    Crash,
                    Append,
                ],
            ),
            Workload::of("larger than a segment", 2, &[Append, Oversized, Append, Tick, Oversized, Rollback]),
            Workload::of("mixed", 4, &[Mixed, Mixed, Rotate, Mixed, Tick, Mixed, CloseOpen, Mixed]),
            Workload::of(
                "refused between",
                2,
                &[Append, Refused, Append, Refused, Rollback, Refused, Append],
            ),
        ]
    }

    /// Each ordered pair of what can get in each other's way, back to back on a store that has
    /// something of everything.
    pub fn pairs() -> Vec<Workload> {
        let all = 0..VERBS.len();
        all.clone().flat_map(|a| all.clone().map(move |b| Workload::row(&[a, b]))).collect()
    }

    /// So many of the ordered triples, starting with the one of this number; after the last comes
    /// the first again.
    pub fn triples(from: u64, count: usize) -> Vec<Workload> {
        let n = VERBS.len();
        let triple = |i: usize| Workload::row(&[i / n / n % n, i / n % n, i % n]);
        (0..count).map(|i| triple((from as usize).wrapping_add(i) % Workload::TRIPLES)).collect()
    }

    /// How many triples there are.
    pub const TRIPLES: usize = VERBS.len() * VERBS.len() * VERBS.len();

    fn row(verbs: &[usize]) -> Workload {
        let names: Vec<&str> = verbs.iter().map(|v| VERBS[*v].0).collect();
        let mut acts = vec![Act::MultiAppend, Act::Rotate, Act::Tick, Act::Compact];
        verbs.iter().for_each(|v| acts.extend(VERBS[*v].1));
        acts.push(Act::Append);
        Workload { name: names.join(", "), acts, regions: 2 }
    }

    /// Acts by chance.
    pub fn random(rng: &mut Rng) -> Workload {
        use Act::*;
        let regions = 1 + rng.below(8) as usize;
        let len = 4 + rng.below(24);
        let calm = [
            Append,
            Append,
            MultiAppend,
            Rollback,
            HardState,
            Kv,
            Compact,
            Mixed,
            Submit,
            Written,
            Wait,
            Sync,
        ];
        let heavy =
            [Rotate, CompactAll, Reset, Destroy, Recreate, Refused, Tick, Tick, Checkpoint, Purge, Clean];
        let rare = [CloseOpen, Kill, Crash, Crash, Oversized];
        let acts = (0..len)
            .map(|_| match rng.below(10) {
                0..=5 => rng.pick(&calm),
                6..=8 => rng.pick(&heavy),
                _ => rng.pick(&rare),
            })
            .collect();
        Workload { name: "random".to_string(), acts, regions }
    }

    /// The regions that it uses: the ends of the range among them.
    pub fn region_ids(&self) -> Vec<u64> {
        [1, 0, u64::MAX, 2, 7, 1 << 40, u64::MAX - 1, 8][..self.regions.clamp(1, 8)].to_vec()
    }
}

/// Makes acts concrete.
pub struct Maker<'a> {
    /// What stands.
    pub model: &'a Model,
    /// Where it may happen.
    pub regions: &'a [u64],
    /// What comes up.
    pub rng: &'a mut Rng,
}

impl Maker<'_> {
    /// The batches of an act; none for an act that writes nothing.
    pub fn batches(&mut self, act: Act) -> Vec<Batch> {
        let mut b = Batch::default();
        let region = self.rng.pick(self.regions);
        match act {
            Act::Append => {
                let n = 1 + self.rng.below(5);
                self.append(&mut b, region, n);
                if self.rng.one_in(2) {
                    b.add(region, self.hard_state());
                }
            }
            Act::MultiAppend => {
                for n in 0..self.regions.len() {
                    let region = self.regions[n];
                    let n = 1 + self.rng.below(3);
                    self.append(&mut b, region, n);
                }
                b.add(region, self.hard_state());
            }
            Act::Rollback => self.rollback(&mut b, region),
            Act::HardState => {
                b.add(region, self.hard_state());
            }
            Act::Kv => self.kv(&mut b, region),
            Act::Compact => self.compact(&mut b, region),
            Act::CompactAll => {
                for region in self.regions {
                    if let Some(last) = self.model.log(*region).last() {
                        let late = self.rng.one_in(3);
                        b.add(*region, if late { Op::CompactTo(last) } else { Op::CompactThrough(last) });
                    }
                }
                b.add(region, self.hard_state());
            }
            Act::Reset => self.reset(&mut b, region),
            Act::Destroy => {
                b.add(region, Op::Destroy);
            }
            Act::Recreate => {
                b.add(region, Op::Destroy);
                let id = EntryId::new(1 + self.rng.below(3), self.rng.pick(&[0, 1, 1, 9]));
                b.add(region, Op::Append(vec![(id, self.payload())]));
                b.add(region, self.hard_state());
            }
            Act::Mixed | Act::Submit | Act::Written => return self.several(act),
            Act::Refused => self.refused(&mut b, region),
            Act::Oversized => {
                let id = self.next_id(region);
                let len = 66_000 + self.rng.below(20_000) as usize;
                b.add(region, Op::Append(vec![(id, Bytes::from(self.rng.bytes(len)))]));
            }
            Act::Rotate => {
                // Two that do not fit one segment together, mostly of many entries.
                let first = self.next_id(region);
                let entries = self.rng.pick(&[1, 36, 36, 36]);
                let mut part = |first: EntryId| -> Op {
                    let ids = (0..entries).map(|n| EntryId::new(first.term, first.index.saturating_add(n)));
                    let len = 36_000 / entries as usize;
                    Op::Append(ids.map(|id| (id, Bytes::from(self.rng.bytes(len)))).collect())
                };
                let mut second = Batch::default();
                b.add(region, part(first));
                second.add(region, part(EntryId::new(first.term, first.index.saturating_add(entries))));
                return vec![b, second];
            }
            _ => return Vec::new(),
        }
        vec![b]
    }

    fn several(&mut self, act: Act) -> Vec<Batch> {
        let mut b = Batch::default();
        let ops = if act == Act::Mixed { 2 + self.rng.below(5) } else { 1 + self.rng.below(2) };
        // Each operation is made for the state that the ones before it leave.
        let mut state = self.model.clone();
        for _ in 0..ops {
            let mut inner = Maker { model: &state, regions: self.regions, rng: self.rng };
            let region = inner.rng.pick(inner.regions);
            let mut piece = Batch::default();
            match inner.rng.below(12) {
                0..=4 => {
                    let n = 1 + inner.rng.below(3);
                    inner.append(&mut piece, region, n);
                }
                5 => inner.rollback(&mut piece, region),
                6 => inner.compact(&mut piece, region),
                7 => inner.reset(&mut piece, region),
                8 => drop(piece.add(region, Op::Destroy)),
                9 => drop(piece.add(region, inner.hard_state())),
                _ => inner.kv(&mut piece, region),
            }
            if let Ok(next) = state.after(&piece) {
                state = next;
                b.0.extend(piece.0);
            }
        }
        vec![b]
    }

    fn next_id(&mut self, region: u64) -> EntryId {
        let log = self.model.log(region);
        let index = match log.next() {
            Some(next) => next,
            None => self.rng.pick(&[0, 1, 1, 1, 5, 1 << 33, INDEX_MAX - 150]),
        };
        EntryId::new(log.last_term().max(1) + u64::from(self.rng.one_in(4)), index)
    }

    fn entries(&mut self, first: EntryId, n: u64) -> Vec<(EntryId, Bytes)> {
        let mut term = first.term;
        let last = first.index.saturating_add(n - 1);
        (first.index..=last)
            .map(|index| {
                let entry = (EntryId::new(term, index), self.payload());
                term += u64::from(self.rng.one_in(5));
                entry
            })
            .collect()
    }

    fn append(&mut self, b: &mut Batch, region: u64, n: u64) {
        if self.rng.one_in(5) {
            let term = self.model.log(region).last_term() + u64::from(self.rng.one_in(4));
            let payloads = (0..n).map(|_| self.payload()).collect();
            b.add(region, Op::AppendNext(term, payloads));
            return;
        }
        let first = self.next_id(region);
        let entries = self.entries(first, n);
        b.add(region, Op::Append(entries));
    }

    fn rollback(&mut self, b: &mut Batch, region: u64) {
        let log = self.model.log(region);
        let (Some(first), Some(last)) = (log.first(), log.last()) else {
            return self.append(b, region, 2);
        };
        let at = first + self.rng.below(last - first + 1);
        if self.rng.one_in(4) {
            b.add(region, Op::TruncateFrom(if self.rng.one_in(4) { 0 } else { at }));
            return;
        }
        let n = 1 + self.rng.below(3);
        let entries = self.entries(EntryId::new(log.last_term() + 1, at), n);
        b.add(region, Op::Append(entries));
    }

    fn compact(&mut self, b: &mut Batch, region: u64) {
        let log = self.model.log(region);
        if self.rng.one_in(2) {
            // Also of what is not there.
            let first = log.first().unwrap_or(1);
            let len = log.last().unwrap_or(1) - first + 4;
            b.add(region, Op::CompactTo(first.saturating_sub(1).saturating_add(self.rng.below(len))));
        } else if let (Some(first), Some(last)) = (log.first(), log.last()) {
            b.add(region, Op::CompactThrough(first + self.rng.below(last - first + 1)));
        } else {
            b.add(region, self.hard_state());
        }
    }

    fn reset(&mut self, b: &mut Batch, region: u64) {
        let log = self.model.log(region);
        if self.rng.one_in(5) {
            let first = EntryId::new(1 + self.rng.below(3), self.rng.pick(&[0, 1, 1, 30]));
            let entries = self.entries(first, 2);
            b.add(region, Op::ForgetLog).add(region, Op::Append(entries));
            return;
        }
        let next = log.next().unwrap_or(1);
        let index = match self.rng.below(4) {
            0 => next.saturating_sub(1),
            1 => self.rng.below(next.max(1)),
            _ => next.saturating_add(self.rng.below(100)),
        };
        let base = EntryId::new(log.last_term() + self.rng.below(2), index.min(INDEX_MAX - 1));
        b.add(region, Op::Reset(base));
        if self.rng.one_in(2) {
            let entries = self.entries(EntryId::new(base.term, base.index + 1), 1);
            b.add(region, Op::Append(entries)).add(region, self.hard_state());
        }
    }

    fn kv(&mut self, b: &mut Batch, region: u64) {
        let key = Bytes::from(vec![b'k', self.rng.below(4) as u8]);
        if self.rng.one_in(3) {
            b.add(region, Op::Delete(key));
        } else {
            let len = self.rng.below(60) as usize;
            b.add(region, Op::Put(key, Bytes::from(self.rng.bytes(len))));
        }
    }

    fn hard_state(&mut self) -> Op {
        let len = self.rng.below(30) as usize;
        Op::HardState(Bytes::from(self.rng.bytes(len)))
    }

    fn refused(&mut self, b: &mut Batch, region: u64) {
        // Something good first: a refusal is of the whole batch.
        let other = self.rng.pick(self.regions);
        if other != region {
            self.append(b, other, 1);
        }
        let log: &Log = &self.model.log(region);
        let next = log.next().unwrap_or(1).min(INDEX_MAX - 1);
        let term = log.last_term().max(1);
        let payload = self.payload();
        let one = |term, index| Op::Append(vec![(EntryId::new(term, index), payload.clone())]);
        match self.rng.below(8) {
            7 => b.add(region, Op::ForgetLog),
            6 if log.last_term() > 1 => {
                b.add(region, Op::AppendNext(log.last_term() - 1, vec![payload.clone()]))
            }
            0 if log.next().is_some() => b.add(region, one(term, next + 1)),
            1 if log.base.is_some() => b.add(region, one(term, log.base.map_or(0, |b| b.index))),
            2 if log.last_term() > 1 && log.next().is_some() => b.add(region, one(log.last_term() - 1, next)),
            3 => b.add(region, Op::CompactThrough(next)),
            4 => b.add(region, one(term, u64::MAX)),
            _ => b.add(region, Op::Reset(EntryId::new(u64::MAX, 5))),
        };
    }

    fn payload(&mut self) -> Bytes {
        let len = match self.rng.below(40) {
            0..=25 => self.rng.below(120),
            26..=37 => self.rng.below(2000),
            38 => 0,
            _ => 1000 + self.rng.below(36_000),
        };
        Bytes::from(self.rng.bytes(len as usize))
    }
}
