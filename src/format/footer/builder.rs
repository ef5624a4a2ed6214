//! Records to footer.

use super::Tail;
use super::delta::{RangeSummary, RegionDelta, put_deltas};
use super::header::{FooterHeader, LOC_LZ4_LEN, LOC_RAW_LEN, RANGE_LEN, RUN_LEN, RangeRow, SECTIONS_AT};
use crate::codec::Malformed;
use crate::codec::checksum::crc32;
use crate::codec::varint::put_varint;
use crate::format::batch::{Batch, Block, Install, Loc, Op, Step, locate};
use crate::format::file_header::{FORMAT_VERSION, FileHeader, FileKind, Identity};
use crate::types::{EntryId, IdHasher, RegionId};
use bytes::Bytes;
use std::collections::{BTreeMap, HashMap};
use std::hash::BuildHasherDefault;
use std::iter::once;

/// Takes the records of one segment in order and makes its footer.
///
/// In a log segment a region has at most one range: what its entries there were when the segment
/// ended. In a cold one it may have several with gaps between, as the cleaner found them, and
/// there is nothing but appends.
#[derive(Debug)]
pub(crate) struct FooterBuilder {
    identity: Identity,
    cold: bool,
    /// In the order in which they came, and the place of each.
    regions: Vec<(RegionId, RegionBuild)>,
    places: HashMap<RegionId, usize, BuildHasherDefault<IdHasher>>,
    installs: Vec<Install>,
    /// How many entries were taken; bounds every count in the footer to 32 bits.
    entries_taken: u64,
    locs: Vec<Loc>,
}

/// Room is made for so many regions at once, or more.
const REGIONS_STEP: usize = 64;

impl FooterBuilder {
    /// For a segment of the log.
    pub(crate) fn new(identity: Identity) -> FooterBuilder {
        FooterBuilder {
            identity,
            cold: false,
            regions: Vec::new(),
            places: HashMap::default(),
            installs: Vec::new(),
            entries_taken: 0,
            locs: Vec::new(),
        }
    }

    /// For a segment that the cleaner wrote.
    pub(crate) fn new_cold(identity: Identity) -> FooterBuilder {
        FooterBuilder { cold: true, ..FooterBuilder::new(identity) }
    }

    /// Takes a batch whose payload area starts at `payload_pos` of the file, and whose record ends at `end`.
    /// After an error the builder is of no use.
    pub(crate) fn batch(
        &mut self,
        batch: &Batch,
        blocks: &[Block],
        payload_pos: u32,
        end: u32,
    ) -> Result<(), Malformed> {
        self.entries_taken += batch.entries.len() as u64;
        if u32::try_from(self.entries_taken).is_err() {
            return Err(Malformed("a segment has more entries than 32 bits can count"));
        }
        let locs = &mut self.locs;
        locs.clear();
        locs.reserve(batch.entries.len());
        locate(&batch.entries, blocks, payload_pos, |loc| locs.push(loc))?;
        for step in batch.steps() {
            if step.op.is_void() {
                continue;
            }
            let at = match self.regions.last() {
                // A region mostly has several operations in a row.
                Some((last, _)) if *last == step.region => self.regions.len() - 1,
                _ => *self.places.entry(step.region).or_insert_with(|| {
                    // There may be very many, and doubling would leave as much unused.
                    if self.regions.len() == self.regions.capacity() {
                        self.regions.reserve_exact((self.regions.len() / 4).max(REGIONS_STEP));
                    }
                    self.regions.push((step.region, RegionBuild::default()));
                    self.regions.len() - 1
                }),
            };
            let Some((_, region)) = self.regions.get_mut(at) else { continue };
            let locs = self.locs.get(step.entries_at..).and_then(|l| l.get(..step.entries.len()));
            let locs = locs.unwrap_or_default();
            if self.cold { region.take_cold(&step, locs)? } else { region.take(&step, locs, end)? }
        }
        Ok(())
    }

    /// Takes an install.
    pub(crate) fn install(&mut self, install: &Install) {
        self.installs.push(install.clone());
    }

