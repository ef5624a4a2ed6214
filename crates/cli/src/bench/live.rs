//! The live line of a workload, on a terminal.

use super::Plan;
use crate::out::{count, number};
use indicatif::{ProgressBar, ProgressStyle};
use std::time::{Duration, Instant};

/// A line that is drawn anew is read no faster than this.
const PAUSE: Duration = Duration::from_millis(100);

/// A bar with what has been done so far. Without a terminal, and with `--json`, it draws nothing.
pub(crate) struct Live {
    bar: ProgressBar,
    /// What is counted: `batches`, `reads`.
    unit: &'static str,
    total: Duration,
    began: Instant,
    shown: Option<Instant>,
}

impl Live {
    /// For a workload that takes about `total`.
    pub(crate) fn timed(plan: &Plan, what: &str, unit: &'static str, total: Duration) -> Live {
        Live::new(plan, what, unit, total, total.as_millis() as u64)
    }

    /// For one that does something so many times.
    pub(crate) fn counted(plan: &Plan, what: &str, unit: &'static str, times: u32) -> Live {
        Live::new(plan, what, unit, Duration::ZERO, u64::from(times))
    }

    fn new(plan: &Plan, what: &str, unit: &'static str, total: Duration, length: u64) -> Live {
        let bar = if plan.json { ProgressBar::hidden() } else { ProgressBar::new(length) };
        if let Ok(style) = ProgressStyle::with_template("{prefix:<12} {wide_bar} {msg}") {
            bar.set_style(style);
        }
        bar.set_prefix(what.to_string());
        Live { bar, unit, total, began: Instant::now(), shown: None }
    }

    /// So many were done, which took the time `busy`.
    pub(crate) fn rate(&mut self, done: u64, busy: Duration) {
        if self.shown.is_some_and(|shown| shown.elapsed() < PAUSE) {
            return;
        }
        self.shown = Some(Instant::now());
        let elapsed = self.began.elapsed();
        self.bar.set_message(rate_text(self.unit, done, busy, elapsed, self.total));
        self.bar.set_position(elapsed.as_millis() as u64);
    }

    /// One more was done.
    pub(crate) fn one_more(&self) {
        self.bar.inc(1);
        let (done, all) = (self.bar.position(), self.bar.length().unwrap_or(0));
        self.bar.set_message(format!("{done} of {}", count(all, self.unit)));
    }

    pub(crate) fn end(self) {
        self.bar.finish_and_clear();
    }
}

fn rate_text(unit: &str, done: u64, busy: Duration, elapsed: Duration, total: Duration) -> String {
    let rate = done as f64 / busy.as_secs_f64().max(1e-9);
    let (elapsed, total) = (elapsed.min(total).as_secs_f64(), total.as_secs_f64());
    format!("{} {unit}/s, {elapsed:.0} of {total:.0} s", number(rate))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_live_line_has_the_rate_and_the_time() {
        let seconds = Duration::from_secs_f64;
        let text = rate_text("batches", 21_300, seconds(3.0), seconds(6.2), seconds(30.0));
        assert_eq!(text, "7100 batches/s, 6 of 30 s");
        let none_yet = rate_text("reads", 0, Duration::ZERO, Duration::ZERO, seconds(0.4));
        assert_eq!(none_yet, "0 reads/s, 0 of 0 s");
    }
}
