//! How long operations take, and how many go together, as histograms that are always on: two reads of the
//! clock and one addition each.
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

/// The bucket of a value, in microseconds where it is a time.
fn bucket(value: u64) -> usize {
    let Some(log) = value.checked_ilog2().filter(|log| *log >= PARTS_LOG) else { return value as usize };
    let part = (value >> (log - PARTS_LOG)) - PARTS;
    let bucket = u64::from(log - PARTS_LOG + 1) * PARTS + part;
    (bucket as usize).min(BUCKETS - 1)
}

/// The highest value of a bucket.
fn highest(bucket: usize) -> u64 {
    let (doubling, part) = (bucket as u64 / PARTS, bucket as u64 % PARTS);
    match doubling {
        0 => part,
        _ => ((PARTS + part + 1) << (doubling - 1)) - 1,
    }
}

/// A histogram that threads add to.
struct Shared([AtomicU64; BUCKETS]);

impl Default for Shared {
    fn default() -> Shared {
        Shared([const { AtomicU64::new(0) }; BUCKETS])
    }
}

impl Shared {
    fn add(&self, value: u64) {
        self.0[bucket(value)].fetch_add(1, Ordering::Relaxed);
    }

    fn get(&self) -> Counts {
        Counts(self.0.iter().map(|n| n.load(Ordering::Relaxed)).collect())
    }
}

/// How long things took: a histogram that threads add to.
#[derive(Default)]
pub(crate) struct Times(Shared);

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
        self.0.add(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
    }

    /// What was counted so far.
    pub(crate) fn get(&self) -> Latency {
        Latency(self.0.get())
    }
}

/// How many there were at a time: a histogram that threads add to.
#[derive(Default)]
pub(crate) struct Numbers(Shared);

impl fmt::Debug for Numbers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.get().fmt(f)
    }
}

impl Numbers {
    /// Counts so many.
    pub(crate) fn add(&self, number: u64) {
        self.0.add(number);
    }

    /// What was counted so far.
    pub(crate) fn get(&self) -> Sizes {
        Sizes(self.0.get())
    }
}

/// How often a value was counted, by bucket; shorter where nothing was counted at all.
#[derive(Clone, PartialEq, Eq, Default)]
struct Counts(Vec<u64>);

impl Counts {
    fn count(&self) -> u64 {
        self.0.iter().sum()
    }

    fn quantile(&self, q: f64) -> Option<u64> {
        let count = self.count();
        let rank = ((count as f64 * q.clamp(0.0, 1.0)).ceil() as u64).clamp(1, count.max(1));
        let mut seen = 0;
        let found = self.0.iter().position(|n| {
            seen += n;
            seen >= rank
        });
        found.map(highest)
    }

    fn buckets(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        let filled = self.0.iter().enumerate().filter(|(_, n)| **n > 0);
        filled.map(|(bucket, n)| (highest(bucket), *n))
    }

    fn add(&mut self, other: &Counts) {
        self.0.resize(self.0.len().max(other.0.len()), 0);
        self.0.iter_mut().zip(&other.0).for_each(|(n, more)| *n = n.saturating_add(*more));
    }

    fn since(&self, earlier: &Counts) -> Counts {
        let before = earlier.0.iter().copied().chain(std::iter::repeat(0));
        Counts(self.0.iter().zip(before).map(|(n, less)| n.saturating_sub(less)).collect())
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
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(transparent))]
pub struct Latency(Counts);

impl Latency {
    /// How many operations were counted.
    pub fn count(&self) -> u64 {
        self.0.count()
    }

    /// How long the fastest `q` of the operations took at most: 0.5 for the median, 1 for the longest.
    /// Rounded up by less than an eighth. `None` where nothing was counted; what is not in `0.0..=1.0` counts
    /// as the nearer end.
    pub fn quantile(&self, q: f64) -> Option<Duration> {
        self.0.quantile(q).map(Duration::from_micros)
    }

    /// The buckets that are not empty: the longest duration in each, and how many operations it has. For
    /// those who keep histograms of their own.
    pub fn buckets(&self) -> impl Iterator<Item = (Duration, u64)> + '_ {
        self.0.buckets().map(|(longest, n)| (Duration::from_micros(longest), n))
    }

    /// Adds the operations of another one, of another engine perhaps.
    pub fn add(&mut self, other: &Latency) {
        self.0.add(&other.0);
    }

    /// The operations that were counted after `earlier` was taken.
    pub fn since(&self, earlier: &Latency) -> Latency {
        Latency(self.0.since(&earlier.0))
    }
}

