//! Which keys of a region's metadata hold what.
//!
//! ```text
//!   r <apply index>    region state as of that index      s <apply index>    apply state as of that index
//!   m <name>           a mark of the region               i <name>           an ident of the store, in STORE
//! ```
//!
//! Indexes are big-endian, so that keys sort as they do.

/// A kind of state that is kept per apply index.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Region,
    Apply,
}

impl Kind {
    pub(crate) const ALL: [Kind; 2] = [Kind::Region, Kind::Apply];

    pub(crate) fn prefix(self) -> &'static [u8] {
        match self {
            Kind::Region => b"r",
            Kind::Apply => b"s",
        }
    }

    pub(crate) fn key(self, apply_index: u64) -> [u8; 9] {
        let mut key = [self.prefix()[0]; 9];
        key[1..].copy_from_slice(&apply_index.to_be_bytes());
        key
    }
}

/// The apply index of a state's key; `None` of another key.
pub(crate) fn apply_index(key: &[u8]) -> Option<u64> {
    key.get(1..)?.try_into().ok().map(u64::from_be_bytes)
}

pub(crate) fn mark(name: &str) -> Vec<u8> {
    [b"m", name.as_bytes()].concat()
}

pub(crate) fn ident(name: &str) -> Vec<u8> {
    [b"i", name.as_bytes()].concat()
}
