//! Consecutive entries of one region in one segment.

use crate::error::{Error, Result};
use crate::format::batch::{Loc, TermRun};
use crate::format::checkpoint::ExtentRecord;
use crate::segment::Segment;
use crate::types::RegionId;
use std::sync::Arc;

/// Trimmed locations are given back once they are this many and more than half.
const SLACK_MAX: usize = 64;

/// Stands for a term that only the footer knows: that of an end of a trimmed extent with several terms. Trimming must
/// not fail, so it does not look; whoever asks does.
pub(crate) const TERM_UNKNOWN: u64 = u64::MAX;

/// Locations of an extent's entries while its segment has no footer.
#[derive(Clone, Debug, Default)]
pub(crate) struct MemIndex {
    /// Index of the first location.
    first: u64,
    locs: Vec<Loc>,
    /// First index and term of each run; empty while one term rules the extent.
    runs: Vec<(u64, u64)>,
}

/// Consecutive entries of one region in one segment. A clone of one that is not unsealed is a few words.
#[derive(Clone, Debug)]
pub(crate) struct Extent {
    pub(crate) first: u64,
    pub(crate) last: u64,
    pub(crate) first_term: u64,
    pub(crate) last_term: u64,
    /// Payload bytes; exact until the extent is trimmed.
    pub(crate) bytes: u64,
    pub(crate) segment: Arc<Segment>,
    /// Present exactly while the segment has no footer.
    pub(crate) mem: Option<Box<MemIndex>>,
}

impl Extent {
    /// The first entries of a region in an unsealed segment.
    pub(crate) fn unsealed(first: u64, runs: &[TermRun], locs: &[Loc], segment: &Arc<Segment>) -> Extent {
        let bytes = payload_bytes(locs);
        let mut extent = Extent {
            first,
            last: first + locs.len() as u64 - 1,
            first_term: runs.first().map_or(0, |r| r.term),
            last_term: runs.last().map_or(0, |r| r.term),
            bytes,
            segment: segment.clone(),
            mem: Some(Box::new(MemIndex { first, locs: locs.to_vec(), runs: Vec::new() })),
        };
        extent.note_runs(first, runs);
        segment.add_live(locs.len() as u64, bytes);
        extent
    }

    /// From a checkpoint or a footer; counted as live.
    pub(crate) fn sealed(r: &ExtentRecord, segment: &Arc<Segment>) -> Extent {
        segment.add_live(r.count, r.bytes);
        Extent {
            first: r.first,
            last: r.first + (r.count - 1),
            first_term: r.first_term,
            last_term: r.last_term,
            bytes: r.bytes,
            segment: segment.clone(),
            mem: None,
        }
    }

    pub(crate) fn count(&self) -> u64 {
        self.last - self.first + 1
    }

    pub(crate) fn record(&self) -> ExtentRecord {
        ExtentRecord {
            segment: self.segment.id,
            first: self.first,
            count: self.count(),
            first_term: self.first_term,
            last_term: self.last_term,
            bytes: self.bytes,
        }
    }

    /// Adds entries behind the last. The extent must be unsealed.
    pub(crate) fn push(&mut self, runs: &[TermRun], locs: &[Loc]) {
        let first = self.last + 1;
        self.note_runs(first, runs);
        let bytes = payload_bytes(locs);
        if let Some(mem) = &mut self.mem {
            mem.locs.extend_from_slice(locs);
        }
        self.last += locs.len() as u64;
        self.last_term = runs.last().map_or(self.last_term, |r| r.term);
        self.bytes += bytes;
        self.segment.add_live(locs.len() as u64, bytes);
    }

    fn note_runs(&mut self, first: u64, runs: &[TermRun]) {
        let Some(mem) = &mut self.mem else { return };
        let mut index = first;
        for run in runs {
            let current = mem.runs.last().map_or(self.first_term, |r| r.1);
            if run.term != current {
                if mem.runs.is_empty() {
                    mem.runs.push((self.first, self.first_term));
                }
                mem.runs.push((index, run.term));
            }
            index += u64::from(run.entries);
        }
    }

    /// Drops the entries from `index` on; the caller has made sure that some stay.
    pub(crate) fn cut_from(&mut self, index: u64) {
        debug_assert!(self.first < index && index <= self.last);
        self.last_term = self.known_term(index - 1);
        self.uncount(self.last - index + 1);
        self.last = index - 1;
        if let Some(mem) = &mut self.mem {
            mem.locs.truncate((index - mem.first) as usize);
            mem.runs.retain(|r| r.0 < index);
        }
    }

    /// Drops the entries up to and including `index`; the caller has made sure that some stay.
    pub(crate) fn cut_through(&mut self, index: u64) {
        debug_assert!(self.first <= index && index < self.last);
        self.first_term = self.known_term(index + 1);
        self.uncount(index - self.first + 1);
        self.first = index + 1;
        if let Some(mem) = &mut self.mem {
            let dead = (self.first - mem.first) as usize;
            if dead >= SLACK_MAX && dead * 2 > mem.locs.len() {
                mem.locs.drain(..dead);
                mem.locs.shrink_to_fit();
                mem.first = self.first;
            }
            let first = self.first;
            let keep_from = mem.runs.partition_point(|r| r.0 <= first).saturating_sub(1);
            mem.runs.drain(..keep_from);
            if mem.runs.len() == 1 {
                mem.runs.clear();
            }
        }
    }

    /// The extent is no longer part of the log.
    pub(crate) fn release(&mut self) {
        self.segment.sub_live(self.count(), self.bytes);
    }

    fn uncount(&mut self, entries: u64) {
        // 128 bits: counts and bytes are both hostile at worst.
        let share = (u128::from(self.bytes) * u128::from(entries) / u128::from(self.count())) as u64;
        self.bytes -= share;
        self.segment.sub_live(entries, share);
    }

