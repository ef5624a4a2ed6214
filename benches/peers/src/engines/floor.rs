//! No engine at all: pwrite and fdatasync into blocks that were written before, a file for each writer.

use crate::log::{Batch, PeerLog, Result};
use bytes::Bytes;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

/// Of all files together.
const BYTES: u64 = 256 << 20;

struct Floor(Vec<Mutex<Lane>>);

struct Lane {
    file: File,
    offset: u64,
    len: u64,
    buffer: Vec<u8>,
}

pub(super) fn open(dir: &Path, writers: usize) -> Result<Box<dyn PeerLog>> {
    std::fs::create_dir_all(dir)?;
    let len = (BYTES / writers.max(1) as u64).clamp(4 << 20, 64 << 20);
    let lane = |n: usize| -> Result<Mutex<Lane>> {
        let file = File::create(dir.join(format!("{n}")))?;
        let zeros = vec![0; 1 << 20];
        for at in (0..len).step_by(zeros.len()) {
            file.write_all_at(&zeros, at)?;
        }
        file.sync_all()?;
        Ok(Mutex::new(Lane { file, offset: 0, len, buffer: Vec::new() }))
    };
    Ok(Box::new(Floor((0..writers).map(lane).collect::<Result<_>>()?)))
}

impl PeerLog for Floor {
    fn write(&self, batch: &Batch<'_>, synced: bool) -> Result<()> {
        let lane = self.0.get(batch.writer).ok_or("no file was made for this writer")?;
        let mut lane = lane.lock().unwrap_or_else(PoisonError::into_inner);
        let Lane { file, offset, len, buffer } = &mut *lane;
        buffer.clear();
        for part in batch.parts() {
            for (_, payload) in batch.entries(part) {
                buffer.extend_from_slice(payload);
            }
            buffer.extend(part.hard_state.iter().flatten());
        }
        if *offset + buffer.len() as u64 > *len {
            *offset = 0;
        }
        file.write_all_at(buffer, *offset)?;
        *offset += buffer.len() as u64;
        if synced {
            file.sync_data()?;
        }
        Ok(())
    }

    fn read(&self, _: u64, _: Range<u64>, _: &mut Vec<Bytes>) -> Result<()> {
        Err("the floor has no entries".into())
    }

    fn sync(&self) -> Result<()> {
        for lane in &self.0 {
            lane.lock().unwrap_or_else(PoisonError::into_inner).file.sync_data()?;
        }
        Ok(())
    }

    fn close(self: Box<Self>) -> Result<()> {
        self.sync()
    }
}
