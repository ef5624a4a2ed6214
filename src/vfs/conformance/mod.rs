//! Whether an implementation of [`Vfs`] keeps the contract that the engine relies on.
//!
//! # The problem
//!
//! A store over a file system of one's own (encrypted, in memory, counted, over a network) is as safe as that
//! is. What the three traits promise stands in their documentation, sentence by sentence; here each sentence
//! is a check with a name. The first one that does not hold ends the run and says in words what was expected
//! and what was found.
//!
//! ```text
//!  check(vfs, dir) ──▶ dir/<name of the check>/   for each check, made by the Vfs itself
//!                        │
//!                        └─ bytes     reads, writes, lengths, reservations, mappings
//!                           names     names, handles, links, locks, identities
//!                           lasting   what a power cut leaves; only with Means::power_cut
//! ```
//!
//! # What is not checked
//!
//! - That an error of the device is reported on every handle, and that the implementation repeats what a
//!   signal interrupted: nobody can be asked to fail. Faults of a [simulated disk](super::sim) below it do
//!   that.
//! - That no order and no atomicity beyond a sector is needed: that is the engine's part.
//! - Links that are symbolic, unless [`Means::link`] can make one, and power cuts, unless
//!   [`Means::power_cut`] can make one: no [`Vfs`] has calls for them.

mod bytes;
mod lasting;
mod names;

use super::{OpenMode, Vfs, VfsDir, VfsFile, io};
use std::fmt;
use std::io::{Error, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Checks a file system, with what can be done through the traits alone.
///
/// `dir` is a directory that may be missing and is otherwise empty. Each check works in a directory of its
/// own in it, and what it made stays: a [`Vfs`] cannot remove directories. That is a few MiB at most.
///
/// # Errors
///
/// The first check that does not hold.
///
/// # Example
///
/// ```
/// use raftwood::vfs::{conformance, sim::SimVfs};
/// use std::path::Path;
///
/// let report = conformance::check(&SimVfs::new(1), Path::new("/scratch"))?;
/// assert!(report.held.contains(&"create_new_is_exclusive"));
/// // What it could not try or does not offer, and why.
/// for (name, why) in &report.skipped {
///     println!("{name}: {why}");
/// }
/// # Ok::<(), conformance::Failure>(())
/// ```
pub fn check(vfs: &dyn Vfs, dir: &Path) -> Result<Report, Failure> {
    check_with(vfs, dir, &Means::default())
}

/// The same, with means that lie outside of the traits.
///
/// # Errors
///
/// The first check that does not hold.
///
/// # Example
///
/// What a power cut leaves of a simulated disk that loses all that was not synced:
///
/// ```
/// use raftwood::vfs::conformance::{self, Means};
/// use raftwood::vfs::sim::{LossPolicy, SimVfs};
/// use std::{path::Path, sync::Arc};
///
/// let disk = SimVfs::new(1);
/// let means = Means { power_cut: Some(&|| Arc::new(disk.crash(LossPolicy::LoseAll))), ..Means::default() };
/// let report = conformance::check_with(&disk, Path::new("/scratch"), &means)?;
/// assert!(report.held.contains(&"synced_bytes_survive"));
/// # Ok::<(), conformance::Failure>(())
/// ```
pub fn check_with(vfs: &dyn Vfs, dir: &Path, means: &Means<'_>) -> Result<Report, Failure> {
    let mut report = Report::default();
    for check in bytes::CHECKS.iter().chain(names::CHECKS).chain(lasting::CHECKS) {
        let bench = Bench { vfs, means, path: dir.join(check.name) };
        match bench.empty().and_then(|dir| (check.run)(&bench, &*dir)) {
            Ok(Verdict::Held) => report.held.push(check.name),
            Ok(Verdict::Skipped(why)) => report.skipped.push((check.name, why)),
            Err(difference) => {
                return Err(Failure { check: check.name, promise: check.promise, difference });
            }
        }
    }
    Ok(report)
}

/// Makes a symbolic link to the first path at the second.
pub type MakeLink<'a> = dyn Fn(&Path, &Path) -> std::io::Result<()> + 'a;

/// What a check may need and no [`Vfs`] can do.
#[derive(Default)]
pub struct Means<'a> {
    /// A call that makes a symbolic link: `link(target, at)`, where `at` lies below the directory that is
    /// checked, as `std::os::unix::fs::symlink` does for [`OsVfs`](super::OsVfs).
    pub link: Option<&'a MakeLink<'a>>,
    /// What a power cut now would leave, as the same kind of file system. What is checked goes on afterwards.
    pub power_cut: Option<&'a dyn Fn() -> Arc<dyn Vfs>>,
}

impl fmt::Debug for Means<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Means")
            .field("link", &self.link.is_some())
            .field("power_cut", &self.power_cut.is_some())
            .finish()
    }
}

