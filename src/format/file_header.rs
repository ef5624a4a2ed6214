//! The first 128 bytes of every file: what it is, whose it is, and which generation of the file this is.

use crate::codec::checksum::crc32;
use crate::codec::{Cursor, Malformed};
use crate::limits::PAGE;
use crate::planted::{Bug, planted};
use std::fmt;

/// Names one store, drawn at random when it is created: a file copied in from another store does not verify.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct StoreId(pub [u8; 16]);

impl fmt::Display for StoreId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// What a segment is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum SegmentKind {
    /// A part of the log.
    Log,
    /// What the cleaner wrote: entries sorted by region, nothing else.
    Cold,
}

/// What a file is. The name says it too; the header is what counts.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum FileKind {
    /// A segment.
    Segment(SegmentKind),
    /// The index of a sealed segment.
    Footer,
    /// The region table as of one point of the log.
    Checkpoint,
    /// Up to where the log is durable.
    Mark,
}

impl SegmentKind {
    /// The kind with this number on disk.
    pub(crate) fn from_u32(number: u32) -> Result<SegmentKind, Malformed> {
        match FileKind::from_u32(number)? {
            FileKind::Segment(kind) => Ok(kind),
            _ => Err(Malformed("the file is no segment")),
        }
    }

    /// Its number on disk.
    pub(crate) fn to_u32(self) -> u32 {
        FileKind::Segment(self).to_u32()
    }
}

impl FileKind {
    /// The kind with this number on disk.
    pub(crate) fn from_u32(number: u32) -> Result<FileKind, Malformed> {
        match number {
            1 => Ok(FileKind::Segment(SegmentKind::Log)),
            2 => Ok(FileKind::Segment(SegmentKind::Cold)),
            3 => Ok(FileKind::Footer),
            4 => Ok(FileKind::Checkpoint),
            5 => Ok(FileKind::Mark),
            _ => Err(Malformed("the kind of file is unknown")),
        }
    }

    /// Its number on disk.
    pub(crate) fn to_u32(self) -> u32 {
        match self {
            FileKind::Segment(SegmentKind::Log) => 1,
            FileKind::Segment(SegmentKind::Cold) => 2,
            FileKind::Footer => 3,
            FileKind::Checkpoint => 4,
            FileKind::Mark => 5,
        }
    }
}

/// Which file this is, and which of its generations: recycled files keep their bytes, and the salt, drawn at
/// random for each generation, keeps those apart from new ones.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Identity {
    /// The store that the file belongs to.
    pub(crate) store: StoreId,
    /// Its number. A footer has that of its segment.
    pub(crate) file: u32,
    /// Random, new for each generation.
    pub(crate) salt: u64,
}

impl Identity {
    /// What every checksum in the file starts from.
    pub(crate) fn seed(&self) -> u32 {
        let file = if planted(Bug::SegmentLeftOut) { 0 } else { self.file };
        let salt = if planted(Bug::SaltLeftOut) { 0 } else { self.salt };
        crc32(crc32(crc32(0, &self.store.0), &file.to_le_bytes()), &salt.to_le_bytes())
    }
}

/// The header of a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct FileHeader {
    /// The version of the format that the file was written in.
    pub(crate) version: u32,
    /// What the file is.
    pub(crate) kind: FileKind,
    /// Which file it is.
    pub(crate) identity: Identity,
    /// The length that the file is meant to have: a shorter one was cut behind our back.
    pub(crate) len: u64,
    /// The salt of the generation before, 0 when there was none. It lets recovery tell a block of that
    /// generation, which only was not overwritten, from one that rotted.
    pub(crate) previous_salt: u64,
}

/// Why a header was refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum HeaderError {
    /// The bytes are no header.
    Malformed(Malformed),
    /// They are one, of a format that this release does not know. Nothing may be written to such a store.
    NewerVersion(u32),
    /// They are one, with flags that this release does not know. The same holds.
    UnknownFlags(u64),
}