    /// The footer file's content.
    pub(crate) fn finish(self, tail: Tail) -> Vec<u8> {
        let seed = self.identity.seed();
        drop((self.places, self.locs));
        let mut regions = self.regions;
        regions.sort_unstable_by_key(|(region, _)| *region);

        let mut out = vec![0; SECTIONS_AT];
        let named = if self.cold { &[] } else { &regions[..] };
        put_deltas(&mut out, named.iter().map(|(id, region)| region.delta(*id)));
        let installs_at = out.len();
        put_installs(&mut out, &self.installs);
        let tables_at = out.len();

        let mut header = FooterHeader {
            tail,
            deltas_len: (installs_at - SECTIONS_AT) as u64,
            installs_len: (tables_at - installs_at) as u64,
            deltas_crc: crc32(seed, out.get(SECTIONS_AT..installs_at).unwrap_or_default()),
            installs_crc: crc_from(seed, &out, installs_at),
            ..FooterHeader::default()
        };

        put_tables(&mut out, &regions, seed, &mut header);

        let file = FileHeader {
            version: FORMAT_VERSION,
            kind: FileKind::Footer,
            identity: self.identity,
            len: out.len() as u64,
            previous_salt: 0,
        };
        let headers = file.encode().into_iter().chain(header.encode(seed));
        for (to, from) in out.iter_mut().zip(headers) {
            *to = from;
        }
        out
    }
}

fn put_installs(out: &mut Vec<u8>, installs: &[Install]) {
    put_varint(out, installs.len() as u64);
    for install in installs {
        let mut desc = Vec::new();
        install.encode(&mut desc);
        put_varint(out, desc.len() as u64);
        out.extend_from_slice(&desc);
    }
    // The tables start at a multiple of 8; the padding belongs to the installs.
    out.resize(out.len().next_multiple_of(8), 0);
}

/// Rows, runs and locations, and what the header says of them.
fn put_tables(out: &mut Vec<u8>, regions: &[(RegionId, RegionBuild)], seed: u32, header: &mut FooterHeader) {
    // Rows come before locations in the file but need their checksums: so each range's locations are made
    // twice, which takes less than to keep them all apart.
    let ranges = || regions.iter().flat_map(|(id, region)| region.ranges.iter().map(|range| (*id, range)));
    let rows_at = out.len();
    out.reserve_exact(ranges().map(|(_, range)| range.len_in_file()).sum());
    let mut locs = Vec::new();
    for (region, range) in ranges() {
        locs.clear();
        range.put_locs(&mut locs);
        let row = RangeRow {
            region,
            first: range.first,
            count: range.locs.len() as u32,
            stride: range.stride(),
            runs_at: header.run_count,
            run_count: range.runs().count() as u32,
            locs_at: header.locs_len,
            bytes: range.bytes(),
            locs_crc: crc32(seed, &locs),
        };
        row.put(out);
        header.range_count += 1;
        header.run_count += row.run_count;
        header.entry_count += u64::from(row.count);
        header.locs_len += locs.len() as u64;
    }
    header.ranges_crc = crc_from(seed, out, rows_at);
    let runs_at = out.len();
    for (first, term) in ranges().flat_map(|(_, range)| range.runs()) {
        out.extend_from_slice(&first.to_le_bytes());
        out.extend_from_slice(&term.to_le_bytes());
    }
    header.runs_crc = crc_from(seed, out, runs_at);
    ranges().for_each(|(_, range)| range.put_locs(out));
}

fn crc_from(seed: u32, bytes: &[u8], at: usize) -> u32 {
    crc32(seed, bytes.get(at..).unwrap_or_default())
}

/// What is known of one region so far.
#[derive(Debug)]
struct RegionBuild {
    wiped: bool,
    exists: bool,
    born: Option<u32>,
    forgotten: bool,
    truncate_from: Option<u64>,
    hard_state: Option<Bytes>,
    /// At most one in a log segment; disjoint and sorted in a cold one. None is empty.
    ranges: Vec<RangeBuild>,
    /// What few regions have: a segment may name very many.
    rare: Option<Box<Rare>>,
}

