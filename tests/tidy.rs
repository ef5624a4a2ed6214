//! House rules that a compiler does not check.
//!
//! A failure names file and line, and says the rule. A rule that should bend gets an exception here, with its reason: that
//! is the place where a new arrow between layers is argued for.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// What each module may use, besides itself. From bottom to top: none uses one that comes later.
const LAYERS: &[(&str, &[&str])] = &[
    ("planted", &[]),
    ("limits", &[]),
    ("sync", &[]),
    ("watch", &["sync"]),
    ("types", &[]),
    ("error", &["types"]),
    ("codec", &["limits", "planted", "types"]),
    ("format", &["codec", "limits", "planted", "types"]),
    ("vfs", &["planted"]),
    ("segment", &["codec", "error", "format", "limits", "planted", "sync", "types", "vfs", "watch"]),
    ("index", &["codec", "error", "format", "limits", "planted", "segment", "sync", "types"]),
    (
        "commit",
        &["codec", "error", "format", "index", "limits", "planted", "segment", "sync", "types", "vfs"],
    ),
    ("store", &["commit", "error", "format", "index", "planted", "segment", "sync", "types", "vfs", "watch"]),
    (
        "purge",
        &[
            "codec", "commit", "error", "format", "index", "limits", "planted", "segment", "store", "sync",
            "types", "vfs",
        ],
    ),
    (
        "recovery",
        &[
            "codec", "commit", "error", "format", "index", "limits", "planted", "purge", "segment", "store",
            "sync", "types", "vfs",
        ],
    ),
    (
        "engine",
        &[
            "codec", "commit", "error", "format", "index", "limits", "planted", "purge", "recovery",
            "segment", "store", "sync", "types", "vfs", "watch",
        ],
    ),
];

/// Arrows that point upwards: from, to, why.
const UPWARD: &[(&str, &str, &str)] = &[
    (
        "segment",
        "engine::options",
        "plain values that the caller set; the factory would only copy them field by field",
    ),
    ("store", "engine::options", "as for segment"),
    ("store", "engine::listener", "the trait that events are told through: an interface, not the engine"),
    ("purge", "engine::options", "as for segment"),
    ("purge", "engine::listener", "as for store"),
    ("purge", "engine::report", "what purge() returns: plain values"),
    ("recovery", "engine::options", "as for segment"),
    ("recovery", "engine::report", "what opening found: plain values"),
];

/// Folders and files that stand outside of the layers: they may use everything, and nothing may use them.
const OUTSIDE: &[&str] =
    &["lib", "bin", "fuzzing", "openraft_09", "openraft_010", "openraft_shared", "raft_rs", "torture"];

/// Longer than this and a file has more than one noun.
const LINES_MAX: usize = 800;

#[test]
fn modules_use_only_the_layers_below_them() {
    let exported = exports();
    let mut wrong = Vec::new();
    let mut used = Vec::new();
    for source in sources("src") {
        let from = module_of(&source.path);
        if OUTSIDE.contains(&from.as_str()) {
            continue;
        }
        let Some((_, allowed)) = LAYERS.iter().find(|(name, _)| *name == from) else {
            wrong.push(format!("{}: the module `{from}` has no layer; give it one in LAYERS", source.name()));
            continue;
        };
        for (line, to) in source.code().flat_map(|(n, line)| arrows(line).map(move |to| (n, to))) {
            let to = exported.get(&to).cloned().unwrap_or(to);
            let module = to.split("::").next().unwrap_or_default();
            let upward = UPWARD.iter().position(|(f, t, _)| *f == from && *t == to);
            used.extend(upward);
            if module != from && !allowed.contains(&module) && upward.is_none() {
                wrong.push(format!("{}:{line}: `{from}` may not use `{to}`", source.name()));
            }
        }
    }
    for (at, (from, to, _)) in UPWARD.iter().enumerate() {
        if !used.contains(&at) {
            wrong.push(format!(
                "the exception `{from}` -> `{to}` is not needed any more: take it out of UPWARD"
            ));
        }
    }
    check(wrong);
}

