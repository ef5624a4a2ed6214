//! Valid inputs to start from: a fuzzer that must first invent a file header gets nowhere.

use super::directory::{Files, fix, sample};

/// Target, name and content of each seed. The same in every run, and none above 4 KiB.
pub fn seeds() -> Vec<(&'static str, String, Vec<u8>)> {
    let mut all = raftwood::internals::seeds();
    let mut add = |target, name: &str, bytes: Vec<u8>| all.push((target, name.to_owned(), bytes));

    for (name, bytes) in footers_and_checkpoints(&sample().files) {
        let target = if name.ends_with("foot") { "footer" } else { "checkpoint" };
        add(target, &name, bytes);
    }

    let log = sample().files.iter().find(|(name, _)| name.ends_with("log")).map(|f| f.1);
    let record = log.and_then(|log| log.get(4096..4096 + 160)).unwrap_or_default();
    add("record", "first", [&[0; 4], record].concat());

    // Numbers of changes are read from the end of the input, so that zeros all over mean no change.
    add("directory", "unchanged", vec![0; 16]);
    for n in 0..8u8 {
        let bytes: Vec<u8> =
            (0..96u8).map(|i| i.wrapping_mul(37).wrapping_add(n.wrapping_mul(59)) ^ (i >> 2)).collect();
        add("directory", &format!("changes-{n}"), bytes.clone());
        add("operations", &format!("mixed-{n}"), [bytes.clone(), bytes].concat());
    }
    add("operations", "nothing", Vec::new());
    all
}

fn footers_and_checkpoints(files: &Files) -> Files {
    let mut files = files.clone();
    // Already right: this shows that what makes checksums right agrees with the writer.
    fix(&mut files, true);
    files.retain(|name, bytes| (name.ends_with("foot") || name.ends_with("ckpt")) && bytes.len() <= 4096);
    files
}
