//! Looks for rot in what holds the entries: the copies of a segment's header, and headers and
//! descriptions of its records.
//!
//! Nobody reads these while a footer is there, so nobody would notice. But the footer is a cache, and what it
//! is built from must be right on the day it is needed.

use super::Segment;
use super::scan::{FIRST_RECORD, Found, Scanner};
use crate::error::{Error, Result};
use crate::format::file_header::{FILE_HEADER_LEN, FileHeader};
use crate::format::record::record_len;
use crate::vfs::io::read_up_to;
use crate::vfs::meaning::if_readable;
use std::ops::Range;

/// What an audit saw.
#[derive(Debug, Default)]
pub(crate) struct Audit {
    /// Records whose header and description are right, or could be mended.
    pub(crate) records: u64,
    /// Everything that is not as it was written, with its place.
    pub(crate) rot: Vec<Error>,
}

/// Reads the segment's header and the records before `end`, all of which must have been written. `each` gets
/// the place of every record, or of what stands where none can be read, and may look at its bytes while they
/// are at hand: these places are all there is up to the end, one after the other.
///
/// # Errors
/// Of `each`, and of the operating system. What the device cannot read is rot.
pub(crate) fn audit(
    segment: &Segment,
    end: u32,
    mut each: impl FnMut(&mut Scanner<'_>, Range<u32>) -> Result<()>,
) -> Result<Audit> {
    let mut audit = Audit::default();
    let rot = |what: &str, at: u64| {
        Error::damaged(format!("{what}; no entry is lost by it")).at(&segment.path, Some(at))
    };
    for at in segment.header_copies_at {
        let mut copy = [0; FILE_HEADER_LEN];
        let read = if_readable(read_up_to(&**segment.file()?, &mut copy, at));
        let got = read.map_err(|e| Error::io("reading the header of a segment", &segment.path, e))?;
        if FileHeader::decode(&copy[..got.unwrap_or(0)]).is_err() {
            audit.rot.push(rot("one of the two copies of the segment's header is damaged", at));
        }
    }

    let mut scanner = Scanner::new(&**segment.file()?, &segment.path, &segment.identity, u64::from(end));
    let mut at = FIRST_RECORD;
    while at < end {
        let next = match scanner.look(at)? {
            Found::Record(record) => {
                audit.records += 1;
                if record.mended {
                    audit
                        .rot
                        .push(rot("a bit of a record's header or description has flipped", u64::from(at)));
                }
                record.end()
            }
            Found::BadDescription(header) => {
                audit.rot.push(rot("the description of a batch is damaged", u64::from(at)));
                u32::try_from(u64::from(at) + record_len(header.desc_len, header.payload_len)).unwrap_or(end)
            }
            Found::Nothing => {
                audit.rot.push(rot("the header of a record is damaged", u64::from(at)));
                scanner.seek(at.saturating_add(8))?.map_or(end, |next| next.offset)
            }
        };
        each(&mut scanner, at..next)?;
        at = next;
    }
    Ok(audit)
}
