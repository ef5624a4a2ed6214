//! What the commands print. A pipe that nobody reads any more ends the command, quietly; it is no panic.

/// A line on standard output.
///
/// # Errors
/// [`Failure::ClosedPipe`](crate::Failure::ClosedPipe) when nobody reads any more.
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

use std::error::Error;

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
