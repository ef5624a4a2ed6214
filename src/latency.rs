//! How long operations take, as histograms that are always on: two reads of the clock and one addition each.
//!
//! Buckets grow with the value, eight for each doubling, as in HdrHistogram: a quantile is right to an eighth
//! of itself, and all of it is an array of counters that threads add to without a lock.

use crate::clock;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Each doubling is cut into so many buckets: two to this power.
const PARTS_LOG: u32 = 3;
const PARTS: u64 = 1 << PARTS_LOG;

/// Up to 2^37 us, which is more than a day; what is longer counts as that.
const BUCKETS: usize = ((37 - PARTS_LOG + 1) * PARTS as u32) as usize;

/// The bucket of so many microseconds.
fn bucket(micros: u64) -> usize {
    let Some(log) = micros.checked_ilog2().filter(|log| *log >= PARTS_LOG) else { return micros as usize };
    let part = (micros >> (log - PARTS_LOG)) - PARTS;
    let bucket = u64::from(log - PARTS_LOG + 1) * PARTS + part;
    (bucket as usize).min(BUCKETS - 1)
}

/// The longest duration of a bucket, in microseconds.
fn longest(bucket: usize) -> u64 {
    let (doubling, part) = (bucket as u64 / PARTS, bucket as u64 % PARTS);
    match doubling {
        0 => part,
        _ => ((PARTS + part + 1) << (doubling - 1)) - 1,
    }
}

/// A histogram that threads add to.
pub(crate) struct Times([AtomicU64; BUCKETS]);

impl Default for Times {
    fn default() -> Times {
        Times([const { AtomicU64::new(0) }; BUCKETS])
    }
}

impl fmt::Debug for Times {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.get().fmt(f)
    }
}

impl Times {
    /// Counts what began then and ends now.
    pub(crate) fn since(&self, began: Instant) {
        self.add(clock::since(began));
    }

    /// Counts what took so long.
    pub(crate) fn add(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.0[bucket(micros)].fetch_add(1, Ordering::Relaxed);
    }

    /// What was counted so far.
    pub(crate) fn get(&self) -> Latency {
        let counts: Vec<u64> = self.0.iter().map(|n| n.load(Ordering::Relaxed)).collect();
        Latency { counts }
    }
}

/// How long operations of one kind took: a histogram of microseconds, to an eighth of each value.
///
/// Those of several engines, or of the same one at two times, can be added and subtracted.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use raftwood::{Durability, Engine, RegionId};
/// # let dir = tempfile::tempdir()?;
/// # let dir = dir.path();
///
/// let engine = Engine::open(dir)?;
/// let before = engine.latencies();
/// for term in 1..=20u8 {
///     let mut batch = engine.batch();
///     batch.region(RegionId(7)).set_hard_state(&[term])?;
///     engine.write(batch, Durability::Synced)?;
/// }
/// let writes = engine.latencies().commit.since(&before.commit);
/// assert_eq!(writes.count(), 20);
/// println!("p99 {:?}, longest {:?}", writes.quantile(0.99), writes.quantile(1.0));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Latency {
    /// By bucket; shorter where nothing was counted at all.
    counts: Vec<u64>,
}

impl Latency {
    /// How many operations were counted.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// How long the fastest `q` of the operations took at most: 0.5 for the median, 1 for the longest.
    /// Rounded up by less than an eighth. `None` where nothing was counted; what is not in `0.0..=1.0` counts
    /// as the nearer end.
    pub fn quantile(&self, q: f64) -> Option<Duration> {
        let count = self.count();
        let rank = ((count as f64 * q.clamp(0.0, 1.0)).ceil() as u64).clamp(1, count.max(1));
        let mut seen = 0;
        let found = self.counts.iter().position(|n| {
            seen += n;
            seen >= rank
        });
        found.map(|bucket| Duration::from_micros(longest(bucket)))
    }

    /// The buckets that are not empty: the longest duration in each, and how many operations it has. For
    /// those who keep histograms of their own.
    pub fn buckets(&self) -> impl Iterator<Item = (Duration, u64)> + '_ {
        let filled = self.counts.iter().enumerate().filter(|(_, n)| **n > 0);
        filled.map(|(bucket, n)| (Duration::from_micros(longest(bucket)), *n))
    }

    /// Adds the operations of another one, of another engine perhaps.
    pub fn add(&mut self, other: &Latency) {
        self.counts.resize(self.counts.len().max(other.counts.len()), 0);
        self.counts.iter_mut().zip(&other.counts).for_each(|(n, more)| *n = n.saturating_add(*more));
    }

    /// The operations that were counted after `earlier` was taken.
    pub fn since(&self, earlier: &Latency) -> Latency {
        let before = earlier.counts.iter().copied().chain(std::iter::repeat(0));
        Latency { counts: self.counts.iter().zip(before).map(|(n, less)| n.saturating_sub(less)).collect() }
    }
}

