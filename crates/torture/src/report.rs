//! What torture survived, in figures, and what it did not, so that it can be done again.

use super::policies::EXHAUSTIVE_MAX;
use std::fmt;

/// Something that must not be.
#[derive(Clone, Debug)]
pub struct Violation {
    /// Which explorer found it.
    pub explorer: &'static str,
    /// The workload's name.
    pub workload: String,
    /// The seed of the run.
    pub seed: u64,
    /// Where in the run: the call, the moment, the policy or the fault.
    pub at: String,
    /// What does not hold.
    pub what: String,
    /// What was done until then.
    pub transcript: Vec<String>,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} / {} / seed {} / {}", self.explorer, self.workload, self.seed, self.at)?;
        writeln!(f, "  {}", self.what)?;
        let skip = self.transcript.len().saturating_sub(TRANSCRIPT_LINES);
        for line in &self.transcript[skip..] {
            let short: String = line.chars().take(LINE_CHARS).collect();
            writeln!(f, "    {short}")?;
        }
        Ok(())
    }
}

const TRANSCRIPT_LINES: usize = 120;
const LINE_CHARS: usize = 900;

/// Counts of one or more explorations.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    /// Runs of a workload.
    pub runs: u64,
    /// Moments at which the power could have failed.
    pub moments: u64,
    /// Of these, those at which every possible loss was tried, by the number of changes that were pending.
    pub exhaustive: [u64; EXHAUSTIVE_MAX + 1],
    /// Of these, those with more than ten changes pending, at which each one was lost alone and each
    /// one kept alone.
    pub singled: u64,
    /// Stores recovered after a crash, crashes inside recovery among them.
    pub crash_recoveries: u64,
    /// Errors that struck.
    pub errors_injected: u64,
    /// Writes that the device lost or put elsewhere while it said that all was well.
    pub lies: u64,
    /// Of these, those of which the next open said something. What is lost at the end of the log leaves no
    /// trace, and what is rewritten later affects nothing.
    pub lies_noticed: u64,
    /// Seeds of the swarm.
    pub seeds: u64,
    /// Recoveries in which the default policy could not tell a tear from rot, and fenced an entry
    /// that was never acknowledged.
    pub doubtful: u64,
    /// What must not be; at most [`VIOLATIONS_MAX`] are kept.
    pub violations: Vec<Violation>,
}

/// An exploration ends early once it has found this many violations.
pub const VIOLATIONS_MAX: usize = 8;

impl Counts {
    /// Adds another exploration's counts.
    pub fn add(&mut self, other: Counts) {
        self.runs += other.runs;
        self.moments += other.moments;
        self.exhaustive.iter_mut().zip(other.exhaustive).for_each(|(n, more)| *n += more);
        self.singled += other.singled;
        self.crash_recoveries += other.crash_recoveries;
        self.errors_injected += other.errors_injected;
        self.lies += other.lies;
        self.lies_noticed += other.lies_noticed;
        self.seeds += other.seeds;
        self.doubtful += other.doubtful;
        self.violations.extend(other.violations);
    }

    /// Whether there is no point in going on.
    pub fn enough(&self) -> bool {
        self.violations.len() >= VIOLATIONS_MAX
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = self.exhaustive.iter().sum::<u64>();
        let counted = [
            (self.runs, "runs"),
            (self.moments, "moments"),
            (whole, "with every loss there is"),
            (self.exhaustive[EXHAUSTIVE_MAX], "of them with ten changes pending"),
            (self.singled, "with each of more than ten changes lost alone and kept alone"),
            (self.crash_recoveries, "crash recoveries"),
            (self.errors_injected, "errors injected"),
            (self.lies, "lies of the device"),
            (self.lies_noticed, "of them noticed"),
            (self.seeds, "seeds"),
        ];
        for (n, what) in counted.iter().filter(|(n, _)| *n > 0) {
            write!(f, "{n} {what}, ")?;
        }
        write!(f, "{} doubtful, {} violations", self.doubtful, self.violations.len())?;
        self.violations.iter().try_for_each(|v| write!(f, "\n\n{v}"))
    }
}
