//! The mistakes that are planted, whichever way: one list, and the test of each is there.

use super::{CODE, check, root, sources, walk};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;

/// So many there are at least: one that is taken out leaves a rule that no test is seen to hold.
const MISTAKES_MIN: usize = 175;

/// A mistake, as it is declared or listed.
#[derive(PartialEq, Eq, Debug)]
struct Mistake {
    /// Where it stands: `code`, `disk` or `patch`.
    made_by: String,
    /// What it does and breaks.
    what: String,
    /// The test that is expected to notice it.
    test: String,
}

#[test]
fn planted_mistakes_are_listed_each_with_a_test_that_is_there() {
    let (declared, listed) = (declared(), listed());
    let mut wrong = Vec::new();
    for name in declared.keys().chain(listed.keys()).collect::<BTreeSet<_>>() {
        match (declared.get(name), listed.get(name)) {
            (Some(a), Some(b)) if a.made_by == b.made_by && a.what == b.what => {
                if !b.test.ends_with(last(&a.test)) {
                    wrong.push(format!("{name}: declared with {}, listed with {}", a.test, b.test));
                }
            }
            (a, b) => wrong.push(format!("{name}: declared as {a:?}, listed as {b:?}")),
        }
    }
    let code: String = CODE.iter().copied().chain(["src"]).flat_map(sources).map(|s| s.text).collect();
    let is_there = |test: &str| code.contains(&format!("fn {}(", last(test))) && is_in_its_module(test);
    wrong.extend(declared.values().filter(|m| !is_there(&m.test)).map(|m| format!("there is no {}", m.test)));
    let code_alone = declared.iter().filter(|(_, mistake)| mistake.made_by == "code");
    let is_made = |name: &str| {
        let place = format!("Bug::{name}");
        let made = |text: &str| {
            let mut rests = text.split(&place).skip(1);
            rests.any(|rest| !rest.starts_with(|c: char| c.is_alphanumeric()))
        };
        sources("src").iter().any(|source| made(&source.text))
    };
    let never = code_alone.filter(|(name, _)| !is_made(name));
    wrong.extend(never.map(|(name, _)| format!("{name} is declared, and made nowhere")));
    let count = declared.len();
    assert!(count >= MISTAKES_MIN, "{count} are fewer than there were");
    for (document, says) in [
        ("README.md", format!("[{count} planted bugs]")),
        ("docs/planted-bugs.md", format!("There are {count}.")),
        ("docs/crash-safety.md", format!("There are {count};")),
    ] {
        if !fs::read_to_string(root().join(document)).unwrap().contains(&says) {
            wrong.push(format!("{document} does not say: {says}"));
        }
    }
    check(wrong);
}

/// A unit test is asked for by the path of its module.
fn is_in_its_module(test: &str) -> bool {
    let Some(path) = test.strip_prefix("lib::") else { return true };
    let modules: Vec<&str> = path.split("::").take_while(|part| *part != "tests").collect();
    let module = root().join("src").join(modules.join("/"));
    let files = [module.with_extension("rs"), module.join("mod.rs"), module.join("tests.rs")];
    let function = format!("fn {}(", last(test));
    files.iter().any(|file| fs::read_to_string(file).is_ok_and(|text| text.contains(&function)))
}

fn last(test: &str) -> &str {
    test.rsplit("::").next().unwrap_or(test)
}

/// Those of `src/planted.rs`, of which some are made by the disk, and the patches.
fn declared() -> BTreeMap<String, Mistake> {
    let mut found = BTreeMap::new();
    let mut add = |name: &str, made_by: &str, what: String, test: &str| {
        let mistake = Mistake { made_by: made_by.into(), what, test: test.into() };
        assert!(found.insert(name.to_owned(), mistake).is_none(), "two mistakes are called {name}");
    };
    let disk = fs::read_to_string(root().join("src/vfs/faulty.rs")).unwrap();
    let mut what = Vec::new();
    for line in fs::read_to_string(root().join("src/planted.rs")).unwrap().lines().map(str::trim) {
        if let Some(text) = line.strip_prefix("/// ") {
            what.push(text.to_owned());
        } else if let Some((name, test)) =
            line.strip_suffix("\",").and_then(|l| l.split_once(" caught by \""))
        {
            let is_disk = disk.contains(&format!("Bug::{name})"));
            add(name, if is_disk { "disk" } else { "code" }, what.join(" "), test);
            what.clear();
        } else {
            what.clear();
        }
    }
    let mut patches = Vec::new();
    walk(&root().join("tests/planted"), "patch", &mut patches);
    assert!(!patches.is_empty(), "the patches are found");
    for patch in patches {
        let mut lines = patch.text.lines();
        let what = lines.next().unwrap_or_default().to_owned();
        let test = lines.next().and_then(|l| l.strip_prefix("caught by \"")?.strip_suffix('"'));
        let test = test.unwrap_or_else(|| panic!("the second line of {} names no test", patch.name()));
        add(&patch.path.file_stem().unwrap().to_string_lossy(), "patch", what, test);
    }
    found
}

/// The rows of the table.
fn listed() -> BTreeMap<String, Mistake> {
    let document = fs::read_to_string(root().join("docs/planted-bugs.md")).unwrap();
    let rows = document.lines().filter_map(|line| {
        let mut columns = line.strip_prefix("| `")?.strip_suffix("` |")?.splitn(4, " | ");
        let name = columns.next()?.strip_suffix('`')?.to_owned();
        let (made_by, what) = (columns.next()?.to_owned(), columns.next()?.to_owned());
        let test = columns.next()?.rsplit('`').next()?.to_owned();
        Some((name, Mistake { made_by, what, test }))
    });
    rows.collect()
}
