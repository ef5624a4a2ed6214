//! Two replicated key-value stores, as examples of this package: see its README.
