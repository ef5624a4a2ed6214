//! The commands that look into a store, from the outside.

#![allow(clippy::unwrap_used)] // a test that cannot go on should stop
#![cfg(feature = "cli")]

mod copies;

use raftwood::{Durability, Engine, EntryId, RegionId};
use std::path::Path;
use std::process::{Command, Output};

fn tool(dir: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_raftwood")).args(args).current_dir(dir).output().unwrap()
}

fn printed(out: &Output, code: i32) -> String {
    assert_eq!(out.status.code(), Some(code), "{}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout.clone()).unwrap()
}

/// A store with entries of regions 5 and 6 and a key, in three writes.
fn store(dir: &Path) -> Engine {
    let engine = Engine::open(dir.join("store")).unwrap();
    for index in 1..=3u64 {
        let mut batch = engine.batch();
        batch.region(RegionId(5)).append([(EntryId::new(1, index), &b"set a"[..])]).unwrap();
        batch.region(RegionId(5)).put(b"applied", b"2").unwrap();
        if index == 2 {
            batch.region(RegionId(6)).append([(EntryId::new(7, 1), &[0u8, 10, b'x'][..])]).unwrap();
        }
        engine.write(batch, Durability::Synced).unwrap();
    }
    engine
}

/// Lines of JSON, each with the version of its schema.
fn lines(text: &str) -> Vec<serde_json::Value> {
    let all: Vec<serde_json::Value> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert!(all.iter().all(|line| line["schema"] == 1), "{text}");
    all
}

#[test]
fn dump_of_records_shows_what_each_write_did_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let engine = store(dir.path());
    engine.close().unwrap();
    drop(engine);
    let text = printed(&tool(dir.path(), &["dump", "store", "--records", "--entries"]), 0);
    assert!(text.contains("batch of ") && text.contains("append "), "{text}");
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    let all = lines(&printed(&tool(dir.path(), &["dump", "store", "--records", "--json"]), 0));
    let batches: Vec<_> = all.iter().filter(|line| line["content"] == "batch").collect();
    assert!(batches.len() > 1 && batches.iter().all(|b| b["durable"] == true), "{all:?}");
    assert!(batches[0]["regions"][0]["ops"][0]["entries"].is_null(), "no payload unless asked");
    // From the end of the first, the rest.
    let since = ["dump", "store", "--records", "--json", "--since", batches[0]["end"].as_str().unwrap()];
    let rest = lines(&printed(&tool(dir.path(), &since), 0));
    assert_eq!(rest[..], all[all.len() - rest.len()..]);
    assert_eq!(rest.iter().filter(|line| line["content"] == "batch").count(), batches.len() - 1);
    let wrong = tool(dir.path(), &["dump", "store", "--records", "--since", "7"]);
    assert_eq!(wrong.status.code(), Some(2));
    // One region, and nothing of the others.
    let one =
        lines(&printed(&tool(dir.path(), &["dump", "store", "--records", "--json", "--region", "5"]), 0));
    assert!(!one.is_empty());
    for line in one {
        assert!(line["regions"].as_array().unwrap().iter().all(|r| r["region"] == 5), "{line}");
    }
}

#[test]
fn a_followed_dump_goes_on_until_nobody_reads_it() {
    use std::io::{BufRead, BufReader};
    let dir = tempfile::tempdir().unwrap();
    let engine = store(dir.path());
    let mut child = Command::new(env!("CARGO_BIN_EXE_raftwood"))
        .args(["dump", "store", "--follow", "--json", "--unproven"])
        .current_dir(dir.path())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut batch = engine.batch();
    batch.region(RegionId(99)).put(b"last", b"word").unwrap();
    engine.write(batch, Durability::Synced).unwrap();
    let mut line = String::new();
    while !line.contains("\"region\":99") {
        line.clear();
        assert!(out.read_line(&mut line).unwrap() > 0, "it ended");
    }
    // It has nothing more to say, and notices all the same that nobody listens.
    drop(out);
    assert_eq!(child.wait().unwrap().code(), Some(141));
}

