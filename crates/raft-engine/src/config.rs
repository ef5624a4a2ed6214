//! raft-engine's configuration, and what becomes of it here.

use crate::ReadableSize;
use crate::error::{Error, Result};
use raftwood::limits::{SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN};
use raftwood::{Compression, Options, Pool, Purge, TailPolicy};
use serde::{Deserialize, Serialize};

/// What an open does with an end of the log that is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RecoveryMode {
    /// The same as the default here: what is visibly torn was never acknowledged.
    AbsoluteConsistency,
    /// What is visibly torn is dropped; bytes that may have been acknowledged are not: entries of them are
    /// fenced, or the open is refused ([`TailPolicy::Prove`]).
    #[serde(alias = "tolerate-corrupted-tail-records", rename(serialize = "tolerate-corrupted-tail-records"))]
    TolerateTailCorruption,
    /// Ends the log before what cannot be read, acknowledged or not ([`TailPolicy::AcceptLoss`]). For one
    /// open of one store, never for a configuration file.
    TolerateAnyCorruption,
}

/// raft-engine's version of its log files. Here it says nothing: Raftwood's format has its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u64", into = "u64")]
pub enum Version {
    /// 1: cannot be recycled in raft-engine.
    #[default]
    V1 = 1,
    /// 2.
    V2 = 2,
}

impl From<Version> for u64 {
    fn from(version: Version) -> u64 {
        match version {
            Version::V1 => 1,
            Version::V2 => 2,
        }
    }
}

impl TryFrom<u64> for Version {
    type Error = String;

    fn try_from(number: u64) -> std::result::Result<Version, String> {
        match number {
            1 => Ok(Version::V1),
            2 => Ok(Version::V2),
            _ => Err(format!("raft-engine has no format version {number}, only 1 and 2")),
        }
    }
}

/// How an engine is opened, with raft-engine's names and defaults: the same `[raft-engine]` table of a
/// configuration file is read.
///
/// ```
/// use raftwood_raft_engine::{Config, ReadableSize};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let config: Config = serde_json::from_str(r#"{ "dir": "data/raft", "target-file-size": "64MB" }"#)?;
/// assert_eq!(config.target_file_size, ReadableSize::mb(64));
/// assert_eq!(config.purge_threshold, ReadableSize::gb(10));
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct Config {
    /// The directory. Made by the open if it is not there. Default "".
    pub dir: String,
    /// A second directory: refused, Raftwood's files are all in one. Default none.
    pub spill_dir: Option<String>,
    /// Becomes a [`TailPolicy`]. Default tolerate-tail-corruption.
    pub recovery_mode: RecoveryMode,
    /// Ignored: an open reads the unsealed end of the log only. Default 16 KiB.
    pub recovery_read_block_size: ReadableSize,
    /// Ignored. Default 4.
    pub recovery_threads: usize,
    /// Batches with at least so many bytes of entries are compressed; 0 compresses none. Becomes
    /// [`Compression::Lz4`]. Default 8 KiB.
    pub batch_compression_threshold: ReadableSize,
    /// Ignored. Default none.
    pub compression_level: Option<usize>,
    /// Ignored, as by raft-engine. Default none.
    pub bytes_per_sync: Option<ReadableSize>,
    /// Ignored. Default 2.
    pub format_version: Version,
    /// The size of a segment file, raised or lowered to what
    /// [`Options::segment_bytes`] takes. Default 128 MiB.
    pub target_file_size: ReadableSize,
    /// Below it [`purge_expired_files`](crate::Engine::purge_expired_files) does nothing. Segments that hold
    /// no live entry are given back all the same, by a thread of the engine. Default 10 GiB.
    pub purge_threshold: ReadableSize,
    /// Ignored. Default none.
    pub purge_rewrite_threshold: Option<ReadableSize>,
    /// The share of the segments' bytes that may be garbage before what lives in the worst of them is moved.
    /// Becomes [`Purge::garbage_percent_max`]. Default 0.6.
    pub purge_rewrite_garbage_ratio: f64,
    /// Ignored: of a sealed segment nothing is held in memory. Default none.
    pub memory_limit: Option<ReadableSize>,
    /// Whether more than one file is kept for use again. Default true.
    pub enable_log_recycle: bool,
    /// Ignored: files are filled with zeros in the background, not by the open. Default false.
    pub prefill_for_recycle: bool,
    /// Ignored. Default none.
    pub prefill_limit: Option<ReadableSize>,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            dir: String::new(),
            spill_dir: None,
            recovery_mode: RecoveryMode::TolerateTailCorruption,
            recovery_read_block_size: ReadableSize::kb(16),
            recovery_threads: 4,
            batch_compression_threshold: ReadableSize::kb(8),
            compression_level: None,
            bytes_per_sync: None,
            format_version: Version::V2,
            target_file_size: ReadableSize::mb(128),
            purge_threshold: ReadableSize::gb(10),
            purge_rewrite_threshold: None,
            purge_rewrite_garbage_ratio: 0.6,
            memory_limit: None,
            enable_log_recycle: true,
            prefill_for_recycle: false,
            prefill_limit: None,
        }
    }
}

impl Config {
    /// Refuses what raft-engine refuses, and a directory that Raftwood cannot use.
    ///
    /// # Errors
    /// `InvalidArgument`, which names the field.
    pub fn sanitize(&mut self) -> Result<()> {
        if self.purge_threshold.0 < self.target_file_size.0 {
            return Err(Error::invalid("purge-threshold is smaller than target-file-size"));
        }
        if self.enable_log_recycle && self.format_version == Version::V1 {
            return Err(Error::invalid("format-version 1 cannot recycle files: enable-log-recycle needs 2"));
        }
        if !self.enable_log_recycle && self.prefill_for_recycle {
            return Err(Error::invalid("prefill-for-recycle needs enable-log-recycle"));
        }
        if let Some(dir) = &self.spill_dir {
            let why = "all files of a store are in one directory: put `dir` where there is room for both";
            return Err(Error::invalid(format!("spill-dir {dir:?} cannot be used, {why}")));
        }
        Ok(())
    }

    /// As the engine is opened.
    pub(crate) fn options(&self) -> Options {
        let bytes = self.target_file_size.0.clamp(SEGMENT_BYTES_MIN, SEGMENT_BYTES_MAX);
        let compression = match self.batch_compression_threshold.0 {
            0 => Compression::None,
            bytes => Compression::Lz4 { min_batch_bytes: usize::try_from(bytes).unwrap_or(usize::MAX) },
        };
        let pool = match self.enable_log_recycle {
            true => Pool::default(),
            false => Pool::default().files_max(1),
        };
        let garbage_percent = (self.purge_rewrite_garbage_ratio * 100.0) as u8;
        Options::new()
            .segment_bytes(bytes.next_multiple_of(4096).min(SEGMENT_BYTES_MAX))
            .compression(compression)
            .pool(pool)
            .purge(Purge::default().garbage_percent_max(garbage_percent))
            .tail_policy(match self.recovery_mode {
                RecoveryMode::TolerateAnyCorruption => TailPolicy::AcceptLoss,
                RecoveryMode::AbsoluteConsistency | RecoveryMode::TolerateTailCorruption => TailPolicy::Prove,
            })
    }
}
