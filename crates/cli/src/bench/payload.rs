//! Payloads that can be made again from who they belong to, and a book of what should be there.

use super::Plan;
use crate::out::{remark, with_causes};
use raftwood::{Engine, EntryId, ReadLimit, Region, RegionId};

/// Adds the payload of one entry: bytes that do not compress, the same for the same seed and place.
pub(crate) fn fill(seed: u64, region: u64, index: u64, len: usize, out: &mut Vec<u8>) {
    let mut state =
        seed ^ region.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ index.wrapping_mul(0xd6e8_feb8_6659_fd93);
    let end = out.len() + len;
    out.reserve(len + 8);
    while out.len() < end {
        // splitmix64
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        out.extend_from_slice(&(z ^ (z >> 31)).to_le_bytes());
    }
    out.truncate(end);
}

/// What one region should hold: entries `first..=last`, all of term 1.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Page {
    pub(crate) region: u64,
    pub(crate) first: u64,
    pub(crate) last: u64,
}

impl Page {
    pub(crate) fn new(region: u64) -> Page {
        Page { region, first: 1, last: 0 }
    }

    pub(crate) fn entries(&self) -> u64 {
        (self.last + 1).saturating_sub(self.first)
    }
}

/// How many entries were looked at, and how many of them were wrong or missing.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Verified {
    pub(crate) entries: u64,
    pub(crate) wrong: u64,
}

/// Reads back everything that should be there.
pub(crate) fn verify(engine: &Engine, plan: &Plan, pages: &[Page]) -> Verified {
    let mut total = Verified::default();
    let mut expected = Vec::new();
    for page in pages {
        let region = engine.region(RegionId(page.region));
        if region.last_index() != page.last || (page.entries() > 0 && region.first_index() != page.first) {
            let found = format!("{}..={}", region.first_index(), region.last_index());
            let due = format!("{}..={}", page.first, page.last);
            let message = format!("region {}: {found} is there, {due} should be", page.region);
            remark(plan.json, "violation", &message);
            total.wrong += 1;
        }
        let mut index = page.first;
        while index <= page.last {
            let (read, wrong) = verify_some(&region, plan, page, index, &mut expected);
            total.entries += read;
            total.wrong += wrong;
            index += read.max(1);
        }
    }
    total
}

fn verify_some(region: &Region, plan: &Plan, page: &Page, index: u64, expected: &mut Vec<u8>) -> (u64, u64) {
    let entries = match region.entries(index..=page.last, ReadLimit::bytes(1 << 20)) {
        Ok(entries) => entries,
        Err(e) => {
            remark(plan.json, "violation", &format!("reading entry {index}: {}", with_causes(&e)));
            return (1, 1);
        }
    };
    let mut wrong = 0;
    for (n, entry) in entries.iter().enumerate() {
        let id = EntryId::new(1, index + n as u64);
        expected.clear();
        fill(plan.seed, page.region, id.index, plan.entry_bytes, expected);
        if entry.id != id || entry.payload != expected[..] {
            let message = format!("region {}: entry {id} is not what was written", page.region);
            remark(plan.json, "violation", &message);
            wrong += 1;
        }
    }
    (entries.len() as u64, wrong)
}
