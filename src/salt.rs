//! Where the salts of new files come from.

use crate::clock;
use crate::sync::Arc;
use crate::sync::atomic::{AtomicU64, Ordering};

/// Where salts come from: a seam, so that a simulated run can be repeated.
#[derive(Clone)]
pub(crate) struct SaltSource(pub(crate) Arc<dyn Fn() -> u64 + Send + Sync>);

impl std::fmt::Debug for SaltSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SaltSource")
    }
}

impl SaltSource {
    /// Never the same twice: keyed hashing with the process's random keys, over time and a counter.
    pub(crate) fn random() -> SaltSource {
        use std::hash::{BuildHasher, Hasher, RandomState};
        static CALLS: AtomicU64 = AtomicU64::new(0);
        SaltSource(Arc::new(|| {
            let mut h = RandomState::new().build_hasher();
            h.write_u64(CALLS.fetch_add(1, Ordering::Relaxed));
            h.write_u32(std::process::id());
            h.write_u128(clock::since_epoch().as_nanos());
            h.finish()
        }))
    }

    pub(crate) fn next(&self) -> u64 {
        // 0 says "no generation before".
        (self.0)().max(1)
    }
}
