//! Makes the checksums of a file right, whatever else is wrong with it.
//!
//! Written from `docs/format.md` alone, with plain offsets. Nothing here fails: a file that is too short for
//! a field is left as it is from there on.

use crate::codec::checksum::crc32;

/// The magic, and the checksum at 124, of the header at `at`.
pub fn file_header(bytes: &mut [u8], at: usize) {
    put(bytes, at, b"RAFTWOOD");
    let Some(header) = bytes.get(at..at + 124) else { return };
    let crc = crc32(0, header);
    put(bytes, at + 124, &crc.to_le_bytes());
}

/// What every checksum of the file starts from, by its header.
pub fn seed(bytes: &[u8]) -> u32 {
    let identity = [(24, 40), (40, 44), (48, 56)];
    identity.iter().fold(0, |crc, &(from, to)| crc32(crc, bytes.get(from..to).unwrap_or_default()))
}

/// A footer: its length, the length of its deltas (they get what the other sections leave), and all
/// checksums.
pub fn footer(bytes: &mut [u8]) {
    let len = bytes.len() as u64;
    put(bytes, 56, &len.to_le_bytes());
    file_header(bytes, 0);
    let seed = seed(bytes);
    let header = 128;
    put(bytes, header, b"\xd7fot");
    let (ranges, runs) = (u64::from(u32_at(bytes, header + 56)), u64::from(u32_at(bytes, header + 60)));
    let (installs_len, locs_len) = (u64_at(bytes, header + 72), u64_at(bytes, header + 80));
    let others = [installs_len, locs_len, ranges * 64, runs * 16, 256];
    let others = others.iter().fold(0, |sum: u64, n| sum.saturating_add(*n));
    if let Some(deltas_len) = len.checked_sub(others) {
        put(bytes, header + 64, &deltas_len.to_le_bytes());
        let mut at = 256;
        let mut next = |len: u64| {
            at += len as usize;
            at - len as usize..at
        };
        let (deltas, installs) = (next(deltas_len), next(installs_len));
        let (ranges_at, runs_at, locs) = (next(ranges * 64), next(runs * 16), next(locs_len));
        for row in ranges_at.clone().step_by(64) {
            let count = u64::from(u32_at(bytes, row + 16));
            let stride = u64::from(u32_at(bytes, row + 20));
            let from =
                usize::try_from(u64_at(bytes, row + 32)).ok().and_then(|at| locs.start.checked_add(at));
            let part = from.and_then(|from| bytes.get(from..from.checked_add((count * stride) as usize)?));
            let crc = part.map(|part| crc32(seed, part));
            if let Some(crc) = crc {
                put(bytes, row + 48, &crc.to_le_bytes());
            }
        }
        for (field, section) in [(88, deltas), (92, installs), (96, ranges_at), (100, runs_at)] {
            let crc = crc32(seed, bytes.get(section).unwrap_or_default());
            put(bytes, header + field, &crc.to_le_bytes());
        }
    }
    header_crc(bytes, header, seed);
}

/// A checkpoint: its length, that of its body, and all checksums. Of a single chunk also the length.
pub fn checkpoint(bytes: &mut [u8]) {
    let len = bytes.len() as u64;
    put(bytes, 56, &len.to_le_bytes());
    file_header(bytes, 0);
    let seed = seed(bytes);
    let header = 128;
    put(bytes, header, b"\xd7ckp");
    put(bytes, header + 40, &len.saturating_sub(256).to_le_bytes());
    let chunks = u32_at(bytes, header + 48);
    let mut at = 256;
    let mut all = 0;
    for ordinal in 0..chunks {
        if at + 16 > bytes.len() {
            break;
        }
        if chunks == 1 {
            put(bytes, at, &(len - at as u64 - 16).to_le_bytes());
        }
        put(bytes, at + 8, &ordinal.to_le_bytes());
        let Some(end) = usize::try_from(u64_at(bytes, at)).ok().and_then(|n| (at + 16).checked_add(n)) else {
            break;
        };
        let Some(records) = bytes.get(at + 16..end) else { break };
        let crc = crc32(crc32(seed, bytes.get(at..at + 12).unwrap_or_default()), records);
        put(bytes, at + 12, &crc.to_le_bytes());
        all = crc32(all, &crc.to_le_bytes());
        at = end;
    }
    put(bytes, header + 52, &all.to_le_bytes());
    header_crc(bytes, header, seed);
}

/// The last record that was made right: what the next one follows.
pub(super) type Shape = [u8; 24];

/// A segment: both copies of its header, in its first block and its last, and the checksums of all
/// records that follow one another from the first on. With `chain` each record also follows the one
/// before it, the first of all `previous`.
pub fn segment(bytes: &mut [u8], chain: Option<&mut Shape>) {
    file_header(bytes, 0);
    if let Some(last) = bytes.len().checked_sub(4096).filter(|last| *last >= 4096) {
        file_header(bytes, last);
    }
    let seed = seed(bytes);
    let mut chain = chain;
    let mut at = 4096;
    while bytes.get(at..at + 4) == Some(b"\xd7rec") {
        let (desc_len, payload_len) = (u32_at(bytes, at + 16) as usize, u32_at(bytes, at + 20) as usize);
        if let Some(desc) = bytes.get(at + 64..at + 64 + desc_len) {
            let crc = crc32(0, desc);
            put(bytes, at + 24, &crc.to_le_bytes());
        }
        if let Some(previous) = chain.as_deref() {
            put(bytes, at + 40, previous);
        }
        record_header(bytes.get_mut(at..).unwrap_or_default(), seed);
        if let Some(previous) = chain.as_deref_mut() {
            // Position, header checksum, both lengths, description checksum.
            for (to, from) in [(0, 8..16), (8, 4..8), (12, 16..20), (16, 20..24), (20, 24..28)] {
                let field = bytes.get(at + from.start..at + from.end).unwrap_or_default().to_vec();
                put(previous, to, &field);
            }
        }
        at += (64 + desc_len + payload_len).next_multiple_of(8);
    }
}

/// The magic and the checksum of the record that starts at the first of `bytes`.
pub fn record_header(bytes: &mut [u8], seed: u32) {
    put(bytes, 0, b"\xd7rec");
    let Some(body) = bytes.get(8..64) else { return };
    let crc = crc32(seed, body);
    put(bytes, 4, &crc.to_le_bytes());
}

/// The checksum of a second header of 128 bytes, which stands at 4 and covers the rest.
fn header_crc(bytes: &mut [u8], at: usize, seed: u32) {
    let Some(body) = bytes.get(at + 8..at + 128) else { return };
    let crc = crc32(seed, body);
    put(bytes, at + 4, &crc.to_le_bytes());
}

fn put(bytes: &mut [u8], at: usize, field: &[u8]) {
    if let Some(to) = bytes.get_mut(at..at + field.len()) {
        to.copy_from_slice(field);
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).map_or(0, |b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}
