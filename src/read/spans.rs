//! Bytes of entries that lie side by side, taken together.

use super::Source;
use crate::format::batch::Loc;
use crate::segment::{Segment, Unreadable};
use bytes::Bytes;
use std::sync::Arc;

/// Entries beyond this are not taken together: one that is kept for long would keep its neighbours'
/// memory too where reads are copies.
const SPAN_BYTES_MAX: u64 = 256 << 10;

/// Takes neighbouring entries out of one borrowed span, and entries of one compressed block out of one
/// decompression.
pub(super) struct Spans<'a> {
    segment: &'a Arc<Segment>,
    source: Source,
    at: u64,
    bytes: Bytes,
    block: Option<(u32, Bytes)>,
}

impl Spans<'_> {
    pub(super) fn new(segment: &Arc<Segment>, source: Source) -> Spans<'_> {
        Spans { segment, source, at: 0, bytes: Bytes::new(), block: None }
    }

    /// The bytes of one entry, not verified; `ahead` starts with it and goes on with what is asked for next.
    // Inlined: a call for each entry costs a range of 64 a tenth of its time.
    #[inline]
    pub(super) fn bytes(&mut self, ahead: &[Loc], loc: Loc) -> Result<Bytes, Unreadable> {
        let (pos, len) = (u64::from(loc.pos), loc.len as usize);
        if loc.is_raw() {
            if pos < self.at || pos + len as u64 > self.at + self.bytes.len() as u64 {
                let mut end = pos + u64::from(loc.len);
                for next in ahead.iter().skip(1) {
                    if !next.is_raw() || u64::from(next.pos) != end || end - pos > SPAN_BYTES_MAX {
                        break;
                    }
                    end += u64::from(next.len);
                }
                let span = u32::try_from(end - pos).unwrap_or(loc.len);
                self.bytes = match self.read(loc.pos, span) {
                    // The error must be that of the entry that cannot be read.
                    Err(_) if span > loc.len => self.read(loc.pos, loc.len)?,
                    read => read?,
                };
                self.at = pos;
            }
            let from = (pos - self.at) as usize;
            return Ok(self.bytes.slice(from..from + len));
        }
        if self.block.as_ref().is_none_or(|b| b.0 != loc.pos) {
            self.block = Some((loc.pos, self.segment.block_of(loc, |pos, len| self.read(pos, len))?));
        }
        let block = self.block.as_ref().map_or_else(Bytes::new, |b| b.1.clone());
        self.segment.inside(&block, loc)
    }

    #[inline]
    fn read(&self, pos: u32, len: u32) -> Result<Bytes, Unreadable> {
        match self.source {
            Source::AtHand => self.segment.content.bytes(pos, len),
            Source::File => self.segment.content.bytes_from_file(pos, len),
        }
    }
}
