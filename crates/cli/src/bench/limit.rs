//! The machine's floor: what one durable write of a given size costs without any engine.

use super::Plan;
use super::live::Live;
use super::report::{Row, Timings};
use crate::Failure;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

const FILE_BYTES: u64 = 64 << 20;

/// Lone writer and floor take turns of this length, so that the noise of a shared machine hits both.
pub(crate) const TURN: Duration = Duration::from_millis(500);

/// A pre-written file that is overwritten front to back, and again.
pub(crate) struct Floor {
    file: File,
    buffer: Vec<u8>,
    offset: u64,
    pub(crate) timings: Timings,
}

impl Floor {
    /// Makes the file; `bytes` are written at a time.
    pub(crate) fn new(dir: &Path, bytes: usize) -> Result<Floor, Failure> {
        std::fs::create_dir_all(dir)?;
        let file = File::create(dir.join("floor"))?;
        let zeros = vec![0; 1 << 20];
        for at in (0..FILE_BYTES).step_by(zeros.len()) {
            file.write_all_at(&zeros, at)?;
        }
        file.sync_all()?;
        Ok(Floor { file, buffer: vec![0x5a; bytes], offset: 0, timings: Timings::new() })
    }

    /// Writes and syncs for `time`.
    pub(crate) fn run(&mut self, time: Duration) -> Result<(), Failure> {
        let began = Instant::now();
        while began.elapsed() < time {
            if self.offset + self.buffer.len() as u64 > FILE_BYTES {
                self.offset = 0;
            }
            let one = Instant::now();
            self.file.write_all_at(&self.buffer, self.offset)?;
            self.file.sync_data()?;
            self.timings.record(one.elapsed());
            self.offset += self.buffer.len() as u64;
        }
        self.timings.elapsed += began.elapsed();
        Ok(())
    }

    pub(crate) fn row(&self, plan: &Plan) -> Row {
        let mut row = Row::new("limit", "none", plan);
        row.threads = Some(1);
        row.regions = None;
        row.timed(&self.timings);
        row.bytes = Some(self.timings.count() * self.buffer.len() as u64);
        row
    }
}

/// The floor alone.
pub(crate) fn measure(plan: &Plan, dir: &Path) -> Result<Row, Failure> {
    let mut floor = Floor::new(dir, plan.entry_bytes * plan.batch_entries as usize)?;
    let total = Duration::from_secs_f64(plan.seconds);
    let mut live = Live::timed(plan, "limit", "writes", total);
    while floor.timings.elapsed < total {
        floor.run(TURN.min(total - floor.timings.elapsed))?;
        live.rate(floor.timings.count(), floor.timings.elapsed);
    }
    live.end();
    Ok(floor.row(plan))
}
