//! Where the entries of an extent are: as the table knows it, and as a reader or a checkpoint takes it along.
//!
//! Neither counts as live: only an [`Extent`](super::extent::Extent) does.

use super::runs::{Run, Terms, TermsRef};
use crate::error::Error;
use crate::format::batch::Loc;
use crate::format::checkpoint::ExtentRecord;
use crate::format::footer::{Locs, RangeRef};
use crate::segment::{Segment, Unreadable};
use crate::types::RegionId;
use std::borrow::Cow;
use std::sync::Arc;

/// A look at an extent, while its region's lock is held.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stretch<'a> {
    pub(super) segment: &'a Arc<Segment>,
    pub(super) first: u64,
    pub(super) last: u64,
    pub(super) bytes: u64,
    pub(super) terms: TermsRef<'a>,
    /// Present exactly while the segment has no footer.
    pub(super) on_heap: Option<OnHeap<'a>>,
}

/// Locations that are on the heap.
#[derive(Clone, Copy, Debug)]
pub(super) enum OnHeap<'a> {
    /// That of the only entry.
    One { index: u64, loc: Loc },
    /// With the index of the first.
    Many { first: u64, locs: &'a [Loc] },
}

impl OnHeap<'_> {
    /// The locations from `from` on, up to `to`.
    fn between(&self, from: u64, to: u64) -> Option<&[Loc]> {
        let (first, locs) = match self {
            OnHeap::One { index, loc } => (*index, std::slice::from_ref(loc)),
            OnHeap::Many { first, locs } => (*first, *locs),
        };
        let start = usize::try_from(from.checked_sub(first)?).ok()?;
        let len = usize::try_from((to - from).checked_add(1)?).ok()?;
        locs.get(start..start.checked_add(len)?)
    }
}

/// A copy of what is known of consecutive entries in one segment: what a read takes along, so that it can
/// look for bytes without the region's lock. It keeps the segment and its file, whatever becomes of the
/// entries.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    segment: Arc<Segment>,
    first: u64,
    last: u64,
    bytes: u64,
    terms: Terms<Vec<Run>>,
    locs: PartLocs,
}

/// Locations that were copied.
#[derive(Clone, Debug)]
enum PartLocs {
    /// None: the footer has them.
    InFooter,
    /// That of the only entry.
    One(Loc),
    /// Of the first entry and those after it.
    Many(Vec<Loc>),
}

/// What `part` of `whole` entries takes of `bytes`: an estimate, for lengths are seldom at hand.
pub(super) fn share(bytes: u64, part: u64, whole: u64) -> u64 {
    // 128 bits: counts and bytes are both hostile at worst.
    (u128::from(bytes) * u128::from(part) / u128::from(whole.max(1))) as u64
}

impl<'a> Stretch<'a> {
    /// The index of the first entry.
    pub(crate) fn first(&self) -> u64 {
        self.first
    }

    /// The index of the last entry.
    pub(crate) fn last(&self) -> u64 {
        self.last
    }

    /// How many entries, at least one.
    pub(crate) fn count(&self) -> u64 {
        self.last - self.first + 1
    }

    /// Payload bytes; exact until the extent is trimmed.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The number of the segment that they lie in.
    pub(crate) fn segment_id(&self) -> u32 {
        self.segment.id
    }

