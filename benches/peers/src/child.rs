//! What a process of its own does for one run: its processor time, its memory and its bytes are
//! the engine's and no other's.

use crate::engines::{self, Engine, FLOOR};
use crate::load::{COLD_ENTRIES, Load, Page, Payloads, Script, hard_state, mix};
use crate::log::{Batch, Outcome, PeerLog, Result};
use crate::measure::{Io, anonymous_memory, cpu, disk_bytes, drop_cache, histogram, nanos, settle};
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// What is measured, by name. Which there are depends on the work.
pub(crate) type Figures = BTreeMap<String, f64>;

/// A job, as the driver sends it.
#[derive(Serialize, Deserialize)]
pub(crate) struct Job {
    pub(crate) engine: String,
    /// Of the engine alone.
    pub(crate) store: PathBuf,
    /// Eight bytes for each writer: how many batches were acknowledged to it.
    pub(crate) acks: PathBuf,
    pub(crate) task: Task,
}

/// What a job is.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) enum Task {
    /// Write for some time, then close.
    Write { load: Load, warm_up: f64, seconds: f64, bytes_max: u64 },
    /// Write on, and say of each batch that it was acknowledged, until killed.
    WriteOn { load: Load },
    /// Look whether everything that was acknowledged is there.
    Verify { load: Load },
    /// Four writers beside two readers.
    Mixed { seconds: f64 },
    /// Read regions out of an interleaved log, from the device.
    CatchUp { seconds: f64, bytes: u64 },
    /// Make so many small regions, and write on until killed.
    Fill { regions: u64 },
    /// Open what was filled.
    Open { regions: u64 },
}

/// What the driver waits for before it kills.
pub(crate) const READY: &str = "ready";

/// Ranges of a reader.
const RANGE: u64 = 64;

/// Entries and their size in each region that is filled to be opened.
const FILLED: (u64, usize) = (4, 128);

/// How often a program calls the engine's upkeep, where it has to.
const UPKEEP: Duration = Duration::from_millis(100);

/// Does a job. The figures are the last line that it prints.
pub(crate) fn run(job: &str) -> Result<()> {
    // A driver that was killed leaves no process at work.
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
    let job: Job = serde_json::from_str(job)?;
    let engine = engines::named(&job.engine)?;
    let figures = match &job.task {
        Task::Write { load, warm_up, seconds, bytes_max } => {
            write(&job, engine, load, secs(*warm_up), secs(*seconds), *bytes_max)?
        }
        Task::WriteOn { load } => write_on(&job, engine, load)?,
        Task::Verify { load } => verify(&job, engine, load)?,
        Task::Mixed { seconds } => mixed(&job, engine, secs(*seconds))?,
        Task::CatchUp { seconds, bytes } => catch_up(&job, engine, secs(*seconds), *bytes)?,
        Task::Fill { regions } => fill_and_write_on(&job, engine, *regions)?,
        Task::Open { regions } => open(&job, engine, *regions)?,
    };
    say(&serde_json::to_string(&figures)?)
}

fn secs(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds.max(0.0))
}

/// A line to the driver.
fn say(line: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}

// ---- writing ----------------------------------------------------------------------------------------------

/// Whether what is written now counts.
const WARMING_UP: usize = 0;
const MEASURED: usize = 1;
const ENDED: usize = 2;

