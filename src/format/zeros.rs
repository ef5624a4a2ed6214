//! Which zeros of a record are its own.
//!
//! A sector that a crash did not let be written shows zeros, and so may one that was. To tell them apart,
//! each record says how many zeros it has of itself; more than that were never written. Without it, a record
//! that ends in a zero and rotted elsewhere would look like one that was cut short, and an acknowledged batch
//! would be dropped without a word.

use crate::limits::SECTOR;

/// The zeros of a record's description and payload area, as they lie in the sectors of its file.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Zeros {
    /// Zero bytes at the end; [`u8::MAX`] when there are that many or more.
    pub(crate) trailing: u8,
    /// Sectors of which the record's part is all zero, parts of fewer than [`TELLING_BYTES`] left out;
    /// [`u16::MAX`] when there are that many or more.
    pub(crate) sectors: u16,
}

impl Zeros {
    /// Counts the zeros of `parts`, which lie back to back from offset `start` of the file on.
    pub(crate) fn of(start: u64, parts: [&[u8]; 2]) -> Zeros {
        let backwards = parts.iter().rev().flat_map(|part| part.iter().rev());
        let trailing = backwards.take(usize::from(u8::MAX)).take_while(|b| **b == 0).count();
        let mut sectors = 0u16;
        let (mut at, mut part_len, mut is_zero) = (start, 0, true);
        let mut close = |part_len: &mut u64, is_zero: &mut bool| {
            if *is_zero && *part_len >= TELLING_BYTES {
                sectors = sectors.saturating_add(1);
            }
            (*part_len, *is_zero) = (0, true);
        };
        for mut rest in parts {
            while !rest.is_empty() {
                let room = SECTOR - at % SECTOR;
                let (chunk, behind) = rest.split_at(rest.len().min(room as usize));
                is_zero &= chunk.iter().all(|b| *b == 0);
                part_len += chunk.len() as u64;
                at += chunk.len() as u64;
                rest = behind;
                if at.is_multiple_of(SECTOR) {
                    close(&mut part_len, &mut is_zero);
                }
            }
        }
        close(&mut part_len, &mut is_zero);
        Zeros { trailing: trailing as u8, sectors }
    }

    /// Whether bytes that now have the zeros `found`, and end at offset `end` of the file, are those of a
    /// record that has these, with some of it never written: a sector more is zero, or it ends in more zeros.
    pub(crate) fn lack_some(self, found: Zeros, end: u64) -> bool {
        let unwritten = self.sectors < u16::MAX && found.sectors > self.sectors;
        let more = found.trailing.saturating_sub(self.trailing);
        // A byte or two may have rotted to zero, unless they are all that the record has in its last sector.
        let last_part = 1 + end.saturating_sub(1) % SECTOR;
        let cut = self.trailing < u8::MAX
            && (more >= CUT_BYTES || more > 0 && u64::from(found.trailing) >= last_part);
        unwritten || cut
    }
}

/// Fewer bytes of a sector than this may be zero by chance.
pub(crate) const TELLING_BYTES: u64 = 32;

/// So many more zeros at the end are no rot.
const CUT_BYTES: u8 = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeros_are_counted_by_sectors_of_the_file_and_at_the_end() {
        let of = |start, bytes: &[u8]| {
            let whole = Zeros::of(start, [bytes, &[]]);
            for at in 0..=bytes.len() {
                assert_eq!(Zeros::of(start, [&bytes[..at], &bytes[at..]]), whole, "split at {at}");
            }
            (whole.trailing, whole.sectors)
        };
        assert_eq!(of(0, b""), (0, 0));
        assert_eq!(of(100, b"abc"), (0, 0));
        assert_eq!(of(100, b"ab\0"), (1, 0));
        assert_eq!(of(0, &[0; 512]), (255, 1));
        assert_eq!(of(0, &[0; 31]), (31, 0));
        assert_eq!(of(0, &[0; 32]), (32, 1));
        assert_eq!(of(500, &[0; 24]), (24, 0), "12 bytes in each of two sectors");
        assert_eq!(of(512 - 40, &[0; 80]), (80, 2));
        let mut some = [0; 2048];
        some[700] = 1;
        assert_eq!(of(0, &some), (255, 3));
        assert_eq!(of(300, &some), (255, 4), "it lies in the second of five sectors");
        some[2047] = 1;
        assert_eq!(of(0, &some), (0, 2));
        assert_eq!(Zeros::of(0, [&vec![0; 512 * 70_000], &[]]).sectors, u16::MAX);
    }

    #[test]
    fn what_was_never_written_has_more_zeros_and_what_rotted_has_not() {
        let zeros = |trailing, sectors| Zeros { trailing, sectors };
        // Own and found, and the end of the record in its file.
        for (own, found, end, lacks) in [
            (zeros(0, 0), zeros(0, 0), 700, false),
            (zeros(9, 3), zeros(9, 3), 700, false),
            (zeros(9, 3), zeros(5, 2), 700, false),
            (zeros(0, 3), zeros(0, 4), 700, true),
            (zeros(0, u16::MAX), zeros(0, u16::MAX), 700, false),
            (zeros(1, 0), zeros(4, 0), 700, false),
            (zeros(1, 0), zeros(5, 0), 700, true),
            (zeros(0, 0), zeros(2, 0), 514, true),
            (zeros(2, 0), zeros(2, 0), 514, false),
            (zeros(0, 0), zeros(2, 0), 515, false),
            (zeros(0, 0), zeros(3, 0), 1024, false),
            (zeros(250, 0), zeros(255, 0), 5000, true),
            (zeros(255, 0), zeros(255, 0), 5000, false),
        ] {
            assert_eq!(own.lack_some(found, end), lacks, "{own:?} {found:?} {end}");
        }
    }
}
