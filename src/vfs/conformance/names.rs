//! Names, handles, links, locks and identities.

use super::{
    Bench, Check, Checked, Verdict, done, failed, file, holds, name_holds, nothing_at, pattern, refused,
};
use crate::vfs::sim::SimVfs;
use crate::vfs::{DirEntry, FileType, LockMode, OpenMode, Vfs, VfsDir};
use std::io::ErrorKind;
use std::path::Path;

pub(super) const CHECKS: &[Check] = &[
    Check {
        name: "directories_are_made_with_those_above",
        promise: "create_dir_all makes the directory and those above it, and opens it; fine if it exists",
        run: directories_are_made_with_those_above,
    },
    Check {
        name: "create_new_is_exclusive",
        promise: "CreateNew: the file must not exist",
        run: create_new_is_exclusive,
    },
    Check {
        name: "what_is_not_there_is_not_found",
        promise: "Read and ReadWrite: the file must exist; ErrorKind::NotFound if nothing has the name",
        run: what_is_not_there_is_not_found,
    },
    Check {
        name: "a_list_shows_names_types_and_lengths",
        promise: "list gives all names, what each is, and its length, 0 unless a file",
        run: a_list_shows_names_types_and_lengths,
    },
    Check {
        name: "what_is_no_file_is_refused_and_stays",
        promise: "open, remove and rename take regular files; anything else is an error, and stays",
        run: what_is_no_file_is_refused_and_stays,
    },
    Check {
        name: "links_are_not_followed",
        promise: "links are never followed: one in the directory is FileType::Other, refused, and stays",
        run: links_are_not_followed,
    },
    Check {
        name: "a_rename_replaces",
        promise: "rename replaces the regular file at the new name",
        run: a_rename_replaces,
    },
    Check {
        name: "a_rename_to_a_new_name_refuses_what_is_there",
        promise: "rename_new: ErrorKind::AlreadyExists if something stands at the new name",
        run: a_rename_to_a_new_name_refuses_what_is_there,
    },
    Check {
        name: "a_handle_keeps_meaning_its_file",
        promise: "a handle keeps meaning the file that it was opened on, whatever happens to the names",
        run: a_handle_keeps_meaning_its_file,
    },
    Check {
        name: "a_hard_link_is_a_second_name",
        promise: "hard_link gives the file a name in another directory",
        run: a_hard_link_is_a_second_name,
    },
    Check {
        name: "a_hard_link_to_elsewhere_crosses_devices",
        promise: "hard_link: ErrorKind::CrossesDevices where the directory is none of the same file system",
        run: a_hard_link_to_elsewhere_crosses_devices,
    },
    Check {
        name: "a_lock_of_the_directory_excludes",
        promise: "lock: ErrorKind::WouldBlock if somebody else has it; dropping the value releases it",
        run: a_lock_of_the_directory_excludes,
    },
    Check {
        name: "a_lock_of_a_file_excludes",
        promise: "lock_file: as lock; the file is made if need be if the mode is Exclusive",
        run: a_lock_of_a_file_excludes,
    },
    Check {
        name: "the_two_locks_know_nothing_of_each_other",
        promise: "the lock of a directory and that of a file in it know nothing of each other",
        run: the_two_locks_know_nothing_of_each_other,
    },
    Check {
        name: "free_space_is_known",
        promise: "free_space gives the bytes that the file system could still give to us",
        run: free_space_is_known,
    },
    Check {
        name: "a_name_and_a_handle_agree_on_the_file",
        promise: "id and id_of are equal exactly when they are the same file, or None everywhere",
        run: a_name_and_a_handle_agree_on_the_file,
    },
    Check {
        name: "a_directory_can_be_synced",
        promise: "sync makes creations, renames and removals in the directory durable",
        run: a_directory_can_be_synced,
    },
];

fn directories_are_made_with_those_above(bench: &Bench<'_>, _: &dyn VfsDir) -> Checked {
    let (deep, missing) = (bench.path.join("a/b/c"), bench.path.join("missing"));
    let dir = done("create_dir_all", bench.vfs.create_dir_all(&deep))?;
    file(&*dir, "f", b"1")?;
    for (call, dir) in [
        ("create_dir_all of what exists", bench.vfs.create_dir_all(&deep)),
        ("open_dir", bench.vfs.open_dir(&deep)),
    ] {
        name_holds(&*done(call, dir)?, "f", b"1")?;
    }
    refused("open_dir of what is not there", bench.vfs.open_dir(&missing), ErrorKind::NotFound)?;
    Ok(Verdict::Held)
}

fn create_new_is_exclusive(_: &Bench<'_>, dir: &dyn VfsDir) -> Checked {
    file(dir, "f", b"first")?;
    let second = dir.open("f", OpenMode::CreateNew);
    refused("open with CreateNew of a file that exists", second, ErrorKind::AlreadyExists)?;
    name_holds(dir, "f", b"first")?;
    Ok(Verdict::Held)
}

