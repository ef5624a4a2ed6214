//! Which of the possible losses are tried at one moment.

use raftwood::random::Rng;
use raftwood::vfs::sim::LossPolicy;

/// At most `max` policies for a moment with `pending` changes: all there are if they are few, else the
/// telling ones (nothing, everything, each one alone, all but one, prefixes) and a sample of the rest.
pub(super) fn policies(pending: usize, max: usize, rng: &mut Rng) -> Vec<LossPolicy> {
    if pending == 0 {
        return vec![LossPolicy::LoseAll];
    }
    if is_exhaustive(pending, max) {
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

/// All there are up to [`EXHAUSTIVE_MAX`] changes; above, nothing, everything, each one kept alone and each
/// lost alone, each prefix, and a sample of the rest.
pub(super) fn thorough(pending: usize, rng: &mut Rng) -> Vec<LossPolicy> {
    if pending <= EXHAUSTIVE_MAX {
        return policies(pending, 1 << pending, rng);
    }
    policies(pending, thorough_cost(pending), rng)
}

/// How many policies that is.
pub(super) fn thorough_cost(pending: usize) -> usize {
    match pending <= EXHAUSTIVE_MAX {
        true => 1 << pending,
        false => 2 + 4 * pending + SAMPLES,
    }
}

/// Whether these are all there are for a moment.
pub(super) fn is_exhaustive(pending: usize, max: usize) -> bool {
    pending <= EXHAUSTIVE_MAX && 1 << pending <= max
}

/// All subsets are tried up to this many pending changes.
pub(super) const EXHAUSTIVE_MAX: usize = 10;

/// Losses by chance at a moment with more.
const SAMPLES: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use raftwood::vfs::sim::LossPolicy::*;

    #[test]
    fn up_to_ten_changes_every_subset_is_taken_once() {
        let mut rng = Rng::new(1);
        for pending in 1..=EXHAUSTIVE_MAX {
            let mut subsets: Vec<u64> = thorough(pending, &mut rng)
                .into_iter()
                .filter_map(|p| if let Subset(bits) = p { Some(bits) } else { None })
                .collect();
            subsets.sort_unstable();
            assert!(subsets.into_iter().eq(0..1 << pending), "{pending}");
            assert_eq!(thorough_cost(pending), 1 << pending);
            assert!(is_exhaustive(pending, 1 << pending) && !is_exhaustive(pending, (1 << pending) - 1));
        }
        assert!(!is_exhaustive(EXHAUSTIVE_MAX + 1, usize::MAX));
    }

    #[test]
    fn above_ten_each_change_is_lost_alone_and_kept_alone() {
        let mut rng = Rng::new(1);
        for pending in [11, 12, 64, 65, 300] {
            let all = thorough(pending, &mut rng);
            assert_eq!(all.len(), thorough_cost(pending));
            for n in 0..pending {
                for one in [KeepOnly(n), LoseOnly(n), KeepFirst(n), LoseFirst(n)] {
                    assert!(all.contains(&one), "{one:?} of {pending}");
                }
            }
            assert!(all.contains(&LoseAll) && all.contains(&KeepAll));
            let chance = all.iter().filter(|p| matches!(p, Random(_) | Subset(_))).count();
            assert!(chance > SAMPLES / 8, "{chance}");
        }
    }
}