#[test]
fn top_shows_what_is_written_and_the_busiest_regions_until_nobody_reads_it() {
    use std::io::{BufRead, BufReader};
    use std::sync::atomic::{AtomicBool, Ordering};
    let dir = tempfile::tempdir().unwrap();
    let engine = store(dir.path());
    let mut child = Command::new(env!("CARGO_BIN_EXE_raftwood"))
        .args(["top", "store", "--json", "--interval", "0.2", "--regions", "1"])
        .current_dir(dir.path())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let done = AtomicBool::new(false);
    // Whatever was there before is in the first.
    out.read_line(&mut String::new()).unwrap();
    let shown = std::thread::scope(|threads| {
        // In each batch five times as much for region 6 as for region 5.
        threads.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                let mut batch = engine.batch();
                batch.region(RegionId(5)).append_next([&[0; 100][..]], 7).unwrap();
                batch.region(RegionId(6)).append_next([&[0; 250][..], &[0; 250]], 7).unwrap();
                engine.write(batch, Durability::Synced).unwrap();
            }
        });
        let shown = loop {
            let mut line = String::new();
            assert!(out.read_line(&mut line).unwrap() > 0, "it ended");
            let shown = lines(&line).remove(0);
            if shown["active_regions"] == 2 {
                break shown;
            }
        };
        done.store(true, Ordering::Relaxed);
        shown
    });
    let rate = |of: &serde_json::Value, what: &str| of[what].as_f64().unwrap();
    let (all, top) = (&shown["per_second"], &shown["top"]);
    assert_eq!((top.as_array().unwrap().len(), &top[0]["region"]), (1, &6.into()), "{shown}");
    let ratio = |what, times: f64| (rate(all, what) / rate(&top[0], what) - times).abs() < 1e-6;
    assert!(ratio("batches", 1.0) && ratio("entries", 1.5), "{shown}");
    assert!(rate(all, "bytes") > rate(&top[0], "bytes"), "{shown}");
    assert_eq!((&shown["kind"], &shown["space"]["regions"]), (&"top".into(), &2.into()), "{shown}");
    assert!(shown["space"]["live_bytes"].as_u64().unwrap() > 0, "{shown}");
    drop(out);
    assert_eq!(child.wait().unwrap().code(), Some(141));
}

#[test]
fn top_ends_after_so_many_looks_and_is_a_line_for_each_where_nobody_looks() {
    let dir = tempfile::tempdir().unwrap();
    store(dir.path()).close().unwrap();
    let text = printed(&tool(dir.path(), &["top", "store", "--interval", "0.05", "--count", "2"]), 0);
    assert_eq!(text.lines().count(), 2, "{text}");
    for line in text.lines() {
        assert!(
            line.starts_with("0 batches/s  0 B/s  0 entries/s  durable ") && line.contains("segment"),
            "{line}"
        );
    }
    assert_eq!(tool(dir.path(), &["top", "store", "--interval", "0"]).status.code(), Some(2));
    assert_eq!(tool(dir.path(), &["top", "nowhere", "--count", "1"]).status.code(), Some(2));
}

#[test]
fn what_an_adapter_stored_is_shown_in_words() {
    let dir = tempfile::tempdir().unwrap();
    let engine = Engine::open(dir.path().join("store")).unwrap();
    let mut batch = engine.batch();
    let mut region = batch.region(RegionId(1));
    let entries: [&[u8]; 3] = [b"", b"\x00set x", b"\x01\x10\x01\x18\x04"];
    let ids = (1..).map(|index| EntryId::new(1, index));
    region.append(ids.zip(entries)).unwrap();
    region.set_hard_state(b"\x01\x07\x03\x02").unwrap();
    engine.write(batch, Durability::Synced).unwrap();
    engine.close().unwrap();
    drop(engine);
    for more in [&[][..], &["--records", "--entries"]] {
        let args = [&["dump", "store", "--decode", "raft-rs"][..], more].concat();
        let text = printed(&tool(dir.path(), &args), 0);
        for words in ["term 7, vote for 3, commit 2", "normal: set x", "conf change: remove 4"] {
            assert!(text.contains(words), "{text}");
        }
    }
    // What is not of that adapter is shown as it is.
    let text = printed(&tool(dir.path(), &["dump", "store", "--decode", "openraft"]), 0);
    assert!(text.contains("\\x00set x"), "{text}");
}

