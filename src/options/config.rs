//! Options as an operator writes them: a configuration file, or a part of one.
//!
//! Sizes and times are text with a unit (`"64 MiB"`, `"30s"`), what is left out is the default, and an error
//! names the field. What only the program can decide is not in it: the file system, listeners, who does the
//! work in the background, and what to do with a log whose end is wrong, which is decided for one open of one
//! store. A field has the name of the method that sets it.

use super::{Compression, Options, Pool, Purge, ReadMode};
use crate::report::ScrubOptions;
use serde::de::{Error as _, IgnoredAny};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::time::Duration;

/// As a file has it.
#[derive(Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Config {
    #[serde(skip_serializing_if = "Option::is_none")]
    segment_bytes: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    read_mode: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    in_flight_bytes_max: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stall_after: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fetch_threads: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fetch_queue_max: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    must_exist: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    disk_budget: Option<Value>,
    compression: CompressionConfig,
    pool: PoolConfig,
    purge: PurgeConfig,
    #[serde(skip_serializing_if = "Option::is_none")]
    scrub: Option<ScrubConfig>,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct CompressionConfig {
    #[serde(skip_serializing_if = "Option::is_none")]
    method: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    min_batch_bytes: Option<Value>,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct PoolConfig {
    #[serde(skip_serializing_if = "Option::is_none")]
    files_max: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prewrite: Option<Value>,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct PurgeConfig {
    #[serde(skip_serializing_if = "Option::is_none")]
    background: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    garbage_percent_max: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rate_bytes: Option<Value>,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct ScrubConfig {
    #[serde(skip_serializing_if = "Option::is_none")]
    every: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rate_bytes: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    from_device: Option<Value>,
}

/// Anything, so that an error can name the field that it was found in, whatever the format.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Value {
    Flag(bool),
    Number(u64),
    Text(String),
    #[serde(skip_serializing)]
    Other(IgnoredAny),
}

/// As a configuration file has them (feature `serde`): sizes and times are text with a unit, what is left out
/// is the default, a field that is not known is refused, and an error names the field. `docs/raftwood.toml`
/// has all fields.
///
/// The file system, listeners, [`Background`](crate::Background) and [`TailPolicy`](crate::TailPolicy) are
/// the program's, and have their defaults.
///
/// ```
/// use raftwood::{Durability, Options, RegionId};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// let options: Options = serde_json::from_str(
///     r#"{ "segment_bytes": "16 MiB", "stall_after": "2s", "scrub": { "every": "7d" } }"#,
/// )?;
/// let engine = options.open(dir.path())?;
///
/// let wrong = serde_json::from_str::<Options>(r#"{ "purge": { "rate_bytes": "fast" } }"#).unwrap_err();
/// assert!(wrong.to_string().contains("purge.rate_bytes"));
/// # Ok(()) }
/// ```
#[cfg_attr(docsrs, doc(cfg(feature = "serde")))]
impl<'de> Deserialize<'de> for Options {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Options, D::Error> {
        Config::deserialize(from)?.options().map_err(D::Error::custom)
    }
}

/// As a configuration file would have them, all fields named but those of what is switched off.
#[cfg_attr(docsrs, doc(cfg(feature = "serde")))]
impl Serialize for Options {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        Config::of(self).serialize(to)
    }
}

impl Config {
    fn of(o: &Options) -> Config {
        let (method, min_batch_bytes) = match o.compression {
            Compression::None => ("none", None),
            Compression::Lz4 { min_batch_bytes } => ("lz4", size(min_batch_bytes as u64)),
        };
        Config {
            segment_bytes: size(o.segment_bytes),
            read_mode: word(match o.read_mode {
                ReadMode::Map => "map",
                ReadMode::Pread => "pread",
            }),
            in_flight_bytes_max: size(o.in_flight_bytes_max as u64),
            stall_after: time(o.stall_after),
            fetch_threads: Some(Value::Number(o.fetch_threads as u64)),
            fetch_queue_max: Some(Value::Number(o.fetch_queue_max as u64)),
            must_exist: Some(Value::Flag(o.must_exist)),
            disk_budget: if o.disk_budget > 0 { size(o.disk_budget) } else { None },
            compression: CompressionConfig { method: word(method), min_batch_bytes },
            pool: PoolConfig {
                files_max: Some(Value::Number(o.pool.files_max as u64)),
                prewrite: Some(Value::Flag(o.pool.prewrite)),
            },
            purge: PurgeConfig {
                background: Some(Value::Flag(o.purge.background)),
                garbage_percent_max: Some(Value::Number(u64::from(o.purge.garbage_percent_max))),
                rate_bytes: size(o.purge.rate_bytes),
            },
            scrub: o.scrub.map(|(every, scrub)| ScrubConfig {
                every: time(every),
                rate_bytes: size(scrub.rate_bytes),
                from_device: Some(Value::Flag(scrub.from_device)),
            }),
        }
    }

    fn options(&self) -> Result<Options, String> {
        let (mut options, mut pool, mut purge) = (Options::new(), Pool::default(), Purge::default());
        set(&mut options.segment_bytes, "segment_bytes", &self.segment_bytes, as_size)?;
        set(&mut options.read_mode, "read_mode", &self.read_mode, |value| match value {
            Value::Text(word) if word == "map" => Ok(ReadMode::Map),
            Value::Text(word) if word == "pread" => Ok(ReadMode::Pread),
            _ => Err(r#"it is "map" or "pread""#.to_string()),
        })?;
        set(&mut options.in_flight_bytes_max, "in_flight_bytes_max", &self.in_flight_bytes_max, |value| {
            in_bounds(as_size(value)?, 1, u64::from(u32::MAX), size_text)
        })?;
        set(&mut options.stall_after, "stall_after", &self.stall_after, as_time)?;
        let whole = |value: &Value| in_bounds(as_number(value)?, 0, u64::from(u32::MAX), |n| n.to_string());
        set(&mut options.fetch_threads, "fetch_threads", &self.fetch_threads, whole)?;
        set(&mut options.fetch_queue_max, "fetch_queue_max", &self.fetch_queue_max, whole)?;
        set(&mut options.must_exist, "must_exist", &self.must_exist, as_flag)?;
        set(&mut options.disk_budget, "disk_budget", &self.disk_budget, as_size)?;
        options.compression = self.compression.get()?;

        let count = |value: &Value| in_bounds(as_number(value)?, 1, 1 << 20, |n| n.to_string());
        set(&mut pool.files_max, "pool.files_max", &self.pool.files_max, count)?;
        set(&mut pool.prewrite, "pool.prewrite", &self.pool.prewrite, as_flag)?;
        set(&mut purge.background, "purge.background", &self.purge.background, as_flag)?;
        let percent = &self.purge.garbage_percent_max;
        set(&mut purge.garbage_percent_max, "purge.garbage_percent_max", percent, |value| {
            in_bounds(as_number(value)?, 10, 95, |n| n.to_string())
        })?;
        set(&mut purge.rate_bytes, "purge.rate_bytes", &self.purge.rate_bytes, |value| {
            in_bounds(as_size(value)?, 1 << 20, u64::MAX, size_text)
        })?;
        options.scrub = self.scrub.as_ref().map(ScrubConfig::get).transpose()?;
        let options = options.pool(pool).purge(purge);
        // It names the field.
        options.validate().map_err(|e| e.to_string())?;
        Ok(options)
    }
}

impl CompressionConfig {
    fn get(&self) -> Result<Compression, String> {
        let (mut lz4, mut min) = (false, 4096u64);
        set(&mut lz4, "compression.method", &self.method, |value| match value {
            Value::Text(word) if word == "none" => Ok(false),
            Value::Text(word) if word == "lz4" => Ok(true),
            _ => Err(r#"it is "none" or "lz4""#.to_string()),
        })?;
        set(&mut min, "compression.min_batch_bytes", &self.min_batch_bytes, as_size)?;
        match lz4 {
            true => Ok(Compression::Lz4 { min_batch_bytes: usize::try_from(min).unwrap_or(usize::MAX) }),
            false if self.min_batch_bytes.is_some() => Err(
                r#"compression.min_batch_bytes: there is no compression; set compression.method = "lz4", or leave it out"#
                    .to_string(),
            ),
            false => Ok(Compression::None),
        }
    }
}

impl ScrubConfig {
    fn get(&self) -> Result<(Duration, ScrubOptions), String> {
        let (mut every, mut scrub) = (None, ScrubOptions::default());
        set(&mut every, "scrub.every", &self.every, |value| as_time(value).map(Some))?;
        set(&mut scrub.rate_bytes, "scrub.rate_bytes", &self.rate_bytes, as_size)?;
        set(&mut scrub.from_device, "scrub.from_device", &self.from_device, as_flag)?;
        let every = every.ok_or(r#"scrub.every is missing: say how long to pause between scrubs ("7d")"#)?;
        Ok((every, scrub))
    }
}

/// Sets an option to what the file says, if it says anything.
fn set<T>(
    option: &mut T,
    field: &str,
    value: &Option<Value>,
    read: impl FnOnce(&Value) -> Result<T, String>,
) -> Result<(), String> {
    if let Some(value) = value {
        *option = read(value).map_err(|why| match value {
            Value::Flag(flag) => format!("{field} = {flag}: {why}"),
            Value::Number(number) => format!("{field} = {number}: {why}"),
            Value::Text(text) => format!("{field} = {text:?}: {why}"),
            Value::Other(_) => format!("{field}: {why}"),
        })?;
    }
    Ok(())
}

/// A number in these bounds, as the option has it.
fn in_bounds<T: TryFrom<u64>>(n: u64, min: u64, max: u64, text: fn(u64) -> String) -> Result<T, String> {
    let bounded = Some(n).filter(|n| (min..=max).contains(n));
    bounded.and_then(|n| T::try_from(n).ok()).ok_or_else(|| match max {
        u64::MAX => format!("it is at least {}", text(min)),
        _ => format!("it is between {} and {}", text(min), text(max)),
    })
}

fn as_flag(value: &Value) -> Result<bool, String> {
    match value {
        Value::Flag(flag) => Ok(*flag),
        _ => Err("it is true or false".to_string()),
    }
}

fn as_number(value: &Value) -> Result<u64, String> {
    match value {
        Value::Number(number) => Ok(*number),
        _ => Err("it is a number".to_string()),
    }
}

fn as_size(value: &Value) -> Result<u64, String> {
    let read = match value {
        Value::Number(bytes) => Some(*bytes),
        Value::Text(text) => with_unit(text, SIZES).and_then(|bytes| u64::try_from(bytes).ok()),
        _ => None,
    };
    read.ok_or_else(|| {
        r#"it is no size; write bytes as a number, or with B, KiB, MiB, GiB or TiB ("64 MiB")"#.to_string()
    })
}

fn as_time(value: &Value) -> Result<Duration, String> {
    let nanos = match value {
        Value::Text(text) => with_unit(text, TIMES),
        _ => None,
    };
    let read = nanos.and_then(|nanos| {
        let seconds = u64::try_from(nanos / 1_000_000_000).ok()?;
        Some(Duration::new(seconds, (nanos % 1_000_000_000) as u32))
    });
    read.ok_or_else(|| {
        r#"it is no time; write a whole number with ns, us, ms, s, min, h or d ("30s")"#.to_string()
    })
}

/// From the smallest to the largest; each is a multiple of those before.
type Units = &'static [(&'static str, u128)];

const SIZES: Units = &[("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("TiB", 1 << 40)];

const TIMES: Units = &[
    ("ns", 1),
    ("us", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("min", 60_000_000_000),
    ("h", 3_600_000_000_000),
    ("d", 86_400_000_000_000),
];

/// A whole number and a unit, with or without a space between.
fn with_unit(text: &str, units: Units) -> Option<u128> {
    let text = text.trim();
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit())?);
    let (_, factor) = units.iter().find(|(name, _)| *name == unit.trim_start())?;
    number.parse::<u128>().ok()?.checked_mul(*factor)
}

/// In the largest unit of which it is a whole number.
fn in_unit(n: u128, space: &str, units: Units) -> String {
    let fits = units.iter().rev().find(|(_, factor)| n.is_multiple_of(*factor) && (n > 0 || *factor == 1));
    fits.map_or_else(String::new, |(unit, factor)| format!("{}{space}{unit}", n / factor))
}

fn size_text(bytes: u64) -> String {
    in_unit(u128::from(bytes), " ", SIZES)
}

fn size(bytes: u64) -> Option<Value> {
    Some(Value::Text(size_text(bytes)))
}

fn time(time: Duration) -> Option<Value> {
    Some(Value::Text(in_unit(time.as_nanos(), "", TIMES)))
}

fn word(word: &str) -> Option<Value> {
    Some(Value::Text(word.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times_are_read_as_they_are_written() {
        let numbers = (0..70).flat_map(|shift| [1u128 << shift, (1 << shift) - 1, 1000 << shift]);
        for n in numbers.chain([86_400_000_000_000 * 7, Duration::MAX.as_nanos()]) {
            for (space, units) in [(" ", SIZES), ("", TIMES)] {
                let text = in_unit(n, space, units);
                assert_eq!(with_unit(&text, units), Some(n), "{text}");
            }
        }
        let text = [
            (64 << 20, "64 MiB"),
            (4096, "4 KiB"),
            (4097, "4097 B"),
            (0, "0 B"),
            (u64::MAX, "18446744073709551615 B"),
        ];
        text.iter().for_each(|(bytes, text)| assert_eq!(size_text(*bytes), *text));
        assert_eq!(in_unit(Duration::from_millis(500).as_nanos(), "", TIMES), "500ms");
        assert_eq!(with_unit(" 64MiB ", SIZES), Some(64 << 20));
        for wrong in ["", "64", "MiB", "64 MB", "64 mib", "-1 MiB", "1.5 MiB", "1 MiB 2", "1e3 B", "٣ B"] {
            assert_eq!(with_unit(wrong, SIZES), None, "{wrong}");
        }
        assert_eq!(with_unit(&format!("{} TiB", u128::MAX), SIZES), None);
    }
}
