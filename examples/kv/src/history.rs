//! What the clients saw, and whether one register could have behaved so.
//!
//! Each register is looked at by itself: linearizability is local. A register here counts its writes, and the
//! replicas know in the end what became of those that got no answer, so there is but one order that
//! can explain a history, but for reads of the same version. It is made, held against the clock, and given to
//! the checker of Wing and Gong with Lowe's memory (crate `todc-utils`). To let that one search for the
//! order, as it does where a write's version is not known, can take forever when many operations overlap.

use crate::wire::Via;
use std::collections::BTreeMap;
use todc_utils::linearizability::WGLChecker;
use todc_utils::linearizability::history::{Action, History};
use todc_utils::specifications::Specification;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum What {
    /// The version that the answer said it became; `None` if nobody knows whether it happened.
    Write {
        value: u64,
        version: Option<u64>,
    },
    Read {
        via: Via,
        version: u64,
        value: u64,
    },
}

/// One operation, with the time in nanoseconds when it was asked for and when it was answered.
#[derive(Clone, Copy, Debug)]
pub struct Op {
    pub group: u64,
    pub key: u64,
    pub start: u64,
    pub end: u64,
    pub what: What,
}

/// A register and how often it was written.
struct Register;

impl Specification for Register {
    /// Version and value.
    type State = (u64, u64);
    type Operation = What;

    fn init() -> (u64, u64) {
        (0, 0)
    }

    fn apply(operation: &What, state: &(u64, u64)) -> (bool, (u64, u64)) {
        match *operation {
            What::Write { value, version } => {
                let next = state.0 + 1;
                (version.is_none_or(|v| v == next), (next, value))
            }
            What::Read { version, value, .. } => ((version, value) == *state, *state),
        }
    }
}

/// The history with what is known in the end, from `versions` (value to group, key and version) of all writes
/// that there are: a write of which nobody got an answer happened as one of them, or never.
pub fn settled(ops: &[Op], versions: &BTreeMap<u64, (u64, u64, u64)>) -> Vec<Op> {
    let known = |op: &Op| match op.what {
        What::Write { value, version: None } => {
            let &(group, key, version) = versions.get(&value)?;
            let is_its = (group, key) == (op.group, op.key);
            let what = What::Write { value, version: Some(version) };
            is_its.then_some(Op { end: u64::MAX, what, ..*op })
        }
        _ => Some(*op),
    };
    ops.iter().filter_map(known).collect()
}

/// The registers whose operations no order explains.
pub fn violations(ops: &[Op]) -> Vec<(u64, u64)> {
    let mut by_register: BTreeMap<(u64, u64), Vec<&Op>> = BTreeMap::new();
    for op in ops {
        by_register.entry((op.group, op.key)).or_default().push(op);
    }
    by_register.into_iter().filter(|(_, ops)| !is_linearizable(ops)).map(|(register, _)| register).collect()
}

fn is_linearizable(ops: &[&Op]) -> bool {
    match the_order(ops) {
        Some(order) => {
            respects_the_clock(&order)
                && may_follow(order.iter().enumerate().flat_map(|(process, op)| {
                    [(process, Action::Call(op.what)), (process, Action::Response(op.what))]
                }))
        }
        None => some_order_explains(ops),
    }
}

/// The only order that there can be; `None` if the version of a write is not known.
fn the_order<'a>(ops: &[&'a Op]) -> Option<Vec<&'a Op>> {
    let place = |op: &Op| match op.what {
        // A write comes before those that read it.
        What::Write { version, .. } => version.map(|version| (version, false)),
        What::Read { version, .. } => Some((version, true)),
    };
    let mut placed = ops.iter().map(|op| Some((place(op)?, op.start, *op))).collect::<Option<Vec<_>>>()?;
    placed.sort_by_key(|&(place, start, _)| (place, start));
    Some(placed.into_iter().map(|(_, _, op)| op).collect())
}

/// Whether nobody ended before somebody began who comes earlier in the order.
fn respects_the_clock(order: &[&Op]) -> bool {
    let mut first_end = u64::MAX;
    order.iter().rev().all(|op| {
        first_end = first_end.min(op.end);
        op.start <= first_end
    })
}

fn some_order_explains(ops: &[&Op]) -> bool {
    let mut events = Vec::with_capacity(ops.len() * 2);
    for (process, op) in ops.iter().enumerate() {
        let unknown = matches!(op.what, What::Write { version: None, .. });
        let end = if unknown { u64::MAX } else { op.end };
        // At the same moment, calls before responses: they overlap.
        events.push((op.start, 0, process));
        events.push((end, 1, process));
    }
    events.sort_unstable();
    may_follow(events.into_iter().map(|(_, kind, process)| {
        let what = ops[process].what;
        (process, if kind == 0 { Action::Call(what) } else { Action::Response(what) })
    }))
}