impl From<Malformed> for HeaderError {
    fn from(e: Malformed) -> HeaderError {
        HeaderError::Malformed(e)
    }
}

impl fmt::Display for HeaderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HeaderError::Malformed(e) => e.fmt(f),
            HeaderError::NewerVersion(version) => {
                write!(f, "the file has format version {version}; this release reads up to {FORMAT_VERSION}")
            }
            HeaderError::UnknownFlags(flags) => {
                write!(f, "the file has flags {flags:#x}, which this release does not know")
            }
        }
    }
}

impl std::error::Error for HeaderError {}

impl FileHeader {
    /// The header as it stands on disk.
    pub(crate) fn encode(&self) -> [u8; FILE_HEADER_LEN] {
        let mut out = Vec::with_capacity(FILE_HEADER_LEN);
        out.extend_from_slice(&FILE_MAGIC);
        out.extend_from_slice(&self.version.to_le_bytes());
        out.extend_from_slice(&self.kind.to_u32().to_le_bytes());
        out.extend_from_slice(&0u64.to_le_bytes());
        out.extend_from_slice(&self.identity.store.0);
        out.extend_from_slice(&self.identity.file.to_le_bytes());
        out.extend_from_slice(&0u32.to_le_bytes());
        out.extend_from_slice(&self.identity.salt.to_le_bytes());
        out.extend_from_slice(&self.len.to_le_bytes());
        out.extend_from_slice(&self.previous_salt.to_le_bytes());
        seal(&out)
    }

    /// The header as it stands in each of the two blocks of a segment that hold it: one bad block must not
    /// take a whole segment with it.
    pub(crate) fn encode_segment_block(&self) -> Vec<u8> {
        let mut block = self.encode().to_vec();
        block.resize(SEGMENT_HEADER_LEN as usize, 0);
        block
    }

    /// Where the copies of a segment's header stand, in a file of the length that the header names: in its
    /// first block and in its last. Before version 3 both stood in the first.
    pub(crate) fn copies_at(&self) -> [u64; 2] {
        [0, if self.version < 3 { SECOND_COPY_V2_AT } else { second_copy_at(self.len) }]
    }

    /// Where the records of a segment have to end.
    pub(crate) fn records_end(&self) -> u64 {
        if self.version < 3 { self.len } else { second_copy_at(self.len) }
    }

    /// Reads a header from the start of `bytes`. Version and flags are believed only if the checksum is
    /// right, so rot never looks like a newer release.
    pub(crate) fn decode(bytes: &[u8]) -> Result<FileHeader, HeaderError> {
        let header: &[u8; FILE_HEADER_LEN] =
            bytes.first_chunk().ok_or(Malformed("the file is too short for its header"))?;
        let mut r = Cursor::new(header);
        if r.array()? != FILE_MAGIC {
            return Err(Malformed("the file does not begin as ours do").into());
        }
        if *header != seal(header) {
            return Err(Malformed("the checksum of the file's header is wrong").into());
        }
        let version = match r.u32()? {
            0 => return Err(Malformed("format version 0 does not exist").into()),
            known @ 1..=FORMAT_VERSION => known,
            _ if planted(Bug::NewerVersionRead) => FORMAT_VERSION,
            newer => return Err(HeaderError::NewerVersion(newer)),
        };
        let kind = r.u32()?;
        match r.u64()? {
            0 => {}
            _ if planted(Bug::UnknownFlagsRead) => {}
            flags => return Err(HeaderError::UnknownFlags(flags)),
        }
        let kind = FileKind::from_u32(kind)?;
        let store = StoreId(r.array()?);
        let file = r.u32()?;
        let padding = r.u32()?;
        let (salt, len, previous_salt) = (r.u64()?, r.u64()?, r.u64()?);
        if padding != 0 || header.get(r.position()..CRC_AT).is_none_or(|rest| rest.iter().any(|b| *b != 0)) {
            return Err(Malformed("reserved bytes of the file's header are not zero").into());
        }
        Ok(FileHeader { version, kind, identity: Identity { store, file, salt }, len, previous_salt })
    }

