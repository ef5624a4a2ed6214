//! Numbers and counted bytes in what is stored of raft's types: LEB128, in the shortest form only.

/// Appends `value` in its shortest form.
pub(super) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Reads bytes that may be another program's. The error says which rule they break.
pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Cursor<'a> {
        Cursor { bytes, at: 0 }
    }

    pub(super) fn u8(&mut self) -> Result<u8, &'static str> {
        let byte = self.bytes.get(self.at).ok_or(CUT_SHORT)?;
        self.at += 1;
        Ok(*byte)
    }

    pub(super) fn varint(&mut self) -> Result<u64, &'static str> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            if shift == 63 && byte > 1 {
                return Err("a varint exceeds 64 bits");
            }
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return match byte == 0 && shift > 0 {
                    true => Err("a varint is longer than it need be"),
                    false => Ok(value),
                };
            }
        }
        Err("a varint exceeds 64 bits")
    }

    /// A count of items of a byte or more each. One that the bytes left cannot hold is refused here, so that
    /// nobody allocates for it.
    pub(super) fn count(&mut self) -> Result<usize, &'static str> {
        let count = self.varint()?;
        let left = self.bytes.len() - self.at;
        usize::try_from(count)
            .ok()
            .filter(|count| *count <= left)
            .ok_or("a count exceeds what the bytes left can hold")
    }

    pub(super) fn skip(&mut self, count: usize) -> Result<(), &'static str> {
        let end = self.at.checked_add(count).filter(|end| *end <= self.bytes.len());
        self.at = end.ok_or(CUT_SHORT)?;
        Ok(())
    }

    /// How many bytes were read.
    pub(super) fn position(&self) -> usize {
        self.at
    }

    /// Refuses bytes after the last item: they would be meaning that nobody read.
    pub(super) fn finish(&self) -> Result<(), &'static str> {
        if self.at == self.bytes.len() { Ok(()) } else { Err("bytes are left after the last item") }
    }
}

const CUT_SHORT: &str = "the bytes end inside an item";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_back_and_only_the_shortest_form_is_read() {
        for value in [0, 1, 127, 128, 16_383, 16_384, u64::from(u32::MAX), u64::MAX] {
            let mut out = Vec::new();
            put_varint(&mut out, value);
            let mut cursor = Cursor::new(&out);
            assert_eq!((cursor.varint(), cursor.finish()), (Ok(value), Ok(())), "{value}");
        }
        let mut beyond = [0xff; 10];
        beyond[9] = 0x02;
        for wrong in [&[0x80, 0x00][..], &[0xff, 0x80, 0x00], &beyond, &[0x80; 64], &[0x80], &[]] {
            assert!(Cursor::new(wrong).varint().is_err(), "{wrong:x?}");
        }
    }

    #[test]
    fn a_count_beyond_the_bytes_left_is_refused() {
        assert_eq!(Cursor::new(&[2, 0, 0]).count(), Ok(2));
        assert!(Cursor::new(&[3, 0, 0]).count().is_err());
        let mut cursor = Cursor::new(&[1, 2]);
        assert!(cursor.skip(3).is_err() && cursor.finish().is_err());
        assert_eq!((cursor.skip(2), cursor.position(), cursor.finish()), (Ok(()), 2, Ok(())));
    }
}