fn may_follow(actions: impl Iterator<Item = (usize, Action<What>)>) -> bool {
    let actions: Vec<_> = actions.collect();
    actions.is_empty() || WGLChecker::<Register>::is_linearizable(History::from_actions(actions))
}

/// What the check accepts and what it finds.
#[cfg(test)]
mod tests {
    use super::*;

    fn op(start: u64, end: u64, what: What) -> Op {
        Op { group: 1, key: 1, start, end, what }
    }

    fn write(value: u64, version: u64) -> What {
        What::Write { value, version: Some(version) }
    }

    fn read(version: u64, value: u64) -> What {
        What::Read { via: Via::Index, version, value }
    }

    fn lost(value: u64) -> What {
        What::Write { value, version: None }
    }

    #[test]
    fn what_one_register_can_do_is_accepted() {
        let fine: &[&[Op]] = &[
            &[op(0, 1, write(7, 1)), op(2, 3, read(1, 7))],
            // Overlapping: the read may see either.
            &[op(0, 9, write(7, 1)), op(1, 2, read(0, 0)), op(3, 4, read(1, 7))],
            &[op(0, 9, write(7, 2)), op(0, 9, write(8, 1)), op(10, 11, read(2, 7))],
            // A write that was never answered may have happened, late, or never.
            &[op(0, 1, lost(7)), op(2, 3, read(0, 0)), op(4, 5, read(1, 7))],
            &[op(0, 1, lost(7)), op(2, 3, write(8, 1)), op(4, 5, read(1, 8))],
            &[op(0, 1, lost(7)), op(0, 1, lost(8)), op(2, 3, write(9, 2)), op(4, 5, read(3, 8))],
        ];
        for ops in fine {
            assert_eq!(violations(ops), [], "{ops:?}");
        }
    }

    #[test]
    fn a_write_without_an_answer_happened_as_the_replicas_have_it_or_never() {
        let versions = BTreeMap::from([(7, (1, 1, 2))]);
        let ops = [op(0, 1, lost(7)), op(0, 1, lost(8)), op(2, 3, write(9, 1)), op(4, 5, read(2, 7))];
        assert_eq!(violations(&settled(&ops, &versions)), []);
        // It was never written, and yet somebody read it.
        let ops = [op(0, 1, lost(8)), op(4, 5, read(1, 8))];
        assert_eq!(violations(&settled(&ops, &versions)), [(1, 1)]);
    }

    /// Small histories of all kinds: the order and the search agree.
    #[test]
    fn the_one_order_explains_what_any_order_explains() {
        let mut seed = 1u64;
        let mut below = |n: u64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) % n
        };
        let mut explained = 0;
        for _ in 0..20_000 {
            let ops: Vec<Op> = (0..1 + below(6))
                .map(|_| {
                    let start = below(12);
                    let version = below(4);
                    // Mostly the value belongs to the version.
                    let value = if below(20) == 0 { 9 } else { version };
                    let what = if below(2) == 0 { write(value, version) } else { read(version, value) };
                    op(start, start + below(8), what)
                })
                .collect();
            let ops: Vec<&Op> = ops.iter().collect();
            assert_eq!(is_linearizable(&ops), some_order_explains(&ops), "{ops:?}");
            explained += u32::from(is_linearizable(&ops));
        }
        assert!(explained > 1000, "{explained} of them can be explained");
    }

    #[test]
    fn many_that_overlap_are_no_matter() {
        // Each write overlaps sixty reads of what was there before it, all of them asked for later.
        let ops: Vec<Op> = (0..200u64)
            .flat_map(|round| {
                let at = round * 1000;
                let reads = (1..60).map(move |n| op(at + n, at + 500 + n, read(round, round)));
                reads.chain([op(at, at + 700, write(round + 1, round + 1))])
            })
            .collect();
        assert_eq!(violations(&ops), []);
    }

    #[test]
    fn what_no_register_can_do_is_found() {
        let wrong: &[&[Op]] = &[
            // Stale.
            &[op(0, 1, write(7, 1)), op(2, 3, write(8, 2)), op(4, 5, read(1, 7))],
            // Back in time, though both reads overlap the write.
            &[op(0, 9, write(7, 1)), op(1, 2, read(1, 7)), op(3, 4, read(0, 0))],
            // Lost.
            &[op(0, 1, write(7, 1)), op(2, 3, read(0, 0))],
            // Twice.
            &[op(0, 1, write(7, 1)), op(2, 3, write(8, 3))],
            &[op(0, 1, lost(7)), op(2, 3, write(8, 3))],
            // Out of nowhere.
            &[op(0, 1, read(1, 7))],
            // Two writes that became the same version.
            &[op(0, 9, write(7, 1)), op(0, 9, write(8, 1))],
        ];
        for ops in wrong {
            assert_eq!(violations(ops), [(1, 1)], "{ops:?}");
        }
    }
}
