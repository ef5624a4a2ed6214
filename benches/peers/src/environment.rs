//! Where it is measured.

use crate::log::Result;
use crate::measure::device_of;
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::Path;
use std::process::Command;

/// The machine and its disk.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Environment {
    pub(crate) processor: String,
    pub(crate) cores: usize,
    pub(crate) memory_bytes: u64,
    pub(crate) kernel: String,
    pub(crate) file_system: String,
    pub(crate) device: String,
    /// How many threads could run at the beginning, on average over a minute: 0 on a quiet machine.
    pub(crate) load_before: f64,
    pub(crate) compiler: String,
    /// The commit of raftwood.
    pub(crate) commit: String,
}

impl Environment {
    /// Of this machine, and of the disk that holds `dir`.
    pub(crate) fn here(dir: &Path) -> Result<Environment> {
        let dir = dir.canonicalize()?;
        let cpu = read("/proc/cpuinfo");
        let processor = field(&cpu, "model name").unwrap_or("unknown").to_owned();
        let memory = read("/proc/meminfo");
        let kib = field(&memory, "MemTotal").and_then(|v| v.trim_end_matches(" kB").parse::<u64>().ok());
        Ok(Environment {
            processor,
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            memory_bytes: kib.unwrap_or(0) * 1024,
            kernel: format!(
                "{} {}",
                read("/proc/sys/kernel/ostype").trim(),
                read("/proc/sys/kernel/osrelease").trim()
            ),
            file_system: file_system(&dir),
            device: device(&dir),
            load_before: read("/proc/loadavg").split(' ').next().and_then(|v| v.parse().ok()).unwrap_or(0.0),
            compiler: said("rustc", &["--version"]),
            commit: said("git", &["-C", env!("CARGO_MANIFEST_DIR"), "describe", "--always", "--dirty"]),
        })
    }
}

/// The version of a package that this was built with.
pub(crate) fn version(package: &str) -> String {
    let lock = include_str!("../Cargo.lock");
    let name = format!("name = \"{package}\"");
    let mut lines = lock.lines().skip_while(|line| *line != name);
    let version = lines.nth(1).and_then(|line| line.strip_prefix("version = "));
    version.unwrap_or_default().trim_matches('"').to_owned()
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

fn field<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim())
}

/// What a command prints, or that it says nothing.
fn said(command: &str, arguments: &[&str]) -> String {
    let output = Command::new(command).args(arguments).output();
    let text = output.ok().filter(|o| o.status.success()).map(|o| o.stdout).unwrap_or_default();
    match String::from_utf8_lossy(&text).trim() {
        "" => "unknown".to_owned(),
        text => text.to_owned(),
    }
}

/// Type and options of the file system that holds `dir`, as the system lists its mounts.
fn file_system(dir: &Path) -> String {
    let mounts = read("/proc/self/mounts");
    let of = |line: &str| -> Option<(usize, String)> {
        let mut words = line.split(' ').skip(1);
        let (point, kind, options) = (words.next()?, words.next()?, words.next()?);
        dir.starts_with(point).then(|| (point.len(), format!("{kind} ({options})")))
    };
    let best = mounts.lines().filter_map(of).max_by_key(|(len, _)| *len);
    let mut text = best.map_or("unknown".to_owned(), |(_, text)| text);
    if text.starts_with("ext4") && has_no_journal(dir) {
        text.push_str(", without a journal");
    }
    text
}

/// The kernel has a thread for each journal of ext4, and lists it by its device.
fn has_no_journal(dir: &Path) -> bool {
    let Some(device) = device_of(dir) else { return false };
    let Some(name) = device.file_name().and_then(|name| name.to_str()) else { return false };
    let journals = fs::read_dir("/proc/fs/jbd2").into_iter().flatten().flatten();
    let mut names = journals.map(|entry| entry.file_name().to_string_lossy().into_owned());
    !names.any(|journal| journal.starts_with(&format!("{name}-")))
}

/// The device that holds `dir`: name, size, scheduler, cache.
fn device(dir: &Path) -> String {
    let Some(device) = device_of(dir) else { return "unknown".to_owned() };
    let name = device.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let of = |file: &str| fs::read_to_string(device.join(file)).unwrap_or_default().trim().to_owned();
    let gib = of("size").parse::<u64>().unwrap_or(0) * 512 / (1 << 30);
    let spins = if of("queue/rotational") == "1" { ", rotational" } else { "" };
    format!(
        "{name}, {gib} GiB{spins}, scheduler {}, cache {}, read-ahead {} KiB",
        of("queue/scheduler"),
        of("queue/write_cache"),
        of("queue/read_ahead_kb")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_those_of_the_lock_file() {
        assert!(version("redb").starts_with("4."), "{}", version("redb"));
        assert!(!version("raftwood").is_empty());
        assert_eq!(version("no-such-package"), "");
    }
}
