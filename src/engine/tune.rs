//! What may be changed of a running engine: nothing of it is kept over a restart.

use super::Engine;
use crate::error::Result;
use crate::options::Compression;
use std::time::Duration;

impl Engine {
    /// Compresses the batches that are written from now on like this; those before stay as they are, and both
    /// can be read. Until the engine is closed; the [option](crate::Options::compression) is for the next
    /// open.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// # let engine = raftwood::Engine::open(dir.path())?;
    /// // The disk turns out to be slow.
    /// engine.set_compression(raftwood::Compression::Lz4 { min_batch_bytes: 4096 });
    /// # Ok(()) }
    /// ```
    pub fn set_compression(&self, compression: Compression) {
        self.store().tuned.set_compression(compression);
    }

    /// How many bytes a second the cleaner may move in the background, at least 1 MiB, from the next segment
    /// on that it begins with. As [`Purge::rate_bytes`](crate::Purge::rate_bytes), until the engine is
    /// closed.
    pub fn set_purge_rate(&self, bytes_per_second: u64) {
        self.store().tuned.set_purge_rate(bytes_per_second.max(1 << 20));
    }

    /// How many bytes a second the background scrub may read, from the next scrub on; 0 is no limit. As
    /// [`ScrubOptions::rate_bytes`](crate::ScrubOptions::rate_bytes), until the engine is closed. Has no
    /// effect while nothing [scrubs](Engine::set_scrub_every) in the background.
    pub fn set_scrub_rate(&self, bytes_per_second: u64) {
        self.store().tuned.set_scrub_rate(bytes_per_second);
    }

    /// [Scrubs](Engine::scrub) in the background so long after the end of each scrub, or after the open where
    /// there was none yet: at once where that is over. `None` is never; a scrub that is under way goes on. As
    /// [`Options::scrub_every`](crate::Options::scrub_every), with the other options of that or their
    /// defaults, until the engine is closed. Has no effect with
    /// [`Background::Manual`](crate::Background::Manual).
    ///
    /// # Errors
    /// `Closed` when the engine is closed; `Io` where the first scrub needs a thread and none can be started.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// # let engine = raftwood::Engine::open(dir.path())?;
    /// // The device has begun to lose bits.
    /// engine.set_scrub_every(Some(Duration::from_secs(3600)))?;
    /// # Ok(()) }
    /// ```
    pub fn set_scrub_every(&self, pause: Option<Duration>) -> Result<()> {
        let store = self.store();
        store.check_process()?;
        store.committer.check_open()?;
        store.tuned.set_scrub_pause(pause);
        self.0.threads.start_scrub(store)?;
        store.signals.scrub.raise();
        Ok(())
    }

    /// How long one operation of the disk may take before it is a stall, those that are under way included.
    /// As [`Options::stall_after`](crate::Options::stall_after), until the engine is closed.
    pub fn set_stall_after(&self, after: Duration) {
        self.store().factory.watch.set_stall_after(after);
    }
}

#[cfg(test)]
mod tests {
    use crate::{Background, Options, Purge, ScrubOptions};
    use std::sync::Arc;
    use std::time::Duration;

    #[test]
    fn rates_are_those_of_the_options_until_they_are_set_and_the_cleaner_never_stands_still() {
        let options = Options::new()
            .purge(Purge::default().rate_bytes(5 << 20))
            .scrub_every(Duration::from_secs(9), ScrubOptions::default().rate_bytes(7))
            .background(Background::Manual)
            .vfs(Arc::new(crate::vfs::sim::SimVfs::new(1)));
        let engine = options.open("/db").unwrap();
        let rates = || (engine.store().tuned.purge_rate(), engine.store().tuned.scrub_rate());
        assert_eq!(rates(), (5 << 20, 7));
        engine.set_purge_rate(1);
        engine.set_scrub_rate(0);
        assert_eq!(rates(), (1 << 20, 0));
    }
}
