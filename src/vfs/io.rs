//! Whole reads and writes over calls that may be short or interrupted.
//!
//! The rules, which hold over every implementation of [`VfsFile`] and are tested against a stubborn one:
//!
//! - `Interrupted` is tried again, at the same place: nothing was transferred.
//! - A short write is resumed at exactly the first byte that was not taken: nothing is written twice.
//! - The log is written in steps that end where sectors do ([`write_log_at`]): a crash leaves each of its
//!   sectors whole or as it was, whatever the system took at once.
//! - A write that takes nothing is an error, not a loop. A read that gives nothing is the end of the file.

use super::meaning::again;
use super::{OpenMode, VfsDir, VfsFile};
use crate::limits::SECTOR;
use crate::planted::{Bug, planted};
use std::io::{Error, ErrorKind, IoSlice, Result};

/// Slices in one call: what Linux and the BSDs accept (`IOV_MAX`).
pub const SLICES_MAX: usize = 1024;

/// Fills `buf` from `offset`.
///
/// # Errors
/// `UnexpectedEof` if the file ends before it is full; otherwise the file's.
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
///
/// # Errors
/// The directory's and the file's; `InvalidData` if the file is longer than an address space.
pub fn read_file(dir: &dyn VfsDir, name: &str) -> Result<Vec<u8>> {
    let file = dir.open(name, OpenMode::Read)?;
    let len = usize::try_from(file.len()?)
        .map_err(|_| Error::new(ErrorKind::InvalidData, "the file is too long to be read at once"))?;
    let mut bytes = vec![0; len];
    read_exact_at(&*file, &mut bytes, 0)?;
    Ok(bytes)
}

/// Fills as much of `buf` as the file has from `offset` on, and returns how much that was.
///
/// # Errors
/// The file's, but for `Interrupted`.
pub fn read_up_to(file: &dyn VfsFile, buf: &mut [u8], offset: u64) -> Result<usize> {
    let mut done = 0;
    while done < buf.len() {
        let at = advance(offset, done)?;
        match again(|| file.read_at(&mut buf[done..], at))? {
            0 => break,
            n => done += n.min(buf.len() - done),
        }
    }
    Ok(done)
}

