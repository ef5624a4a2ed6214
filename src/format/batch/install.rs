//! The record that puts a cold segment in the place of others.

use crate::codec::varint::put_varint;
use crate::codec::{Cursor, Malformed};

/// From here on, what still lives of the entries in `sources` is read from the cold segment instead.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Install {
    /// The number of the new segment, which is durable before this record is written.
    pub(crate) cold: u32,
    /// The segments that it replaces.
    pub(crate) sources: Vec<u32>,
}

impl Install {
    /// Appends the description.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.push(INSTALL_TAG);
        put_varint(out, u64::from(self.cold));
        put_varint(out, self.sources.len() as u64);
        for &source in &self.sources {
            put_varint(out, u64::from(source));
        }
    }

    /// Reads a description.
    pub(crate) fn decode(desc: &[u8]) -> Result<Install, Malformed> {
        let mut r = Cursor::new(desc);
        if r.u8()? != INSTALL_TAG {
            return Err(Malformed("the description is not that of an install"));
        }
        let cold = r.varint_u32()?;
        let count = r.count(1)?;
        let mut sources = Vec::with_capacity(count);
        for _ in 0..count {
            sources.push(r.varint_u32()?);
        }
        r.finish()?;
        Ok(Install { cold, sources })
    }
}

/// What the description of an install starts with. A batch without payload starts with 0, its number of
/// blocks: so a description says by itself what it is, also when the header that did is lost.
pub(crate) const INSTALL_TAG: u8 = 1;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_install_round_trips(cold: u32, sources: Vec<u32>) {
            let install = Install { cold, sources };
            let mut out = Vec::new();
            install.encode(&mut out);
            prop_assert_eq!(Install::decode(&out), Ok(install));
        }

        #[test]
        fn random_bytes_never_panic(mut bytes: Vec<u8>) {
            let _ = Install::decode(&bytes);
            bytes.insert(0, INSTALL_TAG);
            let _ = Install::decode(&bytes);
        }
    }
}