fn what_is_not_there_is_not_found(_: &Bench<'_>, dir: &dyn VfsDir) -> Checked {
    let none = ErrorKind::NotFound;
    refused("open with Read of nothing", dir.open("f", OpenMode::Read), none)?;
    refused("open with ReadWrite of nothing", dir.open("f", OpenMode::ReadWrite), none)?;
    refused("remove of nothing", dir.remove("f"), none)?;
    refused("rename of nothing", dir.rename("f", "g"), none)?;
    refused("rename_new of nothing", dir.rename_new("f", "g"), none)?;
    match dir.id_of("f") {
        Ok(None) => {}
        told => refused("id_of of nothing", told, none)?,
    }
    let entries = done("list", dir.list())?;
    if let Some(entry) = entries.first() {
        return Err(format!("calls that were refused left a file {:?}", entry.name));
    }
    Ok(Verdict::Held)
}

fn a_list_shows_names_types_and_lengths(bench: &Bench<'_>, dir: &dyn VfsDir) -> Checked {
    let entry = |name: &str, file_type, len| DirEntry { name: name.into(), file_type, len };
    for len in [0, 1, 511, 512, 513, 5_000] {
        file(dir, &format!("{len}"), &pattern(1, len))?;
    }
    file(dir, "removed", b"1")?;
    done("remove", dir.remove("removed"))?;
    file(dir, "from", b"22")?;
    done("rename", dir.rename("from", "to"))?;
    done("create_dir_all", bench.vfs.create_dir_all(&bench.path.join("inner")))?;
    let mut expected: Vec<DirEntry> =
        [0, 1, 511, 512, 513, 5_000].map(|len: u64| entry(&len.to_string(), FileType::File, len)).into();
    expected.extend([entry("inner", FileType::Dir, 0), entry("to", FileType::File, 2)]);
    for dir in [dir, &*bench.again()?] {
        let mut found = done("list", dir.list())?;
        expected.sort_by(|a, b| a.name.cmp(&b.name));
        found.sort_by(|a, b| a.name.cmp(&b.name));
        if found != expected {
            return Err(format!("list gave {found:?}, not {expected:?}"));
        }
    }
    Ok(Verdict::Held)
}

fn what_is_no_file_is_refused_and_stays(bench: &Bench<'_>, dir: &dyn VfsDir) -> Checked {
    let inner = done("create_dir_all", bench.vfs.create_dir_all(&bench.path.join("inner")))?;
    file(&*inner, "f", b"1")?;
    file(dir, "g", b"22")?;
    refuses(dir, "inner", "a directory")?;
    failed("lock_file of a directory", dir.lock_file("inner", LockMode::Exclusive))?;
    name_holds(&*done("open_dir", bench.vfs.open_dir(&bench.path.join("inner")))?, "f", b"1")?;
    Ok(Verdict::Held)
}

fn links_are_not_followed(bench: &Bench<'_>, dir: &dyn VfsDir) -> Checked {
    let Some(link) = bench.means.link else {
        return Ok(Verdict::Skipped("Means::link is not set".into()));
    };
    file(dir, "g", b"22")?;
    file(dir, "target", b"1")?;
    done("the making of a link", link(Path::new("target"), &bench.path.join("link")))?;
    refuses(dir, "link", "a link")?;
    let found = done("list", dir.list())?.into_iter().find(|entry| entry.name == "link");
    if found.as_ref().map(|entry| entry.file_type) != Some(FileType::Other) {
        return Err(format!("list gives {found:?} for a link"));
    }
    name_holds(dir, "target", b"1")?;
    // The way to a directory may lead through links.
    let linked = bench.path.join("way");
    done("the making of a link", link(Path::new("."), &linked))?;
    name_holds(&*done("open_dir of a link", bench.vfs.open_dir(&linked))?, "target", b"1")?;
    Ok(Verdict::Held)
}

/// That nothing can be done with what stands at `name`; the directory holds a file "g" of `22`.
fn refuses(dir: &dyn VfsDir, name: &str, what: &str) -> Result<(), String> {
    failed(&format!("open with Read of {what}"), dir.open(name, OpenMode::Read))?;
    failed(&format!("open with ReadWrite of {what}"), dir.open(name, OpenMode::ReadWrite))?;
    failed(&format!("open with CreateNew at {what}"), dir.open(name, OpenMode::CreateNew))?;
    failed(&format!("remove of {what}"), dir.remove(name))?;
    failed(&format!("rename of a file to {what}"), dir.rename("g", name))?;
    failed(&format!("rename_new of a file to {what}"), dir.rename_new("g", name))?;
    name_holds(dir, "g", b"22")?;
    match done("list", dir.list())?.iter().any(|e| e.name == name && e.file_type != FileType::File) {
        true => Ok(()),
        false => Err(format!("{what} was replaced, or removed, by calls that failed")),
    }
}