    /// Reads a segment's header from its first block and its last: the first copy, or else the second.
    /// When none is right the more telling error is returned, so that a newer store with a rotten
    /// sector is still refused as newer.
    pub(crate) fn decode_segment(first: &[u8], last: &[u8]) -> Result<FileHeader, HeaderError> {
        let copies = FileHeader::segment_copies(first, last);
        let rot = |copy: &Result<FileHeader, HeaderError>| matches!(copy, Err(HeaderError::Malformed(_)));
        let looked_at = if planted(Bug::SecondHeaderIgnored) { 1 } else { copies.len() };
        copies.into_iter().take(looked_at).find(|copy| !rot(copy)).unwrap_or(copies[0])
    }

    /// The copies of a segment's header, wherever a version has them.
    pub(crate) fn segment_copies(first: &[u8], last: &[u8]) -> [Result<FileHeader, HeaderError>; 3] {
        let in_first = first.get(SECOND_COPY_V2_AT as usize..).unwrap_or_default();
        [
            FileHeader::decode(first),
            FileHeader::decode(in_first).and_then(|h| h.stands_in_first_block(true)),
            FileHeader::decode(last).and_then(|h| h.stands_in_first_block(false)),
        ]
    }

    /// Bytes of an entry that look like a header where no copy can be are none.
    fn stands_in_first_block(self, expected: bool) -> Result<FileHeader, HeaderError> {
        match (self.version < 3) == expected {
            true => Ok(self),
            false => Err(Malformed("a copy of a header stands where there is none").into()),
        }
    }
}

/// Where the second copy of the header stands in a segment file of `len` bytes.
pub(crate) fn second_copy_at(len: u64) -> u64 {
    len.saturating_sub(u64::from(SEGMENT_HEADER_LEN))
}

/// The version that this release writes, and the newest that it reads.
pub(crate) const FORMAT_VERSION: u32 = 4;

/// The length of a file header.
pub(crate) const FILE_HEADER_LEN: usize = 128;

/// Where a segment's records start: a page in, so that they are page-aligned for direct I/O. The block at the
/// end of the file that holds the second copy of its header is as long.
pub(crate) const SEGMENT_HEADER_LEN: u32 = PAGE as u32;

/// The first bytes of every file.
pub(crate) const FILE_MAGIC: [u8; 8] = *b"RAFTWOOD";

const SECOND_COPY_V2_AT: u64 = SEGMENT_HEADER_LEN as u64 / 2;
const CRC_AT: usize = FILE_HEADER_LEN - 4;