/// This once looked at the table above only, which has no cycle as long as it is sorted, whatever the code does.
#[test]
fn layers_have_no_cycle() {
    for (at, (from, allowed)) in LAYERS.iter().enumerate() {
        for to in *allowed {
            assert!(LAYERS[..at].iter().any(|(name, _)| name == to), "`{to}` is not below `{from}`");
        }
    }
    let exported = exports();
    let mut uses: Arrows = BTreeMap::new();
    for source in sources("src") {
        let from = module_of(&source.path);
        if OUTSIDE.contains(&from.as_str()) {
            continue;
        }
        for to in source.code().flat_map(|(_, line)| arrows(line)) {
            let to = exported.get(&to).cloned().unwrap_or(to);
            if UPWARD.iter().any(|(f, t, _)| *f == from && *t == to) {
                continue;
            }
            let module = to.split("::").next().unwrap_or_default();
            if module != from && LAYERS.iter().any(|(name, _)| *name == module) {
                uses.entry(from.clone()).or_default().insert(module.to_owned());
            }
        }
    }
    assert!(uses["engine"].len() > 5 && uses["format"].contains("codec"), "the arrows are found: {uses:?}");
    assert_eq!(cycle(&uses), None);
    // And one would be.
    uses.get_mut("codec").unwrap().insert("segment".to_owned());
    assert!(cycle(&uses).is_some_and(|path| path.contains(&"codec".to_owned())));
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

#[test]
fn nothing_unwraps_but_tests() {
    let mut wrong = Vec::new();
    for source in sources("src") {
        // In a fuzz target a panic is the answer.
        if module_of(&source.path) == "fuzzing" {
            continue;
        }
        for (n, line) in source.code() {
            for call in [".unwrap()", ".expect(", ".unwrap_err()", ".expect_err("] {
                if line.contains(call) {
                    wrong.push(format!(
                        "{}:{n}: {call}: return an error, or say why it cannot be",
                        source.name()
                    ));
                }
            }
        }
    }
    check(wrong);
}

#[test]
fn only_the_mapping_is_unsafe() {
    let mut wrong = Vec::new();
    for source in sources("src") {
        if source.path.ends_with("src/vfs/map.rs") {
            continue;
        }
        for (n, line) in source.lines() {
            let code = line.split("//").next().unwrap_or_default();
            if words(code).any(|word| word == "unsafe") {
                wrong.push(format!("{}:{n}: unsafe code belongs into src/vfs/map.rs", source.name()));
            }
        }
    }
    check(wrong);
}

#[test]
fn no_file_is_too_long() {
    let all = ["src", "tests", "benches", "examples", "fuzz/fuzz_targets"];
    let long = all.into_iter().flat_map(sources).filter(|s| s.text.lines().count() >= LINES_MAX);
    check(
        long.map(|s| format!("{} has {} lines: split it by noun", s.name(), s.text.lines().count()))
            .collect(),
    );
}

#[test]
fn nothing_is_left_for_later() {
    // In two halves, or this file would fail its own test.
    let marks =
        [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("todo", "!("), concat!("unimplemented", "!(")];
    let mut wrong = Vec::new();
    let code = ["src", "tests", "benches", "examples", "fuzz/fuzz_targets"].into_iter().flat_map(sources);
    for source in code.chain(documents()) {
        for (n, line) in source.lines() {
            if let Some(mark) = marks.iter().find(|mark| line.contains(**mark)) {
                wrong.push(format!("{}:{n}: {mark}: do it, or open an issue", source.name()));
            }
        }
    }
    check(wrong);
}

#[test]
fn links_in_documents_lead_somewhere() {
    let mut wrong = Vec::new();
    for document in documents() {
        let dir = document.path.parent().unwrap_or(Path::new("."));
        for (n, line) in document.lines() {
            for link in line.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
                if link.contains("://") || link.starts_with("mailto:") {
                    continue;
                }
                let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
                let target = if file.is_empty() { document.path.clone() } else { dir.join(file) };
                let found =
                    target.exists() && (anchor.is_empty() || anchors(&target).iter().any(|a| a == anchor));
                if !found {
                    wrong.push(format!("{}:{n}: {link} leads nowhere", document.name()));
                }
            }
        }
    }
    check(wrong);
}

#[test]
fn arrows_are_found_however_they_are_written() {
    let found = |line| arrows(line).collect::<Vec<_>>();
    assert_eq!(found("use crate::format::batch::{Batch, Op};"), ["format::batch"]);
    assert_eq!(
        found("use crate::{Options, purge, engine::options::Pool};"),
        ["Options", "purge", "engine::options"]
    );
    assert_eq!(found("    foo(crate::ErrorKind::Io, crate::store::lock(x))"), ["ErrorKind", "store::lock"]);
    assert_eq!(found("pub(crate) fn f() {}"), Vec::<String>::new());
}

