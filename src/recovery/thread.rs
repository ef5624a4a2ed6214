//! Which of the segments are the log: each follows the one before.

use super::link::Link;
use crate::format::record::Shape;
use crate::planted::{Bug, planted};
use crate::segment::scan::FIRST_RECORD;
use crate::types::Lsn;

/// Follows the segments in the order of their numbers, and returns those that are the log, by their
/// places in `links`.
///
/// A segment whose first record follows one that cannot be found lies past a hole, and is no part of the log,
/// whatever comes later: a run before this one may have cut it off already. A segment may also follow a
/// record that is not the last one: then the run that wrote it had found the records after that one doubtful,
/// or was re-persisting them. The second kind may not have come to its end, and then the older records still
/// count. Therefore a cut is believed only if a watermark says that something in the segment, and so all that
/// recovery wrote there, was durable.
pub(super) fn thread(links: &mut [Link], start_segment: u32, watermark: Lsn) -> Vec<usize> {
    let mut log: Vec<usize> = Vec::new();
    for at in 0..links.len() {
        if links[at].is_headless {
            // What is sealed was durable. It follows the sealed segment of the number before, whose footer
            // says where that one ends. With numbers between, there may have been a segment that is gone.
            let expected = log.last().map_or(Some(start_segment), |&before| {
                links[before].sealed.then(|| links[before].segment.id.saturating_add(1))
            });
            if expected == Some(links[at].segment.id) {
                log.push(at);
            }
            continue;
        }
        let Some(follows) = links[at].follows else { continue };
        let finished = watermark > Lsn::new(links[at].segment.id, FIRST_RECORD);
        match place(links, &log, follows, start_segment) {
            Some(place) if place.is_end(links, &log) => log.push(at),
            None if planted(Bug::PredecessorNotChecked) => log.push(at),
            Some(place) if finished || planted(Bug::TornCopyBelieved) => {
                if !planted(Bug::TailNotCutOff) {
                    place.cut(links, &mut log);
                }
                log.push(at);
            }
            _ => {}
        }
    }
    log
}

/// A place in the log: after so many records of the link that stands at `nth`.
pub(super) struct Place {
    nth: usize,
    records: Records,
}

#[derive(PartialEq)]
enum Records {
    All,
    First(usize),
    None,
}

/// Finds the record that the next segment follows.
pub(super) fn place(links: &[Link], log: &[usize], follows: Shape, start_segment: u32) -> Option<Place> {
    if log.is_empty() {
        // What was written before the replay begins is durable, and not looked at.
        let before = follows.is_none() || follows.position.segment() < start_segment;
        return before.then_some(Place { nth: 0, records: Records::None });
    }
    (0..log.len()).rev().find_map(|nth| {
        let link = &links[log[nth]];
        let found = || link.records.binary_search_by_key(&follows.position, |r| r.shape.position).ok();
        let records = if link.last == follows {
            Records::All
        } else if link.follows == Some(follows) {
            Records::None
        } else if link.segment.id == follows.position.segment() {
            Records::First(found().filter(|&i| link.records[i].shape == follows)? + 1)
        } else {
            return None;
        };
        Some(Place { nth, records })
    })
}

impl Place {
    fn is_end(&self, links: &[Link], log: &[usize]) -> bool {
        match &self.records {
            Records::All => self.nth + 1 == log.len(),
            Records::First(n) => self.nth + 1 == log.len() && *n == links[log[self.nth]].records.len(),
            Records::None => log.is_empty(),
        }
    }

    /// Takes everything after the place out of the log.
    fn cut(&self, links: &mut [Link], log: &mut Vec<usize>) {
        let keep = self.nth + usize::from(self.records != Records::None);
        for at in log.drain(keep..) {
            links[at].forget();
        }
        if let (Records::First(n), Some(&at)) = (&self.records, log.last()) {
            links[at].end_at(*n);
        }
    }
}

/// Takes the segments before the last gap of the log out of `links`, and returns the first that is left: from
/// there on each record follows the one before. Segments without a record are no gap, nor is what stands past
/// a tear that nothing proves to have been durable.
pub(super) fn pass_last_gap(links: &mut Vec<Link>, start_segment: u32, watermark: Lsn) -> u32 {
    let mut run: Vec<usize> = Vec::new();
    for (at, link) in links.iter().enumerate().filter(|(_, link)| link.end > FIRST_RECORD) {
        let follows =
            |before: &Link| before.sealed && before.segment.id.checked_add(1) == Some(link.segment.id);
        let goes_on = match link.follows {
            Some(shape) => !run.is_empty() && place(links, &run, shape, 0).is_some(),
            None => run.last().is_some_and(|&before| follows(&links[before])),
        };
        let durable = link.sealed || watermark > Lsn::new(link.segment.id, FIRST_RECORD);
        if goes_on {
            run.push(at);
        } else if durable || at.checked_sub(1).is_none_or(|before| links[before].sealed) {
            run = vec![at];
        }
    }
    for link in links.drain(..run.first().copied().unwrap_or(0)) {
        link.segment.set_sealed_end(link.end);
    }
    links.first().map_or(start_segment, |link| link.segment.id)
}
