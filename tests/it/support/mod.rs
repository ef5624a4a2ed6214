//! What several files of tests share.

#[cfg(any(feature = "openraft-09", feature = "openraft-010"))]
#[macro_use]
mod as_postcard;
#[cfg(all(feature = "openraft-09", feature = "sim"))]
pub(crate) mod machine_09;
#[cfg(feature = "sim")]
pub(crate) mod model;
#[cfg(all(any(feature = "openraft-09", feature = "openraft-010"), feature = "sim"))]
pub(crate) mod openraft;
#[cfg(feature = "sim")]
pub(crate) mod oracle;
pub(crate) mod process;
#[cfg(feature = "sim")]
pub(crate) mod stores;
#[cfg(feature = "sim")]
pub(crate) mod threads;
#[cfg(feature = "sim")]
pub(crate) mod two_regions;
