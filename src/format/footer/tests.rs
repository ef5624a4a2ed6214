//! The footer against a model that keeps every entry, and against vandals.

use super::*;
use crate::format::batch::testing::{any_batch, blocks_of};
use crate::format::batch::{Batch, EntryMeta, Install, Loc, Op, Section, TermRun};
use crate::format::file_header::{Identity, StoreId};
use crate::types::{EntryId, RegionId};
use bytes::Bytes;
use proptest::prelude::*;
use std::collections::BTreeMap;

const IDENTITY: Identity = Identity { store: StoreId([7; 16]), file: 3, salt: 99 };

/// A batch of one section.
fn batch_of(region: u64, ops: Vec<Op>, runs: &[(u64, u32)], entries: &[(u32, u32)]) -> Batch {
    Batch {
        sections: vec![Section { region: RegionId(region), ops: ops.len() as u32 }],
        ops,
        runs: runs.iter().map(|&(term, entries)| TermRun { term, entries }).collect(),
        entries: entries.iter().map(|&(len, crc)| EntryMeta { len, crc }).collect(),
        ..Batch::default()
    }
}

/// An append of `count` entries of 10 bytes in one term; their checksums are `index`.
fn append(region: u64, first: u64, count: u32, term: u64) -> Batch {
    let entries: Vec<_> = (0..count).map(|i| (10, first as u32 + i)).collect();
    batch_of(region, vec![Op::Append { first, entries: count, runs: 1 }], &[(term, count)], &entries)
}

fn tail() -> Tail {
    let last = Shape { position: Lsn::new(3, 8000), header_crc: 1, desc_len: 2, payload_len: 3, desc_crc: 4 };
    let follows = Shape { position: Lsn::new(2, 4096), header_crc: 8, ..last };
    Tail { end: 8072, last, watermark: Lsn::new(3, 7000), follows }
}

fn build(builder: FooterBuilder) -> Footer {
    Footer::open(builder.finish(tail()).into(), &IDENTITY).unwrap()
}

fn footer_of(batches: &[Batch]) -> Footer {
    let mut builder = FooterBuilder::new(IDENTITY);
    for (i, batch) in batches.iter().enumerate() {
        builder.batch(batch, &[], 4096 + i as u32 * 1000, 5000 + i as u32 * 1000).unwrap();
    }
    build(builder)
}

fn delta_of(batches: &[Batch]) -> RegionDelta {
    footer_of(batches).deltas().unwrap().remove(0)
}

fn ranges_of(footer: &Footer) -> Vec<(u64, u64, u64)> {
    footer.verify_tables().unwrap();
    (0..footer.range_count())
        .map(|i| footer.range(i).unwrap())
        .map(|r| (r.region().0, r.first(), r.last()))
        .collect()
}

#[test]
fn empty_segment_has_an_empty_footer() {
    let footer = build(FooterBuilder::new(IDENTITY));
    assert_eq!((footer.tail(), footer.range_count(), footer.entry_count()), (tail(), 0, 0));
    assert_eq!((footer.deltas(), footer.installs()), (Ok(vec![]), Ok(vec![])));
    assert!(footer.find(RegionId(1), 1).unwrap().is_none());
    assert!(footer.range(0).is_none());
}

#[test]
fn entries_are_found_with_location_and_term() {
    let footer = footer_of(&[append(5, 1, 3, 7), append(9, 100, 2, 1), append(5, 4, 2, 8)]);
    let range = footer.find(RegionId(5), 4).unwrap().unwrap();
    assert_eq!((range.first(), range.last(), range.count(), range.bytes()), (1, 5, 5, 50));
    assert_eq!((range.first_term(), range.last_term()), (7, 8));
    assert_eq!(
        (1..=6).map(|i| range.term(i)).collect::<Vec<_>>(),
        [7, 7, 7, 8, 8].map(Some).into_iter().chain([None]).collect::<Vec<_>>()
    );
    assert_eq!(range.runs().collect::<Vec<_>>(), [(1, 7), (4, 8)]);
    assert_eq!(range.loc(5), Some(Loc { pos: 6106, inner: Loc::RAW, len: 10, crc: 5 }));
    assert_eq!((range.loc(0), range.loc(6)), (None, None));
    assert!(range.verify_locs());
    for (region, index) in [(5, 0), (5, 6), (4, 1), (6, 1), (9, 99), (9, 102), (u64::MAX, u64::MAX)] {
        assert!(footer.find(RegionId(region), index).unwrap().is_none(), "{region} {index}");
    }
}

