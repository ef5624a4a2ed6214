//! Entries of one region: what a range of them means, where they are, and their bytes.
//!
//! A read copies the extents that it touches under the region's lock ([`view`], [`parts`]), and looks for
//! entries and bytes without it ([`read`]). It knows nothing of who asks: an engine, which counts its
//! reads and remembers the damage that they meet ([`Reads`]), or a look at files that another process writes.

mod reads;
mod spans;

pub(crate) use reads::Reads;

use crate::error::{Error, ErrorKind, Result};
use crate::format::batch::Loc;
use crate::index::{Part, RegionState, TermAt};
use crate::planted::{Bug, planted};
use crate::segment::{Segment, Unreadable};
use crate::types::{Entry, EntryId, ReadLimit, RegionId};
use spans::Spans;
use std::ops::{Bound, RangeBounds, RangeInclusive};
use std::sync::Arc;

/// Where entries come from: their bytes, and the footers that say where these are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Source {
    /// From memory that they are in, the mapping if there is one: payloads may borrow it.
    AtHand,
    /// Copied out of the files, which somebody else may write to or shorten: a mapping would end the process.
    File,
}

/// Why a read failed, and where.
pub(crate) enum Failed {
    /// The entries are not there, which is an answer.
    Plainly(Error),
    /// At this entry, in this segment.
    At(u64, Arc<Segment>, Unreadable),
}

impl Failed {
    pub(crate) fn into_error(self) -> Error {
        match self {
            Failed::Plainly(e) => e,
            Failed::At(_, _, e) => e.into(),
        }
    }

    /// The same, naming the entry.
    pub(crate) fn of(self, region: RegionId) -> Failed {
        match self {
            Failed::At(index, segment, e) => Failed::At(index, segment, e.of_entry(region, index)),
            plainly => plainly,
        }
    }
}

// ---- what a range means -----------------------------------------------------------------------------------

/// From a range to a half-open one; an open end is the end of the log.
pub(crate) fn bounds(range: &impl RangeBounds<u64>, first: u64, next: u64) -> (u64, u64) {
    let from = match range.start_bound() {
        Bound::Included(&i) => i,
        Bound::Excluded(&i) => i.saturating_add(1),
        Bound::Unbounded => first,
    };
    let to = match range.end_bound() {
        Bound::Included(&i) => i.saturating_add(1),
        Bound::Excluded(&i) => i,
        Bound::Unbounded => next.max(from),
    };
    (from, to)
}

/// The first live index; in an empty log, the one that the next append would take.
pub(crate) fn first_or_next(s: &RegionState) -> u64 {
    s.first().unwrap_or_else(|| s.base.map_or(1, |b| b.index + 1))
}

/// The term of an entry, or of the compaction point.
pub(crate) fn term(region: RegionId, s: &RegionState, index: u64) -> Result<u64> {
    match s.term(region, index)? {
        TermAt::Term(term) => Ok(term),
        TermAt::Compacted => Err(compacted(region, s, index)),
        TermAt::Unavailable => Err(unavailable(region, s, index..=index)),
    }
}

/// What a read of `range` needs, all of which has to be there.
pub(crate) fn view(
    region: RegionId,
    s: &RegionState,
    range: &impl RangeBounds<u64>,
    limit: ReadLimit,
) -> Result<Vec<Part>> {
    let first = first_or_next(s);
    let next = s.last().map_or_else(|| s.base.map_or(first, |b| b.index + 1), |l| l + 1);
    let (from, to) = bounds(range, first, next);
    if from < first {
        return Err(compacted(region, s, from));
    }
    if from > next || to > next {
        // Those that are missing, of an empty range that it starts too far out.
        let missing = from.max(next);
        return Err(unavailable(region, s, missing..=missing.max(to.saturating_sub(1))));
    }
    Ok(parts(s, from, to, limit))
}

/// What a read of `from..to` needs once the region's lock is released: copies of the extents that it
/// touches, as far as `limit` may reach.
pub(crate) fn parts(s: &RegionState, from: u64, to: u64, limit: ReadLimit) -> Vec<Part> {
    let mut out = Vec::new();
    if from >= to {
        return out;
    }
    let mut entries = entries_max(limit);
    let mut bytes = limit.bytes;
    for e in s.extents.from(from) {
        if e.first() >= to || entries == 0 {
            break;
        }
        let a = e.first().max(from);
        let b = e.last().min(to - 1).min(a.saturating_add(entries - 1));
        // Locations on the heap are copied, so no more of them than the limit can use.
        let b = e.reach(a, b, bytes, limit.overhead);
        out.push(e.part(a, b));
        entries -= b - a + 1;
        bytes = bytes.saturating_sub(e.cost(a, b, limit.overhead).unwrap_or(0));
        if bytes == 0 {
            break;
        }
    }
    out
}

