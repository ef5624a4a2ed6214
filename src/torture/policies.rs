//! Which of the possible losses are tried at one moment.

use super::rng::Rng;
use crate::vfs::sim::LossPolicy;

/// At most `max` policies for a moment with `pending` changes: all there are if they are few, else the telling ones
/// (nothing, everything, each one alone, all but one, prefixes) and a sample of the rest.
pub(super) fn policies(pending: usize, max: usize, rng: &mut Rng) -> Vec<LossPolicy> {
    if pending == 0 {
        return vec![LossPolicy::LoseAll];
    }
    if pending <= EXHAUSTIVE_MAX && 1 << pending <= max {
        return (0..1 << pending).map(LossPolicy::Subset).collect();
    }
    let mut out = vec![LossPolicy::LoseAll, LossPolicy::KeepAll];
    let rest = max.saturating_sub(out.len());
    if 4 * pending <= rest {
        for n in 0..pending {
            out.extend([
                LossPolicy::KeepOnly(n),
                LossPolicy::LoseOnly(n),
                LossPolicy::KeepFirst(n),
                LossPolicy::LoseFirst(n),
            ]);
        }
    }
    while out.len() < max {
        let n = rng.below(pending as u64) as usize;
        out.push(match rng.below(8) {
            0 => LossPolicy::KeepOnly(n),
            1 | 2 => LossPolicy::LoseOnly(n),
            3 => LossPolicy::KeepFirst(n),
            4 => LossPolicy::LoseFirst(n),
            5 if pending < 64 => LossPolicy::Subset(rng.below(1 << pending)),
            _ => LossPolicy::Random(rng.next()),
        });
    }
    out
}

/// All subsets are tried up to this many pending changes.
const EXHAUSTIVE_MAX: usize = 10;
