//! A random program that both engines accept, the same for the same seed.

use crate::sides::{Op, Read, Side, State, Step};
use fastrand::Rng;
use raft_proto::eraftpb::Entry;
use std::collections::BTreeMap;

pub(crate) const REGIONS: u64 = 12;

/// Steps without end.
pub(crate) struct Program {
    rng: Rng,
    steps: u64,
    /// First and last index of each log that has entries.
    spans: BTreeMap<u64, (u64, u64)>,
    /// What both engines hold.
    model: State,
    /// The highest last index that each had.
    ends: BTreeMap<u64, u64>,
}

impl Program {
    pub(crate) fn new(seed: u64) -> Program {
        Program {
            rng: Rng::with_seed(seed),
            steps: 0,
            spans: BTreeMap::new(),
            model: State::new(),
            ends: BTreeMap::new(),
        }
    }

    /// The program after its first `steps` steps.
    pub(crate) fn after(seed: u64, steps: u64) -> Program {
        let mut program = Program::new(seed);
        (0..steps).for_each(|_| drop(program.step()));
        program
    }

    /// Does the next steps.
    pub(crate) fn run<S: Side>(&mut self, side: &S, steps: u64) {
        for _ in 0..steps {
            side.apply(&self.step());
        }
    }

    pub(crate) fn step(&mut self) -> Step {
        let step = self.next_step();
        match &step {
            Step::Write { ops, .. } => ops.iter().for_each(|op| note(&mut self.model, op)),
            Step::CompactTo { region, index } => {
                note(&mut self.model, &Op::Compact { region: *region, index: *index });
            }
            Step::Purge | Step::Sync => {}
        }
        step
    }

    /// What both engines hold: the third opinion where they differ.
    pub(crate) fn model(&self) -> State {
        let full = self.model.iter().filter(|(_, state)| state.span.is_some() || !state.pairs.is_empty());
        full.map(|(region, state)| (*region, state.clone())).collect()
    }

    fn next_step(&mut self) -> Step {
        self.steps += 1;
        match self.rng.u32(..100) {
            0..3 => Step::Purge,
            3..4 => Step::Sync,
            4..8 => {
                let region = self.region();
                let Some((first, last)) = self.spans.get(&region).copied() else { return Step::Sync };
                // Beyond the last entry the answers differ: `differences.rs` of the other crate.
                let index = self.rng.u64(first.saturating_sub(2)..=last + 1);
                self.compact(region, index);
                Step::CompactTo { region, index }
            }
            _ => {
                let count = self.rng.usize(1..6);
                let ops = (0..count).map(|_| self.op()).collect();
                Step::Write { ops, sync: self.rng.u32(..20) == 0 }
            }
        }
    }

    fn region(&mut self) -> u64 {
        // One is cold.
        if self.rng.u32(..400) == 0 { REGIONS } else { self.rng.u64(0..REGIONS) }
    }

    fn key(&mut self) -> Vec<u8> {
        vec![self.rng.u8(b'a'..b'd'); self.rng.usize(0..3)]
    }

    fn op(&mut self) -> Op {
        let region = self.region();
        match self.rng.u32(..100) {
            0..62 => self.append(region),
            62..75 => {
                let (first, last) = self.spans.get(&region).copied().unwrap_or((1, 1));
                let index = match self.rng.u32(..10) {
                    0 => last + self.rng.u64(0..9),
                    1 => first.saturating_sub(1),
                    _ => last.saturating_sub(self.rng.u64(0..20)),
                };
                self.compact(region, index);
                Op::Compact { region, index }
            }
            75..76 => {
                self.spans.remove(&region);
                Op::Clean { region }
            }
            76..95 => {
                let len = if self.rng.u32(..20) == 0 { 3000 } else { self.rng.usize(0..30) };
                let value = std::iter::repeat_with(|| self.rng.u8(..)).take(len).collect();
                Op::Put { region, key: self.key(), value }
            }
            _ => Op::Delete { region, key: self.key() },
        }
    }

    fn append(&mut self, region: u64) -> Op {
        let first = match self.spans.get(&region).copied() {
            Some((first, last)) if self.rng.u32(..8) == 0 => {
                self.rng.u64(first.max(last.saturating_sub(9))..=last)
            }
            Some((_, last)) => last + 1,
            None => match (self.rng.u32(..4), self.ends.get(&region)) {
                (0, _) | (_, None) => self.rng.u64(1..100),
                (_, Some(end)) => end + 1,
            },
        };
        let count = if self.rng.u32(..30) == 0 { 60 } else { self.rng.u64(1..5) };
        let entries: Vec<Entry> = (first..first + count).map(|index| self.entry(index)).collect();
        let last = first + count - 1;
        let begin = self.spans.get(&region).map_or(first, |span| span.0);
        self.spans.insert(region, (begin, last));
        self.ends.insert(region, last);
        Op::Append { region, entries }
    }