/// A list of pairs, as of [`Latency::buckets`]: microseconds and a count.
#[cfg(feature = "serde")]
#[cfg_attr(docsrs, doc(cfg(feature = "serde")))]
impl serde::Serialize for Latency {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        serializer.collect_seq(self.buckets().map(|(longest, n)| (micros(longest), n)))
    }
}

#[cfg(feature = "serde")]
#[cfg_attr(docsrs, doc(cfg(feature = "serde")))]
impl<'de> serde::Deserialize<'de> for Latency {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Latency, D::Error> {
        let pairs = Vec::<(u64, u64)>::deserialize(deserializer)?;
        let mut counts = vec![0u64; if pairs.is_empty() { 0 } else { BUCKETS }];
        for (micros, n) in pairs {
            let count = &mut counts[bucket(micros)];
            *count = count.saturating_add(n);
        }
        Ok(Latency { counts })
    }
}

impl fmt::Debug for Latency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = |q| self.quantile(q).unwrap_or_default();
        write!(f, "{} (p50 {:?}, p99 {:?}, longest {:?})", self.count(), at(0.5), at(0.99), at(1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_value_lies_in_a_bucket_no_eighth_longer_than_itself() {
        let mut values: Vec<u64> = (0..4096).collect();
        values.extend((12..37).flat_map(|log| [(1 << log) - 1, 1 << log, (1 << log) + (1 << (log - 1))]));
        for value in values {
            let b = bucket(value);
            assert!(longest(b) >= value && longest(b) - value <= value / PARTS, "{value} in {b}");
            assert!(b == 0 || longest(b - 1) < value, "{value} in {b}");
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
        assert!((1..BUCKETS).all(|b| longest(b) > longest(b - 1)));
    }

    fn of(micros: impl IntoIterator<Item = u64>) -> Latency {
        let mut counts = vec![0; BUCKETS];
        micros.into_iter().for_each(|m| counts[bucket(m)] += 1);
        Latency { counts }
    }

    #[test]
    fn quantiles_are_those_of_the_sorted_values_rounded_up() {
        assert_eq!(Latency::default().quantile(0.5), None);
        assert_eq!(of([]).quantile(1.0), None);
        let values: Vec<u64> = (0..1000).map(|n| n * n).collect();
        let latency = of(values.iter().copied());
        for q in [0.0, 0.001, 0.25, 0.5, 0.9, 0.99, 0.999, 1.0, -3.0, 7.0, f64::NAN] {
            let rank = ((q.clamp(0.0, 1.0) * 1000.0).ceil() as usize).clamp(1, 1000);
            let (exact, said) = (values[rank - 1], latency.quantile(q).unwrap().as_micros() as u64);
            assert!((exact..=exact + exact / PARTS).contains(&said), "{q}: {said} for {exact}");
        }
    }

    #[test]
    fn sums_and_differences_are_those_of_the_operations() {
        let (a, b) = (of([1, 5, 5, 900]), of([5, 70_000]));
        let mut both = a.clone();
        both.add(&b);
        assert_eq!(both, of([1, 5, 5, 5, 900, 70_000]));
        assert_eq!((both.since(&b), both.since(&a)), (a, b));
        let mut none = Latency::default();
        none.add(&both);
        assert_eq!(none, both);
        assert_eq!(both.since(&Latency::default()), both);
        assert_eq!(both.buckets().map(|(_, n)| n).sum::<u64>(), both.count());
        assert_eq!(of([3]).buckets().next(), Some((Duration::from_micros(3), 1)));
    }

    #[cfg(feature = "serde")]
    #[test]
    fn a_histogram_is_read_as_it_was_written() {
        let latency = of([0, 3, 3, 900, 70_000, u64::MAX]);
        let text = serde_json::to_string(&latency).unwrap();
        assert!(text.starts_with("[[0,1],[3,2],[959,1],"), "{text}");
        assert_eq!(serde_json::from_str::<Latency>(&text).unwrap(), latency);
        assert_eq!(serde_json::from_str::<Latency>("[]").unwrap(), Latency::default());
        let many = format!("[[5,{}],[5,7]]", u64::MAX);
        assert_eq!(serde_json::from_str::<Latency>(&many).unwrap().buckets().next().unwrap().1, u64::MAX);
        assert!(serde_json::from_str::<Latency>("[[5,-1]]").is_err());
    }

    #[test]
    fn threads_add_and_nothing_is_forgotten() {
        let times = Times::default();
        std::thread::scope(|s| {
            (0..4).for_each(|_| drop(s.spawn(|| (0..1000).for_each(|_| times.since(clock::now())))));
        });
        assert_eq!(times.get().count(), 4000);
    }
}
