//! What the program prints. A pipe that nobody reads any more is no panic.

use raftwood_migrate::{Dropped, Failure, Report};
use serde::Serialize;
use std::io::{self, Write};
use std::path::Path;

/// The version of all that is printed as JSON. It rises when a field goes, or changes its meaning; new fields
/// and new kinds of line may come without.
const SCHEMA: u32 = 1;

#[derive(Serialize)]
struct Versioned<T> {
    schema: u32,
    kind: &'static str,
    #[serde(flatten)]
    of: T,
}

#[derive(Serialize)]
struct Done<'a> {
    source: &'a Path,
    destination: &'a Path,
    regions: u64,
    entries: u64,
    pairs: u64,
    left_out: Vec<LeftOut<'a>>,
}

#[derive(Serialize)]
struct LeftOut<'a> {
    file: &'a Path,
    offset: u64,
    bytes: u64,
    zeros: u64,
}

#[derive(Serialize)]
struct Refused<'a> {
    error: &'a str,
}

/// An object as one line of JSON, with its kind and the version of its schema.
fn as_json(kind: &'static str, of: impl Serialize) -> io::Result<String> {
    Ok(serde_json::to_string(&Versioned { schema: SCHEMA, kind, of })?)
}

/// Says on standard output what was made: of `kind` `import` or `export`.
///
/// # Errors
/// Nobody reads any more, or it cannot be written.
pub(crate) fn done(
    is_json: bool,
    kind: &'static str,
    (src, dst): (&Path, &Path),
    report: &Report,
) -> io::Result<()> {
    let Report { regions, entries, pairs, ref dropped } = *report;
    let mut out = io::stdout().lock();
    if is_json {
        let left_out = dropped.iter().map(|Dropped { file, offset, bytes, zeros }| LeftOut {
            file,
            offset: *offset,
            bytes: *bytes,
            zeros: *zeros,
        });
        let left_out = left_out.collect();
        let done = Done { source: src, destination: dst, regions, entries, pairs, left_out };
        return writeln!(out, "{}", as_json(kind, done)?);
    }
    writeln!(
        out,
        "{regions} regions, {entries} entries, {pairs} key-values copied and verified: {}",
        dst.display()
    )?;
    for end in dropped {
        writeln!(out, "Left out, and with it any record that was there: {end}")?;
    }
    writeln!(
        out,
        "Only one of the two stores may ever be used again: a replica that starts from the other has forgotten \
         what it acknowledged meanwhile. Move {} out of the way before you start the program on {}.",
        src.display(),
        dst.display()
    )
}

/// Says on standard error why nothing was made, if anybody reads it.
pub(crate) fn failed(is_json: bool, failure: &Failure) {
    complain(is_json, &failure.to_string());
}

/// As [`failed`], of arguments that clap refuses.
pub(crate) fn misused(error: &clap::Error) {
    let text = error.to_string();
    // What follows is for people: the usage.
    let (why, _) = text.split_once("\n\n").unwrap_or((&text, ""));
    let words: Vec<&str> = why.trim_start_matches("error: ").split_whitespace().collect();
    complain(true, &words.join(" "));
}

fn complain(is_json: bool, error: &str) {
    let line = match as_json("error", Refused { error }) {
        Ok(line) if is_json => line,
        _ => format!("raftwood-migrate: {error}"),
    };
    let _ = writeln!(io::stderr().lock(), "{line}");
}
