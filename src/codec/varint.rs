//! Variable-length integers: LEB128, seven bits a byte, low bits first.
//!
//! Most numbers in a description are small (counts, lengths, terms); at a byte each they cost
//! less to checksum and to write than fixed widths. The shortest form is the only legal one, so
//! equal values have equal bytes.

/// The longest encoding: ten bytes hold 70 bits.
#[cfg(test)]
pub(crate) const VARINT_LEN_MAX: usize = 10;

/// Appends `value` in its shortest form.
#[inline]
pub(crate) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// How many bytes [`put_varint`] appends for `value`.
#[inline]
#[cfg(test)]
pub(crate) fn varint_len(value: u64) -> usize {
    // Zero still takes a byte, so count its bits as one.
    let bits = 64 - (value | 1).leading_zeros() as usize;
    bits.div_ceil(7)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::Cursor;
    use proptest::prelude::*;

    #[test]
    fn boundaries_take_the_documented_number_of_bytes() {
        for (value, len) in [(0, 1), (127, 1), (128, 2), (16_383, 2), (16_384, 3), (u64::MAX, VARINT_LEN_MAX)]
        {
            let mut out = Vec::new();
            put_varint(&mut out, value);
            assert_eq!((out.len(), varint_len(value)), (len, len), "{value}");
        }
    }

    proptest! {
        #[test]
        fn every_value_survives_the_round_trip(value: u64, shift in 0u32..64) {
            let value = value >> shift;
            let mut out = Vec::new();
            put_varint(&mut out, value);
            prop_assert_eq!(out.len(), varint_len(value));
            let mut r = Cursor::new(&out);
            prop_assert_eq!(r.varint(), Ok(value));
            prop_assert_eq!(r.finish(), Ok(()));
        }
    }
}
