//! House rules that a compiler does not check.
//!
//! A failure names file and line, and says the rule. A rule that should bend gets an exception here, with its
//! reason: that is the place where a new arrow between layers is argued for.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

#[path = "tidy/imports.rs"]
mod imports;
#[path = "tidy/planted.rs"]
mod planted;

use imports::{Exports, Import};

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
    ("watch", &["clock", "planted", "sync"]),
    ("error", &["types"]),
    ("codec", &["limits", "planted", "types"]),
    ("format", &["codec", "limits", "planted", "types"]),
    ("vfs", &["clock", "limits", "planted", "random"]),
    ("report", &["error", "histogram", "types"]),
    ("listener", &["error", "report", "sync", "trace", "types"]),
    ("options", &["error", "limits", "listener", "report", "salt", "vfs"]),
    (
        "segment",
        &[
            "clock", "limits", "codec", "error", "format", "options", "planted", "salt", "sync", "types",
            "vfs", "watch",
        ],
    ),
    (
        "index",
        &["codec", "error", "format", "limits", "planted", "random", "report", "segment", "sync", "types"],
    ),
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
    ("read", &["error", "format", "index", "planted", "segment", "types"]),
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
            "options",
            "planted",
            "report",
            "segment",
            "sync",
            "trace",
            "types",
            "vfs",
            "watch",
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
            "watch",
        ],
    ),
    ("healing", &["engine", "error", "limits", "planted", "report", "types"]),
];

/// Folders and files that stand outside of the layers: they may use everything, and nothing may use them.
const OUTSIDE: &[&str] =
    &["lib", "internals", "metrics", "openraft_09", "openraft_010", "openraft_shared", "raft_rs"];

/// Where the code is, with that of all members.
const CODE: &[&str] = &["src", "crates", "tests", "benches", "examples", "fuzz/fuzz_targets"];

/// Longer than this and a file has more than one noun.
const LINES_MAX: usize = 800;

/// Phrases that are out, in comments, documents and code, and what is said instead. None is a name in code.
const OUT: &[(&str, &str)] = &[
    ("whoever", "a thread that, the one that"),
    ("for ever", "forever"),
    ("senseless", "malformed, inconsistent"),
    ("makes no sense", "is malformed, is inconsistent"),
    ("vouch", "confirm; bytes are untrusted"),
    ("vouches", "confirms; bytes are untrusted"),
    ("durable anew", "re-persisted"),
    ("built anew", "rebuilt"),
    ("written anew", "rewritten"),
    ("made anew", "recreated"),
    ("dressed", "formatted, claimed"),
    ("is at it", "is running"),
    ("gives way", "yields, is replaced"),
    ("one behind the other", "back to back"),
    ("costs nothing", "affects no entry"),
    ("takes it for", "mistakes it for"),
    ("take it for", "mistake it for"),
    ("as you like", "at your option"),
];

/// The same for words that are names in code: out of comments and documents only.
const OUT_OF_PROSE: &[(&str, &str)] = &[
    ("behind", "after, past, beyond"),
    ("doomed", "discarded, to be discarded"),
    ("life", "run (of the engine), generation (of a file)"),
];