#[test]
fn regions_are_sorted_filtered_and_limited_in_tables_of_80_columns() {
    let dir = tempfile::tempdir().unwrap();
    let engine = Engine::open(dir.path().join("store")).unwrap();
    for (id, len) in [(1u64, 100usize), (2, 9000), (3, 3000)] {
        let mut batch = engine.batch();
        let region = RegionId(id);
        batch.region(region).append([(EntryId::new(1, 1), &vec![1; len][..])]).unwrap();
        engine.write(batch, Durability::Synced).unwrap();
    }
    engine.close().unwrap();
    drop(engine);
    let listed = |args: &[&str]| {
        let out = tool(dir.path(), &[&["inspect", "store", "--json"], args].concat());
        let all = lines(&printed(&out, 0));
        let list = all[0]["region_list"].as_array().cloned().unwrap_or_default();
        list.iter().map(|r| r["id"].as_u64().unwrap()).collect::<Vec<_>>()
    };
    assert!(listed(&[]).is_empty());
    assert_eq!(listed(&["--regions"]), [1, 2, 3]);
    assert_eq!(listed(&["--sort", "bytes"]), [2, 3, 1]);
    assert_eq!(listed(&["--sort", "bytes", "--limit", "1"]), [2]);
    assert_eq!(listed(&["--min-bytes", "1K"]), [2, 3]);
    assert!(listed(&["--min-pinned", "1"]).is_empty(), "none has a segment for itself");
    assert!(listed(&["--sort", "age", "--older-than", "0"]).is_empty());
    assert!(listed(&["--unhealthy", "--sort", "health"]).is_empty());
    let text = printed(&tool(dir.path(), &["inspect", "store", "--regions"]), 0);
    assert!(text.contains("8.8 KiB") && text.lines().all(|line| line.chars().count() <= 80), "{text}");
}

#[test]
fn with_json_an_error_is_json_too() {
    let dir = tempfile::tempdir().unwrap();
    for args in [&["inspect", "missing", "--json"][..], &["dump", "missing", "--format", "json"]] {
        let out = tool(dir.path(), args);
        assert_eq!(out.status.code(), Some(2));
        let error = lines(&String::from_utf8(out.stderr).unwrap());
        assert_eq!(error[0]["kind"], "error");
        assert!(error[0]["error"].as_str().unwrap().contains("missing"));
    }
}

/// Changes bytes of the store's first segment.
fn change(dir: &Path, at: u64, bytes: &[u8]) {
    use std::io::{Seek, SeekFrom, Write};
    let path = dir.join("store/0000000001.log");
    let mut file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    file.seek(SeekFrom::Start(at)).unwrap();
    file.write_all(bytes).unwrap();
}

/// A store whose process died after three batches, and where they start and end.
fn killed_store(dir: &Path) -> Vec<u64> {
    let path = dir.join("alive");
    let engine = raftwood::Options::new().background(raftwood::Background::Manual).open(&path).unwrap();
    let mut at = vec![4096];
    for index in 1..=3u64 {
        let mut batch = engine.batch();
        batch.region(RegionId(5)).append([(EntryId::new(1, index), &[7u8; 3000][..])]).unwrap();
        at.push(u64::from(engine.write(batch, Durability::Synced).unwrap().offset()));
    }
    // As a kill leaves it.
    std::fs::create_dir(dir.join("store")).unwrap();
    for file in std::fs::read_dir(&path).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), dir.join("store").join(file.file_name())).unwrap();
    }
    drop(engine);
    at
}