    /// The segment that they lie in.
    pub(crate) fn segment(&self) -> Cow<'a, Arc<Segment>> {
        Cow::Borrowed(self.segment)
    }

    /// Whether the segment has no footer yet.
    pub(crate) fn is_unsealed(&self) -> bool {
        self.on_heap.is_some()
    }

    /// As a checkpoint keeps it.
    pub(crate) fn record(&self) -> ExtentRecord {
        ExtentRecord {
            segment: self.segment_id(),
            first: self.first,
            count: self.count(),
            first_term: self.known_term(self.first),
            last_term: self.known_term(self.last),
            bytes: self.bytes,
        }
    }

    /// The term of one of these entries, unless that takes the footer.
    pub(super) fn known_term(&self, index: u64) -> Option<u64> {
        self.terms.at(index, self.first, self.last)
    }

    /// The term of one of these entries. Asks the footer only when more than one term rules them.
    pub(crate) fn term(&self, region: RegionId, index: u64) -> Result<u64, Unreadable> {
        if let Some(term) = self.known_term(index) {
            return Ok(term);
        }
        let footer = self.segment().footer().ok_or_else(|| self.not_listed(region, index))?;
        let range = footer.find(region, index).map_err(|e| self.bad_footer(region, e.0))?;
        range.and_then(|r| r.term(index)).ok_or_else(|| self.not_listed(region, index))
    }

    /// As [`locs`](Stretch::locs), and never out of a mapping.
    pub(crate) fn locs_from_file(
        &self,
        region: RegionId,
        from: u64,
        to: u64,
        each: impl FnMut(Loc),
    ) -> Result<(), Unreadable> {
        self.locs_by(region, from, to, |range, a, b| range.locs_from_file(a, b), each)
    }

    /// The locations of `from..=to`, in order, for a reader; all are among these entries.
    pub(crate) fn locs(
        &self,
        region: RegionId,
        from: u64,
        to: u64,
        each: impl FnMut(Loc),
    ) -> Result<(), Unreadable> {
        self.locs_by(region, from, to, |range, a, b| range.locs(a, b), each)
    }

    fn locs_by(
        &self,
        region: RegionId,
        from: u64,
        to: u64,
        read: for<'f> fn(&RangeRef<'f>, u64, u64) -> std::io::Result<Locs<'f>>,
        mut each: impl FnMut(Loc),
    ) -> Result<(), Unreadable> {
        if let Some(mem) = &self.on_heap {
            let locs = mem.between(from, to).ok_or_else(|| self.not_listed(region, from))?;
            locs.iter().copied().for_each(each);
            return Ok(());
        }
        let segment = self.segment();
        let footer = segment.footer().ok_or_else(|| self.not_listed(region, from))?;
        let mut index = from;
        while index <= to {
            let range = footer.find(region, index).map_err(|e| self.bad_footer(region, e.0))?;
            let range = range.ok_or_else(|| self.not_listed(region, index))?;
            let last = range.last().min(to);
            let locs = read(&range, index, last);
            let locs = locs.map_err(|e| segment.footer_error(e).of_entry(region, index))?;
            while index <= last {
                each(locs.get(index).ok_or_else(|| self.not_listed(region, index))?);
                index += 1;
            }
        }
        Ok(())
    }

    /// Whether the index of the segment lists an entry. Reads no location, so no device can be in the way.
    pub(crate) fn is_listed(&self, region: RegionId, index: u64) -> bool {
        match &self.on_heap {
            Some(mem) => mem.between(index, index).is_some(),
            None => self
                .segment()
                .footer()
                .is_some_and(|f| f.find(region, index).is_ok_and(|range| range.is_some())),
        }
    }

    /// A copy of all of it.
    pub(crate) fn whole(&self) -> Part {
        self.part(self.first, self.last)
    }

    /// A copy of `a..=b`, with its locations if they are on the heap.
    pub(crate) fn part(&self, a: u64, b: u64) -> Part {
        let locs = self.on_heap.as_ref().and_then(|mem| mem.between(a, b));
        Part {
            segment: self.segment().into_owned(),
            first: a,
            last: b,
            bytes: if a == self.first && b == self.last {
                self.bytes
            } else {
                share(self.bytes, b - a + 1, self.count())
            },
            terms: self.terms.part(a, b, self.first, self.last),
            locs: match locs {
                None => PartLocs::InFooter,
                Some([loc]) => PartLocs::One(*loc),
                Some(locs) => PartLocs::Many(locs.to_vec()),
            },
        }
    }

    /// The last entry of `a..=b` that a read of at most `bytes` may need, as far as that is known
    /// without the footer.
    pub(crate) fn reach(&self, a: u64, b: u64, bytes: u64, overhead: u64) -> u64 {
        let Some(locs) = self.on_heap.as_ref().and_then(|mem| mem.between(a, b)) else { return b };
        let mut left = bytes;
        for (i, loc) in locs.iter().enumerate() {
            let cost = u64::from(loc.len).saturating_add(overhead);
            if cost >= left {
                return a + i as u64;
            }
            left -= cost;
        }
        b
    }

    /// What `a..=b` costs of a read's limit; `None` where only the footer knows.
    pub(crate) fn cost(&self, a: u64, b: u64, overhead: u64) -> Option<u64> {
        let locs = self.on_heap.as_ref().and_then(|mem| mem.between(a, b))?;
        Some(locs.iter().map(|l| u64::from(l.len).saturating_add(overhead)).fold(0, u64::saturating_add))
    }

    /// The highest index whose record ends at or before `offset`, given that this segment is the one being
    /// made durable, and `offset` the end of a record. An entry without bytes may stand exactly there; those
    /// of the next record stand after its header.
    pub(crate) fn last_below(&self, offset: u32) -> Option<u64> {
        let locs = self.on_heap.as_ref()?.between(self.first, self.last)?;
        let n = locs.partition_point(|l| l.pos <= offset);
        (n > 0).then(|| self.first + n as u64 - 1)
    }

    fn not_listed(&self, region: RegionId, index: u64) -> Unreadable {
        let why = format!("the index of the segment does not list entry {index}; run `raftwood check`");
        let error = Error::damaged(why).in_region(region).naming(index..=index);
        Unreadable::Wrong(error.at(&self.segment().path, None))
    }

    fn bad_footer(&self, region: RegionId, what: &str) -> Unreadable {
        let why = format!("the footer of the segment is damaged: {what}; reopen the store to rebuild it");
        Unreadable::Wrong(Error::damaged(why).in_region(region).at(&self.segment().path, None))
    }
}

