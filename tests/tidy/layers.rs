//! Which module may use which, and that the map in the documents says the same.

use super::imports::{self, Exports, Import};
use super::{Source, check, root, sources};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;

/// What each module may use, besides itself. From bottom to top: none uses one that comes later.
const LAYERS: &[(&str, &[&str])] = &[
    ("planted", &[]),
    ("limits", &[]),
    ("sync", &[]),
    ("clock", &["sync"]),
    ("histogram", &["clock"]),
    ("random", &[]),
    ("trace", &[]),
    ("types", &[]),
    ("salt", &["clock", "sync"]),
    ("disk_watch", &["clock", "planted", "sync"]),
    ("error", &["types"]),
    ("codec", &["limits", "planted", "types"]),
    ("format", &["codec", "limits", "planted", "types"]),
    ("vfs", &["clock", "limits", "planted", "random"]),
    ("report", &["error", "histogram", "types"]),
    ("listener", &["error", "report", "sync", "trace", "types"]),
    ("options", &["error", "limits", "listener", "report", "salt", "types", "vfs"]),
    (
        "segment",
        &[
            "clock",
            "limits",
            "codec",
            "error",
            "format",
            "options",
            "planted",
            "salt",
            "sync",
            "types",
            "vfs",
            "disk_watch",
        ],
    ),
    (
        "index",
        &["codec", "error", "format", "limits", "planted", "random", "report", "segment", "sync", "types"],
    ),
    ("news", &["index", "listener", "planted", "report", "sync"]),
    (
        "commit",
        &[
            "clock",
            "codec",
            "error",
            "format",
            "index",
            "histogram",
            "limits",
            "planted",
            "report",
            "segment",
            "sync",
            "trace",
            "types",
            "vfs",
        ],
    ),
    (
        "read",
        &[
            "clock",
            "error",
            "format",
            "histogram",
            "index",
            "listener",
            "news",
            "planted",
            "segment",
            "sync",
            "types",
        ],
    ),
    (
        "checkpoint",
        &[
            "clock",
            "commit",
            "error",
            "format",
            "index",
            "histogram",
            "listener",
            "planted",
            "salt",
            "segment",
            "sync",
            "trace",
            "types",
            "vfs",
        ],
    ),
    (
        "recovery",
        &[
            "clock",
            "limits",
            "commit",
            "checkpoint",
            "codec",
            "error",
            "format",
            "index",
            "options",
            "planted",
            "read",
            "report",
            "segment",
            "sync",
            "types",
            "vfs",
        ],
    ),
    (
        "upkeep",
        &[
            "clock",
            "checkpoint",
            "codec",
            "commit",
            "error",
            "format",
            "index",
            "histogram",
            "listener",
            "news",
            "options",
            "planted",
            "read",
            "report",
            "segment",
            "sync",
            "trace",
            "types",
            "vfs",
            "disk_watch",
        ],
    ),
    (
        "engine",
        &[
            "clock",
            "checkpoint",
            "codec",
            "commit",
            "error",
            "format",
            "index",
            "histogram",
            "limits",
            "listener",
            "news",
            "options",
            "planted",
            "read",
            "recovery",
            "report",
            "segment",
            "sync",
            "trace",
            "types",
            "upkeep",
            "vfs",
            "disk_watch",
        ],
    ),
    ("healing", &["engine", "error", "limits", "planted", "report", "types"]),
];

/// Folders and files that stand outside of the layers: they may use everything, and nothing may use them.
const OUTSIDE: &[&str] =
    &["lib", "internals", "metrics", "openraft_09", "openraft_010", "openraft_shared", "raft_rs"];

/// The folders of code that are a crate each. Not the example `kv`: a program whose nodes, groups and state
/// machine deliver to one another.
const PACKAGES: &[&str] = &[
    "src",
    "crates/cli/src",
    "crates/migrate/src",
    "crates/model/src",
    "crates/public-api/src",
    "crates/raft-engine/src",
    "crates/torture/src",
    "examples/encrypted/src",
    "examples/openraft-many/src",
    "examples/raftstore/src",
    "examples/tokio/src",
    "benches/peers/src",
];

