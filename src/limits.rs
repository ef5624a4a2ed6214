//! Every limit that the writer enforces, and so that the reader may rely on, by name.

/// The largest payload of one entry, in bytes (256 MiB).
pub const ENTRY_BYTES_MAX: usize = 256 << 20;

/// The largest batch, encoded, in bytes (1 GiB). A batch larger than a segment gets a segment of its own.
pub const BATCH_BYTES_MAX: usize = 1 << 30;

/// The largest description of a batch, in bytes (16 MiB): what names its regions, entries and key-values.
pub const DESC_BYTES_MAX: usize = 16 << 20;

/// The largest key of a region's key-values, in bytes.
pub const KEY_BYTES_MAX: usize = 4 << 10;

/// The largest value of a region's key-values and the largest hard state, in bytes (1 MiB).
pub const VALUE_BYTES_MAX: usize = 1 << 20;

/// The highest index of an entry. One less than `u64::MAX`, so that the index after the last is a number.
pub const INDEX_MAX: u64 = u64::MAX - 1;

/// The smallest segment (64 KiB).
pub const SEGMENT_BYTES_MIN: u64 = 64 << 10;

/// The largest segment (2 GiB): offsets are 32 bits wide.
pub const SEGMENT_BYTES_MAX: u64 = 2 << 30;

/// The most bytes of payload in one compressed block, unless one entry alone is larger: what a single
/// read may have to decompress.
pub const BLOCK_BYTES_MAX: usize = 16 << 10;

/// The most changes that wait for a [`Watch`](crate::Watch): a watcher that is further back is missing some,
/// and is shown how many. About 200 KiB.
pub const WATCHED_CHANGES_MAX: usize = 4096;

/// The highest term. One less than `u64::MAX`, which stands for "unknown" inside the engine.
pub const TERM_MAX: u64 = u64::MAX - 1;

/// How many entries one [question](crate::healing::Question) asks for at most.
pub const HEALING_QUESTION_ENTRIES: usize = 256;

/// The most bytes of payload in the answers to one [question](crate::healing::Question), unless one entry
/// alone is larger (4 MiB).
pub const HEALING_ANSWER_BYTES: usize = 4 << 20;

/// What a disk writes at once, at least: a torn write leaves whole ones of these, old or new.
pub(crate) const SECTOR: u64 = 512;

/// What the page cache and the file system work in.
pub(crate) const PAGE: u64 = 4096;
