//! What the system says of this process, its device, and a directory.

use crate::log::Result;
use hdrhistogram::Histogram;
use rustix::time::{ClockId, clock_gettime};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

/// Processor time of this process, user and system, all threads.
pub(crate) fn cpu() -> Duration {
    let spent = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(u64::try_from(spent.tv_sec).unwrap_or(0), u32::try_from(spent.tv_nsec).unwrap_or(0))
}

/// Bytes that went to and came from devices.
#[derive(Clone, Copy, Default)]
pub(crate) struct Io {
    /// Written by this process. A file system with large folios counts a folio as a whole for every small
    /// write to it: then this is far more than what goes to the device.
    pub(crate) written: u64,
    /// Read by this process.
    pub(crate) read: u64,
    /// Written to the device by everybody, where the system counts it.
    pub(crate) device: Option<u64>,
}

impl Io {
    /// What it is now; of the device that holds `dir`.
    pub(crate) fn now(dir: &Path) -> Result<Io> {
        let text = fs::read_to_string("/proc/self/io")?;
        let field = |name: &str| -> u64 {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|value| value.trim().parse().ok()).unwrap_or(0)
        };
        Ok(Io { written: field("write_bytes:"), read: field("read_bytes:"), device: device_written(dir) })
    }
}

fn device_written(dir: &Path) -> Option<u64> {
    let stat = fs::read_to_string(device_of(dir)?.join("stat")).ok()?;
    let sectors: u64 = stat.split_whitespace().nth(6)?.parse().ok()?;
    Some(sectors * 512)
}

/// Where the system describes the device that holds `dir`.
pub(crate) fn device_of(dir: &Path) -> Option<std::path::PathBuf> {
    let dev = fs::metadata(dir).ok()?.dev();
    let path = format!("/sys/dev/block/{}:{}", rustix::fs::major(dev), rustix::fs::minor(dev));
    fs::canonicalize(path).ok()
}

/// Memory of this process that is no file's.
pub(crate) fn anonymous_memory() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let kib = line.and_then(|value| value.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kib.map_or(0, |kib| kib * 1024)
}

/// Bytes on the device of everything in a directory.
pub(crate) fn disk_bytes(dir: &Path) -> u64 {
    let mut sum = 0;
    for_each_file(dir, &mut |path| {
        sum += fs::symlink_metadata(path).map_or(0, |meta| meta.blocks() * 512);
    });
    sum
}

/// Everything that was written to the file system of `dir` goes to the device.
pub(crate) fn settle(dir: &Path) -> Result<()> {
    Ok(rustix::fs::syncfs(fs::File::open(dir)?)?)
}

/// Drops what the system has cached of the files in a directory, as far as nobody has mapped it.
pub(crate) fn drop_cache(dir: &Path) -> Result<()> {
    settle(dir)?;
    for_each_file(dir, &mut |path| {
        if let Ok(file) = fs::File::open(path) {
            // Advice: what is not taken shows as a read that is too fast.
            let _ = rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed);
        }
    });
    Ok(())
}

fn for_each_file(dir: &Path, seen: &mut impl FnMut(&Path)) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => for_each_file(&path, seen),
            Ok(kind) if kind.is_file() => seen(&path),
            _ => {}
        }
    }
}

/// Latencies, from a nanosecond to ten minutes, to three digits.
pub(crate) fn histogram() -> Result<Histogram<u64>> {
    Ok(Histogram::new_with_max(600_000_000_000, 3)?)
}

/// A latency, as it is recorded.
pub(crate) fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
