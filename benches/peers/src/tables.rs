//! The report in words and tables: docs/benchmarks/README.md.

use crate::engines::{FLOOR, RAFTWOOD};
use crate::plan::Group;
use crate::results::{Results, Row};
use std::collections::BTreeSet;
use std::fmt::Write;

/// One column: its heading, and what stands in it.
type Column = (&'static str, fn(&Row, &Results) -> String);

/// All of it. `plots` are the files that stand beside it, each with its title.
pub(crate) fn page(results: &Results, plots: &[(String, String)]) -> String {
    let mut page = String::new();
    // Writing to a string does not fail.
    let _ = write(&mut page, results, plots);
    page
}

fn write(page: &mut String, results: &Results, plots: &[(String, String)]) -> std::fmt::Result {
    let measured = &results.measured;
    writeln!(page, "# Raftwood beside other engines\n")?;
    writeln!(page, "{INTRODUCTION}")?;
    let rocksdb = measured.engines.iter().any(|engine| engine.name == "rocksdb");
    let features = if rocksdb { " --features rocksdb" } else { "" };
    let arguments = measured.arguments.join(" ");
    writeln!(page, "```sh")?;
    writeln!(page, "cargo run --release --manifest-path benches/peers/Cargo.toml{features} -- {arguments}")?;
    writeln!(page, "```\n")?;
    if measured.seconds < 30.0 {
        writeln!(
            page,
            "**These are figures of a trial**: runs of {} s, on a machine with a load of {:.1} before it began, say that \
             everything works, and little about the engines.\n",
            measured.seconds, results.environment.load_before
        )?;
    }
    environment(page, results)?;
    engines(page, results)?;
    for group in Group::ALL {
        let rows: Vec<&Row> = results.rows.iter().filter(|row| row.group == group.name()).collect();
        if !rows.is_empty() {
            writeln!(page, "\n## {}\n\n{}", heading(group), explanation(group, results))?;
            match group {
                Group::Open => open(page, &rows, results)?,
                _ => tables(page, columns(group), &rows, results)?,
            }
        }
    }
    tail(page, results)?;
    if !plots.is_empty() {
        writeln!(page, "\n## Plots")?;
    }
    for (file, title) in plots {
        writeln!(page, "\n![{title}]({file})")?;
    }
    Ok(())
}

const INTRODUCTION: &str = "\
Every engine in the same run, over one small trait, each run a process of its own in an empty directory: all engines in the
first round, then all in the second, the other way round. What stands in a row is the median of the rounds. Absolute
figures of a shared machine drift by a factor; the ratios are what counts. A payload is text that repeats for half of it, and
random for the rest.

- *x raftwood*, *x floor*: batches a second, as a multiple of raftwood's and of the floor's. The floor is no store: each writer
  writes into a file of its own that was written before, and syncs it. Two writers there sync twice, those of a store once.
- *p50 ... longest*: from the call to its return; from the intended beginning where a rate is set.
- *CPU*: user and system time of the process, until the engine has closed, for each batch.
- *device*: bytes written to the device until the engine has closed and the file system was synced, for one byte of payload. It
  counts everybody's, so it is too high where other processes write. What the system counts for the process alone is in
  results.json (`process_written_x`), and is far too high where the file system has large folios: each small write counts as one.
- *disk*: what the directory takes after the close, files that lie ready among it.
- *after a kill*: the store was opened again, written to by the same writers, and killed with SIGKILL; then it was opened and
  compared with what had been acknowledged. \"found\" is the number of entries that were there and right; any that was missing or wrong is \"LOST\".

Measured by:
";

fn environment(page: &mut String, results: &Results) -> std::fmt::Result {
    let e = &results.environment;
    let m = &results.measured;
    writeln!(page, "## Where\n\n| | |\n|---|---|")?;
    writeln!(
        page,
        "| processor | {}, {} cores, {} GiB of memory |",
        e.processor,
        e.cores,
        e.memory_bytes >> 30
    )?;
    writeln!(page, "| kernel | {} |", e.kernel)?;
    writeln!(page, "| file system | {} |", e.file_system)?;
    writeln!(page, "| device | {} |", e.device)?;
    writeln!(page, "| load before it began | {:.2} |", e.load_before)?;
    writeln!(page, "| compiler | {} |", e.compiler)?;
    writeln!(page, "| raftwood's commit | {} |", e.commit)?;
    let warm_up = format!("{} s of its own work before in the steady state", m.warm_up);
    writeln!(page, "| each run | {} s, {warm_up}; {} |", m.seconds, rounds(m.rounds as usize))
}

fn engines(page: &mut String, results: &Results) -> std::fmt::Result {
    writeln!(page, "\n## Engines\n\n| engine | version | settings |\n|---|---|---|")?;
    for engine in &results.measured.engines {
        writeln!(page, "| {} | {} | {} |", engine.name, engine.version, engine.settings)?;
    }
    match &results.measured.left_out[..] {
        [] => writeln!(page, "\nNone was left out."),
        names => writeln!(
            page,
            "\nNot built in, and therefore not measured: {}. How to build them stands in `benches/peers/README.md`.",
            names.join(", ")
        ),
    }
}

fn heading(group: Group) -> &'static str {
    match group {
        Group::Growing => "Growing: from an empty directory",
        Group::Steady => "Steady: after some time of the same work",
        Group::Submitted => "Submitted: one thread with many batches in flight",
        Group::Written => "Written only: no sync is waited for",
        Group::Mixed => "Writers beside readers",
        Group::CatchUp => "Catching up from the device",
        Group::Open => "Opening after a kill",
    }
}