    fn entry(&mut self, index: u64) -> Entry {
        let len = match self.rng.u32(..40) {
            0 => 0,
            1 => 6000,
            _ => self.rng.usize(1..300),
        };
        let mut data: Vec<u8> = vec![self.rng.u8(..); len];
        if self.rng.bool() {
            self.rng.fill(&mut data);
        }
        let context = if self.rng.u32(..10) == 0 { vec![7; 5] } else { Vec::new() };
        let (data, context) = (data.into(), context.into());
        // Terms rise with the program, as those of leaders do.
        Entry { term: 1 + self.steps / 64, index, data, context, ..Entry::default() }
    }

    fn compact(&mut self, region: u64, index: u64) {
        if let Some((first, last)) = self.spans.get(&region).copied() {
            if index > last {
                self.spans.remove(&region);
            } else if index > first {
                self.spans.insert(region, (index, last));
            }
        }
    }

    /// Compares what an engine that was just opened holds.
    ///
    /// In raft-engine 0.4.2 entries that were compacted, keys that were deleted and regions that were cleaned
    /// may be there again once files were purged and the store is opened: its copies of them are kept longer
    /// than the record that dropped them. Nothing else may differ; they are dropped once more then.
    pub(crate) fn check_opened<S: Side>(&self, side: &S, when: &str) {
        if S::DROPPED_COMES_BACK {
            self.realign(side);
        }
        self.check(side, when);
    }

    /// Drops what came back.
    pub(crate) fn realign<S: Side>(&self, side: &S) {
        let model = self.model();
        let mut ops = Vec::new();
        for (region, state) in side.state() {
            let Some(expected) = model.get(&region) else {
                ops.push(Op::Clean { region });
                continue;
            };
            if let Some((_, last)) = state.span {
                let index = expected.span.map_or(last + 1, |(first, _)| first);
                ops.push(Op::Compact { region, index });
            }
            let keys = state.pairs.into_keys().filter(|key| !expected.pairs.contains_key(key));
            ops.extend(keys.map(|key| Op::Delete { region, key }));
        }
        side.apply(&Step::Write { ops, sync: false });
    }

    /// Compares everything that an engine holds.
    pub(crate) fn check<S: Side>(&self, side: &S, when: &str) {
        let (model, state) = (self.model(), side.state());
        for region in model.keys().chain(state.keys()) {
            assert_eq!(state.get(region), model.get(region), "{} {when}: region {region}", S::NAME);
        }
    }

    /// Whether the read is one of a log without entries.
    pub(crate) fn is_empty(&self, read: &Read) -> bool {
        matches!(read, Read::Fetch { region, .. } if !self.spans.contains_key(region))
    }

    /// A read near what is there.
    pub(crate) fn read(&self, rng: &mut Rng) -> Read {
        let region = rng.u64(0..=REGIONS + 1);
        let (first, last) = self.spans.get(&region).copied().unwrap_or((3, 9));
        let index = |rng: &mut Rng| rng.u64(first.saturating_sub(2)..last + 4);
        let key = |rng: &mut Rng| vec![rng.u8(b'a'..b'd'); rng.usize(0..3)];
        match rng.u32(..4) {
            0 => Read::Entry { region, index: index(rng) },
            1 => Read::Get { region, key: key(rng) },
            2 => {
                let begin = index(rng);
                let end = begin.max(index(rng));
                let max = rng.bool().then(|| rng.usize(0..2000));
                Read::Fetch { region, begin, end, max }
            }
            _ => {
                let (a, b) = (key(rng), key(rng));
                let (start, end) = (a.clone().min(b.clone()), a.max(b));
                let (start, end) = (rng.bool().then_some(start), rng.bool().then_some(end));
                Read::Scan { region, start, end, reverse: rng.bool(), count: rng.usize(1..4) }
            }
        }
    }
}

fn note(model: &mut State, op: &Op) {
    match op {
        Op::Append { region, entries } => {
            let state = model.entry(*region).or_default();
            state.entries.retain(|e| e.index < entries[0].index);
            state.entries.extend_from_slice(entries);
            state.measure();
        }
        Op::Compact { region, index } => {
            let state = model.entry(*region).or_default();
            state.entries.retain(|e| e.index >= *index);
            state.measure();
        }
        Op::Clean { region } => drop(model.remove(region)),
        Op::Put { region, key, value } => {
            let state = model.entry(*region).or_default();
            state.pairs.insert(key.clone(), value.clone());
        }
        Op::Delete { region, key } => drop(model.entry(*region).or_default().pairs.remove(key)),
    }
}
