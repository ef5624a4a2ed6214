//! Read-only memory mappings, a page that a fork wipes, and with them the only unsafe code of the crate.
//!
//! Four facts make a mapping sound here, each kept by the part that can keep it:
//!
//! - *The pages exist.* A mapping is made of `0..len` of a file that is at least that long, and the engine
//!   never cuts a file that is mapped. If someone else cuts it, the process dies of SIGBUS: loud, and not
//!   undefined. A program that cannot live with that turns mappings off
//!   ([`OsVfs::without_map`](super::OsVfs::without_map)).
//! - *The bytes stand still.* A slice is made of exactly the range asked for, never of the whole mapping, and
//!   the caller asks only for bytes that were written before and are not written again while the slice lives.
//!   A log is append-only, so this is the natural state of all bytes below its end; a file is recycled,
//!   punched or overwritten only once its mapping is gone, which the engine knows by the count on the `Arc`.
//! - *The address stays.* The mapping is not moved, remapped or unmapped before the [`Map`] is dropped, and
//!   every slice that leaves this module either borrows the `Map` or holds a count on it.
//! - *Nobody writes through it.* It is mapped for reading only.
//!
//! The second fact is kept by the crate, and only the crate can turn a [`Map`] into bytes: to others it is
//! opaque. Nor can others make one; a foreign [`Vfs`](super::Vfs) passes on what [`OsVfs`](super::OsVfs) made
//! of a file that it opened. What remains is what no library can keep out: a program that writes to the files
//! of a store behind the engine, through `std::fs`, another process, or a `Vfs` that does so, changes bytes
//! that are lent out as `&[u8]`. The files of an open store are the engine's alone; a program that cannot
//! promise that reads through [`without_map`](super::OsVfs::without_map) or
//! [`ReadMode::Pread`](crate::ReadMode::Pread), where every read is a copy.

#![allow(unsafe_code)]

use super::asked::Asked;
use bytes::Bytes;
#[cfg(unix)]
use memmap2::Advice;
use memmap2::{MmapOptions, MmapRaw};
use std::fmt;
use std::fs::File;
use std::io::{Error, ErrorKind, Result};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// The first bytes of a file, mapped for reading. Opaque: only the engine can look at them.
///
/// While the `Map` lives the file is not cut, and bytes that were read or sliced are not written
/// again, recycled or punched; the engine sees to that. Bytes never yet looked at may still be
/// written: the tail of a log.
pub struct Map {
    raw: MmapRaw,
    len: usize,
    asked: Asked,
}

impl Map {
    /// Maps `0..len`; `UnexpectedEof` if the file is shorter, since touching what lies past its
    /// end would kill us.
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
        // A raw mapping, so that no reference to the whole of it ever exists: its tail is still being
        // written.
        let raw = MmapOptions::new().len(len).map_raw_read_only(file)?;
        // Entries of one region lie far apart: what a fault would read around one is of others. Only advice.
        #[cfg(unix)]
        let _ = raw.advise(Advice::Random);
        Ok(Map { raw, len, asked: Asked::new(len) })
    }

    /// The bytes of `range` were written just now, and are in memory.
    pub(crate) fn note_written(&self, range: Range<usize>) {
        self.asked.note(range);
    }

    /// The bytes of `range` will be looked at soon: what may have to be read from the device is asked
    /// for, without waiting for it.
    pub(crate) fn will_need(&self, range: Range<usize>) {
        if range.start > range.end || range.end > self.len {
            return;
        }
        if let Some(missing) = self.asked.missing(range) {
            // Only advice: without it the look itself reads.
            #[cfg(unix)]
            let _ = self.raw.advise_range(
                Advice::WillNeed,
                missing.start,
                missing.end.min(self.len) - missing.start,
            );
        }
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
    pub(crate) fn read(&self, range: Range<usize>) -> Option<&[u8]> {
        if range.start > range.end || range.end > self.len {
            return None;
        }
        // SAFETY: start <= end <= len <= isize::MAX, and `0..len` is one mapping, readable and alive for
        // as long as `self` is, to which the result is bound. u8 has neither alignment nor invalid
        // values. The file was at least `len` long and is not cut, and the bytes of the range are not
        // written meanwhile (module docs).
        Some(unsafe {
            std::slice::from_raw_parts(self.raw.as_ptr().add(range.start), range.end - range.start)
        })
    }

    /// The bytes of `range` without a copy; they keep the mapping alive. `None` if it is not
    /// inside the mapping.
    ///
    /// They must have been written before, and not be written again while any clone of the result lives.
    pub(crate) fn slice(self: &Arc<Map>, range: Range<usize>) -> Option<Bytes> {
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

/// A page of memory whose content a child process does not inherit: it finds zeros there.
pub(super) struct WipedOnFork(MmapRaw);

impl WipedOnFork {
    /// `None` where the system has no such thing: Linux has, since 4.14.
    #[cfg(all(target_os = "linux", not(miri)))]
    pub(super) fn new() -> Option<WipedOnFork> {
        let page = WipedOnFork(MmapOptions::new().len(size_of::<AtomicU32>()).map_anon().ok()?.into());
        // SAFETY: the range is one private anonymous mapping of ours, which begins on a page;
        // the system rounds its length up to whole pages, which hold nothing else. The advice
        // changes no byte in this process.
        let advised =
            unsafe { libc::madvise(page.0.as_mut_ptr().cast(), page.0.len(), libc::MADV_WIPEONFORK) };
        page.word().store(1, Ordering::Relaxed);
        (advised == 0).then_some(page)
    }

    #[cfg(not(all(target_os = "linux", not(miri))))]
    pub(super) fn new() -> Option<WipedOnFork> {
        None
    }

    /// Whether no fork lies between here and where it was made.
    pub(super) fn is_intact(&self) -> bool {
        self.word().load(Ordering::Relaxed) != 0
    }

    fn word(&self) -> &AtomicU32 {
        // SAFETY: the mapping begins on a page, so it is aligned; it is at least as long as the word,
        // readable and writable, and alive for as long as `self` is, to which the result is bound. Nothing
        // else refers to it, so all accesses are atomic; what the kernel does to it, it does in a copy
        // before any code of the child runs.
        unsafe { AtomicU32::from_ptr(self.0.as_mut_ptr().cast()) }
    }
}

impl fmt::Debug for WipedOnFork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("WipedOnFork").field(&self.is_intact()).finish()
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