// ---- what the rules are made of ------------------------------------------------------------------------------------

struct Source {
    path: PathBuf,
    text: String,
}

impl Source {
    fn name(&self) -> String {
        self.path.strip_prefix(root()).unwrap_or(&self.path).display().to_string()
    }

    /// Numbered from 1.
    fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        (1..).zip(self.text.lines())
    }

    /// The lines that are neither comments nor tests, which stand at the end of a file or in one of their own.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let name = self.path.file_name().unwrap_or_default();
        let all_tests = name == "tests.rs" || name == "testing.rs";
        let end = match self.text.find("#[cfg(test)]\nmod tests {") {
            _ if all_tests => 0,
            Some(at) => self.text[..at].lines().count(),
            None => usize::MAX,
        };
        self.lines().take(end).filter(|(_, line)| !line.trim_start().starts_with("//"))
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All Rust files under a folder; none if there is no such folder.
fn sources(folder: &str) -> Vec<Source> {
    let mut found = Vec::new();
    walk(&root().join(folder), "rs", &mut found);
    found
}

/// All documents of the repository.
fn documents() -> Vec<Source> {
    let mut found = Vec::new();
    walk(&root().join("docs"), "md", &mut found);
    for readme in ["fuzz/README.md", "benches/peers/README.md"] {
        let path = root().join(readme);
        found.push(Source { text: fs::read_to_string(&path).unwrap(), path });
    }
    for entry in fs::read_dir(root()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|e| e == "md") {
            found.push(Source { text: fs::read_to_string(&path).unwrap(), path });
        }
    }
    found
}

fn walk(dir: &Path, extension: &str, found: &mut Vec<Source>) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    for path in paths {
        if path.ends_with("benches/peers/target") {
            // Code that other packages make while they are built.
        } else if path.is_dir() {
            walk(&path, extension, found);
        } else if path.extension().is_some_and(|e| e == extension) {
            found.push(Source { text: fs::read_to_string(&path).unwrap(), path });
        }
    }
}

/// The top module that a file belongs to.
fn module_of(path: &Path) -> String {
    let inside = path.strip_prefix(root().join("src")).unwrap_or(path);
    let first = inside.components().next().map(|c| c.as_os_str().to_string_lossy().into_owned());
    first.unwrap_or_default().trim_end_matches(".rs").to_owned()
}

/// What the crate's root re-exports, by name, and where it comes from.
fn exports() -> BTreeMap<String, String> {
    let lib = fs::read_to_string(root().join("src/lib.rs")).unwrap();
    let mut exports = BTreeMap::new();
    for item in lib.split("pub use ").skip(1).filter_map(|rest| rest.split(';').next()) {
        let (path, names) = item.rsplit_once("::").unwrap_or(("", item));
        let (path, names) = item.split_once("::{").unwrap_or((path, names));
        for name in names.trim_end_matches('}').split(',') {
            exports.insert(name.trim().to_owned(), arrow(path));
        }
    }
    exports
}

/// The modules that a line of code names by their path from the root; of the engine also the part of it.
fn arrows(line: &str) -> impl Iterator<Item = String> {
    let mut found = Vec::new();
    for rest in line.split("crate::").skip(1) {
        match rest.strip_prefix('{') {
            Some(group) => {
                let group = group.split("};").next().unwrap_or_default();
                found.extend(group.split(',').map(|item| arrow(item.trim())));
            }
            None => found.push(arrow(rest)),
        }
    }
    found.into_iter()
}

fn arrow(path: &str) -> String {
    let mut parts = path.split("::").map(|part| words(part).next().unwrap_or_default());
    let first = parts.next().unwrap_or_default();
    let is_module = |name: &str| name.starts_with(|c: char| c.is_ascii_lowercase());
    match parts.next() {
        Some(second) if is_module(first) && is_module(second) => format!("{first}::{second}"),
        _ => first.to_owned(),
    }
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty())
}

/// The anchors that headings of a document get.
fn anchors(document: &Path) -> Vec<String> {
    let text = fs::read_to_string(document).unwrap_or_default();
    let headings = text.lines().filter(|line| line.starts_with('#'));
    let slug = |heading: &str| {
        let kept = heading.trim_start_matches('#').trim().to_lowercase();
        let kept: String = kept.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c)).collect();
        kept.replace(' ', "-")
    };
    headings.map(slug).collect()
}

fn check(wrong: Vec<String>) {
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}
