use super::extent::Extent;
use super::extents::{Extents, Moved};
use super::piece::Piece;
use super::{Part, RegionState, Table};
use crate::format::batch::{Loc, TermRun};
use crate::format::checkpoint::ExtentRecord;
use crate::format::file_header::{Identity, SegmentKind, StoreId};
use crate::segment::{Live, Segment};
use crate::types::RegionId;
use proptest::prelude::*;
use std::sync::Arc;

fn segment(id: u32) -> Arc<Segment> {
    let identity = Identity { store: StoreId([7; 16]), file: id, salt: 9 };
    Arc::new(Segment::hole(identity, SegmentKind::Log, format!("{id}.log").into()))
}

fn record(first: u64, count: u64, terms: (u64, u64), bytes: u64) -> ExtentRecord {
    let (first_term, last_term) = (Some(terms.0), Some(terms.1));
    ExtentRecord { segment: 3, first, count, first_term, last_term, bytes }
}

fn records(list: &Extents) -> Vec<ExtentRecord> {
    list.iter().map(|e| e.record()).collect()
}

#[test]
fn an_extent_is_24_bytes_and_what_does_not_fit_stands_apart() {
    assert_eq!((size_of::<Extent>(), size_of::<Piece>(), size_of::<Extents>()), (24, 24, 32));
    let segment = segment(3);
    let mut boxed = 0;
    for count in [1, 2, (1 << 14) - 1, 1 << 14, u64::from(u32::MAX)] {
        for terms in
            [(0, 0), ((1 << 20) - 1, (1 << 20) - 1), (1 << 20, 1 << 20), (7, 8), (u64::MAX - 1, u64::MAX - 1)]
        {
            if count == 1 && terms.0 != terms.1 {
                continue;
            }
            for bytes in [0, (1 << 22) - 1, 1 << 22, u64::MAX >> 8] {
                let record = record(u64::MAX - 1 - count, count, terms, bytes);
                let mut extent = Extent::sealed(&record, &segment);
                assert_eq!(extent.stretch().record(), record);
                assert_eq!(segment.live.get(), Live { entries: count, bytes });
                boxed += u64::from(extent.heap_bytes() > 0);
                let last = extent.last();
                if count > 1 {
                    extent.keep(record.first + 1, last);
                    assert_eq!((extent.first(), extent.last()), (record.first + 1, last));
                    assert_eq!(segment.live.get(), extent.live());
                    assert_eq!(segment.live.get().entries, count - 1);
                }
                drop(extent);
                assert_eq!(segment.live.get(), Live::default(), "{record:?}");
            }
        }
    }
    assert_eq!(boxed, (5 * 5 - 1) * 4 - 3 * 2 * 2, "those of few entries and bytes in one low term are not");
}

#[test]
fn neighbours_in_a_sealed_segment_become_one() {
    let (segment, cold) = (segment(3), segment(4));
    let mut list = Extents::default();
    for (first, terms) in [(1, (4, 4)), (2, (4, 4)), (3, (4, 5)), (4, (5, 5))] {
        list.push(Extent::sealed(&record(first, 1, terms, 10), &segment));
    }
    list.relocate(&Moved { first: 1, last: 4, bytes: 44, sources: &[3], cold: &cold });
    assert_eq!(records(&list), [ExtentRecord { segment: 4, ..record(1, 4, (4, 5), 44) }]);
    assert_eq!((segment.live.get(), cold.live.get()), (Live::default(), Live { entries: 4, bytes: 44 }));
}

#[test]
fn a_part_of_an_extent_that_moves_takes_its_share_along_and_leaves_the_others() {
    let (segment, cold) = (segment(3), segment(4));
    let mut list = Extents::default();
    list.push(Extent::sealed(&record(1, 10, (4, 4), 1000), &segment));
    list.relocate(&Moved { first: 4, last: 6, bytes: 330, sources: &[3], cold: &cold });
    let moved = ExtentRecord { segment: 4, ..record(4, 3, (4, 4), 330) };
    assert_eq!(records(&list), [record(1, 3, (4, 4), 300), moved, record(7, 4, (4, 4), 400)]);
    assert_eq!(segment.live.get(), Live { entries: 7, bytes: 700 });
    assert_eq!(cold.live.get(), Live { entries: 3, bytes: 330 });
}

