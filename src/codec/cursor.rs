//! Reads little-endian numbers from untrusted bytes.

use crate::planted::{Bug, planted};
use std::fmt;

/// The bytes do not follow the grammar of `docs/format.md`; the text says which rule they break.
///
/// It carries no position: the code that decodes knows the file and the offset and adds them to the
/// error for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Malformed(pub &'static str);

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Malformed {}

/// A cursor over bytes. Every read checks what is left first; a failed read leaves the cursor where it was.
#[derive(Debug, Clone)]
pub(crate) struct Cursor<'a> {
    rest: &'a [u8],
    len: usize,
}

impl<'a> Cursor<'a> {
    /// Starts at the first of `bytes`.
    pub(crate) fn new(bytes: &'a [u8]) -> Cursor<'a> {
        Cursor { rest: bytes, len: bytes.len() }
    }

    /// One byte.
    #[inline]
    pub(crate) fn u8(&mut self) -> Result<u8, Malformed> {
        let (&first, rest) = self.rest.split_first().ok_or(CUT_SHORT)?;
        self.rest = rest;
        Ok(first)
    }

    /// Four bytes, little-endian.
    #[inline]
    pub(crate) fn u32(&mut self) -> Result<u32, Malformed> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    /// Eight bytes, little-endian.
    #[inline]
    pub(crate) fn u64(&mut self) -> Result<u64, Malformed> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// Exactly `N` bytes, copied.
    #[inline]
    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (first, rest) = self.rest.split_first_chunk::<N>().ok_or(CUT_SHORT)?;
        self.rest = rest;
        Ok(*first)
    }

    /// A varint. Only the shortest form is accepted, and nothing that needs more than 64 bits.
    #[inline]
    pub(crate) fn varint(&mut self) -> Result<u64, Malformed> {
        if let Some((&byte, rest)) = self.rest.split_first()
            && byte < 0x80
        {
            self.rest = rest;
            return Ok(u64::from(byte));
        }
        let mut value = 0u64;
        let mut shift = 0;
        for (at, &byte) in self.rest.iter().enumerate() {
            if shift == 63 && byte > 1 {
                return Err(Malformed("a varint exceeds 64 bits"));
            }
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                if byte == 0 && at > 0 {
                    return Err(Malformed("a varint is longer than it need be"));
                }
                self.rest = self.rest.get(at + 1..).unwrap_or_default();
                return Ok(value);
            }
            shift += 7;
        }
        Err(CUT_SHORT)
    }

    /// A varint that must fit 32 bits.
    #[inline]
    pub(crate) fn varint_u32(&mut self) -> Result<u32, Malformed> {
        let mut ahead = self.clone();
        let value = u32::try_from(ahead.varint()?).map_err(|_| Malformed("a varint exceeds 32 bits"))?;
        self.rest = ahead.rest;
        Ok(value)
    }

    /// A count of items that take at least `item_len_min` bytes each. A count that the bytes left cannot hold
    /// is refused here, so that nobody allocates for it.
    #[inline]
    pub(crate) fn count(&mut self, item_len_min: usize) -> Result<usize, Malformed> {
        let mut ahead = self.clone();
        let count = ahead.varint()?;
        let most = ahead.remaining() / item_len_min.max(1);
        match usize::try_from(count) {
            Ok(count) if count <= most || planted(Bug::CountNotBounded) => {
                *self = ahead;
                Ok(count)
            }
            _ => Err(Malformed("a count exceeds what the bytes left can hold")),
        }
    }

    /// The next `n` bytes, borrowed.
    #[inline]
    pub(crate) fn bytes(&mut self, n: usize) -> Result<&'a [u8], Malformed> {
        let (first, rest) = self.rest.split_at_checked(n).ok_or(CUT_SHORT)?;
        self.rest = rest;
        Ok(first)
    }

    /// How many bytes are left.
    #[inline]
    pub(crate) fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// How many bytes were read.
    #[inline]
    pub(crate) fn position(&self) -> usize {
        self.len - self.rest.len()
    }

    /// Refuses bytes after the last item: they would be meaning that nobody read.
    pub(crate) fn finish(&self) -> Result<(), Malformed> {
        if self.rest.is_empty() { Ok(()) } else { Err(Malformed("bytes are left after the last item")) }
    }
}

const CUT_SHORT: Malformed = Malformed("the bytes end inside an item");

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn overlong_varint_is_refused() {
        assert!(Cursor::new(&[0x80, 0x00]).varint().is_err());
        assert!(Cursor::new(&[0xff, 0x80, 0x00]).varint().is_err());
        assert_eq!(Cursor::new(&[0x00]).varint(), Ok(0));
    }

    #[test]
    fn varint_of_more_than_64_bits_is_refused() {
        let mut max = [0xff; 10];
        max[9] = 0x01;
        assert_eq!(Cursor::new(&max).varint(), Ok(u64::MAX));
        max[9] = 0x02;
        assert!(Cursor::new(&max).varint().is_err());
        assert!(Cursor::new(&[0x80; 64]).varint().is_err());
    }

    #[test]
    fn count_beyond_the_bytes_left_is_refused() {
        assert_eq!(Cursor::new(&[2, 0, 0, 0, 0]).count(2), Ok(2));
        assert!(Cursor::new(&[3, 0, 0, 0, 0]).count(2).is_err());
    }

    #[test]
    fn bytes_left_over_are_refused() {
        let mut r = Cursor::new(&[1, 2]);
        assert_eq!(r.u8(), Ok(1));
        assert_eq!((r.position(), r.remaining()), (1, 1));
        assert!(r.finish().is_err());
    }

    #[test]
    fn failed_read_leaves_the_cursor_where_it_was() {
        let mut r = Cursor::new(&[0xff, 0xff, 0xff, 0xff, 0xff]);
        assert!(r.u64().is_err() && r.bytes(6).is_err() && r.varint().is_err() && r.varint_u32().is_err());
        assert_eq!(r.position(), 0);
        assert_eq!(r.u32(), Ok(u32::MAX));
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(bytes: Vec<u8>) {
            let mut r = Cursor::new(&bytes);
            while r.varint().is_ok() {}
            prop_assert!(r.position() + r.remaining() == bytes.len());
        }
    }
}
