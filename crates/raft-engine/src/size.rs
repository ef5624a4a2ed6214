//! Sizes as people write them.

use serde::de::Visitor;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::ops::{Div, Mul};
use std::str::FromStr;

/// A number of bytes, written as `64MB` or `64MiB` in configuration files: both are powers of two. A bare
/// number counts bytes.
///
/// ```
/// use raftwood_raft_engine::ReadableSize;
///
/// assert_eq!("64MB".parse(), Ok(ReadableSize::mb(64)));
/// assert_eq!(ReadableSize::kb(2048).to_string(), "2MiB");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd)]
pub struct ReadableSize(pub u64);

/// Units, the largest first.
const UNITS: [(&str, u64); 6] =
    [("PiB", 1 << 50), ("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

impl ReadableSize {
    /// `count` KiB.
    pub const fn kb(count: u64) -> ReadableSize {
        ReadableSize(count << 10)
    }

    /// `count` MiB.
    pub const fn mb(count: u64) -> ReadableSize {
        ReadableSize(count << 20)
    }

    /// `count` GiB.
    pub const fn gb(count: u64) -> ReadableSize {
        ReadableSize(count << 30)
    }

    /// In MiB, rounded down.
    pub const fn as_mb(self) -> u64 {
        self.0 >> 20
    }
}

impl Div<u64> for ReadableSize {
    type Output = ReadableSize;

    fn div(self, by: u64) -> ReadableSize {
        ReadableSize(self.0 / by)
    }
}

impl Div<ReadableSize> for ReadableSize {
    type Output = u64;

    fn div(self, by: ReadableSize) -> u64 {
        self.0 / by.0
    }
}

impl Mul<u64> for ReadableSize {
    type Output = ReadableSize;

    fn mul(self, by: u64) -> ReadableSize {
        ReadableSize(self.0 * by)
    }
}

/// In the largest unit that leaves no rest.
impl fmt::Display for ReadableSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fits = UNITS.iter().find(|(_, bytes)| self.0 != 0 && self.0.is_multiple_of(*bytes));
        let (unit, bytes) = fits.copied().unwrap_or(("KiB", 1));
        write!(f, "{}{unit}", self.0 / bytes)
    }
}

impl FromStr for ReadableSize {
    type Err = String;

    fn from_str(text: &str) -> Result<ReadableSize, String> {
        let refuse =
            || format!("{text:?} is no size: write a number and B, KB, MB, GB, TB or PB, as in 64MB");
        let text = text.trim();
        let is_number = |c: char| c.is_ascii_digit() || matches!(c, '.' | 'e' | 'E' | '+' | '-');
        let (number, unit) = text.split_at(text.find(|c| !is_number(c)).unwrap_or(text.len()));
        let unit = match unit.trim() {
            "" => "B",
            unit => unit,
        };
        // K, KB and KiB are the same.
        let known = |name: &str| [name, &name[..1], &format!("{}B", &name[..1])].contains(&unit);
        let (_, bytes) = UNITS.iter().find(|(name, _)| known(name)).ok_or_else(refuse)?;
        if let Ok(whole) = number.parse::<u64>() {
            return whole.checked_mul(*bytes).map(ReadableSize).ok_or_else(refuse);
        }
        match number.parse::<f64>() {
            Ok(n) if n.is_finite() && n >= 0.0 => Ok(ReadableSize((n * *bytes as f64) as u64)),
            _ => Err(refuse()),
        }
    }
}

impl Serialize for ReadableSize {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        out.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ReadableSize {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<ReadableSize, D::Error> {
        from.deserialize_any(Size)
    }
}

/// Takes a number of bytes or a text.
struct Size;

impl Visitor<'_> for Size {
    type Value = ReadableSize;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number of bytes, or a size like \"64MB\"")
    }

    fn visit_u64<E: serde::de::Error>(self, bytes: u64) -> Result<ReadableSize, E> {
        Ok(ReadableSize(bytes))
    }

    fn visit_i64<E: serde::de::Error>(self, bytes: i64) -> Result<ReadableSize, E> {
        u64::try_from(bytes).map(ReadableSize).map_err(|_| E::custom("a size is not negative"))
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<ReadableSize, E> {
        text.parse().map_err(E::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_read_in_every_unit_and_prints_in_the_largest_that_leaves_no_rest() {
        for (text, bytes, prints) in [
            ("0", 0, "0KiB"),
            ("7", 7, "7B"),
            ("7B", 7, "7B"),
            ("1K", 1 << 10, "1KiB"),
            (" 64MB ", 64 << 20, "64MiB"),
            ("64 MiB", 64 << 20, "64MiB"),
            ("1.5GB", 3 << 29, "1536MiB"),
            ("2TB", 2 << 40, "2TiB"),
            ("1e3", 1000, "1000B"),
            ("1P", 1 << 50, "1PiB"),
        ] {
            let size: ReadableSize = text.parse().unwrap();
            assert_eq!((size.0, size.to_string().as_str()), (bytes, prints), "{text}");
            assert_eq!(size.to_string().parse(), Ok(size));
        }
        for text in ["", "MB", "64mb", "-1KB", "6 4", "1XB", "99999999999PB", "1Bi", "nan", "ü"] {
            assert!(text.parse::<ReadableSize>().is_err(), "{text}");
        }
    }
}