/// An entry alone in its segment took 24 bytes, and 72 until that had its footer.
#[test]
fn regions_that_lie_thinly_in_the_same_segments_take_few_bytes() {
    let segments: Vec<_> = (100..200).map(segment).collect();
    let loc = Loc { pos: 5, inner: Loc::RAW, len: 1000, crc: 9 };
    let mut regions: Vec<Extents> = (0..100).map(|_| Extents::default()).collect();
    let bytes = |regions: &[Extents]| {
        regions.iter().map(Extents::heap_bytes).sum::<usize>() as f64
            / (regions.len() * segments.len()) as f64
    };
    for (index, segment) in (1..).zip(&segments) {
        regions.iter_mut().for_each(|r| r.append(index, &[TermRun { term: 5, entries: 1 }], &[loc], segment));
    }
    let unsealed = bytes(&regions);
    segments.iter().for_each(|s| regions.iter_mut().for_each(|r| r.use_footer(s.id)));
    let sealed = bytes(&regions);
    assert!(unsealed <= 18.0 && sealed <= 9.0, "{unsealed} bytes an entry, {sealed} with a footer");
    // The same when a checkpoint is read.
    let records = records(&regions[0]);
    let again = || {
        let mut region = Extents::default();
        records.iter().zip(&segments).for_each(|(record, s)| region.push(Extent::sealed(record, s)));
        region
    };
    regions = (0..100).map(|_| again()).collect();
    let read = bytes(&regions);
    assert!(read <= 9.0, "{read} bytes an entry out of a checkpoint");
}

#[test]
fn what_a_reader_takes_along_counts_nothing_and_outlives_the_extent() {
    let segment = segment(3);
    let loc = |pos| Loc { pos, inner: Loc::RAW, len: 10, crc: 0 };
    let mut list = Extents::default();
    list.append(1, &[TermRun { term: 5, entries: 2 }], &[loc(0), loc(10)], &segment);
    let parts: Vec<Part> = list.iter().flat_map(|e| [e.whole(), e.part(2, 2), e.whole()]).collect();
    assert_eq!(segment.live.get(), Live { entries: 2, bytes: 20 });
    drop(list);
    assert_eq!(segment.live.get(), Live::default());
    assert_eq!(parts[1].loc(RegionId(1), 2).unwrap(), loc(10));
    assert_eq!(parts[1].term(RegionId(1), 2).unwrap(), 5);
    drop(parts);
    assert_eq!(segment.live.get(), Live::default());
}

/// What is done to one region's log.
#[derive(Clone, Debug)]
enum Act {
    /// Appends so many entries of so many bytes each, in so many terms, `back` entries before the end.
    Append {
        back: u64,
        entries: u64,
        terms: u64,
        len: u32,
    },
    /// Appends an entry in each of so many segments.
    Thin {
        segments: u64,
        len: u32,
    },
    /// Writing goes on in the next segment.
    Rotate,
    /// Segments before the last get their footers, but for so many.
    Seal {
        but: usize,
    },
    /// One of the full segments gets its footer before an earlier one: that one cannot have any.
    SealOutOfTurn,
    Truncate {
        back: u64,
    },
    Compact {
        on: u64,
    },
    /// So many entries, so far from the first one, were copied from every nth segment.
    Relocate {
        from: u64,
        entries: u64,
        nth: u32,
    },
    /// As an open makes it of a checkpoint.
    Reopen,
    Capture,
    LetGo,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        8 => (0u64..3, 1u64..4, 1u64..3, 0u32..40)
            .prop_map(|(back, entries, terms, len)| Act::Append { back, entries, terms, len }),
        1 => (Just(0), 60u64..90, 1u64..3, 5_000u32..6_000)
            .prop_map(|(back, entries, terms, len)| Act::Append { back, entries, terms, len }),
        3 => (1u64..50, 0u32..40).prop_map(|(segments, len)| Act::Thin { segments, len }),
        6 => Just(Act::Rotate),
        4 => (0usize..3).prop_map(|but| Act::Seal { but }),
        1 => Just(Act::SealOutOfTurn),
        1 => (0u64..40).prop_map(|back| Act::Truncate { back }),
        1 => (0u64..20).prop_map(|on| Act::Compact { on }),
        1 => (0u64..40, 1u64..40, 1u32..4)
            .prop_map(|(from, entries, nth)| Act::Relocate { from, entries, nth }),
        1 => Just(Act::Reopen),
        1 => Just(Act::Capture),
        1 => Just(Act::LetGo),
    ]
}

