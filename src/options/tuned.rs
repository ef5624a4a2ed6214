//! What of the options may change while the engine runs: read anew each time that it is needed, and nothing
//! else depends on it.

use super::{Compression, Options};
use std::sync::atomic::{AtomicU64, Ordering};

/// The options that may change, as they are now.
#[derive(Debug)]
pub(crate) struct Tuned {
    /// 0 is none; else LZ4 from one byte less.
    compression: AtomicU64,
    purge_rate: AtomicU64,
    scrub_rate: AtomicU64,
}

impl Tuned {
    pub(crate) fn new(options: &Options) -> Tuned {
        let scrub = options.scrub.map_or_else(Default::default, |(_, scrub)| scrub);
        let tuned = Tuned {
            compression: AtomicU64::new(0),
            purge_rate: AtomicU64::new(options.purge.rate_bytes),
            scrub_rate: AtomicU64::new(scrub.rate_bytes),
        };
        tuned.set_compression(options.compression);
        tuned
    }

    pub(crate) fn compression(&self) -> Compression {
        match self.compression.load(Ordering::Relaxed).checked_sub(1) {
            None => Compression::None,
            Some(min) => Compression::Lz4 { min_batch_bytes: usize::try_from(min).unwrap_or(usize::MAX) },
        }
    }

    pub(crate) fn set_compression(&self, compression: Compression) {
        let word = match compression {
            Compression::None => 0,
            Compression::Lz4 { min_batch_bytes } => (min_batch_bytes as u64).saturating_add(1),
        };
        self.compression.store(word, Ordering::Relaxed);
    }

    /// Bytes a second that the cleaner may move in the background.
    pub(crate) fn purge_rate(&self) -> u64 {
        self.purge_rate.load(Ordering::Relaxed)
    }

    pub(crate) fn set_purge_rate(&self, bytes_per_second: u64) {
        self.purge_rate.store(bytes_per_second, Ordering::Relaxed);
    }

    /// Bytes a second that the background scrub may read; 0 is no limit.
    pub(crate) fn scrub_rate(&self) -> u64 {
        self.scrub_rate.load(Ordering::Relaxed)
    }

    pub(crate) fn set_scrub_rate(&self, bytes_per_second: u64) {
        self.scrub_rate.store(bytes_per_second, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_compression_is_read_as_it_was_set() {
        let tuned = Tuned::new(&Options::new());
        assert_eq!(tuned.compression(), Compression::None);
        for min_batch_bytes in [0, 1, 4096, 1 << 31] {
            tuned.set_compression(Compression::Lz4 { min_batch_bytes });
            assert_eq!(tuned.compression(), Compression::Lz4 { min_batch_bytes });
        }
        tuned.set_compression(Compression::None);
        assert_eq!(tuned.compression(), Compression::None);
    }
}