/// Where a word that is out means something else, or is a figure of speech.
const LEGITIMATE: &[&str] = &[
    // Older than, or slower than.
    "a little behind",
    "falls behind",
    "lags behind",
    "log is behind the state machine",
    "segments behind the",
    "stands somewhere behind the log",
    // In the shelter of; in the back of.
    "behind a feature",
    "behind counted pointers",
    "behind its own lock",
    "behind one interface",
    "behind our back",
    "behind the engine",
    "behind the page cache",
    "owner behind a",
    // In the end.
    "leave no half made state behind",
    "leave nothing behind",
    "leaves nothing behind",
    "left behind",
    // For as long as it is there.
    "all its life",
    "for life",
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
        for import in source.imports(&exports) {
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
        let imports = source.imports(&exports);
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

/// Within a room too: files that use each other are one file, or lack one below them.
#[test]
fn no_two_files_use_each_other() {
    let exports = root_exports();
    let all = sources("src");
    let modules: BTreeSet<Vec<String>> = all.iter().map(Source::module).collect();
    let mut uses: Arrows = BTreeMap::new();
    for source in &all {
        let module = source.module();
        for import in source.all_imports(&exports) {
            // The longest part of the path that is a file.
            let file =
                (1..=import.path.len()).rev().map(|n| &import.path[..n]).find(|p| modules.contains(*p));
            // A folder's own file stands above what is in it.
            if let Some(file) = file.filter(|file| !module.starts_with(file) && !file.starts_with(&module)) {
                uses.entry(module.join("::")).or_default().insert(file.join("::"));
            }
        }
    }
    assert!(uses.len() > 50, "the arrows are found");
    assert_eq!(cycle(&uses), None);
}

/// What documents say of where a thing stands. In the map a path begins in `src`.
#[test]
fn files_named_in_documents_are_there() {
    let roots = ["src/", "tests/", "crates/", "examples/", "benches/", "fuzz/", "docs/", ".ci/"];
    let mut wrong = Vec::new();
    for document in documents().into_iter().filter(|d| !d.path.ends_with("CHANGELOG.md")) {
        let is_map = document.path.ends_with("architecture.md");
        for (n, line) in document.lines() {
            for named in line.split('`').skip(1).step_by(2) {
                let is_path =
                    named.contains('/') && named.chars().all(|c| c.is_alphanumeric() || "_-./".contains(c));
                let in_src = is_map && named.ends_with(".rs") && root().join("src").join(named).exists();
                let begins = roots.iter().any(|r| named.starts_with(r)) || is_map && named.ends_with(".rs");
                let beside = document.path.parent().is_some_and(|dir| dir.join(named).exists());
                let is_there = in_src || beside || root().join(named).exists();
                if is_path && begins && !is_there && !named.contains("TARGET") {
                    wrong.push(format!("{}:{n}: `{named}` is not there", document.name()));
                }
            }
        }
    }
    check(wrong);
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

#[test]
fn nothing_unwraps_but_tests() {
    let mut wrong = Vec::new();
    let members = [
        "crates/cli/src",
        "crates/migrate/src",
        "crates/public-api/src",
        "crates/raft-engine/src",
        "crates/torture/src",
        "examples/encrypted/src",
        "examples/raftstore/src",
    ];
    for source in sources("src").into_iter().chain(members.into_iter().flat_map(sources)) {
        // In a fuzz target a panic is the answer.
        let parts: Vec<_> = source.path.components().map(|c| c.as_os_str()).collect();
        if parts.iter().any(|part| *part == "fuzzing" || *part == "internals") {
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
    let long = CODE.iter().copied().flat_map(sources).filter(|s| s.text.lines().count() >= LINES_MAX);
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
    let code = CODE.iter().copied().flat_map(sources);
    for source in code.chain(documents()) {
        for (n, line) in source.lines() {
            if let Some(mark) = marks.iter().find(|mark| line.contains(**mark)) {
                wrong.push(format!("{}:{n}: {mark}: do it, or open an issue", source.name()));
            }
        }
    }
    check(wrong);
}

/// rustfmt does not break comments. Tables and what stands between fences are left as they are, and
/// so is an address.
#[test]
fn comments_are_no_wider_than_code() {
    let config = fs::read_to_string(root().join("rustfmt.toml")).unwrap();
    let width = config.lines().find_map(|line| line.strip_prefix("max_width = "));
    let width: usize = width.unwrap().trim().parse().unwrap();
    let mut wrong = Vec::new();
    for source in CODE.iter().copied().flat_map(sources) {
        let mut is_fenced = false;
        for (n, line) in source.lines() {
            let Some(text) = comment(line) else {
                is_fenced = false;
                continue;
            };
            if text.starts_with("```") {
                is_fenced = !is_fenced;
            }
            let is_address = text.contains("://") && text.split_whitespace().count() == 1;
            let is_free = is_fenced || is_address || text.starts_with('|');
            let chars = line.chars().count();
            if chars > width && !is_free {
                wrong.push(format!(
                    "{}:{n}: {chars} characters: wrap the paragraph at {width}",
                    source.name()
                ));
            }
        }
    }
    check(wrong);
}

#[test]
fn words_that_are_out_stay_out() {
    let mut included = Vec::new();
    walk(&root().join("src"), "md", &mut included);
    let code = CODE.iter().copied().flat_map(sources);
    let mut wrong = Vec::new();
    for source in code.chain(documents()).chain(included) {
        let is_document = source.path.extension().is_some_and(|e| e == "md");
        // This file lists them.
        let is_list = source.path.ends_with("tests/tidy.rs");
        for (n, line) in source.lines() {
            let is_prose = is_document || comment(line).is_some();
            for (word, instead) in words_out(line, is_prose, is_list) {
                wrong.push(format!("{}:{n}: `{word}` is out; say: {instead}", source.name()));
            }
        }
    }
    check(wrong);
}

#[test]
fn words_are_found_however_they_are_written() {
    let found = |line| words_out(line, true, false).into_iter().map(|(word, _)| word).collect::<Vec<_>>();
    assert_eq!(found("/// Whoever, for ever."), ["whoever", "for ever"]);
    assert_eq!(found("// Two runs, one behind the other."), ["one behind the other", "behind"]);
    assert_eq!(found("//! left behind by [`LIFE`] and `whoever_waits`"), Vec::<&str>::new());
    let in_code = words_out("let behind = life;", false, false);
    assert!(in_code.is_empty(), "{in_code:?}");
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

// ---- what the rules are made of ---------------------------------------------------------------------------

struct Source {
    path: PathBuf,
    text: String,
}

impl Source {
    fn name(&self) -> String {
        self.path.strip_prefix(root()).unwrap_or(&self.path).display().to_string()
    }

    /// The path of the module that it is, from the crate's root.
    fn module(&self) -> Vec<String> {
        let inside = self.path.strip_prefix(root().join("src")).unwrap_or(&self.path).with_extension("");
        let parts = inside.components().map(|c| c.as_os_str().to_string_lossy().into_owned());
        parts.filter(|part| part != "mod").collect()
    }

    /// What it uses of other top modules.
    fn imports(&self, exports: &Exports) -> Vec<Import> {
        let module = self.module();
        imports::imports(&module.iter().map(String::as_str).collect::<Vec<_>>(), &self.text, exports)
    }

    /// The same, and what it uses within its own.
    fn all_imports(&self, exports: &Exports) -> Vec<Import> {
        let module = self.module();
        imports::all_imports(&module.iter().map(String::as_str).collect::<Vec<_>>(), &self.text, exports)
    }

    /// Numbered from 1.
    fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        (1..).zip(self.text.lines())
    }

    /// The lines that are neither comments nor tests, which stand at the end of a file or in one
    /// of their own.
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
    for readme in [
        "fuzz/README.md",
        "benches/peers/README.md",
        "crates/migrate/README.md",
        "crates/raft-engine/README.md",
        "examples/encrypted/README.md",
        "examples/kv/README.md",
        "examples/raftstore/README.md",
    ] {
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
        if path.ends_with("benches/peers/target") || path.ends_with("crates/migrate/target") {
            // Code that other packages make while they are built.
        } else if path.is_dir() {
            walk(&path, extension, found);
        } else if path.extension().is_some_and(|e| e == extension) {
            found.push(Source { text: fs::read_to_string(&path).unwrap(), path });
        }
    }
}

fn root_exports() -> Exports {
    imports::exports(&fs::read_to_string(root().join("src/lib.rs")).unwrap())
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty())
}

/// The text of a line that is a comment.
fn comment(line: &str) -> Option<&str> {
    let text = line.trim_start().strip_prefix("//")?;
    Some(text.trim_start_matches(['/', '!']).trim())
}

/// The words of a line that are out, and what to say instead. Of one that is not prose, those
/// that are no names.
fn words_out(line: &str, is_prose: bool, is_list: bool) -> Vec<(&'static str, &'static str)> {
    let spoken = spoken(line);
    let anywhere = OUT.iter().filter(|_| is_prose || !is_list);
    let in_prose = OUT_OF_PROSE.iter().filter(|_| is_prose);
    anywhere.chain(in_prose).filter(|(word, _)| spoken.contains(&format!(" {word} "))).copied().collect()
}

/// A line as one hears it: its words in lower case with a space around each, but for names in capitals and
/// for uses that are legitimate.
fn spoken(line: &str) -> String {
    let lower = |word: &str| match word.chars().any(char::is_lowercase) {
        true => word.to_lowercase(),
        false => word.to_owned(),
    };
    let heard = words(line).map(lower).collect::<Vec<_>>().join(" ");
    let without = |line: String, phrase: &&str| line.replace(&format!(" {phrase} "), " - ");
    LEGITIMATE.iter().fold(format!(" {heard} "), without)
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
