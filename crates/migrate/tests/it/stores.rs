//! Directories as files.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

/// Every file of a directory, with its bytes.
pub(crate) fn bytes_of(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let files = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
    files.map(|file| (file.file_name().into_string().unwrap(), fs::read(file.path()).unwrap())).collect()
}

/// A copy of a directory of files.
pub(crate) fn copy(dir: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for (name, bytes) in bytes_of(dir) {
        fs::write(to.join(name), bytes).unwrap();
    }
}

/// The last of raft-engine's files with this ending.
pub(crate) fn last(dir: &Path, ending: &str) -> std::path::PathBuf {
    let name = bytes_of(dir).into_keys().rfind(|name| name.ends_with(ending));
    dir.join(name.unwrap())
}

/// The program, to be run.
pub(crate) fn migrate<const N: usize>(args: [&str; N], src: &Path, dst: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_raftwood-migrate"));
    command.args(args).args([src, dst]).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}