impl Part {
    /// A look at it.
    pub(crate) fn stretch(&self) -> Stretch<'_> {
        let on_heap = match &self.locs {
            PartLocs::InFooter => None,
            PartLocs::One(loc) => Some(OnHeap::One { index: self.first, loc: *loc }),
            PartLocs::Many(locs) => Some(OnHeap::Many { first: self.first, locs }),
        };
        Stretch {
            segment: &self.segment,
            first: self.first,
            last: self.last,
            bytes: self.bytes,
            terms: self.terms.borrowed(),
            on_heap,
        }
    }

    /// The index of the first entry.
    pub(crate) fn first(&self) -> u64 {
        self.first
    }

    /// The index of the last entry.
    pub(crate) fn last(&self) -> u64 {
        self.last
    }

    /// How many entries, at least one.
    pub(crate) fn count(&self) -> u64 {
        self.last - self.first + 1
    }

    /// Payload bytes; an estimate where it is a part of an extent.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The segment that they lie in.
    pub(crate) fn segment(&self) -> &Arc<Segment> {
        &self.segment
    }

    /// Whether the segment had no footer.
    pub(crate) fn is_unsealed(&self) -> bool {
        !matches!(self.locs, PartLocs::InFooter)
    }

    /// The term of one of these entries.
    pub(crate) fn term(&self, region: RegionId, index: u64) -> Result<u64, Unreadable> {
        self.stretch().term(region, index)
    }

    /// The location of one entry, for a reader of it.
    pub(crate) fn loc(&self, region: RegionId, index: u64) -> Result<Loc, Unreadable> {
        let (stretch, mut found) = (self.stretch(), None);
        stretch.locs(region, index, index, |loc| found = Some(loc))?;
        found.ok_or_else(|| stretch.not_listed(region, index))
    }

    /// The location of one entry, for upkeep: a part of the footer that the device cannot read is an error.
    pub(crate) fn loc_from_file(&self, region: RegionId, index: u64) -> Result<Loc, Unreadable> {
        let (stretch, mut found) = (self.stretch(), None);
        stretch.locs_from_file(region, index, index, |loc| found = Some(loc))?;
        found.ok_or_else(|| stretch.not_listed(region, index))
    }
}
