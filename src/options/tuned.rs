//! What of the options may change while the engine runs: read anew each time that it is needed, and nothing
//! else depends on it.

use super::{Compression, Options};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The options that may change, as they are now.
#[derive(Debug)]
pub(crate) struct Tuned {
    /// 0 is none; else LZ4 from one byte less.
    compression: AtomicU64,
    purge_rate: AtomicU64,
    scrub_rate: AtomicU64,
    /// In nanoseconds; the highest is never.
    scrub_pause: AtomicU64,
}

impl Tuned {
    pub(crate) fn new(options: &Options) -> Tuned {
        let scrub = options.scrub.map_or_else(Default::default, |(_, scrub)| scrub);
        let tuned = Tuned {
            compression: AtomicU64::new(0),
            purge_rate: AtomicU64::new(options.purge.rate_bytes),
            scrub_rate: AtomicU64::new(scrub.rate_bytes),
            scrub_pause: AtomicU64::new(u64::MAX),
        };
        tuned.set_scrub_pause(options.scrub.map(|(pause, _)| pause));
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

    /// How long after the end of a scrub the next one begins; half a millennium is never.
    pub(crate) fn scrub_pause(&self) -> Duration {
        Duration::from_nanos(self.scrub_pause.load(Ordering::Relaxed))
    }

    pub(crate) fn set_scrub_pause(&self, pause: Option<Duration>) {
        let nanos = pause.map_or(u64::MAX, |pause| u64::try_from(pause.as_nanos()).unwrap_or(u64::MAX));
        self.scrub_pause.store(nanos, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_is_read_as_it_was_set_and_none_is_never() {
        let tuned = Tuned::new(&Options::new().scrub_every(Duration::from_secs(9), Default::default()));
        assert_eq!(tuned.scrub_pause(), Duration::from_secs(9));
        tuned.set_scrub_pause(Some(Duration::ZERO));
        assert_eq!(tuned.scrub_pause(), Duration::ZERO);
        for never in [None, Some(Duration::MAX)] {
            tuned.set_scrub_pause(never);
            assert!(tuned.scrub_pause() > Duration::from_secs(500 * 365 * 86400));
        }
    }

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
