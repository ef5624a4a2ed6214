//! Tests that need a process of their own: this program runs itself again, with one test.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const ROLE: &str = "RAFTWOOD_TEST_ROLE";
const DIR: &str = "RAFTWOOD_TEST_DIR";

/// Whether this process is the first one, in which the test of this name (`file::test`) has now run in
/// another, alone, and passed. In that other process it is false.
#[cfg(feature = "sim")]
pub(crate) fn ran_alone(test: &str) -> bool {
    if std::env::var_os(ROLE).is_some() {
        return false;
    }
    // What the other one prints is seen as it would be without it.
    let said = passes(this_program().args(["--exact", "--nocapture", test]).env(ROLE, "alone"));
    println!("{said}");
    true
}

/// Runs the test of this name in another process, in a role, and sees it pass.
///
/// A process in which no test ran is a success too: one that was renamed on one side only went
/// on forever, showing nothing.
pub(crate) fn second_process(test: &str, role: &str, dir: &Path) {
    comes_to_its_part(this_program().args(["--exact", test]), role, dir);
}

/// As [`second_process`], with a limit of descriptors.
#[cfg(target_os = "linux")]
pub(crate) fn with_descriptors_max(test: &str, limit: &str, dir: &Path) {
    let script = "ulimit -n \"$1\" && exec \"$0\" --exact \"$2\"";
    let mut limited = Command::new("sh");
    limited.arg("-c").arg(script).arg(std::env::current_exe().unwrap()).args([limit, test]);
    comes_to_its_part(&mut limited, "limited", dir);
}

/// The directory, in the second process. It leaves word that it was here.
pub(crate) fn role() -> Option<PathBuf> {
    let (role, dir) = (std::env::var(ROLE).ok()?, PathBuf::from(std::env::var_os(DIR)?));
    std::fs::write(dir.with_extension("ran"), role).unwrap();
    Some(dir)
}

fn this_program() -> Command {
    Command::new(std::env::current_exe().unwrap())
}

/// It ran the part that it has in this role, and did not take itself for the first process.
fn comes_to_its_part(command: &mut Command, role: &str, dir: &Path) {
    let marker = dir.with_extension("ran");
    passes(command.env(ROLE, role).env(DIR, dir));
    assert_eq!(std::fs::read_to_string(&marker).unwrap(), role);
    std::fs::remove_file(&marker).unwrap();
}

/// What it said.
fn passes(command: &mut Command) -> String {
    let out = command.stderr(Stdio::inherit()).output().unwrap();
    let said = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(out.status.success(), "{said}");
    assert!(said.contains("running 1 test\n"), "it ran another number of tests than one: {said}");
    said
}