pub(crate) fn compacted(region: RegionId, s: &RegionState, index: u64) -> Error {
    let first = first_or_next(s);
    Error::new(
        ErrorKind::Compacted,
        format!("entry {index} is compacted: the first is {first}; ask for a snapshot"),
    )
    .in_region(region)
    .naming(index..=index)
}

pub(crate) fn unavailable(region: RegionId, s: &RegionState, indexes: RangeInclusive<u64>) -> Error {
    let last = s.last().or(s.base.map(|b| b.index));
    let last = last.map_or("the log is empty".to_string(), |l| format!("the last is {l}"));
    let (first, until) = (*indexes.start(), *indexes.end());
    let named = match first == until {
        true => format!("entry {first} is"),
        false => format!("entries {first}..={until} are"),
    };
    Error::new(ErrorKind::Unavailable, format!("{named} not there: {last}")).in_region(region).naming(indexes)
}

/// The error of an entry that may be torn and may be rotten.
pub(crate) fn doubtful(region: RegionId, index: u64) -> Error {
    Error::damaged(format!(
        "entry {index} does not match its checksum, and nothing proves that it was torn: it may have been acknowledged; \
         append over it, or fetch it from a replica and hand it to repair()"
    ))
    .in_region(region)
    .naming(index..=index)
    .suspect()
}

// ---- the entries ------------------------------------------------------------------------------------------

/// The entries of `parts`, verified, as far as `limit` goes.
pub(crate) fn read(
    region: RegionId,
    parts: &[Part],
    limit: ReadLimit,
    source: Source,
) -> Result<Vec<Entry>, Failed> {
    let mut out = Vec::new();
    for mut chunk in locate(region, parts, limit, source)? {
        let (stretch, segment) = (chunk.part.stretch(), chunk.part.segment());
        let failed = |index| move |e| Failed::At(index, segment.clone(), e);
        let mut spans = Spans::new(segment, source);
        out.reserve(chunk.locs.len());
        for (i, loc) in chunk.locs.iter().enumerate() {
            if i == chunk.asked {
                chunk.asked += segment.content.will_need(&chunk.locs[i..], ASKED_BYTES_MAX);
            }
            let index = stretch.first() + i as u64;
            let id = EntryId::new(stretch.term(region, index).map_err(failed(index))?, index);
            let bytes = spans.bytes(&chunk.locs[i..], *loc).map_err(failed(index))?;
            let payload = segment.verify(region, id, *loc, bytes).map_err(failed(index))?;
            out.push(Entry { id, payload });
        }
    }
    Ok(out)
}

/// Entries of one part that a read gives.
struct Chunk<'a> {
    part: &'a Part,
    locs: Vec<Loc>,
    /// So many of them were asked for.
    asked: usize,
}

/// How much a read asks for ahead of what it looks at: enough to keep a device busy, and no more memory
/// than that is taken from others.
const ASKED_BYTES_MAX: u64 = 1 << 20;

/// How many entries a read may give: at least one, also where the limit says none.
fn entries_max(limit: ReadLimit) -> u64 {
    limit.entries.max(1)
}

/// Where the entries are that a read gives, as far as its limit goes; the first of them are
/// asked for already.
fn locate<'a>(
    region: RegionId,
    parts: &'a [Part],
    limit: ReadLimit,
    source: Source,
) -> Result<Vec<Chunk<'a>>, Failed> {
    let mut chunks = Vec::with_capacity(parts.len());
    let (mut entries, mut bytes) = (entries_max(limit), limit.bytes);
    let (mut is_first, mut to_ask) = (true, ASKED_BYTES_MAX);
    for part in parts {
        let want = entries.min(part.count());
        if want == 0 {
            break;
        }
        let mut locs: Vec<Loc> = Vec::with_capacity(want.min(4096) as usize);
        let (first, last) = (part.first(), part.first() + (want - 1));
        let found = match source {
            Source::AtHand => part.stretch().locs(region, first, last, |loc| locs.push(loc)),
            Source::File => part.stretch().locs_from_file(region, first, last, |loc| locs.push(loc)),
        };
        found.map_err(|e| Failed::At(first, part.segment().clone(), e))?;
        let mut take = 0;
        for loc in &locs {
            let cost = u64::from(loc.len).saturating_add(limit.overhead);
            if cost > bytes && !is_first && !planted(Bug::LimitExceeded) {
                break;
            }
            bytes = bytes.saturating_sub(cost);
            is_first = false;
            take += 1;
        }
        let full = take < locs.len();
        locs.truncate(take);
        entries -= take as u64;
        let asked = if to_ask > 0 { part.segment().content.will_need(&locs, to_ask) } else { 0 };
        to_ask = to_ask.saturating_sub(locs[..asked].iter().map(|loc| u64::from(loc.len)).sum());
        chunks.push(Chunk { part, locs, asked });
        if full {
            break;
        }
    }
    Ok(chunks)
}