/// An entry of the log.
#[derive(Clone, Copy, Debug)]
struct Kept {
    term: u64,
    segment: u32,
    loc: Loc,
}

/// A region, its segments, and what should stand in it.
struct World {
    table: Table,
    segments: Vec<Arc<Segment>>,
    sealed: Vec<u32>,
    colds: u32,
    appended: u32,
    /// The first index, and the entries from there on.
    first: u64,
    kept: Vec<Kept>,
    captured: Vec<Part>,
}

const REGION: RegionId = RegionId(7);
const COLD_FROM: u32 = 10_000;

impl World {
    fn new() -> World {
        let (table, segments) = (Table::default(), vec![segment(1)]);
        World {
            table,
            segments,
            sealed: vec![],
            colds: COLD_FROM,
            appended: 0,
            first: 1,
            kept: vec![],
            captured: vec![],
        }
    }

    fn next(&self) -> u64 {
        self.first + self.kept.len() as u64
    }

    fn logs(&self) -> Vec<Arc<Segment>> {
        self.segments.iter().filter(|s| s.id < COLD_FROM).cloned().collect()
    }

    fn act(&mut self, act: &Act) {
        let cell = self.table.get_or_create(REGION);
        let active = self.logs().pop().unwrap();
        match *act {
            Act::Append { back, entries, terms, len } => {
                let first = self.next().saturating_sub(back).max(self.first);
                self.kept.truncate((first - self.first) as usize);
                let term = self.kept.last().map_or(3, |e| e.term);
                self.appended += 1;
                let crc = self.appended;
                let locs: Vec<Loc> =
                    (0..entries).map(|n| Loc { pos: n as u32, inner: Loc::RAW, len, crc }).collect();
                let split = if terms > 1 { entries / terms } else { 0 };
                let runs: Vec<TermRun> = [(term, entries - split), (term + 1, split)]
                    .iter()
                    .filter(|run| run.1 > 0)
                    .map(|run| TermRun { term: run.0, entries: run.1 as u32 })
                    .collect();
                self.table.change(&cell).append(first, &runs, &locs, &active);
                let terms = runs.iter().flat_map(|run| (0..run.entries).map(|_| run.term));
                let kept = terms.zip(locs).map(|(term, loc)| Kept { term, segment: active.id, loc });
                self.kept.extend(kept);
            }
            Act::Thin { segments, len } => {
                for _ in 0..segments {
                    self.act(&Act::Append { back: 0, entries: 1, terms: 1, len });
                    self.act(&Act::Rotate);
                }
            }
            Act::Rotate => self.segments.push(segment(active.id + 1)),
            Act::Seal { but } => {
                let logs = self.logs();
                for full in logs.iter().rev().skip(1 + but) {
                    if self.sealed.contains(&full.id) {
                        continue;
                    }
                    self.table.use_footer(REGION, full);
                    self.sealed.push(full.id);
                }
            }
            Act::SealOutOfTurn => {
                let logs = self.logs();
                let mut waiting = logs.iter().rev().skip(1).rev().filter(|s| !self.sealed.contains(&s.id));
                if let Some(full) = waiting.nth(1) {
                    self.table.use_footer(REGION, full);
                    self.sealed.push(full.id);
                }
            }
            Act::Truncate { back } => {
                let from = self.next().saturating_sub(back).max(self.first);
                self.table.change(&cell).truncate_from(from);
                self.kept.truncate((from - self.first) as usize);
            }
            Act::Compact { on } => {
                let to = (self.first + on).min(self.next()) - 1;
                if to >= self.first {
                    let term = self.kept[(to - self.first) as usize].term;
                    self.table.change(&cell).compact_through(crate::EntryId::new(term, to));
                    self.kept.drain(..(to - self.first + 1) as usize);
                    self.first = to + 1;
                }
            }
            Act::Relocate { from, entries, nth } => {
                let first = self.first + from;
                let last = first + entries - 1;
                let sources: Vec<u32> =
                    self.segments.iter().map(|s| s.id).filter(|id| id % nth == 0).collect();
                self.colds += 1;
                let cold = segment(self.colds);
                self.segments.push(cold.clone());
                self.sealed.push(cold.id);
                let moved = Moved { first, last, bytes: 17 * entries, sources: &sources, cold: &cold };
                self.table.change(&cell).relocate(&moved);
                for (index, e) in (self.first..).zip(&mut self.kept) {
                    if first <= index && index <= last && sources.contains(&e.segment) {
                        e.segment = cold.id;
                    }
                }
            }
            Act::Reopen => {
                let records = records(&cell.read().extents);
                self.table = Table::default();
                let mut state = RegionState::default();
                for record in &records {
                    let home = self.segments.iter().find(|s| s.id == record.segment).unwrap();
                    state.extents.push(Extent::sealed(record, home));
                }
                drop(cell);
                assert!(self.table.insert(REGION, state));
                self.sealed = self.segments.iter().map(|s| s.id).collect();
                self.segments.push(segment(active.id + 1));
            }
            Act::Capture => self.captured.extend(cell.read().extents.iter().map(|e| e.whole())),
            Act::LetGo => self.captured.clear(),
        }
    }

