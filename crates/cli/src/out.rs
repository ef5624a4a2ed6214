//! What the commands print. A pipe that nobody reads any more ends the command, quietly; it is no panic.

/// A line on standard output.
///
/// # Errors
/// [`crate::Failure::ClosedPipe`] when nobody reads any more.
macro_rules! say {
    ($($text:tt)*) => {{
        use std::io::Write as _;
        writeln!(std::io::stdout().lock(), $($text)*).map_err($crate::Failure::from)
    }};
}

/// A line on standard error, if anybody reads it.
macro_rules! warn_of {
    ($($text:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stderr().lock(), $($text)*);
    }};
}

pub(crate) use {say, warn_of};

use crate::Failure;
use serde::Serialize;
use std::error::Error;
use std::fmt::Write;

/// The version of all that is printed as JSON. It rises when a field goes, or changes its meaning; new fields
/// and new kinds of line may come without.
pub(crate) const SCHEMA: u32 = 1;

#[derive(Serialize)]
struct Versioned<'a, T> {
    schema: u32,
    #[serde(flatten)]
    of: &'a T,
}

/// An object as one line of JSON, with the version of its schema.
///
/// # Errors
/// It has no form in JSON.
pub(crate) fn as_json(object: &impl Serialize) -> Result<String, Failure> {
    Ok(serde_json::to_string(&Versioned { schema: SCHEMA, of: object })?)
}

/// Such a line on standard output.
///
/// # Errors
/// As [`as_json`], and when nobody reads any more.
pub(crate) fn say_json(object: &impl Serialize) -> Result<(), Failure> {
    say!("{}", as_json(object)?)
}

/// An error as a line of JSON.
#[derive(Serialize)]
struct JsonError<'a> {
    kind: &'static str,
    error: &'a str,
}

/// Says on standard error why a command did not come to its end, as JSON if that is what it prints.
pub(crate) fn complain(is_json: bool, error: &str) {
    match as_json(&JsonError { kind: "error", error }) {
        Ok(line) if is_json => warn_of!("{line}"),
        _ => warn_of!("raftwood: {error}"),
    }
}

const DIGITS: &[u8; 16] = b"0123456789abcdef";

/// Bytes as hexadecimal digits. A dump of a store is mostly that, so it is no formatting of each byte.
pub(crate) fn hex(bytes: &[u8]) -> String {
    let digit = |nibble: u8| char::from(DIGITS[usize::from(nibble)]);
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        text.push(digit(byte >> 4));
        text.push(digit(byte & 15));
    }
    text
}

/// Prints rows, each column as wide as it has to be; all but the last are set to the right. The first row has
/// the titles.
///
/// # Errors
/// When nobody reads any more.
pub(crate) fn table<const N: usize>(rows: &[[String; N]]) -> Result<(), Failure> {
    let width = |n: usize| rows.iter().map(|row| row[n].chars().count()).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(width);
    for row in rows {
        let mut line = String::new();
        for (n, cell) in row.iter().enumerate() {
            let _ = match n + 1 == N {
                true => write!(line, "  {cell}"),
                false => write!(line, "  {cell:>width$}", width = widths[n]),
            };
        }
        say!("{}", line.trim_end())?;
    }
    Ok(())
}

/// An error with all that caused it.
pub(crate) fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(e) = cause {
        text.push_str(": ");
        text.push_str(&e.to_string());
        cause = e.source();
    }
    text
}

/// So many of something, in words: `1 segment`, `2 segments`, `3 entries`.
pub(crate) fn count(n: u64, one: &str) -> String {
    match (n, one.strip_suffix('y'), one.strip_suffix("ch")) {
        (1, ..) => format!("1 {one}"),
        (_, Some(stem), _) => format!("{n} {stem}ies"),
        (_, _, Some(_)) => format!("{n} {one}es"),
        _ => format!("{n} {one}s"),
    }
}

/// Bytes for people.
pub(crate) fn size(bytes: u64) -> String {
    let mut value = bytes as f64;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if value < 1024.0 {
            return if unit == "B" { format!("{value:.0} B") } else { format!("{value:.1} {unit}") };
        }
        value /= 1024.0;
    }
    format!("{value:.1} TiB")
}