fn explanation(group: Group, results: &Results) -> String {
    match group {
        Group::Growing => "Writers: a batch is 4 entries of 1 KiB in one of 1,000 regions, synced. raftstore: two writers, a batch is \
                           2 entries of 512 bytes and a hard state in each of 32 regions. The last 64 entries of a region are \
                           kept, the others compacted as part of the writes. Processor time and bytes count from before the open."
            .into(),
        Group::Steady => format!(
            "The same after {} s, with every tenth region cold: it has 16 entries from the beginning, which stay.",
            results.measured.warm_up
        ),
        Group::Submitted => "The batches of 64 writers, from an empty directory: by 64 threads that wait for each, and by one that has 64 \
                             in flight and waits for the oldest. Only of engines that take a batch without waiting for it."
            .into(),
        Group::Written => "The same batches, each handed to the system and not synced, from an empty directory.".into(),
        Group::Mixed => "Four writers as above, and two readers of 64 entries of any region.".into(),
        Group::CatchUp => "A log of 1,000 interleaved regions; the engine is opened and nothing is cached. Region after region is read \
                           in ranges of 1,024 entries: first from the device, then again from memory."
            .into(),
        Group::Open => "Each region has 4 entries of 128 bytes and a hard state; the process was killed while it wrote on. \
                        Milliseconds until the engine is open, and its heap for each region."
            .into(),
    }
}

fn columns(group: Group) -> &'static [Column] {
    match group {
        Group::Mixed => MIXED,
        Group::CatchUp => CATCH_UP,
        _ => WRITES,
    }
}

const WRITES: &[Column] = &[
    ("batches/s", |row, _| whole(row.get("batches_per_second"))),
    ("x raftwood", |row, all| ratio(row, all, RAFTWOOD)),
    ("x floor", |row, all| ratio(row, all, FLOOR)),
    ("MiB/s", |row, _| whole(row.get("mib_per_second"))),
    ("p50 us", |row, _| whole(row.get("p50_us"))),
    ("p99 us", |row, _| whole(row.get("p99_us"))),
    ("p99.9 us", |row, _| whole(row.get("p999_us"))),
    ("longest us", |row, _| whole(row.get("longest_us"))),
    ("CPU us", |row, _| tenths(row.get("cpu_us"))),
    ("device", |row, _| times(row.get("device_written_x"))),
    ("disk MiB", |row, _| mib(row.get("disk_bytes"))),
    ("after a kill", |row, _| verified(row)),
];

const MIXED: &[Column] = &[
    ("batches/s", |row, _| whole(row.get("batches_per_second"))),
    ("x raftwood", |row, all| ratio(row, all, RAFTWOOD)),
    ("p50 us", |row, _| whole(row.get("p50_us"))),
    ("p99 us", |row, _| whole(row.get("p99_us"))),
    ("p99.9 us", |row, _| whole(row.get("p999_us"))),
    ("longest us", |row, _| whole(row.get("longest_us"))),
    ("reads/s", |row, _| whole(row.get("reads_per_second"))),
    ("p50 us of a read", |row, _| whole(row.get("read_p50_us"))),
    ("p99.9 us", |row, _| whole(row.get("read_p999_us"))),
];

const CATCH_UP: &[Column] = &[
    ("MiB/s", |row, _| whole(row.get("mib_per_second"))),
    ("bytes from the device for one", |row, _| times(row.get("device_read_x"))),
    ("MiB/s, cached", |row, _| whole(row.get("cached_mib_per_second"))),
];

fn tables(page: &mut String, columns: &[Column], rows: &[&Row], results: &Results) -> std::fmt::Result {
    let mut works: Vec<&str> = rows.iter().map(|row| row.work.as_str()).collect();
    works.dedup();
    for work in works {
        writeln!(page, "\n### {work}\n")?;
        let headings: Vec<&str> = columns.iter().map(|(heading, _)| *heading).collect();
        writeln!(page, "| engine | {} |\n|---{}|", headings.join(" | "), "|--:".repeat(columns.len()))?;
        for row in rows.iter().filter(|row| row.work == work) {
            let cells: Vec<String> = columns.iter().map(|(_, cell)| cell(row, results)).collect();
            writeln!(page, "| {} | {} |", row.engine, cells.join(" | "))?;
        }
        failures(page, rows.iter().filter(|row| row.work == work))?;
    }
    Ok(())
}

