//! The disk of a state machine.

use raftwood::vfs::sim::LossPolicy;
use redb::StorageBackend;
use std::io;
use std::sync::{Arc, Mutex};

/// The state machine's disk: a crash takes what was not synced.
#[derive(Clone, Debug, Default)]
pub(crate) struct Platter(Arc<Mutex<(Vec<u8>, Vec<u8>)>>);

impl Platter {
    /// What is there after a crash.
    pub(crate) fn crash(&self, policy: LossPolicy) -> Platter {
        let (now, synced) = &*self.0.lock().unwrap();
        let left = if policy == LossPolicy::KeepAll { now } else { synced }.clone();
        Platter(Arc::new(Mutex::new((left.clone(), left))))
    }
}

impl StorageBackend for Platter {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.lock().unwrap().0.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let at = offset as usize;
        out.copy_from_slice(&self.0.lock().unwrap().0[at..at + out.len()]);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.lock().unwrap().0.resize(len as usize, 0);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut disk = self.0.lock().unwrap();
        disk.1 = disk.0.clone();
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let at = offset as usize;
        self.0.lock().unwrap().0[at..at + data.len()].copy_from_slice(data);
        Ok(())
    }
}