/// What was checked.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
#[non_exhaustive]
pub struct Report {
    /// The names of the checks that held, in their order.
    pub held: Vec<&'static str>,
    /// Those that were not tried, and why: the means are missing, or the contract leaves it open and this
    /// file system does not offer it.
    pub skipped: Vec<(&'static str, String)>,
}

/// A promise that does not hold. Displays the check, the promise, and the first difference.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Failure {
    check: &'static str,
    promise: &'static str,
    difference: String,
}

impl Failure {
    /// The name of the check, which is the rule.
    pub fn check(&self) -> &'static str {
        self.check
    }

    /// The sentence of the contract.
    pub fn promise(&self) -> &'static str {
        self.promise
    }

    /// What was expected and what was found.
    pub fn difference(&self) -> &str {
        &self.difference
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} (the contract: {})", self.check, self.difference, self.promise)
    }
}

impl std::error::Error for Failure {}

/// One sentence of the contract.
struct Check {
    name: &'static str,
    promise: &'static str,
    run: fn(&Bench<'_>, &dyn VfsDir) -> Checked,
}

/// What a check that found no difference came to.
enum Verdict {
    Held,
    Skipped(String),
}

/// Or else the first difference.
type Checked = Result<Verdict, String>;

/// What a check works with.
struct Bench<'a> {
    vfs: &'a dyn Vfs,
    means: &'a Means<'a>,
    /// Its own directory.
    path: PathBuf,
}

impl Bench<'_> {
    /// The check's directory, made and found empty.
    fn empty(&self) -> Result<Arc<dyn VfsDir>, String> {
        let dir = done("create_dir_all", self.vfs.create_dir_all(&self.path))?;
        match done("list", dir.list())?.first() {
            None => Ok(dir),
            Some(entry) => Err(format!(
                "{} holds {:?} from the start; check a file system in an empty directory",
                self.path.display(),
                entry.name
            )),
        }
    }

    /// The check's directory, looked up once more.
    fn again(&self) -> Result<Arc<dyn VfsDir>, String> {
        done("open_dir", self.vfs.open_dir(&self.path))
    }
}

/// A call that has to succeed.
fn done<T>(call: &str, result: std::io::Result<T>) -> Result<T, String> {
    result.map_err(|e| format!("{call} failed: {e} ({:?})", e.kind()))
}

/// A call that has to fail, with this kind.
fn refused<T>(call: &str, result: std::io::Result<T>, kind: ErrorKind) -> Result<(), String> {
    match failed(call, result)? {
        e if e.kind() == kind => Ok(()),
        e => Err(format!("{call} failed with {:?} ({e}), not with {kind:?}", e.kind())),
    }
}

/// A call that has to fail.
fn failed<T>(call: &str, result: std::io::Result<T>) -> Result<Error, String> {
    result.err().ok_or_else(|| format!("{call} succeeded, and has to be refused"))
}

/// A new file with this content.
fn file(dir: &dyn VfsDir, name: &str, content: &[u8]) -> Result<Arc<dyn VfsFile>, String> {
    let file = done("open with CreateNew", dir.open(name, OpenMode::CreateNew))?;
    write(&*file, content, 0)?;
    Ok(file)
}

fn write(file: &dyn VfsFile, bytes: &[u8], offset: u64) -> Result<(), String> {
    done("write_at", io::write_parts_at(file, &[bytes], offset))
}

/// That a file holds exactly this: by its length, and by a read that goes beyond it.
fn holds(what: &str, file: &dyn VfsFile, content: &[u8]) -> Result<(), String> {
    let len = done("len", file.len())?;
    if len != content.len() as u64 {
        return Err(format!("{what}: len is {len}, not {}", content.len()));
    }
    let mut found = vec![0xEE; content.len() + 700];
    let read = done("read_at", io::read_up_to(file, &mut found, 0))?;
    if read != content.len() {
        return Err(format!("{what}: a read from 0 on gave {read} bytes of {}", content.len()));
    }
    match content.iter().zip(&found).position(|(expected, found)| expected != found) {
        None => Ok(()),
        Some(at) => Err(format!("{what}: byte {at} is {:#04x}, not {:#04x}", found[at], content[at])),
    }
}

/// That a name stands for a file that holds exactly this.
fn name_holds(dir: &dyn VfsDir, name: &str, content: &[u8]) -> Result<(), String> {
    let file = done(&format!("open of {name:?}"), dir.open(name, OpenMode::Read))?;
    holds(&format!("the file {name:?}"), &*file, content)
}

/// That nothing has this name.
fn nothing_at(dir: &dyn VfsDir, name: &str) -> Result<(), String> {
    refused(&format!("open of {name:?}"), dir.open(name, OpenMode::Read), ErrorKind::NotFound)
}

/// Bytes of which no two neighbours, and no two sectors, are the same.
fn pattern(seed: u8, len: usize) -> Vec<u8> {
    (0..len).map(|i| (i as u8).wrapping_mul(7).wrapping_add((i >> 8) as u8).wrapping_add(seed) | 1).collect()
}