/// Writes all slices, back to back, from `offset` on. The slices are used up: what is left in them is of no
/// use to the caller.
///
/// # Errors
/// The file's, but for `Interrupted`; `WriteZero` if it takes no bytes. What the range holds is unknown then.
pub fn write_all_at(file: &dyn VfsFile, mut bufs: &mut [IoSlice<'_>], offset: u64) -> Result<()> {
    let mut at = offset;
    // Empty slices are skipped, so that a call never consists of nothing else and "took nothing"
    // means a fault.
    IoSlice::advance_slices(&mut bufs, 0);
    while !bufs.is_empty() {
        let n = write_some(file, &bufs[..bufs.len().min(SLICES_MAX)], at)?;
        at = advance(at, n)?;
        IoSlice::advance_slices(&mut bufs, n);
    }
    Ok(())
}

/// One write, as short as the system makes it. The slices are not all empty.
fn write_some(file: &dyn VfsFile, bufs: &[IoSlice<'_>], at: u64) -> Result<usize> {
    let offered: usize = bufs.iter().map(|b| b.len()).sum();
    match again(|| file.write_at(bufs, at))? {
        0 => Err(Error::new(ErrorKind::WriteZero, format!("the write at {at} took no bytes"))),
        n if n > offered => Err(Error::other(format!("the write at {at} took {n} of {offered} bytes"))),
        n => Ok(n),
    }
}

/// Writes records, one slice after the other, from `offset` on, so that no crash leaves half a sector of them
/// with something after it: that would look like rot in what may have been acknowledged. More slices than a
/// call takes are split where a sector ends. Where the system stops within one, the rest of that sector is
/// written and synced before anything that follows it.
///
/// # Errors
/// As [`write_all_at`].
pub fn write_log_at(file: &dyn VfsFile, mut bufs: &mut [IoSlice<'_>], offset: u64) -> Result<()> {
    let mut at = offset;
    IoSlice::advance_slices(&mut bufs, 0);
    while !bufs.is_empty() {
        let n = match bufs.len() <= SLICES_MAX {
            true => write_some(file, bufs, at)?,
            false => write_some(file, &up_to_a_sector(&bufs[..SLICES_MAX], at), at)?,
        };
        at = advance(at, n)?;
        IoSlice::advance_slices(&mut bufs, n);
        let rest = (at.next_multiple_of(SECTOR) - at) as usize;
        if rest > 0 && !bufs.is_empty() && !planted(Bug::SectorLeftInHalves) {
            let sector: Vec<u8> = bufs.iter().flat_map(|b| b.iter().copied()).take(rest).collect();
            write_all_at(file, &mut [IoSlice::new(&sector)], at)?;
            file.sync_data()?;
            at = advance(at, sector.len())?;
            IoSlice::advance_slices(&mut bufs, sector.len());
        }
    }
    Ok(())
}

/// As much of the slices as ends where a sector does; all of them where that is nothing.
fn up_to_a_sector<'a>(bufs: &'a [IoSlice<'_>], at: u64) -> Vec<IoSlice<'a>> {
    let len: usize = bufs.iter().map(|b| b.len()).sum();
    let beyond = ((at + len as u64) % SECTOR) as usize;
    let mut left = if beyond < len { len - beyond } else { len };
    let mut whole = Vec::with_capacity(bufs.len());
    for buf in bufs {
        let part = &buf[..buf.len().min(left)];
        left -= part.len();
        whole.push(IoSlice::new(part));
    }
    whole
}

/// [`write_all_at`] for those who do not hold `IoSlice`s.
///
/// # Errors
/// As [`write_all_at`].
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
    use super::super::{Map, Reserved};
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

        fn allocate(&self, _: u64) -> Result<Reserved> {
            Ok(Reserved::Nothing)
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

    /// A torn record was called suspect after a crash alone. A write had stopped within a sector; its rest
    /// and the sectors after it went out by a second one, of which the crash left all but the first
    /// sector: half a sector amidst whole ones, as rot looks. The same without a short write: a group of
    /// more parts than one call takes.
    #[cfg(feature = "sim")]
    #[test]
    fn a_crash_leaves_no_sector_in_halves_with_something_after_it() {
        use crate::vfs::Vfs;
        use crate::vfs::sim::{self, Effect, Fault, LossPolicy, Moment, OpKind, SimVfs};
        use std::path::Path;

        type Write = fn(&dyn VfsFile, &[&[u8]], u64) -> Result<()>;
        let halves = |write: Write, short: Option<usize>, parts: &[&[u8]]| {
            let vfs = SimVfs::new(1);
            vfs.create_dir_all(Path::new("/d")).unwrap();
            let file = vfs.open_dir(Path::new("/d")).unwrap().open("f", OpenMode::CreateNew).unwrap();
            file.allocate(4096).unwrap();
            vfs.settle();
            if let Some(n) = short {
                vfs.set_fault(Fault::new(Effect::Short(n)).on(OpKind::Write));
            }
            vfs.snapshot_every(Some(Moment::Before));
            write(&*file, parts, 100).unwrap();
            let mut snapshots = vfs.take_snapshots();
            vfs.snapshot_every(None);
            snapshots.push(vfs.freeze());
            let len: usize = parts.iter().map(|p| p.len()).sum();
            let is_halved = |bytes: &[u8]| {
                let written = &bytes[100..100 + len];
                let stops =
                    |i: &usize| !(100 + i).is_multiple_of(512) && (written[i - 1], written[*i]) == (7, 0);
                (1..len).find(stops).is_some_and(|i| written[i..].contains(&7))
            };
            let subsets = |s: &sim::Snapshot| 0..1u64 << s.pending_count();
            let after =
                |s: &sim::Snapshot, subset| s.crash(LossPolicy::Subset(subset)).read_file("/d/f").unwrap();
            snapshots
                .iter()
                .map(|s| subsets(s).filter(|subset| is_halved(&after(s, *subset))).count())
                .sum::<usize>()
        };
        let many = vec![&[7u8][..]; SLICES_MAX + 700];
        let whole = [7u8; 1700];
        let cases = (1..whole.len()).step_by(41).map(|n| (Some(n), vec![&whole[..]])).chain([(None, many)]);
        let log: Write = |file, parts, offset| {
            write_log_at(file, &mut parts.iter().map(|part| IoSlice::new(part)).collect::<Vec<_>>(), offset)
        };
        let mut without_care = 0;
        for (short, parts) in cases {
            assert_eq!(halves(log, short, &parts), 0, "short by {short:?}");
            without_care += halves(write_parts_at, short, &parts);
        }
        assert!(without_care > 0, "this test sees nothing");
    }
}
