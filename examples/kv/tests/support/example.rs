//! The programs that the tests start.

use std::path::PathBuf;

/// Cargo builds examples for a test run of everything, and for `--examples`.
pub(crate) fn example(name: &str) -> PathBuf {
    let path = std::env::current_exe().unwrap();
    let path = path.ancestors().nth(2).unwrap().join("examples").join(name);
    assert!(path.exists(), "{} is not built: run `cargo build --examples` first", path.display());
    path
}