fn write(
    job: &Job,
    engine: &Engine,
    load: &Load,
    warm_up: Duration,
    seconds: Duration,
    bytes_max: u64,
) -> Result<Figures> {
    let payloads = Payloads::new(load.entry_bytes);
    let parent = job.store.parent().ok_or("the store has no directory above it")?;
    let mut before = (cpu(), Io::now(parent)?);
    let log = (engine.open)(&job.store, load.writers)?;
    if engine.name == FLOOR {
        // Its blocks were written before: that is what makes it the floor.
        before = (cpu(), Io::now(parent)?);
    }
    let cold: Vec<u64> = load.cold_regions().collect();
    fill(&*log, &cold, COLD_ENTRIES, &payloads)?;
    let phase = AtomicUsize::new(if warm_up.is_zero() { MEASURED } else { WARMING_UP });
    let mut written = Vec::new();
    let mut elapsed = Duration::ZERO;
    std::thread::scope(|scope| -> Result<()> {
        let (log, phase, payloads) = (&*log, &phase, &payloads);
        let writers: Vec<_> = (0..load.writers)
            .map(|n| {
                let script = Script::new(load, payloads, n, 0);
                scope.spawn(move || one_writer(log, load, script, n, phase, bytes_max / load.writers as u64))
            })
            .collect();
        let upkeep = scope.spawn(move || keep_up(log, || phase.load(Ordering::Relaxed) == ENDED));
        wait(warm_up, || writers.iter().all(|w| w.is_finished()));
        if !warm_up.is_zero() {
            before = (cpu(), Io::now(parent)?);
            phase.store(MEASURED, Ordering::Relaxed);
        }
        let began = Instant::now();
        wait(seconds, || writers.iter().any(|w| w.is_finished()));
        elapsed = began.elapsed();
        phase.store(ENDED, Ordering::Relaxed);
        for writer in writers {
            written.push(writer.join().map_err(|_| "a writer panicked")??);
        }
        upkeep.join().map_err(|_| "upkeep panicked")?
    })?;
    log.close()?;
    settle(parent)?;
    let after = (cpu(), Io::now(parent)?);
    fs::write(&job.acks, written.iter().flat_map(|w| w.all.to_le_bytes()).collect::<Vec<u8>>())?;

    let mut latencies = histogram()?;
    written.iter().try_for_each(|w| latencies.add(&w.latencies))?;
    let batches = latencies.len() as f64;
    let payload = (batches * load.batch_bytes() as f64).max(1.0);
    let mut figures = Figures::new();
    figures.insert("batches_per_second".into(), batches / elapsed.as_secs_f64());
    figures.insert("mib_per_second".into(), payload / elapsed.as_secs_f64() / f64::from(1 << 20));
    percentiles(&mut figures, "", &latencies);
    figures.insert("cpu_us".into(), (after.0 - before.0).as_secs_f64() * 1e6 / batches.max(1.0));
    figures.insert("process_written_x".into(), (after.1.written - before.1.written) as f64 / payload);
    if let (Some(after), Some(before)) = (after.1.device, before.1.device) {
        figures.insert("device_written_x".into(), (after - before) as f64 / payload);
    }
    figures.insert("disk_bytes".into(), disk_bytes(&job.store) as f64);
    Ok(figures)
}

struct Written {
    latencies: Histogram<u64>,
    /// Batches, those of the warm-up among them.
    all: u64,
}

fn one_writer(
    log: &dyn PeerLog,
    load: &Load,
    mut script: Script<'_>,
    n: usize,
    phase: &AtomicUsize,
    bytes_max: u64,
) -> Result<Written> {
    let mut batch = Batch::of(n);
    let mut latencies = histogram()?;
    let mut pace = load.rate.map(|rate| Pace::new(load.writers as f64 / rate));
    let mut bytes = 0;
    let mut flying: VecDeque<(Instant, bool, Outcome)> = VecDeque::new();
    let mut all = None;
    while all.is_none() {
        script.next(&mut batch);
        let began = match &mut pace {
            Some(pace) => pace.next(),
            None => Instant::now(),
        };
        let counts = match phase.load(Ordering::Relaxed) {
            ENDED => break,
            phase => phase == MEASURED,
        };
        let (began, counts) = if load.in_flight > 1 {
            flying.push_back((began, counts, log.submit(&batch)?));
            if flying.len() < load.in_flight {
                continue;
            }
            let Some((began, counts, outcome)) = flying.pop_front() else { continue };
            outcome()?;
            (began, counts)
        } else {
            log.write(&batch, load.synced)?;
            (began, counts)
        };
        if counts {
            latencies.saturating_record(nanos(began.elapsed()));
            bytes += batch.bytes();
            if bytes >= bytes_max {
                all = Some(script.batches);
            }
        }
    }
    flying.into_iter().try_for_each(|(.., outcome)| outcome())?;
    // Otherwise the last one was made and not written.
    Ok(Written { latencies, all: all.unwrap_or(script.batches - 1) })
}

/// When a writer that has a rate begins its next batch, whether the one before has ended or not: what
/// it then waited counts.
pub(crate) struct Pace {
    next: Instant,
    step: Duration,
}

impl Pace {
    pub(crate) fn new(seconds: f64) -> Pace {
        Pace { next: Instant::now(), step: secs(seconds) }
    }

    /// Waits for the next beginning, and returns it.
    pub(crate) fn next(&mut self) -> Instant {
        let intended = self.next;
        self.next += self.step;
        sleep(intended.saturating_duration_since(Instant::now()));
        intended
    }
}

fn keep_up(log: &dyn PeerLog, ended: impl Fn() -> bool) -> Result<()> {
    while !ended() {
        log.upkeep()?;
        wait(UPKEEP, &ended);
    }
    Ok(())
}

