//! Under which terms the entries of a region were written: one bar for each region.

use super::Escaped;
use crate::out::count;
use raftwood::{Reader, RegionInfo};
use std::fmt::{self, Write};

/// Entries of one term, back to back.
#[derive(PartialEq, Eq, Debug)]
struct Run {
    term: u64,
    first: u64,
    last: u64,
}

/// Of a region with more terms than this the newest are shown: an election a pixel says no more.
const RUNS_MAX: usize = 100;

/// Where the bars begin, how long they are, and how high a row is.
const BAR_AT: u64 = 160;
const BAR: u64 = 580;
const ROW: u64 = 40;

/// What a digit of the labels takes, rounded up.
const DIGIT: u64 = 7;

/// The regions in the order in which they are given, so many of them.
pub(super) fn timelines(
    p: &mut String,
    reader: &Reader,
    regions: &[RegionInfo],
    limit: usize,
) -> fmt::Result {
    writeln!(p, "<h2>Terms</h2>")?;
    let shown: Vec<&RegionInfo> = regions.iter().filter(|r| r.entries > 0).take(limit).collect();
    if shown.is_empty() {
        return writeln!(p, "<p>There is none.</p>");
    }
    writeln!(
        p,
        "<p class=\"dim\">One bar a region, from its first index to its last, each to a scale of its own. A field is the entries of one term.</p>"
    )?;
    let (width, height) = (BAR_AT + BAR + 124, ROW * shown.len() as u64 + 20);
    writeln!(
        p,
        "<div class=\"wide\"><svg class=\"terms\" xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" \
         role=\"img\" aria-label=\"terms of the entries of each region\">"
    )?;
    let label = BAR_AT - 10;
    writeln!(p, "<text x=\"{label}\" y=\"12\" text-anchor=\"end\">region</text>")?;
    writeln!(p, "<text x=\"{BAR_AT}\" y=\"12\">index</text>")?;
    for (n, region) in (0..).zip(shown) {
        row(p, reader, region, 20 + n * ROW)?;
    }
    writeln!(p, "</svg></div>")
}

fn row(p: &mut String, reader: &Reader, region: &RegionInfo, y: u64) -> fmt::Result {
    let (first, last) = (region.log.first, region.log.last);
    let (runs, rest) = runs(|index| reader.term(region.id, index), first, last);
    let at = |index: u64| BAR_AT as f64 + (index - first) as f64 / (last - first + 1) as f64 * BAR as f64;
    let text = y + 12;
    writeln!(p, "<text x=\"{}\" y=\"{text}\" text-anchor=\"end\">{}</text>", BAR_AT - 10, region.id)?;
    writeln!(p, "<rect class=\"track\" x=\"{BAR_AT}\" y=\"{y}\" width=\"{BAR}\" height=\"16\"/>")?;
    for (n, run) in runs.iter().enumerate() {
        let (from, to) = (at(run.first), at(run.last + 1));
        let width = to - from;
        writeln!(
            p,
            "<rect class=\"t{}\" x=\"{from:.2}\" y=\"{y}\" width=\"{width:.2}\" height=\"16\"><title>region {}, term {}: {} to {}, {}</title></rect>",
            n % 2,
            region.id,
            run.term,
            run.first,
            run.last,
            count(run.last - run.first + 1, "entry"),
        )?;
        let digits = run.term.to_string();
        let room = |letters: usize| width >= (letters as u64 * DIGIT + 6) as f64;
        let label = match () {
            () if room(digits.len() + 5) => format!("term {digits}"),
            () if room(digits.len()) => digits,
            () => continue,
        };
        writeln!(
            p,
            "<text class=\"term\" x=\"{:.2}\" y=\"{text}\" text-anchor=\"middle\">{label}</text>",
            from + width / 2.0
        )?;
    }
    let below = y + 28;
    writeln!(p, "<text x=\"{BAR_AT}\" y=\"{below}\">{first}</text>")?;
    if first != last {
        writeln!(p, "<text x=\"{}\" y=\"{below}\" text-anchor=\"end\">{last}</text>", BAR_AT + BAR)?;
    }
    let summary = match rest {
        Rest::None => count(runs.len() as u64, "term"),
        Rest::Older => format!("newest {RUNS_MAX} terms"),
        Rest::Unreadable(why) => {
            writeln!(p, "<text class=\"bad\" x=\"{}\" y=\"{text}\">unreadable", BAR_AT + BAR + 10)?;
            return writeln!(p, "<title>{}</title></text>", Escaped(why));
        }
    };
    writeln!(p, "<text x=\"{}\" y=\"{text}\">{summary}</text>", BAR_AT + BAR + 10)
}

/// What is not among the runs.
enum Rest {
    None,
    /// Terms that are too many.
    Older,
    /// Terms that stand in an index that cannot be read.
    Unreadable(raftwood::Error),
}

/// The newest terms of a log, newest first. Terms never fall from one entry to the next, so each needs a
/// search and not a look at each of its entries.
fn runs(term: impl Fn(u64) -> raftwood::Result<u64>, first: u64, last: u64) -> (Vec<Run>, Rest) {
    let mut runs = Vec::new();
    let mut end = last;
    loop {
        match run_that_ends_at(&term, first, end) {
            Ok(run) => {
                end = run.first.saturating_sub(1);
                let is_last = run.first <= first;
                runs.push(run);
                if is_last {
                    return (runs, Rest::None);
                }
            }
            Err(why) => return (runs, Rest::Unreadable(why)),
        }
        if runs.len() == RUNS_MAX {
            return (runs, Rest::Older);
        }
    }
}

fn run_that_ends_at(
    term: impl Fn(u64) -> raftwood::Result<u64>,
    first: u64,
    last: u64,
) -> raftwood::Result<Run> {
    let of_last = term(last)?;
    let (mut low, mut high) = (first, last);
    while low < high {
        let middle = low + (high - low) / 2;
        match term(middle)? == of_last {
            true => high = middle,
            false => low = middle + 1,
        }
    }
    Ok(Run { term: of_last, first: high, last })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[test]
    fn a_log_is_cut_into_its_terms_without_a_look_at_each_entry() {
        let looks = Cell::new(0);
        let term = |index: u64| {
            looks.set(looks.get() + 1);
            Ok(match index {
                5..=9 => 1,
                10 => 4,
                11..=1_000_000 => 7,
                _ => panic!("{index}"),
            })
        };
        let (runs, rest) = runs(term, 5, 1_000_000);
        assert!(matches!(rest, Rest::None) && looks.get() < 100, "{} looks", looks.get());
        let run = |term, first, last| Run { term, first, last };
        assert_eq!(runs, [run(7, 11, 1_000_000), run(4, 10, 10), run(1, 5, 9)]);
    }

    #[test]
    fn of_many_terms_the_newest_are_shown_and_the_rest_is_said() {
        let (runs, rest) = runs(Ok, 1, 100_000);
        assert!(matches!(rest, Rest::Older));
        assert_eq!((runs.len(), runs[0].term, runs[RUNS_MAX - 1].term), (RUNS_MAX, 100_000, 99_901));
    }
}