#[test]
fn explain_says_where_the_log_ends_and_by_which_proof() {
    let dir = tempfile::tempdir().unwrap();
    let explain = |code| printed(&tool(dir.path(), &["explain", "store"]), code);
    let verdicts = |code| {
        let out = tool(dir.path(), &["explain", "store", "--json"]);
        let all = lines(&printed(&out, code));
        let judged = all[0]["judged"].as_array().unwrap().clone();
        judged.iter().map(|j| j["verdict"].as_str().unwrap().to_string()).collect::<Vec<_>>()
    };
    let fresh = || {
        let _ = std::fs::remove_dir_all(dir.path().join("store"));
        let _ = std::fs::remove_dir_all(dir.path().join("alive"));
        killed_store(dir.path())
    };
    // The last batch is whole, and nothing proves that it was acknowledged.
    fresh();
    let text = explain(0);
    assert!(text.contains(": opens") && text.contains("a whole record") && text.contains("kept"), "{text}");
    // The open says so of the rest, whose file is as it was made.
    assert!(verdicts(0).iter().any(|v| v == "keep"));

    // Its last sectors were never written.
    let at = fresh();
    change(dir.path(), at[2] + 1500, &[0; 1600]);
    let text = explain(0);
    assert!(text.contains("torn: sectors of it were never written"), "{text}");

    // A bit of its payload has flipped.
    let at = fresh();
    change(dir.path(), at[2] + 1500, &[6]);
    let text = explain(1);
    assert!(text.contains("suspect: one flipped bit explains it") && text.contains("SUSPECT"), "{text}");
    assert!(verdicts(1).contains(&"fence".to_string()));

    // Its header is wrong, and no zeros are to be seen.
    let at = fresh();
    change(dir.path(), at[2], &[0x5a; 3000]);
    let text = explain(1);
    assert!(text.contains("DOES NOT OPEN") && text.contains("in doubt: nothing shows"), "{text}");
    let lost = printed(&tool(dir.path(), &["explain", "store", "--assume-torn"]), 1);
    assert!(lost.contains(": opens") && lost.contains("because the tail policy says so"), "{lost}");

    // One before the last, which proves that it was acknowledged.
    let at = fresh();
    copies::wipe(&dir.path().join("store"));
    change(dir.path(), at[1], &[0x5a; 1000]);
    let text = explain(1);
    assert!(
        text.contains("DOES NOT OPEN") && text.contains("what is missing there was acknowledged"),
        "{text}"
    );
    assert!(text.contains("stand past a place that cannot be read"), "{text}");

    assert_eq!(tool(dir.path(), &["explain", "."]).status.code(), Some(2), "no store");
}

#[test]
fn explain_beside_an_engine_judges_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let engine = store(dir.path());
    let text = printed(&tool(dir.path(), &["explain", "store"]), 0);
    assert!(text.contains("an engine has the store open"), "{text}");
    engine.close().unwrap();
    drop(engine);
    let text = printed(&tool(dir.path(), &["explain", "store"]), 0);
    assert!(text.contains(": opens") && !text.contains("past the durable position"), "{text}");
}