/// Waits for some time, or until there is no reason to.
fn wait(time: Duration, ended: impl Fn() -> bool) {
    let began = Instant::now();
    while began.elapsed() < time && !ended() {
        sleep(Duration::from_millis(2).min(time.saturating_sub(began.elapsed())));
    }
}

fn percentiles(figures: &mut Figures, of: &str, latencies: &Histogram<u64>) {
    for (name, quantile) in [("p50", 0.5), ("p99", 0.99), ("p999", 0.999), ("longest", 1.0)] {
        figures.insert(format!("{of}{name}_us"), latencies.value_at_quantile(quantile) as f64 / 1000.0);
    }
}

/// Gives each region so many entries, in small pieces, as a log of many regions has them.
fn fill(log: &dyn PeerLog, regions: &[u64], entries: u64, payloads: &Payloads) -> Result<()> {
    let mut batch = Batch::of(0);
    for first in (1..=entries).step_by(4) {
        let end = (first + 4).min(entries + 1);
        for some in regions.chunks(32) {
            batch.clear();
            for region in some.iter().copied() {
                let entries = (first..end).map(|index| payloads.of(region, index));
                batch.push(region, first, entries, None, 0..0);
            }
            log.write(&batch, false)?;
        }
    }
    log.sync()
}

// ---- killed, and looked at --------------------------------------------------------------------------------

/// How many batches were acknowledged to each writer.
fn acknowledged(job: &Job, load: &Load) -> Result<Vec<u64>> {
    let bytes = fs::read(&job.acks)?;
    let counts: Vec<u64> = bytes.as_chunks::<8>().0.iter().map(|count| u64::from_le_bytes(*count)).collect();
    if counts.len() != load.writers {
        return Err(format!(
            "{} has {} counts for {} writers",
            job.acks.display(),
            counts.len(),
            load.writers
        )
        .into());
    }
    Ok(counts)
}

/// The script of a writer at the place that it had come to.
fn resumed<'p>(load: &'p Load, payloads: &'p Payloads, writer: usize, batches: u64) -> Script<'p> {
    let mut script = Script::new(load, payloads, writer, 0);
    let mut batch = Batch::of(writer);
    for _ in 0..batches {
        script.next(&mut batch);
    }
    script
}