#[derive(Debug, Default)]
struct Rare {
    reset: Option<EntryId>,
    compact: Option<EntryId>,
    kv: BTreeMap<Bytes, Option<Bytes>>,
}

impl Default for RegionBuild {
    fn default() -> RegionBuild {
        RegionBuild {
            wiped: false,
            exists: true,
            born: None,
            forgotten: false,
            truncate_from: None,
            hard_state: None,
            ranges: Vec::new(),
            rare: None,
        }
    }
}

impl RegionBuild {
    fn take(&mut self, step: &Step<'_>, locs: &[Loc], end: u32) -> Result<(), Malformed> {
        self.exists = true;
        self.born.get_or_insert(end);
        match step.op {
            Op::Append { first, .. } | Op::AppendNext { first, .. } => {
                self.append(RangeBuild::new(*first, step, locs)?)
            }
            Op::TruncateFrom(index) => self.truncate(*index),
            Op::CompactThrough(id) | Op::CompactTo { id, .. } => {
                let compact = &mut self.rare().compact;
                if compact.is_none_or(|before| before.index <= id.index) {
                    *compact = Some(*id);
                }
            }
            Op::Reset(base) => {
                self.forget_log();
                self.rare().reset = Some(*base);
            }
            Op::ForgetLog => {
                self.forget_log();
                self.forgotten = true;
            }
            Op::SetHardState(state) => self.hard_state = Some(state.clone()),
            Op::Put { key, value } => {
                self.rare().kv.insert(key.clone(), Some(value.clone()));
            }
            Op::Delete { key } => {
                self.rare().kv.insert(key.clone(), None);
            }
            Op::Destroy => *self = RegionBuild { wiped: true, exists: false, ..RegionBuild::default() },
        }
        Ok(())
    }

    fn forget_log(&mut self) {
        self.ranges.clear();
        self.truncate_from = None;
        if let Some(rare) = &mut self.rare {
            (rare.compact, rare.reset) = (None, None);
        }
    }

    fn rare(&mut self) -> &mut Rare {
        self.rare.get_or_insert_default()
    }

    fn append(&mut self, new: RangeBuild) {
        if new.locs.is_empty() {
            return;
        }
        match self.ranges.last_mut() {
            Some(range) if range.first < new.first && new.first <= range.end() => {
                range.cut(new.first);
                range.extend(new);
            }
            // Nothing of the former range is left, or, when there is a gap, the log went on elsewhere
            // meanwhile. Either way whatever earlier segments have from here on is overwritten.
            _ => {
                self.truncate_from = Some(self.truncate_from.map_or(new.first, |from| from.min(new.first)));
                self.ranges = vec![new];
            }
        }
    }

    fn truncate(&mut self, index: u64) {
        match self.ranges.last_mut() {
            Some(range) if range.first < index => range.cut(index),
            _ => {
                self.ranges.clear();
                self.truncate_from = Some(self.truncate_from.map_or(index, |from| from.min(index)));
            }
        }
    }

    fn take_cold(&mut self, step: &Step<'_>, locs: &[Loc]) -> Result<(), Malformed> {
        let Some((first, ..)) = step.op.as_append() else {
            return Err(Malformed("a cold segment has an operation that is not an append"));
        };
        let new = RangeBuild::new(first, step, locs)?;
        if new.locs.is_empty() {
            return Ok(());
        }
        let at = self.ranges.partition_point(|range| range.first <= new.first);
        let overlaps_next = self.ranges.get(at).is_some_and(|next| next.first < new.end());
        let before = at.checked_sub(1).and_then(|at| self.ranges.get_mut(at));
        if overlaps_next || before.as_ref().is_some_and(|before| before.end() > new.first) {
            return Err(Malformed("a cold segment has an entry twice"));
        }
        match before {
            Some(before) if before.end() == new.first => before.extend(new),
            _ => self.ranges.insert(at, new),
        }
        Ok(())
    }