fn a_rename_replaces(_: &Bench<'_>, dir: &dyn VfsDir) -> Checked {
    file(dir, "a", b"1")?;
    done("rename", dir.rename("a", "b"))?;
    nothing_at(dir, "a")?;
    name_holds(dir, "b", b"1")?;
    file(dir, "c", &pattern(2, 3_000))?;
    done("rename to a name that is in use", dir.rename("c", "b"))?;
    nothing_at(dir, "c")?;
    name_holds(dir, "b", &pattern(2, 3_000))?;
    Ok(Verdict::Held)
}

fn a_rename_to_a_new_name_refuses_what_is_there(_: &Bench<'_>, dir: &dyn VfsDir) -> Checked {
    file(dir, "a", b"1")?;
    file(dir, "b", b"22")?;
    let onto = dir.rename_new("a", "b");
    refused("rename_new to a name that is in use", onto, ErrorKind::AlreadyExists)?;
    name_holds(dir, "a", b"1")?;
    name_holds(dir, "b", b"22")?;
    done("rename_new", dir.rename_new("a", "c"))?;
    nothing_at(dir, "a")?;
    name_holds(dir, "c", b"1")?;
    Ok(Verdict::Held)
}

fn a_handle_keeps_meaning_its_file(_: &Bench<'_>, dir: &dyn VfsDir) -> Checked {
    let (one, two) = (pattern(1, 1_500), pattern(2, 2_500));
    let first = file(dir, "a", &one)?;
    done("rename", dir.rename("a", "b"))?;
    holds("a file that was renamed, by its handle", &*first, &one)?;
    let second = file(dir, "c", &two)?;
    done("rename", dir.rename("c", "b"))?;
    holds("a file that was replaced, by its handle", &*first, &one)?;
    holds("the file that replaced it, by its handle", &*second, &two)?;
    done("remove", dir.remove("b"))?;
    file(dir, "b", b"3")?;
    holds("a file that was removed, by its handle", &*second, &two)?;
    super::write(&*second, b"new", 100)?;
    let expected = [&two[..100], b"new", &two[103..]].concat();
    holds("a file that was removed, written by its handle", &*second, &expected)?;
    name_holds(dir, "b", b"3")?;
    Ok(Verdict::Held)
}

fn a_hard_link_is_a_second_name(bench: &Bench<'_>, dir: &dyn VfsDir) -> Checked {
    let inner = done("create_dir_all", bench.vfs.create_dir_all(&bench.path.join("inner")))?;
    let handle = file(dir, "a", b"1")?;
    match dir.hard_link("a", &*inner, "b") {
        // FAT answers with the latter.
        Err(e) if matches!(e.kind(), ErrorKind::Unsupported | ErrorKind::PermissionDenied) => {
            return Ok(Verdict::Skipped(format!("the file system has no hard links ({e})")));
        }
        linked => done("hard_link", linked)?,
    }
    name_holds(&*inner, "b", b"1")?;
    super::write(&*handle, b"22", 1)?;
    name_holds(&*inner, "b", b"122")?;
    file(&*inner, "c", b"3")?;
    failed("hard_link to a name that is in use", dir.hard_link("a", &*inner, "c"))?;
    name_holds(&*inner, "c", b"3")?;
    refused("hard_link of nothing", dir.hard_link("z", &*inner, "d"), ErrorKind::NotFound)?;
    done("remove", dir.remove("a"))?;
    name_holds(&*inner, "b", b"122")?;
    Ok(Verdict::Held)
}

fn a_hard_link_to_elsewhere_crosses_devices(_: &Bench<'_>, dir: &dyn VfsDir) -> Checked {
    file(dir, "a", b"1")?;
    let elsewhere = done("a directory of another file system", SimVfs::new(0).open_dir(Path::new("/")))?;
    let linked = dir.hard_link("a", &*elsewhere, "a");
    refused("hard_link to a directory of another type", linked, ErrorKind::CrossesDevices)?;
    Ok(Verdict::Held)
}

/// A way to take a lock.
type Take<'a> = &'a dyn Fn(LockMode) -> std::io::Result<Box<dyn Send + Sync>>;

fn excludes(take: Take<'_>) -> Result<(), String> {
    use LockMode::{Exclusive, Shared};
    let lock = done("an exclusive lock", take(Exclusive))?;
    refused("a second exclusive lock", take(Exclusive), ErrorKind::WouldBlock)?;
    refused("a shared lock beside an exclusive one", take(Shared), ErrorKind::WouldBlock)?;
    drop(lock);
    let first = done("a shared lock once the exclusive one is dropped", take(Shared))?;
    let second = done("a second shared lock", take(Shared))?;
    refused("an exclusive lock beside two shared ones", take(Exclusive), ErrorKind::WouldBlock)?;
    drop(first);
    refused("an exclusive lock beside a shared one", take(Exclusive), ErrorKind::WouldBlock)?;
    drop(second);
    drop(done("an exclusive lock once the shared ones are dropped", take(Exclusive))?);
    Ok(())
}