fn write_on(job: &Job, engine: &Engine, load: &Load) -> Result<Figures> {
    let payloads = Payloads::new(load.entry_bytes);
    let counts = acknowledged(job, load)?;
    let acks = File::options().write(true).open(&job.acks)?;
    let log = (engine.open)(&job.store, load.writers)?;
    let ready = AtomicBool::new(false);
    std::thread::scope(|scope| -> Result<()> {
        let (log, payloads, acks, ready) = (&*log, &payloads, &acks, &ready);
        let writers: Vec<_> = counts
            .iter()
            .enumerate()
            .map(|(n, count)| {
                scope.spawn(move || -> Result<()> {
                    let mut script = resumed(load, payloads, n, *count);
                    let mut batch = Batch::of(n);
                    loop {
                        script.next(&mut batch);
                        log.write(&batch, load.synced)?;
                        acks.write_all_at(&script.batches.to_le_bytes(), 8 * n as u64)?;
                        ready.store(true, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        scope.spawn(move || keep_up(log, || false));
        wait(Duration::from_secs(60), || ready.load(Ordering::Relaxed));
        say(READY)?;
        for writer in writers {
            writer.join().map_err(|_| "a writer panicked")??;
        }
        Ok(())
    })?;
    Err("writers ended".into())
}

fn verify(job: &Job, engine: &Engine, load: &Load) -> Result<Figures> {
    let payloads = Payloads::new(load.entry_bytes);
    let counts = acknowledged(job, load)?;
    let began = Instant::now();
    let log = (engine.open)(&job.store, load.writers)?;
    let open_ms = began.elapsed().as_secs_f64() * 1000.0;
    let mut seen = Seen::default();
    for (n, count) in counts.iter().enumerate() {
        let mut script = resumed(load, &payloads, n, *count);
        let acknowledged = script.pages().to_vec();
        // One more batch may have come through unseen, and have compacted what the one before still had.
        script.next(&mut Batch::of(n));
        for (page, later) in acknowledged.iter().zip(script.pages()) {
            let first = later.first.max(page.first).min(page.next);
            look(&*log, &Page { first, ..*page }, load, &payloads, &mut seen)?;
        }
    }
    for region in load.cold_regions() {
        let page = Page { region, first: 1, next: COLD_ENTRIES + 1, batch: 0 };
        look(&*log, &page, load, &payloads, &mut seen)?;
    }
    log.close()?;
    Ok(Figures::from([
        ("reopen_ms".into(), open_ms),
        ("verified".into(), seen.entries as f64),
        ("lost".into(), seen.lost as f64),
    ]))
}

#[derive(Default)]
struct Seen {
    entries: u64,
    lost: u64,
    /// Regions that were named: not more than some, as nobody reads them before the end.
    named: u32,
}

/// Compares what a region holds with what it must hold.
fn look(log: &dyn PeerLog, page: &Page, load: &Load, payloads: &Payloads, seen: &mut Seen) -> Result<()> {
    let mut found = Vec::new();
    log.read(page.region, page.first..page.next, &mut found)?;
    let right = (page.first..page.next)
        .zip(&found)
        .filter(|(index, payload)| *payload == payloads.of(page.region, *index))
        .count() as u64;
    let missing = page.next - page.first - right;
    seen.entries += right;
    seen.lost += missing;
    let state = if load.hard_state && page.batch > 0 { log.hard_state(page.region)? } else { None };
    let batch = state.as_deref().and_then(|s| s.first_chunk::<8>()).map(|s| u64::from_le_bytes(*s));
    if missing > 0 || batch.is_some_and(|b| b < page.batch || state.as_deref() != Some(&hard_state(b)[..])) {
        seen.lost += u64::from(missing == 0);
        seen.named += 1;
        if seen.named > 10 {
            return Ok(());
        }
        eprintln!(
            "region {}: {missing} of entries {}..{} are missing or wrong; its hard state is of batch {batch:?}, and batch {} \
             was acknowledged",
            page.region, page.first, page.next, page.batch
        );
    }
    Ok(())
}

// ---- reading ----------------------------------------------------------------------------------------------

fn mixed(job: &Job, engine: &Engine, seconds: Duration) -> Result<Figures> {
    const FILL: u64 = 128;
    let load = Load { keep: 0, ..Load::batches(4, true) };
    let payloads = Payloads::new(load.entry_bytes);
    let log = (engine.open)(&job.store, load.writers)?;
    let regions: Vec<u64> = (1..=load.regions).collect();
    fill(&*log, &regions, FILL, &payloads)?;
    settle(&job.store)?;
    let phase = AtomicUsize::new(MEASURED);
    let (mut latencies, mut reads) = (histogram()?, histogram()?);
    std::thread::scope(|scope| -> Result<()> {
        let (log, phase, payloads, load) = (&*log, &phase, &payloads, &load);
        let ended = || phase.load(Ordering::Relaxed) == ENDED;
        let writers: Vec<_> = (0..load.writers)
            .map(|n| {
                let script = Script::new(load, payloads, n, FILL);
                scope.spawn(move || one_writer(log, load, script, n, phase, u64::MAX))
            })
            .collect();
        let readers: Vec<_> = (1..=2)
            .map(|seed| {
                scope.spawn(move || -> Result<Histogram<u64>> {
                    let (mut times, mut found, mut random) = (histogram()?, Vec::new(), seed);
                    while !ended() {
                        random = mix(random);
                        let first = 1 + (random >> 32) % (FILL - RANGE);
                        let began = Instant::now();
                        log.read(1 + random % load.regions, first..first + RANGE, &mut found)?;
                        times.saturating_record(nanos(began.elapsed()));
                        if found.len() as u64 != RANGE {
                            return Err(format!("a range of {RANGE} has {} entries", found.len()).into());
                        }
                        found.clear();
                    }
                    Ok(times)
                })
            })
            .collect();
        let upkeep = scope.spawn(move || keep_up(log, ended));
        wait(seconds, || writers.iter().any(|w| w.is_finished()) || readers.iter().any(|r| r.is_finished()));
        phase.store(ENDED, Ordering::Relaxed);
        for writer in writers {
            latencies.add(&writer.join().map_err(|_| "a writer panicked")??.latencies)?;
        }
        for reader in readers {
            reads.add(&reader.join().map_err(|_| "a reader panicked")??)?;
        }
        upkeep.join().map_err(|_| "upkeep panicked")?
    })?;
    log.close()?;
    let mut figures = Figures::new();
    figures.insert("batches_per_second".into(), latencies.len() as f64 / seconds.as_secs_f64());
    percentiles(&mut figures, "", &latencies);
    figures.insert("reads_per_second".into(), reads.len() as f64 / seconds.as_secs_f64());
    percentiles(&mut figures, "read_", &reads);
    Ok(figures)
}

fn catch_up(job: &Job, engine: &Engine, seconds: Duration, bytes: u64) -> Result<Figures> {
    let load = Load::batches(1, false);
    let payloads = Payloads::new(load.entry_bytes);
    let regions: Vec<u64> = (1..=load.regions).collect();
    let entries = (bytes / load.entry_bytes as u64 / load.regions).max(4);
    let log = (engine.open)(&job.store, load.writers)?;
    fill(&*log, &regions, entries, &payloads)?;
    log.upkeep()?;
    log.close()?;
    drop_cache(&job.store)?;
    let log = (engine.open)(&job.store, load.writers)?;
    drop_cache(&job.store)?;
    let mut figures = Figures::new();
    // Regions far from one another, each of which is read once; then the same again, out of the cache.
    let mut read = 0;
    for (name, time, count) in [("", seconds, u64::MAX), ("cached_", seconds, 0)] {
        let (began, before) = (Instant::now(), Io::now(&job.store)?);
        let (mut payload, mut found) = (0, Vec::new());
        let count = if count == 0 { read } else { load.regions };
        read = 0;
        while read < count && began.elapsed() < time {
            let region = 1 + (read * 37) % load.regions;
            for first in (1..=entries).step_by(1024) {
                log.read(region, first..(first + 1024).min(entries + 1), &mut found)?;
            }
            // Looked at, so that what is only mapped is read, too.
            if found
                .iter()
                .any(|p| p.len() != load.entry_bytes || p.iter().step_by(512).all(|byte| *byte == 0))
            {
                return Err(format!("region {region} has an entry that was never written").into());
            }
            payload += found.len() * load.entry_bytes;
            if found.len() as u64 != entries {
                return Err(format!("region {region} has {} of {entries} entries", found.len()).into());
            }
            found.clear();
            read += 1;
        }
        let elapsed = began.elapsed().as_secs_f64();
        figures.insert(format!("{name}mib_per_second"), payload as f64 / elapsed / f64::from(1 << 20));
        if name.is_empty() {
            let device = Io::now(&job.store)?.read - before.read;
            figures.insert("device_read_x".into(), device as f64 / payload.max(1) as f64);
        }
    }
    log.close()?;
    Ok(figures)
}

// ---- opening ----------------------------------------------------------------------------------------------

fn fill_and_write_on(job: &Job, engine: &Engine, regions: u64) -> Result<Figures> {
    let payloads = Payloads::new(FILLED.1);
    let log = (engine.open)(&job.store, 1)?;
    let all: Vec<u64> = (1..=regions).collect();
    let mut batch = Batch::of(0);
    for some in all.chunks(32) {
        batch.clear();
        for region in some.iter().copied() {
            let entries = (1..=FILLED.0).map(|index| payloads.of(region, index));
            batch.push(region, 1, entries, Some(hard_state(1)), 0..0);
        }
        log.write(&batch, false)?;
    }
    log.sync()?;
    say(READY)?;
    for index in 1.. {
        batch.clear();
        batch.push(regions + 1, index, [payloads.of(regions + 1, index)].into_iter(), None, 0..0);
        log.write(&batch, true)?;
    }
    Err("it writes until it is killed".into())
}

fn open(job: &Job, engine: &Engine, regions: u64) -> Result<Figures> {
    let payloads = Payloads::new(FILLED.1);
    let memory = anonymous_memory();
    let (began, spent) = (Instant::now(), cpu());
    let log = (engine.open)(&job.store, 1)?;
    let (open_ms, spent) = (began.elapsed().as_secs_f64() * 1000.0, cpu() - spent);
    let mut figures = Figures::from([
        ("open_ms".into(), open_ms),
        ("open_cpu_ms".into(), spent.as_secs_f64() * 1000.0),
        ("memory_a_region".into(), anonymous_memory().saturating_sub(memory) as f64 / regions as f64),
        ("disk_bytes".into(), disk_bytes(&job.store) as f64),
    ]);
    let mut found = Vec::new();
    let (mut lost, mut verified) = (0, 0);
    for region in 1..=regions {
        found.clear();
        log.read(region, 1..FILLED.0 + 1, &mut found)?;
        let right = (1..).zip(&found).filter(|(index, p)| *p == payloads.of(region, *index)).count() as u64;
        verified += right;
        lost += FILLED.0 - right;
    }
    figures.insert("verified".into(), verified as f64);
    figures.insert("lost".into(), lost as f64);
    log.close()?;
    Ok(figures)
}

/// The acknowledgements of one store stand beside it.
pub(crate) fn acks_beside(store: &Path) -> PathBuf {
    store.with_extension("acks")
}
