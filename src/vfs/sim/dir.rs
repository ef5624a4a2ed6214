//! One directory: the names as cached, as durable, and the operations in between.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// A file's number.
pub(super) type Ino = u64;

/// The names of a directory. Shared until changed, so that a copy is one count.
pub(super) type Names = Arc<BTreeMap<Arc<str>, Ino>>;

/// One operation on a directory that a crash may undo on its own, but never by half.
#[derive(Clone, Debug)]
pub(super) enum DirChange {
    Create { name: Arc<str>, ino: Ino },
    Link { name: Arc<str>, ino: Ino },
    Remove { name: Arc<str>, ino: Ino },
    Rename { from: Arc<str>, to: Arc<str>, ino: Ino },
}

impl DirChange {
    /// Applies the change to names among which earlier ones may be missing: a removal takes only
    /// the file that it was meant for, and a rename that survives gives the file its new name even
    /// if it never had the old one.
    pub(super) fn apply(&self, names: &mut Names) {
        let names = Arc::make_mut(names);
        let take = |names: &mut BTreeMap<Arc<str>, Ino>, name: &Arc<str>, ino: Ino| {
            if names.get(name) == Some(&ino) {
                names.remove(name);
            }
        };
        match self {
            DirChange::Create { name, ino } | DirChange::Link { name, ino } => {
                names.insert(Arc::clone(name), *ino);
            }
            DirChange::Remove { name, ino } => take(names, name, *ino),
            DirChange::Rename { from, to, ino } => {
                take(names, from, *ino);
                names.insert(Arc::clone(to), *ino);
            }
        }
    }

    pub(super) fn ino(&self) -> Ino {
        match self {
            DirChange::Create { ino, .. }
            | DirChange::Link { ino, .. }
            | DirChange::Remove { ino, .. }
            | DirChange::Rename { ino, .. } => *ino,
        }
    }
}

impl fmt::Display for DirChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DirChange::Create { name, .. } => write!(f, "create {name}"),
            DirChange::Link { name, .. } => write!(f, "link {name}"),
            DirChange::Remove { name, .. } => write!(f, "remove {name}"),
            DirChange::Rename { from, to, .. } => write!(f, "rename {from} to {to}"),
        }
    }
}

/// A directory of files. Directories inside it are kept by the disk, under their whole path.
#[derive(Clone, Debug, Default)]
pub(super) struct Dir {
    pub(super) cached: Names,
    pub(super) durable: Names,
    /// In the order made; the first number is the disk's count of changes.
    pub(super) pending: Vec<(u64, DirChange)>,
}

impl Dir {
    pub(super) fn change(&mut self, seq: &mut u64, change: DirChange) {
        change.apply(&mut self.cached);
        *seq += 1;
        self.pending.push((*seq, change));
    }

    pub(super) fn sync(&mut self) {
        for (_, change) in self.pending.drain(..) {
            change.apply(&mut self.durable);
        }
    }

    /// Whether a crash could leave the file with a name in this directory.
    pub(super) fn may_hold(&self, ino: Ino) -> bool {
        self.cached.values().any(|i| *i == ino)
            || self.durable.values().any(|i| *i == ino)
            || self.pending.iter().any(|(_, change)| change.ino() == ino)
    }
}
