//! The figures of an engine as one value that can be written down, for the tool beside it.

use super::Engine;
use crate::clock;
use crate::histogram::Sizes;
use crate::report::{Latencies, Stats};
use serde::{Deserialize, Serialize};

/// The version of [`Figures`] as they are written. It rises when a field goes, or changes its meaning; new
/// fields come without.
pub const FIGURES_SCHEMA: u32 = 1;

/// What an engine knows of itself at one moment: [`stats`](Engine::stats),
/// [`latencies`](Engine::latencies) and [`group_sizes`](Engine::group_sizes), with the time (feature
/// `serde`).
///
/// `raftwood top DIR --metrics FILE` and `raftwood report DIR --metrics FILE` read a file of them, one a
/// line, as JSON, the newest last. The program writes it when it wants to, on a thread of its own; a line
/// that is torn is passed over, and so are lines of another run, whose counters began at 0 again. The tool
/// reads the last lines only, so the file may be cut to nothing at any time.
///
/// In JSON a histogram is a list of pairs, the longest duration of each bucket that is not empty in
/// microseconds (or the highest number) and its count; a position is its number.
///
/// ```
/// use raftwood::{Durability, Engine, RegionId};
/// use std::fs::File;
/// use std::io::Write;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// let engine = Engine::open(dir.path().join("store"))?;
/// let path = dir.path().join("store.figures");
/// let mut file = File::options().create(true).append(true).open(path)?;
/// let mut batch = engine.batch();
/// batch.region(RegionId(7)).set_hard_state(b"term 1")?;
/// engine.write(batch, Durability::Synced)?;
///
/// // Every ten seconds, say. One call of the operating system a line: nobody sees half of it.
/// file.write_all(format!("{}\n", serde_json::to_string(&engine.figures())?).as_bytes())?;
/// if file.metadata()?.len() > 1 << 20 {
///     file.set_len(0)?;
/// }
/// # Ok(()) }
/// ```
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(docsrs, doc(cfg(feature = "serde")))]
#[non_exhaustive]
pub struct Figures {
    /// [`FIGURES_SCHEMA`] of the crate that wrote it.
    pub schema: u32,
    /// When it was: milliseconds since 1970 by the machine's clock.
    pub unix_millis: u64,
    /// The counters and gauges.
    pub stats: Stats,
    /// The histograms, since open.
    pub latencies: Latencies,
    /// How many batches each sync settled, since open; empty in what earlier releases wrote.
    #[serde(default)]
    pub group_sizes: Sizes,
}

impl Engine {
    /// The figures of this moment, to be written down (feature `serde`). Costs what [`stats`](Engine::stats)
    /// and [`latencies`](Engine::latencies) cost.
    #[cfg_attr(docsrs, doc(cfg(feature = "serde")))]
    pub fn figures(&self) -> Figures {
        Figures {
            schema: FIGURES_SCHEMA,
            unix_millis: u64::try_from(clock::since_epoch().as_millis()).unwrap_or(u64::MAX),
            stats: self.stats(),
            latencies: self.latencies(),
            group_sizes: self.group_sizes(),
        }
    }
}