/// The tables are packed, each row as the difference from the one before it, and a search starts in the
/// middle.
#[test]
fn each_of_many_ranges_is_found_with_its_terms() {
    // Gaps between the regions, large and small, and ranges of one and of several terms.
    let region = |n: u64| n * 3 + if n > 40 { 1 << 40 } else { 0 };
    for regions in [1, 15, 16, 17, 32, 33, 100] {
        let mut batches = Vec::new();
        for n in 0..regions {
            batches.push(append(region(n), 1000 * n + 1, 1 + n as u32 % 3, n));
            if n % 4 == 0 {
                batches.push(append(region(n), 1000 * n + 2 + n % 3, 2, n + 7));
            }
        }
        let footer = footer_of(&batches);
        assert_eq!(footer.ranges().count() as u64, regions);
        for (n, range) in (0..).zip(footer.ranges()) {
            let (first, own) = (1000 * n + 1, 1 + n % 3);
            let last = if n % 4 == 0 { first + own + 1 } else { first + own - 1 };
            assert_eq!((range.region().0, range.first(), range.last()), (region(n), first, last));
            assert!(range.verify_locs());
            for index in first..=last {
                let found = footer.find(range.region(), index).unwrap().unwrap();
                let term = if index < first + own { n } else { n + 7 };
                assert_eq!((found.first(), found.term(index)), (first, Some(term)), "{n} {index}");
                assert_eq!(found.loc(index), range.loc(index));
                assert_eq!(found.loc(index).unwrap().crc, index as u32);
            }
            for absent in [first - 1, last + 1] {
                assert!(footer.find(range.region(), absent).unwrap().is_none());
                assert!(footer.find(RegionId(range.region().0 + 1), absent).unwrap().is_none());
            }
        }
    }
}

#[test]
fn compressed_entries_keep_their_place_in_the_block() {
    let mut batch = append(1, 1, 4, 1);
    batch.entries[2].len = 0;
    let (blocks, _) = blocks_of(&batch, true);
    let mut builder = FooterBuilder::new(IDENTITY);
    builder.batch(&batch, &blocks, 4096, 5000).unwrap();
    let footer = build(builder);
    let range = footer.find(RegionId(1), 1).unwrap().unwrap();
    assert_eq!(
        (1..=4).map(|i| range.loc(i).unwrap().inner).collect::<Vec<_>>(),
        [Loc::RAW, Loc::RAW, Loc::RAW, 0]
    );
}

#[test]
fn append_over_the_range_discards_what_it_overwrites() {
    assert_eq!(ranges_of(&footer_of(&[append(1, 5, 5, 1), append(1, 7, 1, 2)])), [(1, 5, 7)]);
    assert_eq!(ranges_of(&footer_of(&[append(1, 5, 5, 1), append(1, 5, 1, 2)])), [(1, 5, 5)]);
    let delta = delta_of(&[append(1, 5, 5, 1), append(1, 3, 1, 2)]);
    assert_eq!(
        (delta.truncate_from, delta.range.unwrap().first, delta.range.unwrap().count),
        (Some(3), 3, 1)
    );
}

#[test]
fn truncation_into_earlier_segments_is_remembered() {
    let truncate = |index| batch_of(1, vec![Op::TruncateFrom(index)], &[], &[]);
    assert_eq!(delta_of(&[append(1, 5, 5, 1), truncate(7)]).truncate_from, Some(5));
    let delta = delta_of(&[append(1, 5, 5, 1), truncate(2), append(1, 2, 1, 2), append(1, 3, 1, 2)]);
    assert_eq!((delta.truncate_from, delta.range.unwrap().count), (Some(2), 2));
    assert_eq!(delta_of(&[truncate(4)]).range, None);
}

#[test]
fn destroyed_region_starts_from_nothing() {
    let ops =
        vec![Op::SetHardState("hs".into()), Op::Put { key: "k".into(), value: "v".into() }, Op::Destroy];
    let destroyed = [append(1, 5, 5, 1), batch_of(1, ops, &[], &[])];
    let delta = delta_of(&destroyed);
    assert!(
        delta.wiped
            && !delta.exists
            && delta.hard_state.is_none()
            && delta.kv.is_empty()
            && delta.range.is_none()
    );
    let delta = delta_of(&[&destroyed[..], &[append(1, 1, 1, 9)]].concat());
    assert!(delta.wiped && delta.exists && delta.range.is_some());
}