#[test]
fn modules_use_only_the_layers_below_them() {
    let exports = root_exports();
    let mut wrong = Vec::new();
    for source in sources("src") {
        let module = source.module();
        let from = module.first().map_or("", String::as_str);
        if OUTSIDE.contains(&from) {
            continue;
        }
        let Some((_, allowed)) = LAYERS.iter().find(|(name, _)| *name == from) else {
            wrong.push(format!("{}: the module `{from}` has no layer; give it one in LAYERS", source.name()));
            continue;
        };
        for import in imports_of(&source, &exports) {
            if !allowed.contains(&import.module()) {
                let (line, to) = (import.line, import.path.join("::"));
                wrong.push(format!("{}:{line}: `{from}` may not use `{to}`", source.name()));
            }
        }
    }
    check(wrong);
}

#[test]
fn layers_have_no_cycle() {
    for (at, (from, allowed)) in LAYERS.iter().enumerate() {
        for to in *allowed {
            assert!(LAYERS[..at].iter().any(|(name, _)| name == to), "`{to}` is not below `{from}`");
        }
    }
    let exports = root_exports();
    let mut uses: Arrows = BTreeMap::new();
    for source in sources("src").into_iter().filter(|s| !OUTSIDE.contains(&s.module()[0].as_str())) {
        let imports = imports_of(&source, &exports);
        let to = imports.iter().map(|import| import.module().to_owned());
        uses.entry(source.module()[0].clone()).or_default().extend(to);
    }
    assert!(uses["engine"].len() > 5 && uses["format"].contains("codec"), "the arrows are found: {uses:?}");
    assert_eq!(cycle(&uses), None);
    // And one would be.
    uses.get_mut("codec").unwrap().insert("segment".to_owned());
    assert!(cycle(&uses).is_some_and(|path| path.contains(&"codec".to_owned())));
    // What is allowed and not needed is a door that stands open.
    let unused = LAYERS.iter().flat_map(|(from, allowed)| {
        let used = uses.get(*from);
        allowed
            .iter()
            .filter(move |to| used.is_none_or(|used| !used.contains(**to)))
            .map(move |to| (from, to))
    });
    check(unused.map(|(from, to)| format!("`{from}` does not use `{to}`: take it out of LAYERS")).collect());
}

/// The table of modules in the map: a row for each layer, and what a row uses stands in it or above.
#[test]
fn the_map_has_every_module_in_the_order_of_the_layers() {
    let map = fs::read_to_string(root().join("docs/architecture.md")).unwrap();
    let table =
        map.split("## Modules, in layers").nth(1).unwrap().split("Members of the workspace").next().unwrap();
    let mut rows: BTreeMap<&str, usize> = BTreeMap::new();
    let mut wrong = Vec::new();
    for (row, line) in table.lines().filter(|line| line.starts_with("| `")).enumerate() {
        for name in line[1..].split('|').next().unwrap_or_default().split('`').skip(1).step_by(2) {
            if rows.insert(name, row).is_some() {
                wrong.push(format!("the map has two rows for `{name}`"));
            }
            if !OUTSIDE.contains(&name) && LAYERS.iter().all(|(layer, _)| *layer != name) {
                wrong.push(format!("the map has a row for `{name}`, which has no layer"));
            }
        }
    }
    for (from, allowed) in LAYERS {
        match rows.get(from) {
            None => wrong.push(format!("the map has no row for `{from}`")),
            Some(row) => wrong.extend(
                allowed
                    .iter()
                    .filter(|to| rows.get(**to).is_some_and(|above| above > row))
                    .map(|to| format!("in the map `{to}` stands below `{from}`, which uses it")),
            ),
        }
    }
    check(wrong);
}

/// The ways through the code name each file once, where it comes in.
#[test]
fn the_ways_through_the_code_name_each_file_once() {
    let map = fs::read_to_string(root().join("docs/architecture.md")).unwrap();
    for way in ["\n## A write\n", "\n## A read\n", "\n## An open\n"] {
        let text = map.split(way).nth(1).unwrap().split("\n## ").next().unwrap();
        let files: Vec<&str> = text.split('`').skip(1).step_by(2).filter(|n| n.ends_with(".rs")).collect();
        let twice = files.iter().enumerate().filter(|(n, file)| files[..*n].contains(file));
        assert!(files.len() > 5, "the files are found");
        check(twice.map(|(_, file)| format!("{} names `{file}` twice", way.trim())).collect());
    }
}