/// The fields, zeros up to the checksum, and the checksum. Its seed is 0: the identity is only
/// known from here on.
fn seal(fields: &[u8]) -> [u8; FILE_HEADER_LEN] {
    let mut header = [0; FILE_HEADER_LEN];
    let (body, sum) = header.split_at_mut(CRC_AT);
    for (to, from) in body.iter_mut().zip(fields) {
        *to = *from;
    }
    sum.copy_from_slice(&crc32(0, body).to_le_bytes());
    header
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn header() -> FileHeader {
        let identity = Identity { store: StoreId(*b"0123456789abcdef"), file: 7, salt: 0x1122_3344 };
        FileHeader {
            version: FORMAT_VERSION,
            kind: FileKind::Segment(SegmentKind::Log),
            identity,
            len: 64 << 20,
            previous_salt: 9,
        }
    }

    /// Changes four bytes and makes the checksum right again, as a newer release would have written them.
    fn forged(at: usize, value: u32) -> [u8; FILE_HEADER_LEN] {
        let mut bytes = header().encode();
        bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
        seal(&bytes)
    }

    #[test]
    fn every_flipped_bit_is_detected() {
        let good = header().encode();
        for bit in 0..good.len() * 8 {
            let mut bad = good;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(matches!(FileHeader::decode(&bad), Err(HeaderError::Malformed(_))), "bit {bit}");
        }
    }

    #[test]
    fn one_rotten_block_does_not_take_the_segment() {
        let (good, bad) = (header().encode_segment_block(), vec![0; SEGMENT_HEADER_LEN as usize]);
        assert_eq!(good.len(), SEGMENT_HEADER_LEN as usize);
        assert_eq!(header().copies_at(), [0, (64 << 20) - 4096]);
        assert_eq!(FileHeader::decode_segment(&good, &bad), Ok(header()));
        assert_eq!(FileHeader::decode_segment(&bad, &good), Ok(header()));
        assert!(FileHeader::decode_segment(&bad, &bad).is_err());
        assert!(FileHeader::decode_segment(&[], &[]).is_err());
    }

    #[test]
    fn second_copy_of_an_older_segment_stands_in_its_first_block() {
        let old = FileHeader { version: 2, ..header() };
        assert_eq!((old.copies_at(), old.records_end()), ([0, 2048], 64 << 20));
        let mut block = vec![0; SEGMENT_HEADER_LEN as usize];
        block[2048..][..FILE_HEADER_LEN].copy_from_slice(&old.encode());
        assert_eq!(FileHeader::decode_segment(&block, &[]), Ok(old));
        // Neither may stand in the other's place.
        assert!(FileHeader::decode_segment(&[], &old.encode()).is_err());
        block[2048..][..FILE_HEADER_LEN].copy_from_slice(&header().encode());
        assert!(FileHeader::decode_segment(&block, &[]).is_err());
    }

    #[test]
    fn newer_version_is_told_from_rot() {
        let newer = FORMAT_VERSION + 1;
        assert_eq!(FileHeader::decode(&forged(8, newer)), Err(HeaderError::NewerVersion(newer)));
        assert_eq!(FileHeader::decode_segment(&[], &forged(8, newer)), Err(HeaderError::NewerVersion(newer)));
    }

    #[test]
    fn every_version_up_to_this_one_is_read() {
        for version in 1..=FORMAT_VERSION {
            assert!(FileHeader::decode(&forged(8, version)).is_ok(), "{version}");
        }
        assert!(matches!(FileHeader::decode(&forged(8, 0)), Err(HeaderError::Malformed(_))));
    }

    #[test]
    fn unknown_flag_kind_or_reserved_byte_is_refused() {
        assert_eq!(FileHeader::decode(&forged(16, 4)), Err(HeaderError::UnknownFlags(4)));
        assert!(matches!(FileHeader::decode(&forged(12, 6)), Err(HeaderError::Malformed(_))));
        assert!(matches!(FileHeader::decode(&forged(44, 1)), Err(HeaderError::Malformed(_))));
        assert!(matches!(FileHeader::decode(&forged(120, 1)), Err(HeaderError::Malformed(_))));
    }

    #[test]
    fn each_part_of_the_identity_changes_the_seed() {
        let base = header().identity;
        let others = [
            Identity { file: 8, ..base },
            Identity { salt: 0, ..base },
            Identity { store: StoreId([0; 16]), ..base },
        ];
        assert!(others.iter().all(|other| other.seed() != base.seed()));
    }

    proptest! {
        #[test]
        fn every_header_round_trips(
            version in 1..=FORMAT_VERSION, kind in 1u32..6, store: [u8; 16], file: u32, salt: u64, len: u64, previous_salt: u64,
        ) {
            let identity = Identity { store: StoreId(store), file, salt };
            let kind = FileKind::from_u32(kind).unwrap();
            let header = FileHeader { version, kind, identity, len, previous_salt };
            prop_assert_eq!(FileHeader::decode(&header.encode()), Ok(header));
            prop_assert_eq!(FileHeader::decode_segment(&header.encode_segment_block(), &[]), Ok(header));
        }

        #[test]
        fn random_bytes_never_panic(mut bytes: Vec<u8>, resealed: bool) {
            if resealed {
                bytes.splice(0..0, FILE_MAGIC);
                bytes = seal(&bytes).to_vec();
            }
            let _ = FileHeader::decode(&bytes);
            let _ = FileHeader::decode_segment(&bytes, &bytes);
        }
    }
}
