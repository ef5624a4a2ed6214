//! House rules that a compiler does not check.
//!
//! A failure names file and line, and says the rule. A rule that should bend gets an exception here, with its
//! reason: that is the place where a new arrow between layers is argued for.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// What each module may use, besides itself. From bottom to top: none uses one that comes later.
const LAYERS: &[(&str, &[&str])] = &[
    ("planted", &[]),
    ("limits", &[]),
    ("sync", &[]),
    ("latency", &[]),
    ("types", &[]),
    ("salt", &["sync"]),
    ("watch", &["sync"]),
    ("error", &["types"]),
    ("codec", &["limits", "planted", "types"]),
    ("format", &["codec", "limits", "planted", "types"]),
    ("vfs", &["planted"]),
    ("report", &["error", "latency", "types"]),
    ("listener", &["error", "sync", "types"]),
    ("options", &["error", "limits", "listener", "report", "salt", "vfs"]),
    (
        "segment",
        &[
            "codec", "error", "format", "limits", "options", "planted", "salt", "sync", "types", "vfs",
            "watch",
        ],
    ),
    ("index", &["codec", "error", "format", "limits", "planted", "segment", "sync", "types"]),
    (
        "commit",
        &[
            "codec", "error", "format", "index", "latency", "limits", "planted", "segment", "sync", "types",
            "vfs",
        ],
    ),
    ("read", &["error", "format", "index", "planted", "segment", "types"]),
    (
        "checkpoint",
        &[
            "commit", "error", "format", "index", "listener", "planted", "salt", "segment", "sync", "types",
            "vfs",
        ],
    ),
    (
        "recovery",
        &[
            "checkpoint",
            "codec",
            "error",
            "format",
            "index",
            "limits",
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
            "checkpoint",
            "codec",
            "commit",
            "error",
            "format",
            "index",
            "limits",
            "listener",
            "options",
            "planted",
            "report",
            "segment",
            "sync",
            "types",
            "vfs",
            "watch",
        ],
    ),
    (
        "engine",
        &[
            "checkpoint",
            "codec",
            "commit",
            "error",
            "format",
            "index",
            "latency",
            "limits",
            "listener",
            "options",
            "planted",
            "read",
            "recovery",
            "report",
            "segment",
            "sync",
            "types",
            "upkeep",
            "vfs",
            "watch",
        ],
    ),
];

/// Folders and files that stand outside of the layers: they may use everything, and nothing may use them.
const OUTSIDE: &[&str] =
    &["lib", "bin", "fuzzing", "openraft_09", "openraft_010", "openraft_shared", "raft_rs", "torture"];

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

/// This once looked at the table above only, which has no cycle as long as it is sorted,
/// whatever the code does.
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

/// rustfmt does not break comments. Tables and what stands between fences are left as they are, and
/// so is an address.
#[test]
fn comments_are_no_wider_than_code() {
    let config = fs::read_to_string(root().join("rustfmt.toml")).unwrap();
    let width = config.lines().find_map(|line| line.strip_prefix("max_width = "));
    let width: usize = width.unwrap().trim().parse().unwrap();
    let mut wrong = Vec::new();
    for source in ["src", "tests", "examples", "benches"].into_iter().flat_map(sources) {
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
    let code = ["src", "tests", "examples", "benches"].into_iter().flat_map(sources);
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

#[test]
fn arrows_are_found_however_they_are_written() {
    let found = |line| arrows(line).collect::<Vec<_>>();
    assert_eq!(found("use crate::format::batch::{Batch, Op};"), ["format::batch"]);
    assert_eq!(found("use crate::{Options, purge, options::Pool};"), ["Options", "purge", "options"]);
    assert_eq!(found("    foo(crate::ErrorKind::Io, crate::store::lock(x))"), ["ErrorKind", "store::lock"]);
    assert_eq!(found("pub(crate) fn f() {}"), Vec::<String>::new());
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
