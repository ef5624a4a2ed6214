//! Removes the temporary directory when nobody else can any more.
//!
//! Ctrl-C ends a program without a word, and a kill does so too. So a second process, which Ctrl-C does not
//! reach, holds the other end of a pipe: when the pipe ends, the program has.

use crate::cluster::apart;
use crate::wire::Result;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

/// The arguments of the janitor.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    #[arg(long)]
    pub dir: PathBuf,
}

/// What the janitor is told when the directory is to stay.
const KEEP: &[u8] = b"keep";

/// The nodes end when the program does, and may be writing until then.
const PATIENCE: Duration = Duration::from_secs(20);

/// A directory that goes when this is dropped, or when the process ends without that.
pub struct Temporary {
    dir: PathBuf,
    janitor: Option<ChildStdin>,
}

impl Temporary {
    pub fn new() -> Result<Temporary> {
        let dir = tempfile::Builder::new().prefix("raftwood-kv-").tempdir()?;
        let janitor = apart(&mut Command::new(std::env::current_exe()?))
            .args(["janitor", "--dir"])
            .arg(dir.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?
            .stdin;
        Ok(Temporary { dir: dir.keep(), janitor })
    }

    pub fn path(&self) -> &Path {
        &self.dir
    }

    /// Leaves the directory for somebody to look into.
    pub fn keep(mut self) -> Result<()> {
        if let Some(mut janitor) = self.janitor.take() {
            janitor.write_all(KEEP)?;
        }
        Ok(())
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if self.janitor.is_some() {
            let _ = std::fs::remove_dir_all(&self.dir);
        }
    }
}

/// Waits for the end of the program, and cleans up after it.
pub fn run(args: &Args) -> Result<()> {
    let mut told = Vec::new();
    std::io::stdin().read_to_end(&mut told)?;
    let began = Instant::now();
    while told != KEEP && args.dir.exists() && began.elapsed() < PATIENCE {
        let _ = std::fs::remove_dir_all(&args.dir);
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}