fn failures<'r>(page: &mut String, rows: impl Iterator<Item = &'r &'r Row>) -> std::fmt::Result {
    for row in rows {
        let reasons: BTreeSet<&String> = row.failures.iter().collect();
        for reason in reasons {
            let failed = row.failures.iter().filter(|other| *other == reason).count();
            let all = rounds(row.rounds.len() + row.failures.len());
            writeln!(page, "\n{}: {failed} of {all} did not end: {}", row.engine, reason.replace('|', "/"))?;
        }
    }
    Ok(())
}

fn open(page: &mut String, rows: &[&Row], results: &Results) -> std::fmt::Result {
    let mut works: Vec<&str> = rows.iter().map(|row| row.work.as_str()).collect();
    works.dedup();
    let headings: Vec<String> =
        works.iter().map(|work| format!("{work} regions, ms | bytes a region")).collect();
    writeln!(page, "\n| engine | {} |\n|---{}|", headings.join(" | "), "|--:|--:".repeat(works.len()))?;
    let group = Group::Open.name();
    for engine in &results.measured.engines {
        let cells: Vec<String> = works
            .iter()
            .map(|work| {
                let row = results.row(group, work, &engine.name);
                let get = |name| row.and_then(|row| row.get(name));
                let lost = if get("lost").is_some_and(|lost| lost > 0.0) { " LOST" } else { "" };
                format!("{}{lost} | {}", tenths(get("open_ms")), whole(get("memory_a_region")))
            })
            .collect();
        if rows.iter().any(|row| row.engine == engine.name) {
            writeln!(page, "| {} | {} |", engine.name, cells.join(" | "))?;
        }
    }
    failures(page, rows.iter())
}

fn tail(page: &mut String, results: &Results) -> std::fmt::Result {
    let Some(tail) = &results.tail else { return Ok(()) };
    writeln!(page, "\n## Raftwood's tail, with names\n")?;
    writeln!(
        page,
        "{} writers for {:.0} s from an empty directory, with every operation of the disk and every event noted (`-- tail` \
         does this alone): p50 {:.2} ms, p99 {:.2} ms, p99.9 {:.2} ms, longest {:.1} ms. The waits of more than {} ms, and what overlaps them:\n",
        tail.writers, tail.seconds, tail.p50_ms, tail.p99_ms, tail.p999_ms, tail.longest_ms, tail.bound_ms
    )?;
    if tail.stalls.is_empty() {
        return writeln!(page, "None.");
    }
    const SHOWN: usize = 20;
    writeln!(page, "| second | longest ms | batches | meanwhile |\n|--:|--:|--:|---|")?;
    let mut longest: Vec<_> = tail.stalls.iter().collect();
    longest.sort_by(|a, b| b.longest_ms.total_cmp(&a.longest_ms));
    for stall in longest.iter().take(SHOWN) {
        let meanwhile = stall.meanwhile.iter().take(5).cloned().collect::<Vec<_>>().join("; ");
        writeln!(
            page,
            "| {:.3} | {:.1} | {} | {meanwhile} |",
            stall.second, stall.longest_ms, stall.batches
        )?;
    }
    if tail.stalls.len() > SHOWN {
        writeln!(page, "\nThe longest {SHOWN} of {}; all are in results.json.", tail.stalls.len())?;
    }
    Ok(())
}

/// Batches a second beside another engine's at the same work.
fn ratio(row: &Row, results: &Results, engine: &str) -> String {
    let other = results.row(&row.group, &row.work, engine).and_then(|row| row.get("batches_per_second"));
    times(row.get("batches_per_second").zip(other).map(|(mine, other)| mine / other))
}

fn verified(row: &Row) -> String {
    match (row.get("lost"), row.get("verified")) {
        (Some(lost), _) if lost > 0.0 => format!("**LOST {lost}**"),
        (_, Some(found)) => format!("found {found}"),
        _ => "-".into(),
    }
}

fn rounds(count: usize) -> String {
    if count == 1 { "1 round".into() } else { format!("{count} rounds") }
}

fn whole(value: Option<f64>) -> String {
    value.map_or("-".into(), |v| format!("{v:.0}"))
}

fn tenths(value: Option<f64>) -> String {
    value.map_or("-".into(), |v| format!("{v:.1}"))
}

fn times(value: Option<f64>) -> String {
    value.map_or("-".into(), |v| format!("{v:.2}"))
}

fn mib(value: Option<f64>) -> String {
    whole(value.map(|bytes| bytes / f64::from(1 << 20)))
}
