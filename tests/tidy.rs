//! House rules that a compiler does not check.
//!
//! A failure names file and line, and says the rule. A rule that should bend gets an exception here, with its
//! reason; a new arrow between layers is argued for in `tidy/layers.rs`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test")]

use std::fs;
use std::path::{Path, PathBuf};

#[path = "tidy/adapters.rs"]
mod adapters;
#[path = "tidy/errors.rs"]
mod errors;
#[path = "tidy/imports.rs"]
mod imports;
#[path = "tidy/layers.rs"]
mod layers;
#[path = "tidy/planted.rs"]
mod planted;

/// Where the code is, with that of all members.
const CODE: &[&str] = &["src", "crates", "tests", "benches", "examples", "fuzz/fuzz_targets"];

/// Longer than this and a file has more than one noun.
const LINES_MAX: usize = 800;

/// Phrases that are out, in comments, documents and code, and what is said instead. In names too.
const OUT: &[(&str, &str)] = &[
    ("whoever", "a thread that, the one that"),
    ("for ever", "forever"),
    ("senseless", "malformed, inconsistent"),
    ("makes no sense", "is malformed, is inconsistent"),
    ("makes sense", "is consistent"),
    ("hear of", "be notified of"),
    ("hears of", "is notified of"),
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
fn nothing_unwraps_but_tests() {
    let mut wrong = Vec::new();
    let members = [
        "crates/cli/src",
        "crates/migrate/src",
        "crates/public-api/src",
        "crates/raft-engine/src",
        "crates/torture/src",
        "examples/encrypted/src",
        "examples/openraft-many/src",
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
    assert_eq!(found("//! left behind by [`LIFE`] and `everyone_waits`"), Vec::<&str>::new());
    // A name is heard in its parts.
    let in_names = words_out("fn it_makes_sense_to(whoever_waits: u8) {", false, false);
    assert_eq!(in_names.iter().map(|(word, _)| *word).collect::<Vec<_>>(), ["whoever", "makes sense"]);
    let in_code = words_out("let behind = life;", false, false);
    assert!(in_code.is_empty(), "{in_code:?}");
}

#[test]
fn the_table_of_formats_has_what_this_release_writes_and_reads() {
    let value = |path: &str, before: &str| {
        let text = read(path);
        let line = text.lines().find_map(|line| line.strip_prefix(before).map(str::to_owned));
        line.unwrap_or_else(|| panic!("{path} has no line {before}"))
    };
    let release = value("Cargo.toml", "version = ");
    let constant = value("src/format/file_header.rs", "pub(crate) const FORMAT_VERSION: u32 = ");
    let format: u32 = constant.trim_end_matches(';').parse().unwrap();
    let reads: Vec<String> = (1..=format).map(|version| version.to_string()).collect();
    let row = format!("| {} | {format} | {} |", release.trim_matches('"'), reads.join(", "));
    let is_there = read("docs/operations.md").lines().any(|line| line == row);
    assert!(is_there, "docs/operations.md: under \"Upgrade and downgrade\" there has to be: {row}");
}

/// The first table that anybody sees has to come from the command beside it.
#[test]
fn the_table_beside_other_engines_has_the_command_that_makes_it() {
    let command = |path: &str| {
        let text = read(path);
        let found = text.lines().find(|line| line.starts_with("cargo run") && line.contains("benches/peers"));
        found.unwrap_or_else(|| panic!("{path} has no command")).to_owned()
    };
    assert_eq!(command("README.md"), command("docs/benchmarks/README.md"));
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
        self.module_of("src")
    }

    /// The same, of a package whose code stands in this folder.
    fn module_of(&self, package: &str) -> Vec<String> {
        let inside = self.path.strip_prefix(root().join(package)).unwrap_or(&self.path).with_extension("");
        let parts = inside.components().map(|c| c.as_os_str().to_string_lossy().into_owned());
        parts.filter(|part| part != "mod").collect()
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

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
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
        "examples/openraft-many/README.md",
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

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty())
}

/// The text of a line that is a comment.
fn comment(line: &str) -> Option<&str> {
    let text = line.trim_start().strip_prefix("//")?;
    Some(text.trim_start_matches(['/', '!']).trim())
}

/// The words of a line that are out, and what to say instead. Of one that is not prose, those
/// that are out of names too.
fn words_out(line: &str, is_prose: bool, is_list: bool) -> Vec<(&'static str, &'static str)> {
    let spoken = spoken(line);
    // Names too, in their parts.
    let named = spoken.replace('_', " ");
    let is_in = |text: &str, word: &str| text.contains(&format!(" {word} "));
    let anywhere = OUT.iter().filter(|(word, _)| (is_prose || !is_list) && is_in(&named, word));
    let in_prose = OUT_OF_PROSE.iter().filter(|(word, _)| is_prose && is_in(&spoken, word));
    anywhere.chain(in_prose).copied().collect()
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
