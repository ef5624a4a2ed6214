//! The engine in figures, for those who watch it.
//!
//! All of it is counted as it happens, with a few atomic additions. Looking takes the pipeline's lock for a
//! moment and a step for each segment. Many regions are not looked at.

use super::Engine;
use crate::histogram::Sizes;
use crate::index::Table;
use crate::report::{Latencies, Stats};
use crate::sync::atomic::{AtomicU64, Ordering};

impl Engine {
    /// How long operations took since open. Costs some microseconds, whatever the number of regions.
    pub fn latencies(&self) -> Latencies {
        let store = self.store();
        let c = store.committer.counters();
        Latencies {
            commit: c.commit_times.get(),
            queue: c.queue_times.get(),
            write: c.write_times.get(),
            sync: c.sync_times.get(),
            seal: store.done.seal_times.get(),
            checkpoint: store.checkpoints.times.get(),
            read: store.reads.times.get(),
        }
    }

    /// How many batches each sync of the log settled since open: what many writers share. Costs some
    /// microseconds.
    pub fn group_sizes(&self) -> Sizes {
        self.store().committer.counters().group_sizes.get()
    }

    /// The engine in figures. Costs a step for each segment, and for each region where these are no more than
    /// 4,096: it may be asked for every
    /// second. In a fork of the process all figures are 0.
    ///
    /// ```
    /// use raftwood::{Durability, Engine, RegionId};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// let engine = Engine::open(dir.path())?;
    /// let mut batch = engine.batch();
    /// batch.region(RegionId(7)).set_hard_state(b"term 1")?;
    /// engine.write(batch, Durability::Synced)?;
    ///
    /// let stats = engine.stats();
    /// assert_eq!((stats.regions, stats.undurable_bytes, stats.poisoned), (1, 0, false));
    /// if stats.damaged_regions > 0 || stats.stalls > stats.stalls_ended {
    ///     eprintln!("somebody should look at this node");
    /// }
    /// # Ok(()) }
    /// ```
    pub fn stats(&self) -> Stats {
        let store = self.store();
        if store.check_process().is_err() {
            return Stats::default();
        }
        let get = |n: &AtomicU64| n.load(Ordering::Relaxed);
        let (c, load, regions) = (store.committer.counters(), store.committer.load(), store.table.figures());
        let (queued_fetches, refused_fetches) = self.0.fetcher.queued_and_refused();
        let mut stats = Stats {
            regions: regions.existing,
            destroyed_regions: regions.destroyed,
            suspect_regions: regions.suspect,
            damaged_regions: regions.damaged,
            lost_hard_states: regions.hard_states_lost,
            pool_bytes: store.factory.free.bytes() + load.ready_bytes,
            held_bytes: store.factory.held_bytes(),
            accepted: load.accepted,
            durable: load.durable,
            undurable_bytes: load.undurable_bytes,
            in_flight_bytes: load.in_flight_bytes,
            waiting_writers: load.waiting_writers,
            throttled: get(&c.throttled),
            batches: get(&c.batches),
            entries: get(&c.entries),
            batch_bytes: get(&c.record_bytes),
            payload_bytes: get(&c.payload_bytes),
            writes: get(&c.writes),
            written_bytes: get(&c.written_bytes),
            syncs: get(&c.syncs),
            wakes: store.committer.wakes(),
            reads: get(&store.reads.answered),
            read_errors: get(&store.reads.errors),
            read_retries: get(&store.reads.retries),
            queued_fetches,
            refused_fetches,
            stalls: load.stalls,
            stalls_ended: load.stalls_ended,
            no_space: get(&c.no_space),
            poisoned: self.is_poisoned(),
            filled_bytes: get(&store.factory.files.filled_bytes),
            cleaned_bytes: get(&store.done.cleaned_bytes),
            index_bytes: store.index_bytes(Table::heap_bytes_lately),
            upkeep_bytes: get(&store.done.footer_bytes) + store.checkpoints.written_bytes(),
            ..Stats::default()
        };
        let checkpoints: u64 = store.checkpoints.kept().list.iter().map(|k| k.bytes).sum();
        stats.disk_bytes = stats.pool_bytes + checkpoints + store.mark.bytes();
        for s in store.all_segments() {
            stats.segments += 1;
            stats.disk_bytes += s.bytes_on_disk();
            stats.live_entries += s.live.entries();
            stats.live_bytes += s.live.bytes();
        }
        stats
    }

    /// Bytes on the heap for the index: of all regions, and of the segments that are not sealed. Walks all
    /// regions, however many, unlike [`Stats::index_bytes`].
    pub fn index_bytes(&self) -> u64 {
        let store = self.store();
        if store.check_process().is_err() {
            return 0;
        }
        store.index_bytes(Table::heap_bytes)
    }
}

#[cfg(test)]
mod tests {
    use crate::sync::thread;
    use crate::{Background, Durability, Options, RegionId};
    use std::sync::mpsc::channel;
    use std::time::Duration;

    #[test]
    #[allow(clippy::result_large_err, reason = "of the channel")]
    fn figures_look_at_none_of_many_regions() {
        let vfs = std::sync::Arc::new(crate::vfs::sim::SimVfs::new(1));
        let engine = Options::new().background(Background::Manual).vfs(vfs).open("/db").unwrap();
        let mut batch = engine.batch();
        for region in 1..=5000 {
            batch.region(RegionId(region)).set_hard_state(b"vote").unwrap();
        }
        engine.write(batch, Durability::Synced).unwrap();
        // A region that somebody is changing cannot be looked at, and the figures do not wait for that.
        let cell = engine.store().table.get(RegionId(500)).unwrap();
        let changing = engine.store().table.change(&cell);
        let (send, receive) = channel();
        let other = engine.clone();
        let looking = thread::spawn(move || send.send((other.stats(), other.latencies())));
        let (stats, latencies) = receive.recv_timeout(Duration::from_secs(20)).unwrap();
        assert_eq!((stats.regions, latencies.commit.count()), (5000, 1));
        drop(changing);
        looking.join().unwrap().unwrap();
    }

    /// All regions were walked and sorted, whatever was asked for.
    #[test]
    fn a_few_pins_look_at_the_regions_of_the_oldest_segments_alone() {
        let vfs = std::sync::Arc::new(crate::vfs::sim::SimVfs::new(2));
        let options = Options::new().segment_bytes(64 << 10).background(Background::Manual).vfs(vfs);
        let engine = options.open("/db").unwrap();
        for region in 1..=20 {
            engine.append_next(RegionId(region), [[7; 10_000]], Durability::Synced).unwrap();
        }
        engine.tick().unwrap();
        // Of the newest segment: it is not looked at.
        let cell = engine.store().table.get(RegionId(20)).unwrap();
        let changing = engine.store().table.change(&cell);
        let (send, receive) = channel();
        let other = engine.clone();
        let looking = thread::spawn(move || send.send(other.pins(3)));
        let pins = receive.recv_timeout(Duration::from_secs(20)).unwrap();
        assert_eq!(pins.iter().map(|pin| pin.region.0).collect::<Vec<_>>(), [1, 2, 3]);
        drop(changing);
        looking.join().unwrap().unwrap();
    }
}
