//! What is written: the same batches for the same writer of the same load, every time. A process that has
//! only the number of batches that were acknowledged therefore knows what must be there.

use crate::log::{Batch, HARD_STATE_BYTES};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// How writers write.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Load {
    pub(crate) writers: usize,
    pub(crate) regions: u64,
    pub(crate) regions_a_batch: usize,
    pub(crate) entries_a_region: u64,
    pub(crate) entry_bytes: usize,
    pub(crate) hard_state: bool,
    pub(crate) synced: bool,
    /// Batches that each writer has handed over before it waits for the oldest of them.
    pub(crate) in_flight: usize,
    /// Entries of a region that are kept; what is older is compacted in steps of a quarter of it. 0: all.
    pub(crate) keep: u64,
    /// Every tenth region gets its entries at the beginning, and is never written again.
    pub(crate) cold: bool,
    /// Batches a second of all writers together; without it each writes as fast as it can.
    pub(crate) rate: Option<f64>,
}

impl Load {
    /// Batches of 4 entries of 1 KiB in one of 1,000 regions.
    pub(crate) fn batches(writers: usize, synced: bool) -> Load {
        Load {
            writers,
            regions: 1_000,
            regions_a_batch: 1,
            entries_a_region: 4,
            entry_bytes: 1024,
            hard_state: false,
            synced,
            in_flight: 1,
            keep: 64,
            cold: false,
            rate: None,
        }
    }

    /// The loop of a raftstore: two writers, each batch 2 entries of 512 bytes and a hard state in
    /// each of 32 regions.
    pub(crate) fn raftstore() -> Load {
        Load {
            writers: 2,
            regions_a_batch: 32,
            entries_a_region: 2,
            entry_bytes: 512,
            hard_state: true,
            ..Load::batches(2, true)
        }
    }

    /// The regions that are never written again.
    pub(crate) fn cold_regions(&self) -> impl Iterator<Item = u64> + use<> {
        (1..=if self.cold { self.regions } else { 0 }).filter(|r| r % 10 == 0)
    }

    /// Payload bytes of one batch.
    pub(crate) fn batch_bytes(&self) -> u64 {
        self.regions_a_batch as u64 * self.entries_a_region * self.entry_bytes as u64
    }
}

/// Entries of a region that is never written again.
pub(crate) const COLD_ENTRIES: u64 = 16;

/// What a region should hold.
#[derive(Clone, Copy)]
pub(crate) struct Page {
    pub(crate) region: u64,
    pub(crate) first: u64,
    pub(crate) next: u64,
    /// Batches of its writer when it was last written: what its hard state says.
    pub(crate) batch: u64,
}

/// One writer's batches, one after the other.
pub(crate) struct Script<'p> {
    load: &'p Load,
    payloads: &'p Payloads,
    pages: Vec<Page>,
    at: usize,
    /// How many were made.
    pub(crate) batches: u64,
}

impl<'p> Script<'p> {
    /// Writer `writer` of a load, whose regions hold `filled` entries each.
    pub(crate) fn new(load: &'p Load, payloads: &'p Payloads, writer: usize, filled: u64) -> Script<'p> {
        let mine = (1..=load.regions).filter(|r| *r % load.writers as u64 == writer as u64);
        let pages = mine
            .filter(|r| !load.cold || r % 10 != 0)
            .map(|region| Page { region, first: 1, next: filled + 1, batch: 0 })
            .collect();
        Script { load, payloads, pages, at: 0, batches: 0 }
    }

    /// Makes the next batch.
    pub(crate) fn next(&mut self, batch: &mut Batch<'p>) {
        batch.clear();
        self.batches += 1;
        let Load { regions_a_batch, entries_a_region, keep, .. } = *self.load;
        for _ in 0..regions_a_batch.min(self.pages.len()) {
            self.at = match regions_a_batch {
                // Any region, as a client of many groups writes; the same ones each time.
                1 => (mix(self.batches) % self.pages.len() as u64) as usize,
                _ => (self.at + 1) % self.pages.len(),
            };
            let page = &mut self.pages[self.at];
            let first = page.next;
            page.next += entries_a_region;
            page.batch = self.batches;
            let from = page.first;
            if keep > 0 && page.next - page.first >= keep + (keep / 4).max(1) {
                page.first = page.next - keep;
            }
            let page = *page;
            let payloads = self.payloads;
            let entries = (first..page.next).map(move |index| payloads.of(page.region, index));
            let state = self.load.hard_state.then(|| hard_state(page.batch));
            batch.push(page.region, first, entries, state, from..page.first);
        }
    }

    /// What the regions hold after the batches that were made.
    pub(crate) fn pages(&self) -> &[Page] {
        &self.pages
    }
}

/// The hard state that a batch of this number sets.
pub(crate) fn hard_state(batch: u64) -> [u8; HARD_STATE_BYTES] {
    let mut state = [7; HARD_STATE_BYTES];
    state[..8].copy_from_slice(&batch.to_le_bytes());
    state
}

/// The payloads: about half of each is text that comes again and again, as keys do, and the rest is random.
pub(crate) struct Payloads(Vec<Bytes>);

impl Payloads {
    /// Some MiB of payloads of this length.
    pub(crate) fn new(len: usize) -> Payloads {
        let count = ((4 << 20) / len.max(1)).clamp(64, 2048) as u64;
        Payloads((0..count).map(|n| Payloads::made(len, n)).collect())
    }

    fn made(len: usize, seed: u64) -> Bytes {
        let mut bytes = Vec::with_capacity(len + 32);
        let mut n = mix(seed);
        while bytes.len() < len {
            n = mix(n);
            bytes.extend_from_slice(b"/table/0042/row");
            bytes.extend_from_slice(&n.to_le_bytes());
            bytes.extend_from_slice(&mix(n ^ seed).to_le_bytes());
        }
        bytes.truncate(len);
        bytes.into()
    }

    /// The payload of an entry.
    pub(crate) fn of(&self, region: u64, index: u64) -> &Bytes {
        &self.0[((region.wrapping_mul(31).wrapping_add(index)) % self.0.len() as u64) as usize]
    }
}

/// A number that looks random, from one that does not: the finaliser of splitmix64.
pub(crate) fn mix(n: u64) -> u64 {
    let mut z = n.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_made_again_from_the_number_of_batches_expects_the_same() {
        let load = Load::raftstore();
        let payloads = Payloads::new(load.entry_bytes);
        let (mut one, mut two) = (Script::new(&load, &payloads, 1, 0), Script::new(&load, &payloads, 1, 0));
        let mut batch = Batch::of(1);
        for _ in 0..5_000 {
            one.next(&mut batch);
        }
        for _ in 0..one.batches {
            two.next(&mut batch);
        }
        for (a, b) in one.pages().iter().zip(two.pages()) {
            assert_eq!((a.region, a.first, a.next, a.batch), (b.region, b.first, b.next, b.batch));
            assert!(a.next - a.first <= load.keep + load.keep / 4, "region {}", a.region);
        }
    }

    #[test]
    fn writers_share_the_regions() {
        let load = Load::batches(64, true);
        let payloads = Payloads::new(load.entry_bytes);
        let mut all: Vec<u64> = (0..64)
            .flat_map(|w| {
                Script::new(&load, &payloads, w, 0).pages().iter().map(|p| p.region).collect::<Vec<_>>()
            })
            .collect();
        all.sort_unstable();
        assert_eq!(all, (1..=1_000).collect::<Vec<_>>());
    }
}
