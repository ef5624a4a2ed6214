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
use raftwood::RegionId;
use rustix::event::{PollFd, PollFlags, poll};
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

/// Whether anybody still reads what is printed: a tail that has nothing to say would never notice.
pub(crate) fn check_read() -> Result<(), Failure> {
    let out = std::io::stdout();
    let mut asked = [PollFd::new(&out, PollFlags::empty())];
    let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
    let closed = poll(&mut asked, Some(&now)).is_ok_and(|n| n > 0);
    match closed && asked[0].revents().intersects(PollFlags::ERR | PollFlags::NVAL) {
        true => Err(Failure::ClosedPipe),
        false => Ok(()),
    }
}

/// What is wrong in a log, as a line of JSON.
#[derive(Serialize)]
pub(crate) struct Damage {
    kind: &'static str,
    region: Option<u64>,
    index: Option<u64>,
    error: String,
}

impl Damage {
    /// Of an entry, if one is known.
    pub(crate) fn new(of: Option<(RegionId, u64)>, error: String) -> Damage {
        Damage { kind: "damage", region: of.map(|(id, _)| id.0), index: of.map(|(_, index)| index), error }
    }

    /// What the error says, and of what.
    pub(crate) fn of(error: &raftwood::Error) -> Damage {
        let (region, index) = (error.region().map(|id| id.0), error.entries().map(|e| *e.start()));
        Damage { kind: "damage", region, index, error: with_causes(error) }
    }
}

/// What is said beside what is printed, as a line of JSON.
#[derive(Serialize)]
struct Message<'a> {
    kind: &'static str,
    message: &'a str,
}

/// An error as a line of JSON.
#[derive(Serialize)]
struct JsonError<'a> {
    kind: &'static str,
    error: &'a str,
}

/// Says on standard error why a command did not come to its end, as JSON if that is what it prints.
pub(crate) fn complain(is_json: bool, error: &str) {
    aside(is_json, &JsonError { kind: "error", error }, &format!("raftwood: {error}"));
}

/// Says something on standard error, as JSON of this kind if that is what the command prints.
pub(crate) fn remark(is_json: bool, kind: &'static str, message: &str) {
    aside(is_json, &Message { kind, message }, message);
}

/// An object on standard error, if the command prints JSON, else these words.
pub(crate) fn aside(is_json: bool, object: &impl Serialize, words: &str) {
    warn_of!("{}", line(is_json, object, words));
}

fn line(is_json: bool, object: &impl Serialize, words: &str) -> String {
    is_json.then(|| as_json(object).ok()).flatten().unwrap_or_else(|| words.to_string())
}

/// Says as JSON why arguments are refused: without the usage, which is for people.
pub(crate) fn misused(error: &clap::Error) {
    let text = error.to_string();
    let (why, _) = text.split_once("\n\n").unwrap_or((&text, ""));
    let words: Vec<&str> = why.trim_start_matches("error: ").split_whitespace().collect();
    complain(true, &words.join(" "));
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

/// A line of a table has at most so many columns of a terminal.
pub(crate) const COLUMNS: usize = 80;

/// Prints rows, each column as wide as it has to be; all but the last are set to the right. The first row has
/// the titles. What is wider than [`COLUMNS`] goes on in a second line of its row.
///
/// # Errors
/// When nobody reads any more.
pub(crate) fn table<const N: usize>(rows: &[[String; N]]) -> Result<(), Failure> {
    laid_out(rows).iter().try_for_each(|line| say!("{line}"))
}

fn laid_out<const N: usize>(rows: &[[String; N]]) -> Vec<String> {
    let width = |n: usize| rows.iter().map(|row| row[n].chars().count()).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(width);
    let mut lines = Vec::new();
    for row in rows {
        let (mut line, mut used) = (String::new(), 0);
        for (n, cell) in row.iter().enumerate() {
            let is_last = n + 1 == N;
            // What is said last is as long as it is.
            let width = if is_last { cell.chars().count() } else { widths[n] };
            if used > 0 && used + GAP + width > COLUMNS {
                lines.push(std::mem::replace(&mut line, GOES_ON.to_string()));
                used = GOES_ON.len();
            }
            let _ = match is_last {
                true => write!(line, "{:GAP$}{cell}", ""),
                false => write!(line, "{:GAP$}{cell:>width$}", ""),
            };
            used += GAP + width;
        }
        lines.push(line);
    }
    lines.retain_mut(|line| {
        line.truncate(line.trim_end().len());
        !line.is_empty()
    });
    lines
}

/// Between two columns of a table.
const GAP: usize = 2;

/// Before the second line of a row.
const GOES_ON: &str = "    ";

/// Two parts of a line, or of two lines if they do not fit into one.
pub(crate) fn in_columns(begin: &str, rest: &str) -> String {
    let fits = begin.chars().count() + 1 + rest.chars().count() <= COLUMNS;
    format!("{begin}{}{rest}", if fits { " " } else { "\n    " })
}

/// Parts of a sentence, in as many lines as they need.
pub(crate) fn filled(parts: &[String]) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for (n, part) in parts.iter().enumerate() {
        let part = if n + 1 < parts.len() { format!("{part},") } else { part.clone() };
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + part.chars().count() <= COLUMNS => {
                line.push(' ');
                line.push_str(&part);
            }
            Some(_) => lines.push(format!("  {part}")),
            None => lines.push(part),
        }
    }
    lines
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

