//! The one source of chance of simulated disks, explorers and tests: a seed is a whole run.

/// SplitMix64: small, fast, and the same everywhere.
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    /// A generator; neighbouring seeds give unrelated numbers.
    pub fn new(seed: u64) -> Rng {
        let mut rng = Rng(seed);
        let mixed = rng.next();
        Rng(mixed)
    }

    /// One that begins at `seed` itself.
    pub(crate) fn at(seed: u64) -> Rng {
        Rng(seed)
    }

    /// One that depends on both numbers, and differs from those of neighbouring numbers.
    pub(crate) fn mixed(a: u64, b: u64) -> Rng {
        let first = Rng(a).next();
        Rng(first ^ b.wrapping_mul(0xd134_2543_de82_ef95))
    }

    /// The next number.
    #[allow(clippy::should_implement_trait, reason = "an endless generator is no iterator")]
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`; 0 if `n` is 0.
    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n.max(1)
    }

    /// True once in so many.
    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    /// One of several, which must not be none.
    pub fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len() as u64) as usize]
    }

    /// So many bytes, of few different values when that comes up: compressible, and hard to tell from zeros.
    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        let mask = self.pick(&[0xff, 0xff, 0x01, 0x0f]);
        let mut out = Vec::with_capacity(len + 8);
        while out.len() < len {
            out.extend((self.next() & (mask * 0x0101_0101_0101_0101)).to_le_bytes());
        }
        out.truncate(len);
        out
    }

    /// Overwrites all of them.
    pub(crate) fn fill(&mut self, bytes: &mut [u8]) {
        for byte in bytes {
            *byte = self.next() as u8;
        }
    }

    /// Puts them into another order.
    pub(crate) fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i as u64 + 1) as usize);
        }
    }
}