#[test]
fn cold_segment_keeps_ranges_apart() {
    let mut builder = FooterBuilder::new_cold(IDENTITY);
    for batch in [append(1, 50, 2, 1), append(1, 10, 2, 1), append(1, 12, 3, 2), append(2, 1, 1, 1)] {
        builder.batch(&batch, &[], 4096, 5000).unwrap();
    }
    assert!(builder.batch(&append(1, 14, 1, 1), &[], 4096, 5000).is_err());
    assert!(builder.batch(&append(1, 9, 2, 1), &[], 4096, 5000).is_err());
    assert!(builder.batch(&batch_of(1, vec![Op::Destroy], &[], &[]), &[], 4096, 5000).is_err());
    let footer = build(builder);
    assert_eq!(ranges_of(&footer), [(1, 10, 14), (1, 50, 51), (2, 1, 1)]);
    assert_eq!(footer.deltas(), Ok(vec![]));
    assert!(footer.find(RegionId(1), 20).unwrap().is_none());
    assert_eq!(footer.find(RegionId(1), 51).unwrap().unwrap().loc(51).unwrap().crc, 51);
}

#[test]
fn installs_come_back_in_order() {
    let installs = [Install { cold: 9, sources: vec![1, 2] }, Install { cold: 8, sources: vec![] }];
    let mut builder = FooterBuilder::new(IDENTITY);
    installs.iter().for_each(|install| builder.install(install));
    assert_eq!(build(builder).installs().unwrap(), installs);
}

#[test]
fn footer_of_another_segment_or_life_is_refused() {
    let bytes = Bytes::from(FooterBuilder::new(IDENTITY).finish(tail()));
    for other in [
        Identity { file: 4, ..IDENTITY },
        Identity { salt: 98, ..IDENTITY },
        Identity { store: StoreId([8; 16]), ..IDENTITY },
    ] {
        assert!(Footer::open(bytes.clone(), &other).is_err());
    }
}

fn rich_footer() -> Vec<u8> {
    let mut builder = FooterBuilder::new(IDENTITY);
    let ops = vec![
        Op::SetHardState("state".into()),
        Op::Put { key: "a".into(), value: "".into() },
        Op::Delete { key: "b".into() },
        Op::CompactThrough(EntryId::new(1, 2)),
    ];
    for batch in [append(1, 1, 3, 1), append(1, 4, 1, 2), append(2, 9, 2, 3), batch_of(2, ops, &[], &[])] {
        builder.batch(&batch, &[], 4096, 5000).unwrap();
    }
    builder.install(&Install { cold: 9, sources: vec![1, 2] });
    builder.finish(tail())
}

/// Whether anything at all is found wrong.
fn is_refused(bytes: Vec<u8>) -> bool {
    let Ok(footer) = Footer::open(bytes.into(), &IDENTITY) else { return true };
    footer.verify_tables().is_err()
        || footer.deltas().is_err()
        || footer.installs().is_err()
        || !(0..footer.range_count()).all(|i| footer.range(i).is_some_and(|range| range.verify_locs()))
}

#[test]
fn every_flipped_bit_is_detected() {
    let good = rich_footer();
    assert!(!is_refused(good.clone()));
    for bit in 0..good.len() * 8 {
        let mut bad = good.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        assert!(is_refused(bad), "bit {bit}");
    }
}

#[test]
fn every_other_length_is_refused() {
    let good = rich_footer();
    for len in (0..good.len()).chain([good.len() + 1]) {
        let mut bad = good.clone();
        bad.resize(len, 0);
        assert!(is_refused(bad), "length {len}");
    }
}

/// Asks everything of a footer whose tables may be nonsense.
fn poke(footer: &Footer) {
    let _ = (footer.deltas(), footer.installs(), footer.find(RegionId(1), 1));
    for range in (0..footer.range_count().min(100)).filter_map(|i| footer.range(i)) {
        let _ = (range.verify_locs(), range.first_term(), range.last_term(), range.runs().take(100).count());
        for index in [range.first(), range.last(), range.first().wrapping_add(1)] {
            let _ = (range.loc(index), range.term(index));
        }
    }
}

/// A region as a naive engine would have it; entries are told apart by their checksums.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Model {
    incarnation: Lsn,
    base: Option<EntryId>,
    entries: BTreeMap<u64, (u64, u32)>,
    hard_state: Option<Bytes>,
    kv: BTreeMap<Bytes, Bytes>,
}

impl Model {
    fn last(&self) -> u64 {
        self.entries.keys().next_back().copied().max(self.base.map(|id| id.index)).unwrap_or(0)
    }

