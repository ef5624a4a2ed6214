//! Runs all engines at all work, in rounds: all of the first round before any of the second, so that
//! what the machine does meanwhile meets every engine. Each run is a process of its own in an empty
//! directory, which is removed after it.

use crate::child::{Figures, Job, READY, Task, acks_beside};
use crate::engines::Engine;
use crate::log::Result;
use crate::measure::disk_bytes;
use crate::plan::{Work, suits};
use crate::results::Row;
use crate::scratch::Scratch;
use indicatif::{ProgressBar, ProgressStyle};
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::{sleep, spawn};
use std::time::{Duration, Instant};

/// What no run may exceed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// What a run may take beyond the seconds of its work: its set-up, its close, and an open.
    pub(crate) grace: Duration,
    /// Bytes on disk.
    pub(crate) disk_max: u64,
    /// Whether stores are killed and looked at after they were measured.
    pub(crate) verify: bool,
}

/// Runs it all.
pub(crate) fn rounds(
    engines: &[&Engine],
    works: &[Work],
    rounds: u32,
    bounds: Bounds,
    scratch: &Scratch,
) -> Result<Vec<Row>> {
    let mut rows: Vec<(Work, &Engine, Row)> = works
        .iter()
        .flat_map(|work| engines.iter().map(move |engine| (work.clone(), *engine)))
        .filter(|(work, engine)| suits(engine, work))
        .map(|(work, engine)| {
            let (group, name) = (work.group.name().to_owned(), work.name.clone());
            let row = Row { group, work: name, engine: engine.name.to_owned(), ..Row::default() };
            (work, engine, row)
        })
        .collect();
    let progress = ProgressBar::new(rows.len() as u64 * u64::from(rounds));
    progress.set_style(ProgressStyle::with_template(
        "{wide_bar} {pos} of {len} runs, {elapsed} of about {duration}: {msg}",
    )?);
    for round in 0..rounds {
        // Every other round the other way round, so that no engine always runs after the same one.
        let mut order: Vec<usize> = (0..rows.len()).collect();
        if round % 2 == 1 {
            order.reverse();
        }
        for at in order {
            let (work, engine, row) = &mut rows[at];
            progress.set_message(format!("{} {}, {}", row.group, row.work, row.engine));
            match one(engine, work, bounds, scratch) {
                Ok(figures) => row.rounds.push(figures),
                Err(e) => {
                    progress.suspend(|| eprintln!("{} {}, {}: {e}", row.group, row.work, row.engine));
                    row.failures.push(e.to_string());
                }
            }
            progress.inc(1);
        }
    }
    progress.finish_and_clear();
    Ok(rows
        .into_iter()
        .map(|(_, _, mut row)| {
            row.settle();
            row
        })
        .collect())
}

/// One engine at one work.
fn one(engine: &Engine, work: &Work, bounds: Bounds, scratch: &Scratch) -> Result<Figures> {
    let store = scratch.store()?;
    let job = |task: Task| Job {
        engine: engine.name.to_owned(),
        acks: acks_beside(&store),
        store: store.clone(),
        task,
    };
    match &work.task {
        Task::Open { regions } => {
            let fill = job(Task::Fill { regions: *regions });
            killed_once_ready(&fill, Duration::from_secs(120), bounds)?;
            to_its_end(&job(work.task.clone()), Duration::from_secs(60), bounds)
        }
        Task::Write { load, warm_up, seconds, .. } => {
            let time = Duration::from_secs_f64(warm_up + seconds);
            let mut figures = to_its_end(&job(work.task.clone()), time, bounds)?;
            if engine.reads && bounds.verify {
                killed_once_ready(
                    &job(Task::WriteOn { load: load.clone() }),
                    Duration::from_secs(60),
                    bounds,
                )?;
                figures.extend(to_its_end(
                    &job(Task::Verify { load: load.clone() }),
                    Duration::from_secs(60),
                    bounds,
                )?);
            }
            Ok(figures)
        }
        Task::Mixed { seconds } | Task::CatchUp { seconds, .. } => {
            // What is read has to be written first.
            let time = Duration::from_secs_f64(2.0 * seconds) + Duration::from_secs(120);
            to_its_end(&job(work.task.clone()), time, bounds)
        }
        _ => Err("no work of its own".into()),
    }
}

/// Runs a job to its end, and returns its figures.
fn to_its_end(job: &Job, time: Duration, bounds: Bounds) -> Result<Figures> {
    let mut running = Running::start(job)?;
    let mut figures = Err("it said nothing".into());
    while let Some(line) = running.line(job, time + bounds.grace, bounds)? {
        figures = serde_json::from_str::<Figures>(&line).map_err(|e| format!("it said {line}: {e}").into());
    }
    running.ended()?;
    figures
}

/// Runs a job until it says that it is ready, and kills it soon after.
fn killed_once_ready(job: &Job, time: Duration, bounds: Bounds) -> Result<()> {
    let mut running = Running::start(job)?;
    match running.line(job, time + bounds.grace, bounds)? {
        Some(line) if line == READY => {}
        _ => {
            running.ended()?;
            return Err("it ended before it was killed".into());
        }
    }
    // At another moment of its work each time.
    sleep(Duration::from_millis(100 + running.began.elapsed().subsec_micros() as u64 % 400));
    running.child.kill()?;
    running.child.wait()?;
    Ok(())
}

/// A process, and the lines that it prints.
struct Running {
    child: Child,
    lines: Receiver<String>,
    began: Instant,
}

impl Running {
    fn start(job: &Job) -> Result<Running> {
        // This very program, even if another was built meanwhile and stands under its name.
        let mut child = Command::new("/proc/self/exe")
            .arg("child")
            .arg(serde_json::to_string(job)?)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let out = child.stdout.take().ok_or("the process has no output")?;
        let (send, lines) = channel();
        spawn(move || {
            for line in BufReader::new(out).lines().map_while(|line| line.ok()) {
                if send.send(line).is_err() {
                    break;
                }
            }
        });
        Ok(Running { child, lines, began: Instant::now() })
    }

    /// The next line, or `None` at the end of all.
    fn line(&mut self, job: &Job, time: Duration, bounds: Bounds) -> Result<Option<String>> {
        loop {
            match self.lines.recv_timeout(Duration::from_millis(300)) {
                Ok(line) => return Ok(Some(line)),
                Err(RecvTimeoutError::Disconnected) => return Ok(None),
                Err(RecvTimeoutError::Timeout) => {}
            }
            if self.began.elapsed() > time {
                return Err(format!("it did not end within {} s", time.as_secs()).into());
            }
            let bytes = disk_bytes(&job.store);
            if bytes > bounds.disk_max {
                return Err(format!(
                    "it took {} MiB of disk, {} are allowed",
                    bytes >> 20,
                    bounds.disk_max >> 20
                )
                .into());
            }
        }
    }

    /// Waits for the end. One that is not a success is an error.
    fn ended(&mut self) -> Result<()> {
        let mut said = String::new();
        if let Some(mut err) = self.child.stderr.take() {
            err.read_to_string(&mut said)?;
        }
        let status = self.child.wait()?;
        let last = said.trim().lines().next_back().unwrap_or_default();
        if !status.success() {
            return Err(format!("{status}: {last}").into());
        }
        if !said.is_empty() {
            eprint!("{said}");
        }
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Fails where it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