fn a_lock_of_the_directory_excludes(bench: &Bench<'_>, dir: &dyn VfsDir) -> Checked {
    match dir.lock(LockMode::Exclusive) {
        Err(e) if e.kind() == ErrorKind::Unsupported => {
            return Ok(Verdict::Skipped(format!("a directory cannot be locked ({e})")));
        }
        lock => drop(done("a lock of the directory", lock)?),
    }
    excludes(&|mode| dir.lock(mode))?;
    // Through another opening of the same directory, as another engine would.
    let again = bench.again()?;
    let lock = done("a lock of the directory", dir.lock(LockMode::Exclusive))?;
    let second = again.lock(LockMode::Exclusive);
    refused("a second lock by another opening of the directory", second, ErrorKind::WouldBlock)?;
    drop(lock);
    Ok(Verdict::Held)
}

fn a_lock_of_a_file_excludes(bench: &Bench<'_>, dir: &dyn VfsDir) -> Checked {
    let shared = dir.lock_file("LOCK", LockMode::Shared);
    refused("a shared lock of a file that is not there", shared, ErrorKind::NotFound)?;
    excludes(&|mode| dir.lock_file("LOCK", mode))?;
    name_holds(dir, "LOCK", b"")?;
    let lock = done("a lock of a file", dir.lock_file("LOCK", LockMode::Exclusive))?;
    let second = bench.again()?.lock_file("LOCK", LockMode::Exclusive);
    refused("a second lock by another opening of the directory", second, ErrorKind::WouldBlock)?;
    drop(done("a lock of another file", dir.lock_file("OTHER", LockMode::Exclusive))?);
    drop(lock);
    Ok(Verdict::Held)
}

fn the_two_locks_know_nothing_of_each_other(_: &Bench<'_>, dir: &dyn VfsDir) -> Checked {
    let first = match dir.lock(LockMode::Exclusive) {
        Err(e) if e.kind() == ErrorKind::Unsupported => {
            return Ok(Verdict::Skipped(format!("a directory cannot be locked ({e})")));
        }
        lock => done("a lock of the directory", lock)?,
    };
    let second = dir.lock_file("LOCK", LockMode::Exclusive);
    drop(done("a lock of a file beside that of its directory", second)?);
    drop(first);
    Ok(Verdict::Held)
}

fn free_space_is_known(_: &Bench<'_>, dir: &dyn VfsDir) -> Checked {
    match done("free_space", dir.free_space())? {
        0 => Err("free_space is 0; check a file system that has room".into()),
        _ => Ok(Verdict::Held),
    }
}

fn a_name_and_a_handle_agree_on_the_file(_: &Bench<'_>, dir: &dyn VfsDir) -> Checked {
    let (a, b) = (file(dir, "a", b"1")?, file(dir, "b", b"22")?);
    let handle = |file: &dyn crate::vfs::VfsFile| done("id", file.id());
    let name = |name| done("id_of", dir.id_of(name));
    let (id_a, id_b) = (handle(&*a)?, handle(&*b)?);
    let names = (name("a")?, name("b")?);
    if (id_a, id_b) != names {
        return Err(format!("id gives {id_a:?} and {id_b:?}, id_of of the same files {names:?}"));
    }
    if id_a.is_none() && id_b.is_none() {
        return Ok(Verdict::Skipped("the file system cannot tell which file is which".into()));
    }
    if id_a == id_b || id_a.is_none() {
        return Err(format!("two files have the ids {id_a:?} and {id_b:?}"));
    }
    let second = done("open", dir.open("a", OpenMode::Read))?;
    if handle(&*second)? != id_a {
        return Err(format!("a second handle of a file has the id {:?}, not {id_a:?}", handle(&*second)?));
    }
    done("rename", dir.rename("a", "b"))?;
    let now = (handle(&*a)?, handle(&*b)?, name("b")?);
    if now != (id_a, id_b, id_a) {
        return Err(format!(
            "after a rename of {id_a:?} over {id_b:?} their handles and the name give {now:?}"
        ));
    }
    Ok(Verdict::Held)
}

fn a_directory_can_be_synced(_: &Bench<'_>, dir: &dyn VfsDir) -> Checked {
    done("sync of an empty directory", dir.sync())?;
    file(dir, "a", b"1")?;
    done("sync", dir.sync())?;
    done("rename", dir.rename("a", "b"))?;
    done("sync", dir.sync())?;
    name_holds(dir, "b", b"1")?;
    Ok(Verdict::Held)
}