    fn first(&self) -> u64 {
        self.base.map_or(1, |id| id.index + 1)
    }

    fn compact(&mut self, id: EntryId) {
        if self.base.is_none_or(|base| base.index < id.index) {
            self.base = Some(id);
            self.entries.retain(|index, _| *index > id.index);
        }
    }
}

/// What a random number makes the region do next: always something that an engine would accept.
fn random_op(state: &Option<Model>, dice: (u8, u64, u8), stamp: &mut u32) -> Batch {
    let fresh = Model::default();
    let model = state.as_ref().unwrap_or(&fresh);
    let (first, last) = (model.first(), model.last());
    let within = |from: u64, to: u64| from + dice.1 % (to - from + 1);
    let alone = |op| batch_of(1, vec![op], &[], &[]);
    match dice.0 % 20 {
        0..=6 => {
            let count = u32::from(dice.2 % 4) + 1;
            let at = if dice.0 < 4 { last + 1 } else { within(first, last + 1) };
            let entries: Vec<_> = (0..count)
                .map(|i| {
                    *stamp += 1;
                    (i, *stamp)
                })
                .collect();
            let op = Op::Append { first: at, entries: count, runs: 1 };
            batch_of(1, vec![op], &[(u64::from(*stamp), count)], &entries)
        }
        7 | 8 => alone(Op::TruncateFrom(within(first, last + 1))),
        9 | 10 => alone(Op::CompactThrough(EntryId::new(1, within(first - 1, last)))),
        11 => alone(Op::Reset(EntryId::new(2, dice.1 % 30))),
        12 => alone(Op::SetHardState(vec![dice.2].into())),
        13 => alone(Op::Put { key: vec![dice.2 % 3].into(), value: vec![dice.2].into() }),
        14 => alone(Op::Delete { key: vec![dice.2 % 3].into() }),
        15 => alone(Op::ForgetLog),
        16 => {
            let id = EntryId::new(1, within(first - 1, last));
            alone(Op::CompactTo { incarnation: model.incarnation, id })
        }
        17 => {
            *stamp += 1;
            let op = Op::AppendNext { first: last + 1, entries: 1, runs: 1 };
            batch_of(1, vec![op], &[(u64::from(*stamp), 1)], &[(1, *stamp)])
        }
        _ => alone(Op::Destroy),
    }
}

/// Applies a batch whose record ends at `end`.
fn run(state: &mut Option<Model>, batch: &Batch, end: Lsn) {
    for step in batch.steps().filter(|step| !step.op.is_void()) {
        if *step.op == Op::Destroy {
            *state = None;
            continue;
        }
        let model = state.get_or_insert(Model { incarnation: end, ..Model::default() });
        match step.op {
            Op::Append { first, .. } | Op::AppendNext { first, .. } => {
                model.entries.split_off(first);
                let terms = step.runs.iter().flat_map(|r| std::iter::repeat_n(r.term, r.entries as usize));
                model.entries.extend((*first..).zip(terms.zip(step.entries.iter().map(|e| e.crc))));
            }
            Op::TruncateFrom(index) => drop(model.entries.split_off(index)),
            Op::CompactThrough(id) | Op::CompactTo { id, .. } => model.compact(*id),
            Op::ForgetLog => {
                model.entries.clear();
                model.base = None;
            }
            Op::Reset(base) => {
                model.entries.clear();
                model.base = Some(*base);
            }
            Op::SetHardState(hs) => model.hard_state = Some(hs.clone()),
            Op::Put { key, value } => drop(model.kv.insert(key.clone(), value.clone())),
            Op::Delete { key } => drop(model.kv.remove(key)),
            Op::Destroy => {}
        }
    }
}

