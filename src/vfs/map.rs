//! Read-only memory mappings, and the only unsafe code of the crate.
//!
//! What makes a mapping sound here are four facts, each kept by someone who can keep it:
//!
//! - *The pages exist.* A mapping is made of `0..len` of a file that is at least that long, and the engine never cuts
//!   a file that is mapped. If someone else cuts it, the process dies of SIGBUS: loud, and not undefined. Who cannot
//!   live with that turns mappings off ([`OsVfs::without_map`](super::OsVfs::without_map)).
//! - *The bytes stand still.* A slice is made of exactly the range asked for, never of the whole mapping, and the
//!   caller asks only for bytes that were written before and are not written again while the slice lives. A log is
//!   append-only, so this is the natural state of all bytes behind its end; a file is recycled, punched or overwritten
//!   only once its mapping is gone, which the engine knows by the count on the `Arc`.
//! - *The address stays.* The mapping is not moved, remapped or unmapped before the [`Map`] is dropped, and every slice
//!   that leaves this module either borrows the `Map` or holds a count on it.
//! - *Nobody writes through it.* It is mapped for reading only.

#![allow(unsafe_code)]

use bytes::Bytes;
use memmap2::{MmapOptions, MmapRaw};
use std::fmt;
use std::fs::File;
use std::io::{Error, ErrorKind, Result};
use std::ops::Range;
use std::sync::Arc;

/// The first bytes of a file, mapped for reading.
///
/// Who maps a file keeps to this while the `Map` lives: the file is not cut, and bytes that were read or sliced are
/// not written again, recycled or punched. Bytes never yet looked at may still be written: the tail of a log.
pub struct Map {
    raw: MmapRaw,
    len: usize,
}

impl Map {
    /// Maps `0..len`; `UnexpectedEof` if the file is shorter, since touching what lies behind its end would kill us.
    pub(super) fn new(file: &File, len: u64) -> Result<Map> {
        let actual = file.metadata()?.len();
        if actual < len {
            let message = format!("cannot map {len} bytes of a file of {actual}");
            return Err(Error::new(ErrorKind::UnexpectedEof, message));
        }
        let len = usize::try_from(len)
            .ok()
            .filter(|len| isize::try_from(*len).is_ok())
            .ok_or_else(|| Error::new(ErrorKind::InvalidInput, format!("{len} bytes are too many to map")))?;
        // A raw mapping, so that no reference to the whole of it ever exists: its tail is still being written.
        let raw = MmapOptions::new().len(len).map_raw_read_only(file)?;
        Ok(Map { raw, len })
    }

    /// Bytes mapped.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing is mapped.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The bytes of `range`, for a look in passing; `None` if it is not inside the mapping.
    ///
    /// They must have been written before, and not be written again while the reference lives.
    pub fn read(&self, range: Range<usize>) -> Option<&[u8]> {
        if range.start > range.end || range.end > self.len {
            return None;
        }
        // SAFETY: start <= end <= len <= isize::MAX, and `0..len` is one mapping, readable and alive for as long as
        // `self` is, to which the result is bound. u8 has neither alignment nor invalid values. The file was at least
        // `len` long and is not cut, and the bytes of the range are not written meanwhile (module docs).
        Some(unsafe {
            std::slice::from_raw_parts(self.raw.as_ptr().add(range.start), range.end - range.start)
        })
    }

    /// The bytes of `range` without a copy; they keep the mapping alive. `None` if it is not inside the mapping.
    ///
    /// They must have been written before, and not be written again while any clone of the result lives.
    pub fn slice(self: &Arc<Map>, range: Range<usize>) -> Option<Bytes> {
        if self.read(range.clone())?.is_empty() {
            return Some(Bytes::new());
        }
        Some(Bytes::from_owner(Slice { map: Arc::clone(self), range }))
    }
}

impl fmt::Debug for Map {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Map").field("len", &self.len).finish_non_exhaustive()
    }
}

/// The owner behind a `Bytes`: a share of the mapping, and the range that was asked for.
struct Slice {
    map: Arc<Map>,
    range: Range<usize>,
}

impl AsRef<[u8]> for Slice {
    fn as_ref(&self) -> &[u8] {
        // The range was checked when the slice was made, and neither it nor the mapping has changed since.
        self.map.read(self.range.clone()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn map_of(bytes: &[u8]) -> Arc<Map> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        Arc::new(Map::new(&file, bytes.len() as u64).unwrap())
    }

    #[test]
    fn a_slice_outlives_the_map_and_the_file() {
        let map = map_of(b"hello, log");
        let slice = map.slice(7..10).unwrap();
        let again = slice.slice(1..);
        drop((map, slice));
        assert_eq!(again, "og");
    }

    #[test]
    fn ranges_outside_are_refused() {
        let map = map_of(b"abc");
        assert_eq!(map.len(), 3);
        assert_eq!(map.read(0..3), Some(&b"abc"[..]));
        assert_eq!(map.read(3..3), Some(&b""[..]));
        assert_eq!(map.slice(3..3), Some(Bytes::new()));
        assert_eq!(map.read(0..4), None);
        assert_eq!(map.slice(4..4), None);
        assert_eq!(map.read(Range { start: 2, end: 1 }), None);
        assert_eq!(map.read(usize::MAX..usize::MAX), None);
        assert!(map_of(b"").is_empty());
    }

    #[test]
    fn a_file_shorter_than_the_map_is_refused() {
        let file = tempfile::tempfile().unwrap();
        assert_eq!(Map::new(&file, 1).unwrap_err().kind(), ErrorKind::UnexpectedEof);
    }

    #[test]
    fn an_empty_slice_does_not_keep_the_map() {
        let map = map_of(b"abc");
        let _empty = map.slice(1..1).unwrap();
        assert_eq!(Arc::strong_count(&map), 1);
    }

    #[test]
    fn bytes_written_later_are_seen_by_later_slices() {
        let mut file = tempfile::tempfile().unwrap();
        file.set_len(8192).unwrap();
        let map = Arc::new(Map::new(&file, 8192).unwrap());
        file.write_all(b"late").unwrap();
        assert_eq!(map.slice(0..4).unwrap(), "late");
    }
}
