//! How the engine under torture is opened.

use raftwood::Engine;
use raftwood::Result;
use raftwood::random::Rng;
use raftwood::vfs::Vfs;
use raftwood::vfs::sim::{Profile, SimVfs};
use raftwood::{Background, Compression, Options, Pool, Purge, TailPolicy};
use std::sync::{Arc, Mutex};

/// Where the store lies on the simulated disk.
pub const DIR: &str = "/db";

/// Options of a run, all of them decided by its seed.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The seed.
    pub seed: u64,
    /// What kind of disk.
    pub profile: Profile,
    /// Whether new files are filled with zeros.
    pub prewrite: bool,
    /// Whether payloads are compressed.
    pub compression: bool,
    /// Whether ticks purge.
    pub purge: bool,
    /// How many files the pool keeps.
    pub pool_files: usize,
    /// Bytes in flight.
    pub in_flight: usize,
    /// How a doubtful tail is judged.
    pub tail_policy: TailPolicy,
    /// One in so many reads and writes is short or interrupted.
    pub short_io: Option<u64>,
}

impl Setup {
    /// The plain one: strict disk, nothing prewritten.
    pub fn plain(seed: u64) -> Setup {
        Setup {
            seed,
            profile: Profile::Strict,
            prewrite: false,
            compression: false,
            purge: true,
            pool_files: 2,
            in_flight: 1 << 20,
            tail_policy: TailPolicy::Prove,
            short_io: None,
        }
    }

    /// Whatever comes up.
    pub fn random(seed: u64, rng: &mut Rng) -> Setup {
        Setup {
            profile: rng.pick(&[Profile::Strict, Profile::Strict, Profile::Strict, Profile::Ext4Ordered]),
            prewrite: rng.one_in(3),
            compression: rng.one_in(3),
            purge: rng.one_in(2),
            pool_files: 1 + rng.below(3) as usize,
            in_flight: rng.pick(&[1, 4096, 1 << 20]),
            ..Setup::plain(seed)
        }
    }

    /// An empty disk.
    pub fn disk(&self) -> SimVfs {
        let disk = SimVfs::new(self.seed).with_profile(self.profile);
        disk.set_short_io(self.short_io);
        disk
    }

    /// The options for a run of the store, by its number. Salts repeat for the same run and for no other.
    pub fn options(&self, vfs: &dyn AsVfs, life: u64) -> Options {
        let salts = Mutex::new(Rng::new(self.seed.rotate_left(17) ^ life.wrapping_mul(0x9e37_79b9)));
        let next = move || salts.lock().unwrap_or_else(std::sync::PoisonError::into_inner).next();
        Options::new()
            .segment_bytes(64 << 10)
            .pool(Pool::default().files_max(self.pool_files).prewrite(self.prewrite))
            .purge(Purge::default().background(self.purge).garbage_percent_max(30))
            .compression(match self.compression {
                true => Compression::Lz4 { min_batch_bytes: 256 },
                false => Compression::None,
            })
            .in_flight_bytes_max(self.in_flight)
            .background(Background::Manual)
            .tail_policy(self.tail_policy)
            .salt_source(Arc::new(next))
            .vfs(vfs.as_vfs())
    }

    /// Opens the store.
    ///
    /// # Errors
    /// What opening failed with.
    pub fn open(&self, vfs: &SimVfs, life: u64) -> Result<Engine> {
        self.options(vfs, life).open(DIR)
    }
}

/// A file system that options can take.
pub trait AsVfs {
    /// A handle onto it.
    fn as_vfs(&self) -> Arc<dyn Vfs>;
}

impl AsVfs for SimVfs {
    fn as_vfs(&self) -> Arc<dyn Vfs> {
        Arc::new(self.clone())
    }
}