/// Replays a footer over a state, as recovery does.
fn apply(state: &mut Option<Model>, footer: &Footer) {
    for delta in footer.deltas().unwrap() {
        if delta.wiped {
            *state = None;
        }
        if !delta.exists {
            continue;
        }
        let incarnation = Lsn::new(3, delta.born.unwrap());
        let model = state.get_or_insert(Model { incarnation, ..Model::default() });
        if delta.forgotten {
            model.entries.clear();
            model.base = None;
        }
        if let Some(base) = delta.reset {
            model.entries.clear();
            model.base = Some(base);
        }
        if let Some(index) = delta.truncate_from {
            model.entries.split_off(&index);
        }
        if let Some(summary) = delta.range {
            let range = footer.find(delta.region, summary.first).unwrap().unwrap();
            assert_eq!((range.count(), range.bytes()), (summary.count, summary.bytes));
            assert_eq!((range.first_term(), range.last_term()), (summary.first_term, summary.last_term));
            let entry = |index| (index, (range.term(index).unwrap(), range.loc(index).unwrap().crc));
            model.entries.extend((range.first()..=range.last()).map(entry));
        }
        // Also entries of the range may lie at or below a base that the state took from a later moment.
        if let Some(id) = delta.compact {
            model.compact(id);
        }
        let base = model.base.map_or(0, |base| base.index);
        model.entries.retain(|index, _| model.base.is_none() || *index > base);
        model.hard_state = delta.hard_state.or(model.hard_state.take());
        for (key, value) in delta.kv {
            match value {
                Some(value) => drop(model.kv.insert(key, value)),
                None => drop(model.kv.remove(&key)),
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// From the state before the segment, or from any state inside it, the delta leads to the state after it.
    #[test]
    fn delta_leads_from_any_state_inside_the_segment_to_its_end(
        before in prop::collection::vec(any::<(u8, u64, u8)>(), 0..8),
        inside in prop::collection::vec(any::<(u8, u64, u8)>(), 0..12),
    ) {
        let (mut state, mut stamp) = (None, 0);
        for dice in before {
            let batch = random_op(&state, dice, &mut stamp);
            run(&mut state, &batch, Lsn::new(2, 5000));
        }
        let mut states = vec![state.clone()];
        let mut builder = FooterBuilder::new(IDENTITY);
        for (n, dice) in inside.into_iter().enumerate() {
            let (batch, end) = (random_op(&state, dice, &mut stamp), 5000 + n as u32);
            builder.batch(&batch, &[], 4096, end).unwrap();
            run(&mut state, &batch, Lsn::new(3, end));
            states.push(state.clone());
        }
        let footer = build(builder);
        for (at, mut from) in states.into_iter().enumerate() {
            apply(&mut from, &footer);
            prop_assert_eq!(&from, &state, "from the state after {} operations", at);
        }
    }
}

proptest! {
    #[test]
    fn any_batch_makes_a_footer_that_opens(batches in prop::collection::vec(any_batch(), 0..4), compressed: bool) {
        let mut builder = FooterBuilder::new(IDENTITY);
        for batch in &batches {
            builder.batch(batch, &blocks_of(batch, compressed).0, 4096, 5000)?;
        }
        let bytes = builder.finish(tail());
        prop_assert!(!is_refused(bytes.clone()));
        let footer = Footer::open(bytes.into(), &IDENTITY)?;
        prop_assert_eq!(footer.tail(), tail());
        let found: u64 = (0..footer.range_count()).map(|i| u64::from(footer.range(i).unwrap().count())).sum();
        prop_assert_eq!(found, footer.entry_count());
    }

    /// The checksums of the headers are made right again, so that the vandal gets past them.
    #[test]
    fn vandalised_footer_never_panics(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)) {
        let mut bytes = rich_footer();
        for (at, value) in changes {
            let at = 128 + at.index(bytes.len() - 128);
            bytes[at] = value;
        }
        reseal(&mut bytes);
        if let Ok(footer) = Footer::open(bytes.into(), &IDENTITY) {
            poke(&footer);
        }
    }

    #[test]
    fn random_bytes_never_panic(bytes: Vec<u8>) {
        let _ = Footer::open(bytes.into(), &IDENTITY);
    }
}

/// Makes the checksums of the sections and of the footer's header right, as far as the sections can be found.
fn reseal(bytes: &mut [u8]) {
    use super::header::FooterHeader;
    use crate::codec::checksum::crc32;
    let seed = IDENTITY.seed();
    let crc = crc32(seed, &bytes[136..256]);
    bytes[128..132].copy_from_slice(&[0xd7, b'f', b'o', b't']);
    bytes[132..136].copy_from_slice(&crc.to_le_bytes());
    let Ok(mut header) = FooterHeader::decode(&bytes[128..256], seed) else { return };
    let Ok(at) = header.sections(bytes.len()) else { return };
    header.deltas_crc = crc32(seed, &bytes[at.deltas]);
    header.installs_crc = crc32(seed, &bytes[at.installs]);
    header.ranges_crc = crc32(seed, &bytes[at.ranges]);
    header.runs_crc = crc32(seed, &bytes[at.runs]);
    bytes[128..256].copy_from_slice(&header.encode(seed));
}