    /// The term of an entry of this extent, or [`TERM_UNKNOWN`] when that takes the footer.
    fn known_term(&self, index: u64) -> u64 {
        if self.first_term == self.last_term || index == self.first {
            return self.first_term;
        }
        if index == self.last {
            return self.last_term;
        }
        match &self.mem {
            Some(mem) => {
                let at = mem.runs.partition_point(|r| r.0 <= index);
                at.checked_sub(1).map_or(self.first_term, |at| mem.runs[at].1)
            }
            None => TERM_UNKNOWN,
        }
    }

    /// The term of an entry of this extent. Asks the footer only when more than one term rules it.
    pub(crate) fn term(&self, region: RegionId, index: u64) -> Result<u64> {
        match self.known_term(index) {
            TERM_UNKNOWN => {
                let footer = self.segment.footer().ok_or_else(|| self.no_footer(region, index))?;
                let range = footer.find(region, index).map_err(|e| self.bad_footer(region, e.0))?;
                range.and_then(|r| r.term(index)).ok_or_else(|| self.no_footer(region, index))
            }
            term => Ok(term),
        }
    }

    /// The location of one entry.
    pub(crate) fn loc(&self, region: RegionId, index: u64) -> Result<Loc> {
        let mut found = None;
        self.locs(region, index, index, |loc| found = Some(loc))?;
        found.ok_or_else(|| self.no_footer(region, index))
    }

    /// The locations of `from..=to`, in order; the range lies inside the extent.
    pub(crate) fn locs(&self, region: RegionId, from: u64, to: u64, mut each: impl FnMut(Loc)) -> Result<()> {
        if let Some(mem) = &self.mem {
            let start = from.checked_sub(mem.first).ok_or_else(|| self.no_footer(region, from))? as usize;
            let len = (to - from + 1) as usize;
            let locs = mem.locs.get(start..start + len).ok_or_else(|| self.no_footer(region, from))?;
            locs.iter().copied().for_each(each);
            return Ok(());
        }
        let footer = self.segment.footer().ok_or_else(|| self.no_footer(region, from))?;
        let mut index = from;
        while index <= to {
            let range = footer.find(region, index).map_err(|e| self.bad_footer(region, e.0))?;
            let range = range.ok_or_else(|| self.no_footer(region, index))?;
            let last = range.last().min(to);
            while index <= last {
                each(range.loc(index).ok_or_else(|| self.no_footer(region, index))?);
                index += 1;
            }
        }
        Ok(())
    }

    /// A copy of `a..=b`, with its locations if they are on the heap. It is not counted as live.
    pub(crate) fn part(&self, a: u64, b: u64) -> Extent {
        let mem = self.mem.as_ref().map(|mem| {
            let start = (a - mem.first) as usize;
            let locs = mem.locs.get(start..start + (b - a + 1) as usize).unwrap_or(&[]).to_vec();
            Box::new(MemIndex { first: a, locs, runs: mem.runs.clone() })
        });
        Extent {
            first: a,
            last: b,
            first_term: self.known_term(a),
            last_term: self.known_term(b),
            bytes: 0,
            segment: self.segment.clone(),
            mem,
        }
    }

    /// The last entry of `a..=b` that a read of at most `bytes` may want, as far as that is known without the footer.
    pub(crate) fn reach(&self, a: u64, b: u64, bytes: u64, overhead: u64) -> u64 {
        let Some(mem) = &self.mem else { return b };
        let start = (a - mem.first) as usize;
        let mut left = bytes;
        for (i, loc) in mem.locs.iter().skip(start).take((b - a + 1) as usize).enumerate() {
            let cost = u64::from(loc.len).saturating_add(overhead);
            if cost >= left {
                return a + i as u64;
            }
            left -= cost;
        }
        b
    }

    /// What `a..=b` costs of a read's limit; 0 where only the footer knows.
    pub(crate) fn cost(&self, a: u64, b: u64, overhead: u64) -> u64 {
        let Some(mem) = &self.mem else { return 0 };
        let start = (a - mem.first) as usize;
        let locs = mem.locs.iter().skip(start).take((b - a + 1) as usize);
        locs.map(|l| u64::from(l.len).saturating_add(overhead)).fold(0, u64::saturating_add)
    }

    fn no_footer(&self, region: RegionId, index: u64) -> Error {
        Error::damaged(format!("the index of the segment does not list entry {index}; run `raftwood check`"))
            .in_region(region)
            .at(&self.segment.path, None)
    }

    fn bad_footer(&self, region: RegionId, what: &str) -> Error {
        Error::damaged(format!(
            "the footer of the segment is damaged: {what}; reopen the store to rebuild it"
        ))
        .in_region(region)
        .at(&self.segment.path, None)
    }

    /// Bytes on the heap beyond the extent itself.
    pub(crate) fn heap_bytes(&self) -> usize {
        self.mem.as_ref().map_or(0, |m| {
            size_of::<MemIndex>() + m.locs.capacity() * size_of::<Loc>() + m.runs.capacity() * 16
        })
    }

    /// The highest index whose record ends at or before `offset`, given that this segment is the one being made durable, and
    /// `offset` the end of a record. An entry without bytes may stand exactly there; those of the next record stand behind its
    /// header.
    pub(crate) fn last_below(&self, offset: u32) -> Option<u64> {
        let mem = self.mem.as_ref()?;
        let start = (self.first - mem.first) as usize;
        let n = mem.locs.get(start..)?.partition_point(|l| l.pos <= offset);
        (n > 0).then(|| self.first + n as u64 - 1)
    }
}

fn payload_bytes(locs: &[Loc]) -> u64 {
    locs.iter().map(|l| u64::from(l.len)).sum()
}
