//! The files of a store on a simulated disk: finding what is in them, and harming it.

use raftwood::vfs::sim::SimVfs;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Files with their bytes.
pub(crate) type Files = BTreeMap<PathBuf, Vec<u8>>;

pub(crate) fn files(vfs: &SimVfs) -> Files {
    vfs.list().into_iter().map(|(path, _)| (path.clone(), vfs.read_file(&path).unwrap())).collect()
}

/// Whether its name ends so: `log`, `cold`, `foot`, `ckpt`, `free`, `tmp`.
pub(crate) fn is_a(path: &Path, kind: &str) -> bool {
    path.extension().is_some_and(|e| e == kind)
}

/// All of a kind, in the order of their names.
pub(crate) fn of_kind(vfs: &SimVfs, kind: &str) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = vfs.list().into_iter().map(|(path, _)| path).collect();
    found.retain(|path| is_a(path, kind));
    found.sort();
    found
}

#[track_caller]
pub(crate) fn newest(vfs: &SimVfs, kind: &str) -> PathBuf {
    of_kind(vfs, kind).pop().unwrap()
}

/// Bytes of all files.
pub(crate) fn bytes_of(vfs: &SimVfs) -> u64 {
    vfs.list().iter().map(|(_, len)| len).sum()
}

/// Where these bytes begin among others.
pub(crate) fn position(bytes: &[u8], wanted: &[u8]) -> Option<u64> {
    bytes.windows(wanted.len()).position(|window| window == wanted).map(|at| at as u64)
}

/// The first file, by name, in which these bytes stand, and where.
#[track_caller]
pub(crate) fn find(vfs: &SimVfs, wanted: &[u8]) -> (PathBuf, u64) {
    let mut found =
        files(vfs).into_iter().filter_map(|(path, bytes)| Some((path, position(&bytes, wanted)?)));
    found.next().unwrap()
}

/// A record of a log file.
pub(crate) struct Record {
    pub(crate) at: u64,
    /// Whether it holds a batch, and not a watermark alone.
    pub(crate) is_batch: bool,
    /// Whether it holds copies of what other records' descriptions say.
    pub(crate) has_copies: bool,
    /// Bytes of its description, which follows its header.
    pub(crate) description: u64,
}

pub(crate) const RECORD_HEADER: u64 = 64;

/// The records of a log file, up to the first bytes that are none.
pub(crate) fn records(bytes: &[u8]) -> Vec<Record> {
    let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
    let (mut at, mut found) = (4096, Vec::new());
    while bytes[at..at + 4] == [0xd7, b'r', b'e', b'c'] {
        let (description, payload) = (word(at + 16), word(at + 20));
        let (kind, description_len) = (bytes[at + 28], description as u64);
        let (is_batch, has_copies) = (kind == 1, kind == 5);
        found.push(Record { at: at as u64, is_batch, has_copies, description: description_len });
        at += (RECORD_HEADER as usize + description + payload).next_multiple_of(8);
    }
    found
}

/// Flips a bit of the byte there: rot that can be mended where anything can.
#[track_caller]
pub(crate) fn rot(vfs: &SimVfs, path: impl AsRef<Path>, at: u64) {
    vfs.flip_bit(path.as_ref(), at * 8).unwrap();
}

/// Changes so many bytes: rot that nothing can mend.
#[track_caller]
pub(crate) fn ruin(vfs: &SimVfs, path: impl AsRef<Path>, at: u64, len: usize) {
    let bytes = vfs.read_file(path.as_ref()).unwrap();
    let ruined: Vec<u8> = bytes[at as usize..at as usize + len].iter().map(|b| b ^ 0xa7).collect();
    vfs.write_bytes(path.as_ref(), at, &ruined).unwrap();
}

/// Wipes all copies of descriptions, in the logs and in the mark: what is harmed next is all that there was.
pub(crate) fn wipe_copies(vfs: &SimVfs) {
    for log in of_kind(vfs, "log") {
        let lists = records(&vfs.read_file(&log).unwrap()).into_iter().filter(|r| r.has_copies);
        lists.for_each(|r| wipe(vfs, &log, r.at + RECORD_HEADER, r.description as usize));
    }
    for (mark, _) in vfs.list().into_iter().filter(|(path, _)| path.ends_with("MARK")) {
        [0, 4096].into_iter().for_each(|slot| wipe(vfs, &mark, slot + 256, 4096 - 256));
    }
}

/// Writes zeros over so many bytes.
#[track_caller]
pub(crate) fn wipe(vfs: &SimVfs, path: impl AsRef<Path>, at: u64, len: usize) {
    vfs.write_bytes(path.as_ref(), at, &vec![0; len]).unwrap();
}

/// Removes all files of a kind.
#[track_caller]
pub(crate) fn remove_all(vfs: &SimVfs, kind: &str) {
    of_kind(vfs, kind).iter().for_each(|path| vfs.remove_file(path).unwrap());
}
