//! Whole reads and writes over calls that may be short or interrupted.
//!
//! The rules, which hold over every implementation of [`VfsFile`] and are tested against a stubborn one:
//!
//! - `Interrupted` is tried again, at the same place: nothing was transferred.
//! - A short write is resumed at exactly the first byte that was not taken: nothing is written twice.
//! - A write that takes nothing is an error, not a loop. A read that gives nothing is the end of the file.

use super::{OpenMode, Vfs, VfsFile};
use crate::planted::{Bug, planted};
use std::io::{Error, ErrorKind, IoSlice, Result};
use std::path::Path;

/// Slices in one call: what Linux and the BSDs accept (`IOV_MAX`).
pub const SLICES_MAX: usize = 1024;

/// Fills `buf` from `offset`; `UnexpectedEof` if the file ends before it is full.
pub fn read_exact_at(file: &dyn VfsFile, buf: &mut [u8], offset: u64) -> Result<()> {
    let wanted = buf.len();
    let got = read_up_to(file, buf, offset)?;
    if got < wanted {
        let end = offset.saturating_add(got as u64);
        let message = format!("wanted {wanted} bytes at {offset}, but the file ends at {end}");
        return Err(Error::new(ErrorKind::UnexpectedEof, message));
    }
    Ok(())
}

/// A small file as a whole.
pub fn read_file(vfs: &dyn Vfs, path: &Path) -> Result<Vec<u8>> {
    let file = vfs.open(path, OpenMode::Read)?;
    let len = usize::try_from(file.len()?)
        .map_err(|_| Error::new(ErrorKind::InvalidData, "the file is too long to be read at once"))?;
    let mut bytes = vec![0; len];
    read_exact_at(&*file, &mut bytes, 0)?;
    Ok(bytes)
}

