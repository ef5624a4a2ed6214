//! Kills at a chosen system call: strace runs the writing process and injects the signal as the call begins.

use std::ffi::OsStr;
use std::process::{Command, Stdio};

/// A call at which the process can be killed, by what it is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Call {
    /// Writes of records.
    Pwritev,
    /// Writes of headers, footers and zeros.
    Pwrite,
    /// The sync before every acknowledgement, and those of headers.
    Fdatasync,
    /// Syncs of directories and of whole files.
    Fsync,
    Rename,
    Unlink,
    Fallocate,
    Open,
}

impl Call {
    pub(crate) const ALL: [Call; 8] = {
        use Call::*;
        [Pwritev, Pwrite, Fdatasync, Fsync, Rename, Unlink, Fallocate, Open]
    };

    /// As it is reported.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Call::Pwritev => "pwritev",
            Call::Pwrite => "pwrite",
            Call::Fdatasync => "fdatasync",
            Call::Fsync => "fsync",
            Call::Rename => "rename",
            Call::Unlink => "unlink",
            Call::Fallocate => "fallocate",
            Call::Open => "open",
        }
    }

    /// Its names in the kernel, on any machine: strace skips those with a question mark that it
    /// does not know.
    fn set(self) -> &'static str {
        match self {
            Call::Pwritev => "?pwritev,?pwritev2",
            Call::Pwrite => "?pwrite64",
            Call::Fdatasync => "?fdatasync",
            Call::Fsync => "?fsync",
            Call::Rename => "?rename,?renameat,?renameat2",
            Call::Unlink => "?unlink,?unlinkat",
            Call::Fallocate => "?fallocate",
            Call::Open => "?open,?openat",
        }
    }

    /// The n-th call of a thread is chosen below this: about as many as come in the first tenths of a second,
    /// those of the recovery among them.
    pub(crate) fn often(self) -> u64 {
        match self {
            Call::Pwritev | Call::Fdatasync => 200,
            Call::Pwrite | Call::Open => 60,
            Call::Fsync | Call::Rename | Call::Unlink => 40,
            Call::Fallocate => 4,
        }
    }
}

/// A strace that works here.
#[derive(Debug)]
pub(crate) struct Strace(());

impl Strace {
    /// `None` where there is none, or where processes must not be traced.
    pub(crate) fn find() -> Option<Strace> {
        let mut probe = Command::new("strace");
        probe.args(["-f", "-o", "/dev/null", "-e", "inject=?fdatasync:signal=SIGKILL:when=1", "true"]);
        probe.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        probe.status().is_ok_and(|status| status.success()).then_some(Strace(()))
    }

    /// A command that runs `program`, and kills it as the first of its threads begins its n-th such call.
    pub(crate) fn kill_at(&self, call: Call, nth: u64, program: &OsStr) -> Command {
        let mut command = Command::new("strace");
        command.args(["-f", "-qq", "-o", "/dev/null", "-e"]).arg(format!("trace={}", call.set()));
        command.arg("-e").arg(format!("inject={}:signal=SIGKILL:when={nth}", call.set()));
        command.arg(program);
        command
    }
}