    fn check(&self) {
        self.table.check_counts(&self.segments).unwrap();
        for segment in &self.segments {
            let entries = self.kept.iter().filter(|e| e.segment == segment.id).count() as u64;
            assert_eq!(segment.live.entries(), entries, "of segment {}", segment.id);
        }
        let cell = self.table.get_or_create(REGION);
        let state = cell.read();
        let found: Vec<_> =
            state.extents.iter().flat_map(|e| (e.first()..=e.last()).map(move |i| (i, e))).collect();
        assert_eq!(found.len(), self.kept.len());
        for ((index, kept), (found, e)) in (self.first..).zip(&self.kept).zip(&found) {
            assert_eq!((index, kept.segment), (*found, e.segment_id()));
            let direct = state.extent(index).unwrap();
            assert_eq!((direct.first(), direct.last()), (e.first(), e.last()));
            assert_eq!(e.is_unsealed(), !self.sealed.contains(&kept.segment));
            assert!(e.known_term(index).is_none_or(|term| term == kept.term), "the term of {index}");
            assert!(e.known_term(index).is_some() || !e.is_unsealed());
            if e.is_unsealed() {
                assert_eq!(e.part(index, index).loc(REGION, index).unwrap(), kept.loc);
            }
        }
        assert!(state.extent(self.next()).is_none() && state.extent(self.first - 1).is_none());
        let (forth, mut back) = (records(&state.extents), Vec::new());
        back.extend(state.extents.iter().rev().map(|e| e.record()));
        back.reverse();
        assert_eq!(forth, back);
        assert_eq!(forth.len(), state.extents.len());
        let middle = self.first + self.kept.len() as u64 / 2;
        let rest: Vec<_> = forth.iter().filter(|r| r.first + (r.count - 1) >= middle).copied().collect();
        assert_eq!(state.extents.from(middle).map(|e| e.record()).collect::<Vec<_>>(), rest);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn whatever_is_done_to_a_log_its_segments_count_what_it_owns_in_them(
        acts in proptest::collection::vec(act(), 1..120),
    ) {
        let mut world = World::new();
        for act in &acts {
            world.act(act);
            world.check();
        }
        world.table.change(&world.table.get_or_create(REGION)).destroy();
        for segment in &world.segments {
            prop_assert_eq!(segment.live.get(), Live::default());
        }
    }
}