    fn delta(&self, region: RegionId) -> RegionDelta {
        let rare = self.rare.as_deref();
        let kv = rare.into_iter().flat_map(|rare| &rare.kv);
        RegionDelta {
            region,
            wiped: self.wiped,
            exists: self.exists,
            born: self.born.filter(|_| self.exists),
            forgotten: self.forgotten,
            reset: rare.and_then(|rare| rare.reset),
            truncate_from: self.truncate_from,
            compact: rare.and_then(|rare| rare.compact),
            hard_state: self.hard_state.clone(),
            kv: kv.map(|(key, value)| (key.clone(), value.clone())).collect(),
            range: self.ranges.last().map(RangeBuild::summary),
        }
    }
}

/// Consecutive entries of one region.
#[derive(Debug)]
struct RangeBuild {
    first: u64,
    first_term: u64,
    /// The index that each further term starts at, and the term.
    later: Vec<(u64, u64)>,
    locs: Vec<Loc>,
}

impl RangeBuild {
    fn new(first: u64, step: &Step<'_>, locs: &[Loc]) -> Result<RangeBuild, Malformed> {
        first.checked_add(locs.len() as u64).ok_or(Malformed("an append goes beyond the highest index"))?;
        let first_term = step.runs.first().map_or(0, |run| run.term);
        let mut range = RangeBuild { first, first_term, later: Vec::new(), locs: locs.to_vec() };
        let mut at = first;
        for run in step.runs {
            range.start_run(at, run.term);
            at = at.saturating_add(u64::from(run.entries));
        }
        Ok(range)
    }

    /// The index one past the last entry.
    fn end(&self) -> u64 {
        self.first.saturating_add(self.locs.len() as u64)
    }

    /// Drops entries at `index` and above; some are left.
    fn cut(&mut self, index: u64) {
        let keep = usize::try_from(index.saturating_sub(self.first)).unwrap_or(usize::MAX);
        self.locs.truncate(keep);
        let runs = self.later.partition_point(|(first, _)| *first < index);
        self.later.truncate(runs);
    }

    /// Adds the entries of a range that starts at this one's end.
    fn extend(&mut self, next: RangeBuild) {
        for (first, term) in next.runs() {
            self.start_run(first, term);
        }
        self.locs.extend_from_slice(&next.locs);
    }

    fn start_run(&mut self, first: u64, term: u64) {
        if self.last_term() != term {
            self.later.push((first, term));
        }
    }

    /// The index that each term starts at, and the term.
    fn runs(&self) -> impl Iterator<Item = (u64, u64)> {
        once((self.first, self.first_term)).chain(self.later.iter().copied())
    }

    fn last_term(&self) -> u64 {
        self.later.last().map_or(self.first_term, |run| run.1)
    }

    fn bytes(&self) -> u64 {
        self.locs.iter().map(|loc| u64::from(loc.len)).sum()
    }

    fn summary(&self) -> RangeSummary {
        RangeSummary {
            first: self.first,
            count: self.locs.len() as u32,
            first_term: self.first_term,
            last_term: self.last_term(),
            bytes: self.bytes(),
        }
    }

    /// The bytes that each location takes.
    fn stride(&self) -> u32 {
        if self.locs.iter().all(Loc::is_raw) { LOC_RAW_LEN } else { LOC_LZ4_LEN }
    }

    /// What its row, runs and locations take.
    fn len_in_file(&self) -> usize {
        RANGE_LEN + self.runs().count() * RUN_LEN + self.locs.len() * self.stride() as usize
    }

    /// Appends the locations.
    fn put_locs(&self, out: &mut Vec<u8>) {
        let raw = self.stride() == LOC_RAW_LEN;
        for loc in &self.locs {
            out.extend_from_slice(&loc.pos.to_le_bytes());
            out.extend_from_slice(&loc.len.to_le_bytes());
            out.extend_from_slice(&loc.crc.to_le_bytes());
            if !raw {
                out.extend_from_slice(&loc.inner.to_le_bytes());
            }
        }
    }
}