/// Fills as much of `buf` as the file has from `offset` on, and returns how much that was.
pub fn read_up_to(file: &dyn VfsFile, buf: &mut [u8], offset: u64) -> Result<usize> {
    let mut done = 0;
    while done < buf.len() {
        match file.read_at(&mut buf[done..], advance(offset, done)?) {
            Ok(0) => break,
            Ok(n) => done += n.min(buf.len() - done),
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(done)
}

/// Writes all slices, one behind the other, from `offset` on. The slices are used up: what is left in them is of no
/// use to the caller.
pub fn write_all_at(file: &dyn VfsFile, mut bufs: &mut [IoSlice<'_>], offset: u64) -> Result<()> {
    let mut at = offset;
    // Empty slices are skipped, so that a call never consists of nothing else and "took nothing" means a fault.
    IoSlice::advance_slices(&mut bufs, 0);
    while !bufs.is_empty() {
        let call = &bufs[..bufs.len().min(SLICES_MAX)];
        let offered: usize = call.iter().map(|b| b.len()).sum();
        match file.write_at(call, at) {
            Ok(0) => {
                return Err(Error::new(ErrorKind::WriteZero, format!("the write at {at} took no bytes")));
            }
            Ok(n) if n > offered => {
                return Err(Error::other(format!("the write at {at} took {n} of {offered} bytes")));
            }
            Ok(_) if planted(Bug::ShortWriteIsWhole) => return Ok(()),
            Ok(n) => {
                at = advance(at, n)?;
                IoSlice::advance_slices(&mut bufs, n);
            }
            Err(e) if e.kind() == ErrorKind::Interrupted && !planted(Bug::InterruptedIsFatal) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// [`write_all_at`] for those who do not hold `IoSlice`s.
pub fn write_parts_at(file: &dyn VfsFile, parts: &[&[u8]], offset: u64) -> Result<()> {
    match parts {
        [one] => write_all_at(file, &mut [IoSlice::new(one)], offset),
        _ => write_all_at(file, &mut parts.iter().map(|p| IoSlice::new(p)).collect::<Vec<_>>(), offset),
    }
}

fn advance(offset: u64, by: usize) -> Result<u64> {
    offset
        .checked_add(by as u64)
        .ok_or_else(|| Error::new(ErrorKind::InvalidInput, format!("offset {offset} + {by} is out of range")))
}

#[cfg(test)]
mod tests {
    use super::super::Map;
    use super::*;
    use std::ops::Range;
    use std::sync::{Arc, Mutex};

    /// Takes at most `step` bytes a call, and interrupts every other call.
    #[derive(Debug)]
    struct Stubborn {
        bytes: Mutex<Vec<u8>>,
        step: usize,
        calls: Mutex<(usize, usize)>,
    }

    impl Stubborn {
        fn new(bytes: &[u8], step: usize) -> Stubborn {
            Stubborn { bytes: Mutex::new(bytes.to_vec()), step, calls: Mutex::default() }
        }

        fn turn(&self) -> Result<()> {
            let mut calls = self.calls.lock().unwrap();
            calls.0 += 1;
            if calls.0 % 2 == 1 { Err(ErrorKind::Interrupted.into()) } else { Ok(()) }
        }
    }

    impl VfsFile for Stubborn {
        fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<usize> {
            self.turn()?;
            let bytes = self.bytes.lock().unwrap();
            let rest = bytes.get(offset as usize..).unwrap_or(&[]);
            let n = rest.len().min(buf.len()).min(self.step);
            buf[..n].copy_from_slice(&rest[..n]);
            Ok(n)
        }

        fn write_at(&self, bufs: &[IoSlice<'_>], offset: u64) -> Result<usize> {
            self.turn()?;
            let mut calls = self.calls.lock().unwrap();
            calls.1 = calls.1.max(bufs.len());
            let mut bytes = self.bytes.lock().unwrap();
            assert_eq!(bytes.len() as u64, offset, "resumed elsewhere than at the first missing byte");
            let all: Vec<u8> = bufs.iter().flat_map(|b| b.iter().copied()).collect();
            let n = all.len().min(self.step);
            bytes.extend_from_slice(&all[..n]);
            Ok(n)
        }

        fn allocate(&self, _: u64) -> Result<()> {
            Ok(())
        }
        fn set_len(&self, _: u64) -> Result<()> {
            Ok(())
        }
        fn sync_data(&self) -> Result<()> {
            Ok(())
        }
        fn sync_all(&self) -> Result<()> {
            Ok(())
        }
        fn len(&self) -> Result<u64> {
            Ok(self.bytes.lock().unwrap().len() as u64)
        }
        fn allocated(&self) -> Result<u64> {
            Ok(0)
        }
        fn punch_hole(&self, _: Range<u64>) -> Result<()> {
            Ok(())
        }
        fn drop_cache(&self, _: Range<u64>) -> Result<()> {
            Ok(())
        }
        fn map(&self, _: u64) -> Result<Option<Arc<Map>>> {
            Ok(None)
        }
    }

    #[test]
    fn short_and_interrupted_writes_are_resumed_exactly() {
        for step in 1..12 {
            let file = Stubborn::new(b"", step);
            write_parts_at(&file, &[b"", b"abc", b"", b"", b"defgh", b"i", b""], 0).unwrap();
            assert_eq!(*file.bytes.lock().unwrap(), b"abcdefghi");
        }
    }

    #[test]
    fn a_call_never_has_more_slices_than_the_system_takes() {
        let parts: Vec<Vec<u8>> = (0..3000u32).map(|i| i.to_le_bytes().to_vec()).collect();
        let file = Stubborn::new(b"", 10_000);
        write_parts_at(&file, &parts.iter().map(|p| p.as_slice()).collect::<Vec<_>>(), 0).unwrap();
        assert_eq!(*file.bytes.lock().unwrap(), parts.concat());
        assert_eq!(file.calls.lock().unwrap().1, SLICES_MAX);
    }

    #[test]
    fn nothing_to_write_is_no_call() {
        let file = Stubborn::new(b"", 1);
        write_parts_at(&file, &[], 0).unwrap();
        write_parts_at(&file, &[b"", b""], 0).unwrap();
        assert_eq!(file.calls.lock().unwrap().0, 0);
    }

    #[test]
    fn a_write_that_takes_nothing_is_an_error() {
        let error = write_parts_at(&Stubborn::new(b"", 0), &[b"abc"], 0).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::WriteZero);
    }

    #[test]
    fn reads_stop_at_the_end_or_say_that_it_came_too_early() {
        for step in 1..12 {
            let file = Stubborn::new(b"abcdefghi", step);
            let mut buf = [0; 6];
            read_exact_at(&file, &mut buf, 2).unwrap();
            assert_eq!(&buf, b"cdefgh");
            assert_eq!(read_exact_at(&file, &mut buf, 4).unwrap_err().kind(), ErrorKind::UnexpectedEof);
            assert_eq!(read_up_to(&file, &mut buf, 4).unwrap(), 5);
            assert_eq!(read_up_to(&file, &mut buf, 100).unwrap(), 0);
        }
    }

    #[test]
    fn offsets_that_overflow_are_refused() {
        let file = Stubborn::new(b"", 1);
        assert_eq!(advance(u64::MAX, 1).unwrap_err().kind(), ErrorKind::InvalidInput);
        assert_eq!(read_up_to(&file, &mut [0; 4], u64::MAX).unwrap(), 0);
    }
}
