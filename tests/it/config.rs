//! Options in a configuration file: what is written is what is meant, and what is wrong is named.

use raftwood::{Compression, EntryId, Lsn, Options, Pool, Purge, ReadMode, RegionId, ScrubOptions};
use serde_json::Value;
use std::collections::BTreeSet;
use std::time::Duration;

const FILE: &str = include_str!("../../docs/raftwood.toml");

fn of(options: &Options) -> Value {
    serde_json::to_value(options).unwrap()
}

/// Every option that a file can set, with a value that is not its default.
fn all_changed() -> Options {
    Options::new()
        .segment_bytes(1 << 20)
        .read_mode(ReadMode::Pread)
        .in_flight_bytes_max(5)
        .stall_after(Duration::from_secs(90))
        .fetch_threads(7)
        .fetch_queue_max(5)
        .must_exist(true)
        .disk_budget(100 << 30)
        .compression(Compression::Lz4 { min_batch_bytes: 1000 })
        .pool(Pool::default().files_max(3).prewrite(false))
        .purge(Purge::default().background(false).garbage_percent_max(20).rate_bytes(3 << 20))
        .scrub_every(Duration::from_secs(86400), ScrubOptions::default().rate_bytes(0).from_device(true))
}

/// Names of all fields, as `part.field`.
fn fields(of: &Value) -> BTreeSet<String> {
    let under = |(name, value): (&String, &Value)| match value {
        Value::Object(_) => fields(value).into_iter().map(|field| format!("{name}.{field}")).collect(),
        _ => vec![name.clone()],
    };
    of.as_object().unwrap().iter().flat_map(under).collect()
}

#[test]
fn the_file_in_the_documents_says_the_defaults() {
    let read: Options = toml::from_str(FILE).unwrap();
    assert_eq!(of(&read), of(&Options::new()));
    assert_eq!(format!("{read:?}"), format!("{:?}", Options::new()));
}

/// Also what it has as a comment only.
#[test]
fn the_file_in_the_documents_has_every_field_and_no_other() {
    let is_setting = |line: &str| {
        line.starts_with('[') || line.split_once(" = ").is_some_and(|(name, _)| !name.contains(' '))
    };
    let switched_on =
        FILE.lines().map(|line| line.strip_prefix("# ").filter(|rest| is_setting(rest)).unwrap_or(line));
    let text = switched_on.collect::<Vec<_>>().join("\n");
    let text = text.replace("method = \"none\"", "method = \"lz4\"");
    let table: toml::Table = toml::from_str(&text).unwrap();
    assert_eq!(fields(&serde_json::to_value(&table).unwrap()), fields(&of(&all_changed())));
    // What the comments say of defaults is true.
    let read: Options = toml::from_str(&text).unwrap();
    let meant = Options::new()
        .disk_budget(100 << 30)
        .compression(Compression::Lz4 { min_batch_bytes: 4096 })
        .scrub_every(Duration::from_secs(7 * 86400), ScrubOptions::default());
    assert_eq!(of(&read), of(&meant));
}

#[test]
fn what_is_written_is_read_again() {
    for options in [Options::new(), all_changed()] {
        let text = toml::to_string(&options).unwrap();
        let read: Options = toml::from_str(&text).unwrap();
        assert_eq!(format!("{read:?}"), format!("{options:?}"), "{text}");
        assert_eq!(of(&read), of(&options));
        let json = serde_json::to_string(&options).unwrap();
        assert_eq!(of(&serde_json::from_str(&json).unwrap()), of(&options));
    }
    // All of them are other than the defaults: none was left out above.
    let (changed, defaults) = (of(&all_changed()), of(&Options::new()));
    for (name, value) in defaults.as_object().unwrap() {
        match value {
            Value::Object(part) => {
                part.iter().for_each(|(field, value)| assert_ne!(&changed[name][field], value))
            }
            value => assert_ne!(&changed[name], value, "{name}"),
        }
    }
}

#[test]
fn an_error_names_the_field_and_what_may_stand_there() {
    for (text, named) in [
        ("segment_bytes = \"64 MB\"", &["segment_bytes = \"64 MB\"", "MiB"][..]),
        ("segment_bytes = -1", &["segment_bytes", "no size"]),
        ("segment_bytes = \"1000 B\"", &["segment_bytes is 1000", "multiple of 4096"]),
        ("in_flight_bytes_max = 0", &["in_flight_bytes_max = 0", "between 1 B and"]),
        ("stall_after = 500", &["stall_after = 500", "500", "ms"]),
        ("stall_after = \"half a second\"", &["stall_after", "\"30s\""]),
        ("stall_after = [1]", &["stall_after", "no time"]),
        ("fetch_threads = 0", &["fetch_threads is 0", "between 1 and 1024"]),
        ("fetch_threads = \"two\"", &["fetch_threads = \"two\"", "a number"]),
        ("fetch_queue_max = 0", &["fetch_queue_max is 0", "at least 1"]),
        ("must_exist = 1", &["must_exist = 1", "true or false"]),
        ("disk_budget = \"1 MiB\"", &["disk_budget is 1048576", "16 segments"]),
        ("disk_budget = \"half\"", &["disk_budget = \"half\"", "no size"]),
        ("read_mode = \"mmap\"", &["read_mode = \"mmap\"", "\"map\" or \"pread\""]),
        ("[compression]\nmethod = \"zstd\"", &["compression.method = \"zstd\"", "lz4"]),
        ("[compression]\nmin_batch_bytes = 1", &["compression.min_batch_bytes", "method"]),
        ("[pool]\nfiles_max = 0", &["pool.files_max = 0", "between 1 and"]),
        ("[pool]\nprewrite = \"yes\"", &["pool.prewrite = \"yes\"", "true or false"]),
        ("[purge]\nbackground = 1", &["purge.background = 1", "true or false"]),
        ("[purge]\ngarbage_percent_max = 99", &["purge.garbage_percent_max = 99", "10 and 95"]),
        ("[purge]\nrate_bytes = \"1 KiB\"", &["purge.rate_bytes = \"1 KiB\"", "at least 1 MiB"]),
        ("[scrub]\nrate_bytes = \"1 MiB\"", &["scrub.every is missing"]),
        ("[scrub]\nevery = \"7 weeks\"", &["scrub.every = \"7 weeks\"", "d"]),
        ("[scrub]\nevery = \"7d\"\nfrom_device = 1.5", &["scrub.from_device", "true or false"]),
        // What is not known, and what is not the operator's.
        ("segment_size = 1", &["segment_size", "segment_bytes"]),
        ("[pool]\nfile_max = 1", &["file_max", "files_max"]),
        ("tail_policy = \"accept-loss\"", &["tail_policy"]),
    ] {
        let error = toml::from_str::<Options>(text).map(drop).unwrap_err().to_string();
        named.iter().for_each(|name| assert!(error.contains(name), "{text}: {name} is not in: {error}"));
    }
}

#[test]
fn ids_are_plain_values_in_a_configuration() {
    let ids = (RegionId(7), EntryId::new(3, 5), Lsn::from_u64(9));
    let text = serde_json::to_string(&ids).unwrap();
    assert_eq!(text, r#"[7,{"term":3,"index":5},9]"#);
    assert_eq!(serde_json::from_str::<(RegionId, EntryId, Lsn)>(&text).unwrap(), ids);
}