#[test]
fn diff_finds_the_first_entry_that_differs_and_reads_no_payload() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, region: u64, from: u64, to: u64, odd: Option<u64>| {
        let engine = Engine::open(dir.path().join(name)).unwrap();
        let mut batch = engine.batch();
        let all: Vec<_> = (from..=to)
            .map(|i| (EntryId::new(1 + i / 50, i), format!("{i}{}", if odd == Some(i) { "!" } else { "." })))
            .collect();
        batch.region(RegionId(region)).append(all.iter().map(|(id, p)| (*id, p.as_bytes()))).unwrap();
        engine.write(batch, Durability::Synced).unwrap();
        engine.close().unwrap();
    };
    for (region, a, b) in [
        (1, (1, 100, None), (1, 100, None)),
        (2, (1, 300, None), (1, 300, Some(217))),
        (3, (1, 100, None), (1, 120, None)),
    ] {
        write("a", region, a.0, a.1, a.2);
        write("b", region, b.0, b.1, b.2);
    }
    write("b", 4, 1, 1, None);
    let out = printed(&tool(dir.path(), &["diff", "a", "b", "--json", "--all"]), 1);
    let found: Vec<_> = lines(&out)
        .iter()
        .map(|l| {
            (l["region"].as_u64().unwrap(), l["kind"].as_str().unwrap().to_string(), l["index"].as_u64())
        })
        .collect();
    let wanted = [(1, "equal", None), (2, "differs", Some(217)), (3, "longer_b", None), (4, "only_b", None)];
    assert!(found.iter().map(|f| (f.0, f.1.as_str(), f.2)).eq(wanted), "{found:?}");
    let text = printed(&tool(dir.path(), &["diff", "a", "b"]), 1);
    assert!(text.contains("region 2: DIFFERS from entry 217 on: both of term 5, with other bytes"), "{text}");
    assert_eq!(tool(dir.path(), &["diff", "a", "b", "--region", "1"]).status.code(), Some(0));
    assert_eq!(tool(dir.path(), &["diff", "a", "b", "--region", "9"]).status.code(), Some(2));
    assert_eq!(tool(dir.path(), &["diff", "a", "missing"]).status.code(), Some(2));
    // Payloads that have rotted since are not what was appended: they are not looked at.
    let path = dir.path().join("a/0000000001.log");
    let bytes = std::fs::read(&path).unwrap();
    let at = bytes.windows(6).position(|w| w == b"1.2.3.").unwrap();
    let mut wrong = bytes.clone();
    wrong[at] ^= 0xff;
    std::fs::write(&path, wrong).unwrap();
    assert_eq!(tool(dir.path(), &["diff", "a", "b", "--region", "1"]).status.code(), Some(0));
}

#[test]
fn a_purge_from_outside_gives_back_what_was_compacted() {
    let dir = tempfile::tempdir().unwrap();
    let options = raftwood::Options::new().segment_bytes(8 << 20);
    let options = options.background(raftwood::Background::Manual);
    let by_hand = raftwood::Purge::default().background(false);
    let engine = options.purge(by_hand).open(dir.path().join("store")).unwrap();
    for index in 1..=60u64 {
        let mut batch = engine.batch();
        batch.region(RegionId(5)).append([(EntryId::new(1, index), &vec![7; 1 << 20][..])]).unwrap();
        engine.write(batch, Durability::Synced).unwrap();
    }
    let mut batch = engine.batch();
    batch.region(RegionId(5)).compact_through(59).unwrap();
    engine.write(batch, Durability::Synced).unwrap();
    assert_eq!(tool(dir.path(), &["purge", "store"]).status.code(), Some(2), "an engine has it");
    engine.close().unwrap();
    drop(engine);
    let purged = &lines(&printed(&tool(dir.path(), &["purge", "store", "--json"]), 0))[0];
    assert!(purged["segments_freed"].as_u64().unwrap() > 0, "{purged}");
    assert!(purged["disk_bytes_after"].as_u64() < purged["disk_bytes_before"].as_u64(), "{purged}");
    let text = printed(&tool(dir.path(), &["dump", "store"]), 0);
    assert!(text.contains("entries 60..=60"), "{text}");
    assert_eq!(tool(dir.path(), &["purge", "."]).status.code(), Some(2), "no store");
    assert_eq!(printed(&tool(dir.path(), &["check", "store"]), 0).lines().last(), Some("clean"));
}

#[test]
fn large_numbers_and_long_values_fit_a_terminal() {
    let dir = tempfile::tempdir().unwrap();
    let engine = Engine::open(dir.path().join("store")).unwrap();
    let (region, term, index) = (RegionId(u64::MAX), 1_234_567_890_123, 9_876_543_210_987_654);
    let mut batch = engine.batch();
    let mut to = batch.region(region);
    to.reset(EntryId::new(term, index)).unwrap();
    to.append([(EntryId::new(term, index + 1), &[7u8; 300][..])]).unwrap();
    to.set_hard_state(&[0u8; 60]).unwrap();
    to.put(b"applied", &[9u8; 100]).unwrap();
    engine.write(batch, Durability::Synced).unwrap();
    // The other replica has another entry there.
    let other = Engine::open(dir.path().join("other")).unwrap();
    let mut batch = other.batch();
    let mut to = batch.region(region);
    to.reset(EntryId::new(term, index)).unwrap();
    to.append([(EntryId::new(term + 1, index + 1), &b"x"[..])]).unwrap();
    other.write(batch, Durability::Synced).unwrap();
    engine.close().unwrap();
    other.close().unwrap();
    for (args, code) in [
        (&["inspect", "store", "--regions"][..], 0),
        (&["dump", "store"], 0),
        (&["dump", "store", "--format", "hex"], 0),
        (&["dump", "store", "--records", "--entries"], 0),
        (&["diff", "store", "other"], 1),
    ] {
        let text = printed(&tool(dir.path(), args), code);
        let long = text.lines().find(|line| line.chars().count() > 80);
        assert!(long.is_none() && text.contains(&u64::MAX.to_string()), "{args:?}: {long:?}\n{text}");
        assert!(args[0] == "inspect" || text.contains(&(index + 1).to_string()), "{args:?}: {text}");
    }
}

