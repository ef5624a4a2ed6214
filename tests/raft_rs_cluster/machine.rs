//! What a node runs on: a simulated disk, and options that its seed decides.

use raftwood::random::Rng;
use raftwood::vfs::sim::{Profile, SimVfs};
use raftwood::{Background, Compression, Options, Pool, Purge};
use std::sync::{Arc, Mutex};

pub(crate) struct Machine {
    seed: u64,
    profile: Profile,
    prewrite: bool,
    compression: bool,
    purge: bool,
    pool_files: usize,
    in_flight: usize,
}

impl Machine {
    /// Whatever comes up.
    pub(crate) fn random(seed: u64, rng: &mut Rng) -> Machine {
        Machine {
            seed,
            profile: rng.pick(&[Profile::Strict, Profile::Strict, Profile::Strict, Profile::Ext4Ordered]),
            prewrite: rng.one_in(3),
            compression: rng.one_in(3),
            purge: rng.one_in(2),
            pool_files: 1 + rng.below(3) as usize,
            in_flight: rng.pick(&[1, 4096, 1 << 20]),
        }
    }

    /// An empty disk.
    pub(crate) fn disk(&self) -> SimVfs {
        SimVfs::new(self.seed).with_profile(self.profile)
    }

    /// The options for a run of the store, by its number. Salts repeat for the same run and for no other.
    pub(crate) fn options(&self, disk: &SimVfs, run: u64) -> Options {
        let salts = Mutex::new(Rng::new(self.seed.rotate_left(17) ^ run.wrapping_mul(0x9e37_79b9)));
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
            .salt_source(Arc::new(move || salts.lock().unwrap().next()))
            .vfs(Arc::new(disk.clone()))
    }
}
