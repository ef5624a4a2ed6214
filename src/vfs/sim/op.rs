//! One call of one of the traits, numbered and described.

use std::fmt;
use std::path::PathBuf;

/// Which call.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[allow(missing_docs, reason = "each is named after its call")]
pub enum OpKind {
    OpenDir,
    CreateDirAll,
    List,
    /// `open` of a file that must exist.
    Open,
    /// `open` with `CreateNew`.
    Create,
    Remove,
    /// Of a rename that replaces, and of one that refuses to.
    Rename,
    HardLink,
    /// `sync` of a directory.
    SyncDir,
    /// `lock` of a directory.
    LockDir,
    /// `lock_file`.
    Lock,
    FreeSpace,
    IdOf,
    Read,
    Write,
    Allocate,
    SetLen,
    SyncData,
    SyncAll,
    Len,
    DropCache,
    Map,
    Id,
}

impl OpKind {
    /// Whether the call can change what a crash leaves: the points at which a crash is worth a look.
    pub fn changes_disk(self) -> bool {
        use OpKind::*;
        match self {
            CreateDirAll | Create | Remove | Rename | HardLink | SyncDir | Lock | Write | Allocate
            | SetLen | SyncData | SyncAll => true,
            OpenDir | List | Open | LockDir | FreeSpace | IdOf | Read | Len | DropCache | Map | Id => false,
        }
    }

    /// Whether the call makes something durable.
    pub fn is_sync(self) -> bool {
        matches!(self, OpKind::SyncData | OpKind::SyncAll | OpKind::SyncDir)
    }

    fn name(self) -> &'static str {
        match self {
            OpKind::CreateDirAll => "create_dir_all",
            OpKind::OpenDir => "open_dir",
            OpKind::List => "list",
            OpKind::Open => "open",
            OpKind::Create => "create",
            OpKind::Remove => "remove",
            OpKind::Rename => "rename",
            OpKind::HardLink => "hard_link",
            OpKind::SyncDir => "sync_dir",
            OpKind::LockDir => "lock_dir",
            OpKind::Lock => "lock",
            OpKind::FreeSpace => "free_space",
            OpKind::IdOf => "id_of",
            OpKind::Read => "read",
            OpKind::Write => "write",
            OpKind::Allocate => "allocate",
            OpKind::SetLen => "set_len",
            OpKind::SyncData => "sync_data",
            OpKind::SyncAll => "sync_all",
            OpKind::Len => "len",
            OpKind::DropCache => "drop_cache",
            OpKind::Map => "map",
            OpKind::Id => "id",
        }
    }
}

impl fmt::Display for OpKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One call. Its `Display` is a line of the transcript: `write /db/a 512..1024`, `rename /db/a -> /db/b`,
/// `sync_data /db/a = Input/output error (os error 5)`.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Op {
    /// Counted from 1, over all handles and threads.
    pub number: u64,
    /// Which call.
    pub kind: OpKind,
    /// The file or directory; of an open file, the name it was given last.
    pub path: PathBuf,
    /// The second path of a rename or link.
    pub to: Option<PathBuf>,
    /// The bytes concerned: of a read or write, those asked for; of a length, `0..length`.
    pub range: Option<(u64, u64)>,
    /// What it failed with.
    pub error: Option<String>,
}

impl Op {
    pub(super) fn new(kind: OpKind) -> Op {
        Op { number: 0, kind, path: PathBuf::new(), to: None, range: None, error: None }
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.path.display())?;
        if let Some(to) = &self.to {
            write!(f, " -> {}", to.display())?;
        }
        if let Some((start, end)) = self.range {
            write!(f, " {start}..{end}")?;
        }
        if let Some(error) = &self.error {
            write!(f, " = {error}")?;
        }
        Ok(())
    }
}