impl fmt::Debug for Latency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = |q| self.quantile(q).unwrap_or_default();
        write!(f, "{} (p50 {:?}, p99 {:?}, longest {:?})", self.count(), at(0.5), at(0.99), at(1.0))
    }
}

/// How many there were each time: a histogram of numbers, exact up to 15 and to an eighth of each value
/// beyond.
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
/// let before = engine.group_sizes();
/// for term in 1..=20u8 {
///     let mut batch = engine.batch();
///     batch.region(RegionId(7)).set_hard_state(&[term])?;
///     engine.write(batch, Durability::Synced)?;
/// }
/// // A lone writer shares its syncs with nobody.
/// let groups = engine.group_sizes().since(&before);
/// assert_eq!((groups.count(), groups.quantile(1.0)), (20, Some(1)));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(transparent))]
pub struct Sizes(Counts);

impl Sizes {
    /// How often something was counted.
    pub fn count(&self) -> u64 {
        self.0.count()
    }

    /// The number that the smallest `q` of all do not exceed: 0.5 for the median, 1 for the largest. Rounded
    /// up by less than an eighth. `None` where nothing was counted; what is not in `0.0..=1.0` counts as the
    /// nearer end.
    pub fn quantile(&self, q: f64) -> Option<u64> {
        self.0.quantile(q)
    }

    /// The buckets that are not empty: the highest number in each, and how often it was met. For those who
    /// keep histograms of their own.
    pub fn buckets(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.0.buckets()
    }

    /// Adds what another one has counted, of another engine perhaps.
    pub fn add(&mut self, other: &Sizes) {
        self.0.add(&other.0);
    }

    /// What was counted after `earlier` was taken.
    pub fn since(&self, earlier: &Sizes) -> Sizes {
        Sizes(self.0.since(&earlier.0))
    }
}

impl fmt::Debug for Sizes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = |q| self.quantile(q).unwrap_or_default();
        write!(f, "{} (p50 {}, p99 {}, largest {})", self.count(), at(0.5), at(0.99), at(1.0))
    }
}

/// A list of pairs, as of [`Latency::buckets`], and of [`Sizes::buckets`]: microseconds, or a number, and a
/// count.
#[cfg(feature = "serde")]
impl serde::Serialize for Counts {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.buckets())
    }
}

#[cfg(feature = "serde")]
impl<'de> serde::Deserialize<'de> for Counts {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Counts, D::Error> {
        let pairs = Vec::<(u64, u64)>::deserialize(deserializer)?;
        let mut counts = vec![0u64; if pairs.is_empty() { 0 } else { BUCKETS }];
        for (value, n) in pairs {
            let count = &mut counts[bucket(value)];
            *count = count.saturating_add(n);
        }
        Ok(Counts(counts))
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
            assert!(highest(b) >= value && highest(b) - value <= value / PARTS, "{value} in {b}");
            assert!(b == 0 || highest(b - 1) < value, "{value} in {b}");
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
        assert!((1..BUCKETS).all(|b| highest(b) > highest(b - 1)));
    }

    fn of(micros: impl IntoIterator<Item = u64>) -> Latency {
        let mut counts = vec![0; BUCKETS];
        micros.into_iter().for_each(|m| counts[bucket(m)] += 1);
        Latency(Counts(counts))
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
    fn numbers_are_exact_where_they_are_small() {
        let numbers = Numbers::default();
        (1..=15).for_each(|n| numbers.add(n));
        let before = numbers.get();
        assert_eq!(before.buckets().collect::<Vec<_>>(), (1..=15).map(|n| (n, 1)).collect::<Vec<_>>());
        assert_eq!((before.count(), before.quantile(0.5), before.quantile(1.0)), (15, Some(8), Some(15)));
        numbers.add(1000);
        let after = numbers.get().since(&before);
        assert!(after.count() == 1 && (1000..=1125).contains(&after.quantile(0.0).unwrap()), "{after:?}");
        let mut both = before.clone();
        both.add(&after);
        assert_eq!(both, numbers.get());
        assert_eq!(Sizes::default().quantile(0.5), None);
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