/// Within a room too, and in the members: files that use each other are one file, or lack one below them.
#[test]
fn no_two_files_use_each_other() {
    for package in PACKAGES {
        let uses = arrows_between_files(package);
        assert!(*package != "src" || uses.len() > 50, "the arrows are found");
        assert_eq!(cycle(&uses), None, "in {package}");
    }
    // In a member too they are found.
    assert!(arrows_between_files("crates/model/src")["world"].contains("ghost"));
}

/// From each file of a package to those that it uses.
fn arrows_between_files(package: &str) -> Arrows {
    let all = sources(package);
    let files = ["lib.rs", "main.rs"].map(|file| root().join(package).join(file));
    let exports = files.iter().find(|file| file.exists());
    let exports =
        exports.map(|file| imports::exports(&fs::read_to_string(file).unwrap())).unwrap_or_default();
    let modules: BTreeSet<Vec<String>> = all.iter().map(|source| source.module_of(package)).collect();
    let mut uses: Arrows = BTreeMap::new();
    for source in &all {
        let module = source.module_of(package);
        let parts: Vec<&str> = module.iter().map(String::as_str).collect();
        for import in imports::all_imports(&parts, &source.text, &exports) {
            // The longest part of the path that is a file.
            let file =
                (1..=import.path.len()).rev().map(|n| &import.path[..n]).find(|p| modules.contains(*p));
            // A folder's own file stands above what is in it.
            if let Some(file) = file.filter(|file| !module.starts_with(file) && !file.starts_with(&module)) {
                uses.entry(module.join("::")).or_default().insert(file.join("::"));
            }
        }
    }
    uses
}

#[test]
fn an_import_that_runs_up_is_found_however_it_is_written() {
    let exports = root_exports();
    let found = |text: &str| -> Vec<String> {
        let imports = imports::imports(&["index", "extents"], text, &exports);
        imports.into_iter().map(|import| import.path.join("::")).collect()
    };
    assert_eq!(found("use crate::engine::region::Region;"), ["engine::region::Region"]);
    assert_eq!(found("use crate::{types::Lsn, engine};"), ["types::Lsn", "engine"]);
    assert_eq!(found("use super::super::engine::Engine as E;"), ["engine::Engine"]);
    assert_eq!(found("pub(super) use crate::Engine;"), ["engine::Engine"]);
    assert_eq!(found("fn f(_: &crate::upkeep::Store) {}"), ["upkeep::Store"]);
    assert_eq!(
        found("fn f() { say!(\"{}\", crate::engine::region::health(1)); }"),
        ["engine::region::health"]
    );
    assert_eq!(found("fn f() { make!(at: crate::engine::Engine); }"), ["engine::Engine"]);
    assert_eq!(found("mod tests { use super::super::super::commit::Ticket; }"), ["commit::Ticket"]);
    assert_eq!(
        found("use super::extent::Extent; pub(crate) fn f() { let _ = self::g(); }"),
        Vec::<String>::new()
    );
    assert_eq!(found("// use crate::engine;\nconst A: &str = \"crate::engine\";"), Vec::<String>::new());
}

/// From each module to those that it uses.
type Arrows = BTreeMap<String, BTreeSet<String>>;

/// Modules each of which uses the next, and the last the first.
fn cycle(uses: &Arrows) -> Option<Vec<String>> {
    fn walk(at: &str, path: &mut Vec<String>, uses: &Arrows) -> Option<Vec<String>> {
        if let Some(start) = path.iter().position(|before| before == at) {
            return Some(path[start..].to_vec());
        }
        path.push(at.to_owned());
        let found = uses.get(at).into_iter().flatten().find_map(|next| walk(next, path, uses));
        path.pop();
        found
    }
    uses.keys().find_map(|from| walk(from, &mut Vec::new(), uses))
}

/// What a file uses of other top modules.
fn imports_of(source: &Source, exports: &Exports) -> Vec<Import> {
    let module = source.module();
    imports::imports(&module.iter().map(String::as_str).collect::<Vec<_>>(), &source.text, exports)
}

fn root_exports() -> Exports {
    imports::exports(&fs::read_to_string(root().join("src/lib.rs")).unwrap())
}