/// A rate as a whole number, but for one that is small.
pub(crate) fn number(rate: f64) -> String {
    if rate >= 10.0 || rate == 0.0 { format!("{rate:.0}") } else { format!("{rate:.1}") }
}

/// Bytes for people.
pub(crate) fn size(bytes: u64) -> String {
    let mut value = bytes as f64;
    for unit in ["B", "KiB", "MiB", "GiB", "TiB"] {
        if value < 1024.0 {
            return if unit == "B" { format!("{value:.0} B") } else { format!("{value:.1} {unit}") };
        }
        value /= 1024.0;
    }
    format!("{value:.1} PiB")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn what_is_said_aside_is_json_where_that_is_printed() {
        let violation = Message { kind: "violation", message: "entry 3 is \"gone\"" };
        let json = r#"{"schema":1,"kind":"violation","message":"entry 3 is \"gone\""}"#;
        assert_eq!(line(true, &violation, "entry 3"), json);
        assert_eq!(line(false, &violation, "entry 3"), "entry 3");
    }

    #[test]
    fn a_table_fits_a_terminal_whatever_its_figures_are() {
        let titles = ["region", "log", "term", "bytes", "pins", ""].map(String::from);
        let small = ["7", "1..=9", "1", "3 B", "-", "SUSPECT"].map(String::from);
        let narrow = ["  region    log  term  bytes  pins", "       7  1..=9     1    3 B     -  SUSPECT"];
        assert_eq!(laid_out(&[titles.clone(), small.clone()]), narrow);
        let (most, log) = (u64::MAX.to_string(), format!("{0}..={0}", u64::MAX));
        let large =
            [most.clone(), log.clone(), most.clone(), size(u64::MAX), size(u64::MAX), "DAMAGED".into()];
        let lines = laid_out(&[titles, small, large]);
        assert!(lines.iter().all(|line| line.chars().count() <= COLUMNS), "{lines:#?}");
        // Nothing is left out, and what stands in one column ends there in every row.
        assert_eq!(lines.len(), 6);
        let ends = |line: &str, cell: &str| line.find(cell).unwrap() + cell.len();
        assert_eq!(ends(&lines[0], "log"), ends(&lines[4], &log));
        assert_eq!(ends(&lines[1], "bytes"), ends(&lines[5], &size(u64::MAX)));
        assert!(lines[5].ends_with("DAMAGED") && lines[3].ends_with("SUSPECT"), "{lines:#?}");
    }

    #[test]
    fn damage_that_a_follower_meets_has_the_form_of_a_dump() {
        let error = raftwood::Options::new().open_read_only("no/such/store").unwrap_err();
        let said: serde_json::Value = serde_json::from_str(&line(true, &Damage::of(&error), "")).unwrap();
        assert_eq!((&said["schema"], &said["kind"]), (&1.into(), &"damage".into()));
        assert!(said["error"].as_str().unwrap().contains("no/such/store"), "{said}");
    }
}
