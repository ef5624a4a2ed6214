//! Reading a region's key-values beyond one key.

use crate::engine::region::Region;
use crate::types::KeyOrder;
use bytes::Bytes;
use std::ops::{Bound, ControlFlow, RangeBounds};

impl Region {
    /// Hands the key-values of `range` to `visit`, in the order of their keys or against it, until it breaks,
    /// and returns what it broke with.
    ///
    /// No lock is held while `visit` runs: it may call the engine, and write to this region. The key-values
    /// are taken in pieces of 128 for that; those of one piece are of one moment, and a change that comes
    /// between two pieces is seen in the later one.
    ///
    /// ```
    /// use raftwood::{Durability, Engine, KeyOrder, RegionId};
    /// use std::ops::ControlFlow;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// let engine = Engine::open(dir.path())?;
    /// let mut batch = engine.batch();
    /// for n in 1..=9u8 {
    ///     batch.region(RegionId(7)).put(&[b'c', n], &[n * 10])?;
    /// }
    /// engine.write(batch, Durability::Synced)?;
    ///
    /// // The newest of a kind that is below a bound, from the end.
    /// let range = &b"c"[..]..&b"c\x08"[..];
    /// let found = engine.region(RegionId(7)).scan_range(range, KeyOrder::Descending, |key, value| {
    ///     if value[0] % 20 == 0 { ControlFlow::Break(key) } else { ControlFlow::Continue(()) }
    /// });
    /// assert_eq!(found.as_deref(), Some(&b"c\x06"[..]));
    /// # Ok(()) }
    /// ```
    pub fn scan_range<'k, T>(
        &self,
        range: impl RangeBounds<&'k [u8]>,
        order: KeyOrder,
        mut visit: impl FnMut(Bytes, Bytes) -> ControlFlow<T>,
    ) -> Option<T> {
        let owned = |bound: Bound<&&[u8]>| bound.map(|key| Bytes::copy_from_slice(key));
        let (mut from, mut to) = (owned(range.start_bound()), owned(range.end_bound()));
        loop {
            let bounds = (from.as_ref().map(|k| &k[..]), to.as_ref().map(|k| &k[..]));
            let piece = self.with(|s| s.key_values(bounds, order, PIECE));
            let rest =
                piece.last().filter(|_| piece.len() == PIECE).map(|(key, _)| Bound::Excluded(key.clone()));
            for (key, value) in piece {
                if let ControlFlow::Break(found) = visit(key, value) {
                    return Some(found);
                }
            }
            match order {
                KeyOrder::Ascending => from = rest?,
                KeyOrder::Descending => to = rest?,
            }
        }
    }

    /// The last key-value whose key starts with `prefix` and is not above `key`.
    ///
    /// ```
    /// use raftwood::{Durability, Engine, RegionId};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// let engine = Engine::open(dir.path())?;
    /// let mut batch = engine.batch();
    /// for index in [5u64, 90] {
    ///     let key = [&b"members at "[..], &index.to_be_bytes()].concat();
    ///     batch.region(RegionId(7)).put(&key, format!("as of {index}").as_bytes())?;
    /// }
    /// engine.write(batch, Durability::Synced)?;
    ///
    /// // Which configuration was in force at index 70?
    /// let at = [&b"members at "[..], &70u64.to_be_bytes()].concat();
    /// let (_, value) = engine.region(RegionId(7)).last_at_or_before(b"members at ", &at).ok_or("none")?;
    /// assert_eq!(&value[..], b"as of 5");
    /// # Ok(()) }
    /// ```
    pub fn last_at_or_before(&self, prefix: &[u8], key: &[u8]) -> Option<(Bytes, Bytes)> {
        // Without a key that starts with it, what is above the prefix is above all that do.
        let end = prefix.iter().rposition(|byte| *byte < u8::MAX).map(|at| {
            let mut end = prefix[..=at].to_vec();
            end[at] += 1;
            end
        });
        let to = match &end {
            Some(end) if key >= &end[..] => Bound::Excluded(&end[..]),
            _ => Bound::Included(key),
        };
        self.with(|s| s.key_values((Bound::Included(prefix), to), KeyOrder::Descending, 1).pop())
    }
}

/// So many key-values are taken under one hold of the region's lock.
const PIECE: usize = 128;