#[test]
fn completions_and_manual_pages_know_every_command() {
    let dir = tempfile::tempdir().unwrap();
    for shell in ["bash", "zsh", "fish"] {
        let script = printed(&tool(dir.path(), &["completions", shell]), 0);
        assert!(script.contains("explain") && script.contains("unproven"), "{shell}");
    }
    assert_eq!(tool(dir.path(), &["completions", "no-shell"]).status.code(), Some(2));
    assert!(printed(&tool(dir.path(), &["man"]), 0).contains(".TH raftwood"));
    printed(&tool(dir.path(), &["man", "--to", "."]), 0);
    for page in ["raftwood.1", "raftwood-dump.1", "raftwood-explain.1"] {
        assert!(dir.path().join(page).exists(), "{page}");
    }
}

#[test]
fn a_bench_leaves_its_stores_if_asked() {
    let dir = tempfile::tempdir().unwrap();
    let args = ["bench", "raftstore", "--seconds", "0.1", "--segment-bytes", "1M", "--keep"];
    let text = printed(&tool(dir.path(), &args), 0);
    let kept = text.lines().find_map(|l| l.strip_prefix("kept for a look into it: ")).unwrap();
    printed(&tool(dir.path(), &["check", kept]), 0);
}

/// Every tag that is opened is closed, in order, and every `&` begins an entity.
fn assert_well_formed(page: &str) {
    let mut open = Vec::new();
    let body = page.strip_prefix("<!DOCTYPE html>\n").unwrap();
    let mut rest = body;
    while let Some(at) = rest.find(['<', '&']) {
        let (_, from) = rest.split_at(at);
        if let Some(entity) = from.strip_prefix('&') {
            let end = entity.find(';').unwrap();
            assert!(["amp", "lt", "gt", "quot", "#39"].contains(&&entity[..end]), "&{}", &entity[..end]);
            rest = &entity[end + 1..];
            continue;
        }
        let end = from.find('>').unwrap();
        let tag = &from[1..end];
        assert!(!tag.contains('<') && tag.matches('"').count() % 2 == 0, "{tag}");
        match tag.strip_prefix('/') {
            Some(name) => assert_eq!(open.pop(), Some(name.to_string())),
            None if tag.ends_with('/') => {}
            None => open.push(tag.split_whitespace().next().unwrap().to_string()),
        }
        rest = &from[end + 1..];
    }
    assert!(open.is_empty(), "{open:?}");
}

