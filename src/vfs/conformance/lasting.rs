//! What a power cut leaves.

use super::{Bench, Check, Checked, Verdict, done, file, name_holds, nothing_at, pattern, write};
use crate::vfs::{OpenMode, VfsDir};
use std::sync::Arc;

pub(super) const CHECKS: &[Check] = &[
    Check {
        name: "synced_bytes_survive",
        promise: "after sync_data returned Ok, all bytes written before the call, through any handle, survive",
        run: synced_bytes_survive,
    },
    Check {
        name: "synced_names_survive",
        promise: "after sync of a directory returned Ok, all creations, renames and removals survive",
        run: synced_names_survive,
    },
    Check {
        name: "made_directories_survive",
        promise: "create_dir_all makes the entries of the directories that it makes durable",
        run: made_directories_survive,
    },
];

/// The check's directory as a power cut now leaves it; `None` without the means.
fn cut(bench: &Bench<'_>) -> Result<Option<Arc<dyn VfsDir>>, String> {
    let Some(power_cut) = bench.means.power_cut else { return Ok(None) };
    done("open_dir after a power cut", power_cut().open_dir(&bench.path)).map(Some)
}

fn no_means() -> Checked {
    Ok(Verdict::Skipped("Means::power_cut is not set".into()))
}

fn synced_bytes_survive(bench: &Bench<'_>, dir: &dyn VfsDir) -> Checked {
    let first = file(dir, "f", &pattern(1, 10_001))?;
    let second = done("open", dir.open("f", OpenMode::ReadWrite))?;
    write(&*second, &pattern(2, 700), 9_500)?;
    done("sync", dir.sync())?;
    done("sync_data", first.sync_data())?;
    let mut expected = pattern(1, 9_500);
    expected.extend(pattern(2, 700));
    let Some(left) = cut(bench)? else { return no_means() };
    name_holds(&*left, "f", &expected)?;
    // A part of a sector beside bytes that are durable already.
    write(&*first, b"more", 10_200)?;
    done("sync_all", second.sync_all())?;
    expected.extend(b"more");
    let Some(left) = cut(bench)? else { return no_means() };
    name_holds(&*left, "f", &expected)?;
    Ok(Verdict::Held)
}

fn synced_names_survive(bench: &Bench<'_>, dir: &dyn VfsDir) -> Checked {
    for name in ["created", "from", "onto", "over", "removed"] {
        done("sync_data", file(dir, name, name.as_bytes())?.sync_data())?;
    }
    done("sync", dir.sync())?;
    done("rename_new", dir.rename_new("from", "to"))?;
    done("rename", dir.rename("over", "onto"))?;
    done("remove", dir.remove("removed"))?;
    done("sync", dir.sync())?;
    let Some(left) = cut(bench)? else { return no_means() };
    for (name, content) in [("created", "created"), ("to", "from"), ("onto", "over")] {
        name_holds(&*left, name, content.as_bytes())?;
    }
    for name in ["from", "over", "removed"] {
        nothing_at(&*left, name)?;
    }
    Ok(Verdict::Held)
}

fn made_directories_survive(bench: &Bench<'_>, _: &dyn VfsDir) -> Checked {
    let deep = bench.path.join("a/b");
    done("create_dir_all", bench.vfs.create_dir_all(&deep))?;
    let Some(power_cut) = bench.means.power_cut else { return no_means() };
    done("open_dir, after a power cut, of what was made", power_cut().open_dir(&deep))?;
    Ok(Verdict::Held)
}
