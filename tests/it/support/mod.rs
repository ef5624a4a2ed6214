//! What the tests share. Each file has one noun:
//!
//! - `engines`: how they are opened, and killed; `threads`: those with threads, and work that has to end;
//! - `entries`: what is written and read back; `files`: finding what the disk holds of it, and harming it;
//! - `heard`, `asked`: listeners that remember; `process`: tests that need a process of their own;
//! - `two_regions`, `stores`, `model`: small stores and what was acknowledged in them; `oracle`: what became
//!   of a store, compared with a model;
//! - `openraft`, `machine_09`, `refusing`, `as_postcard`: for the adapters.

#[cfg(all(any(feature = "openraft-09", feature = "openraft-010"), feature = "sim"))]
#[macro_use]
mod as_postcard;
pub(crate) mod asked;
pub(crate) mod engines;
pub(crate) mod entries;
#[cfg(feature = "sim")]
pub(crate) mod files;
#[cfg(feature = "sim")]
pub(crate) mod heard;
#[cfg(all(feature = "openraft-09", feature = "sim"))]
pub(crate) mod machine_09;
#[cfg(feature = "sim")]
pub(crate) mod model;
#[cfg(all(any(feature = "openraft-09", feature = "openraft-010"), feature = "sim"))]
pub(crate) mod openraft;
#[cfg(feature = "sim")]
pub(crate) mod oracle;
pub(crate) mod process;
#[cfg(all(any(feature = "openraft-09", feature = "openraft-010"), feature = "sim"))]
pub(crate) mod refusing;
#[cfg(feature = "sim")]
pub(crate) mod stores;
#[cfg(feature = "sim")]
pub(crate) mod threads;
#[cfg(feature = "sim")]
pub(crate) mod two_regions;

/// How long a test looks on beside a writer: so many seconds, or what `RAFTWOOD_BESIDE_SECONDS` says.
pub(crate) fn beside_for(seconds: u64) -> std::time::Duration {
    let asked = std::env::var("RAFTWOOD_BESIDE_SECONDS").map_or(seconds, |text| text.parse().unwrap());
    std::time::Duration::from_secs(asked)
}