#[test]
fn a_report_is_one_well_formed_page_that_needs_no_network() {
    let dir = tempfile::tempdir().unwrap();
    store(dir.path()).close().unwrap();
    let odd = "<b>&\"x' store";
    std::fs::rename(dir.path().join("store"), dir.path().join(odd)).unwrap();
    std::fs::write(dir.path().join(odd).join("<script>alert(1)<"), b"").unwrap();
    let printed_page = printed(&tool(dir.path(), &["report", odd]), 0);
    assert_eq!(printed(&tool(dir.path(), &["report", odd, "-o", "out.html", "--check"]), 0), "");
    for page in [printed_page, std::fs::read_to_string(dir.path().join("out.html")).unwrap()] {
        assert_well_formed(&page);
        assert!(!page.contains("<b>") && !page.contains("<script"), "{page}");
        assert!(
            page.contains("&lt;b&gt;&amp;&quot;x&#39; store") && page.contains("prefers-color-scheme: dark")
        );
        assert!(page.contains("<svg") && page.contains("segment 1") && page.contains("1 to 3"), "{page}");
        // The one address is the name of a vocabulary.
        let addresses = page.replace("http://www.w3.org/2000/svg", "");
        assert!(!addresses.contains("://") && !addresses.contains("url("), "{page}");
    }
    // What is damaged is on it, and is the exit code.
    std::fs::rename(dir.path().join(odd), dir.path().join("store")).unwrap();
    let path = dir.path().join("store/0000000001.log");
    let bytes = std::fs::read(&path).unwrap();
    let at = bytes.windows(5).position(|w| w == b"set a").unwrap();
    change(dir.path(), at as u64, b"SET");
    let page = printed(&tool(dir.path(), &["report", "store", "--check"]), 1);
    assert_well_formed(&page);
    assert!(page.contains("class=\"bad\"") && page.contains("checksum"), "{page}");
    assert!(!page.contains("<details>"), "{page}");
    // What affects no entry stands apart from it.
    let checkpoints = std::fs::read_dir(dir.path().join("store")).unwrap().map(|e| e.unwrap().path());
    let checkpoint = checkpoints.filter(|path| path.extension().is_some_and(|e| e == "ckpt")).min().unwrap();
    let mut bytes = std::fs::read(&checkpoint).unwrap();
    bytes[200] ^= 0xa7;
    std::fs::write(&checkpoint, bytes).unwrap();
    let page = printed(&tool(dir.path(), &["report", "store", "--check"]), 1);
    assert_well_formed(&page);
    let (damage, rot) = page.split_once("<details>").unwrap();
    assert!(damage.contains("checksum") && !damage.contains(".ckpt") && rot.contains(".ckpt"), "{page}");
    // A store without anything, and none.
    Engine::open(dir.path().join("empty")).unwrap().close().unwrap();
    assert_well_formed(&printed(&tool(dir.path(), &["report", "empty"]), 0));
    assert_eq!(tool(dir.path(), &["report", "missing"]).status.code(), Some(2));
    assert_eq!(tool(dir.path(), &["report", "empty", "-o", "no/such/dir"]).status.code(), Some(2));
}

#[test]
fn a_report_shows_the_terms_of_each_region_over_its_indexes() {
    let dir = tempfile::tempdir().unwrap();
    let engine = store(dir.path());
    let mut batch = engine.batch();
    let entry = |index| (EntryId::new(if index <= 60 { 3 } else { 1_000_004 }, index), &b"set b"[..]);
    batch.region(RegionId(9)).append((1..=100).map(entry)).unwrap();
    batch.region(RegionId(9)).compact_through(20).unwrap();
    batch.region(RegionId(10)).set_hard_state(b"no entries").unwrap();
    engine.write(batch, Durability::Synced).unwrap();
    engine.close().unwrap();
    let page = printed(&tool(dir.path(), &["report", "store"]), 0);
    assert_well_formed(&page);
    let (_, terms) = page.split_once("<h2>Terms</h2>").unwrap();
    let (terms, _) = terms.split_once("</svg>").unwrap();
    for run in [
        "region 5, term 1: 1 to 3, 3 entries",
        "region 6, term 7: 1 to 1, 1 entry",
        "region 9, term 3: 21 to 60, 40 entries",
        "region 9, term 1000004: 61 to 100, 40 entries",
    ] {
        assert!(terms.contains(run), "{run} is not in {terms}");
    }
    assert!(terms.contains(">term 1000004<") && terms.contains(">2 terms<"), "{terms}");
    assert!(!terms.contains("region 10"), "it has no entries");
    // As many as are listed.
    let page = printed(&tool(dir.path(), &["report", "store", "--limit", "1"]), 0);
    assert!(page.contains("region 9, term 3") && !page.contains("region 5, term 1"), "{page}");
}
