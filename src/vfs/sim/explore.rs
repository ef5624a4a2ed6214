//! One call by which a program tests itself against crashes: it is run once, the power goes off at every call
//! that it made of the disk, and a check looks at what is left.

use super::{LossPolicy, Moment, Profile, SimVfs, Snapshot};
use crate::random::Rng;
use std::error::Error;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// How often the power goes off at one moment; where that is enough for every subset of what is pending,
/// each.
const WAYS_MAX: usize = 16;

/// What a workload and a check end with. A panic counts as an error.
type Outcome = Result<(), Box<dyn Error + Send + Sync>>;

/// Which crashes are tried, and on what kind of disk. All chance comes from the seed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Crashes {
    seed: u64,
    profile: Profile,
    crashes_max: usize,
}

impl Crashes {
    /// Up to 10,000 crashes of a [`Profile::Strict`] disk.
    pub fn new(seed: u64) -> Crashes {
        Crashes { seed, profile: Profile::Strict, crashes_max: 10_000 }
    }

    /// What kind of disk it is.
    pub fn profile(self, profile: Profile) -> Crashes {
        Crashes { profile, ..self }
    }

    /// At most so many, at least one. If there are more, the seed chooses among them.
    pub fn crashes_max(self, crashes_max: usize) -> Crashes {
        Crashes { crashes_max: crashes_max.max(1), ..self }
    }
}

/// What was survived.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Explored {
    /// Moments at which the power could go off: before each call that can change the disk, and at the end.
    pub moments: usize,
    /// Crashes that were checked.
    pub crashes: usize,
    /// Crashes there were to choose from; as many as were checked unless
    /// [`crashes_max`](Crashes::crashes_max) was less.
    pub possible: usize,
}

/// A crash after which the check failed, or a workload that failed by itself. Displays the seed, the moment,
/// what was lost, and what the check said.
#[derive(Clone)]
pub struct Counterexample {
    seed: u64,
    crash: Option<(Snapshot, LossPolicy)>,
    what: String,
}

impl Counterexample {
    /// The seed, with which the same call finds the same.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// The disk as this crash left it, for a closer look; `None` if the workload failed without a crash.
    pub fn disk(&self) -> Option<SimVfs> {
        self.crash.as_ref().map(|(snapshot, policy)| snapshot.crash(*policy))
    }
}

impl fmt::Display for Counterexample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "seed {}: ", self.seed)?;
        match &self.crash {
            Some((at, policy)) => {
                let call = if at.call().is_empty() { "the end" } else { at.call() };
                write!(f, "power cut before {call} (call {}), {policy:?} of {:?}", at.op(), at.pending())?;
            }
            None => f.write_str("without a crash, in the workload")?,
        }
        write!(f, ": {}", self.what)
    }
}

/// As it displays: it is what a test that unwraps prints.
impl fmt::Debug for Counterexample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Error for Counterexample {}

/// Runs `workload` on an empty disk, then lets `check` look at what each crash leaves, with the mark
/// ([`SimVfs::set_mark`]) as of that moment: how much was acknowledged by then.
///
/// Where few changes are pending every subset of them is tried, elsewhere some by chance. A program that is
/// to do the same each time does its work on this thread; an engine does with
/// [`Background::Manual`](crate::Background::Manual) and a fixed
/// [`salt_source`](crate::Options::salt_source). Deliberately absent: a crash while `check` recovers, which
/// is another exploration, with the recovery for its workload.
///
/// ```
/// use raftwood::vfs::sim::{Crashes, SimVfs, explore};
/// use raftwood::{Background, Durability, Engine, EntryId, Options, RegionId};
/// use std::sync::Arc;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// fn open(disk: &SimVfs) -> raftwood::Result<Engine> {
///     let options = Options::new().background(Background::Manual).segment_bytes(64 << 10);
///     options.salt_source(Arc::new(|| 7)).vfs(Arc::new(disk.clone())).open("/db")
/// }
/// let count = |durability| {
///     let workload = move |disk: &SimVfs| {
///         let engine = open(disk)?;
///         for index in 1..=5 {
///             let mut batch = engine.batch();
///             batch.region(RegionId(7)).append([(EntryId::new(1, index), &b"set x"[..])])?;
///             engine.write(batch, durability)?;
///             disk.set_mark(index); // the client is answered
///         }
///         Ok(())
///     };
///     explore(&Crashes::new(1).crashes_max(300), workload, |disk, answered| {
///         let last = open(disk)?.region(RegionId(7)).last_index();
///         assert!(last >= answered, "{answered} answered, {last} left");
///         Ok(())
///     })
/// };
/// assert_eq!(count(Durability::Synced)?.crashes, 300);
/// // What is only written is not to be answered.
/// println!("{}", count(Durability::Written).unwrap_err());
/// # Ok(()) }
/// ```
///
/// # Errors
/// The first crash, in the order of the run, after which the check fails or panics.
pub fn explore(
    crashes: &Crashes,
    workload: impl FnOnce(&SimVfs) -> Outcome,
    mut check: impl FnMut(&SimVfs, u64) -> Outcome,
) -> Result<Explored, Box<Counterexample>> {
    let seed = crashes.seed;
    let found = |crash, what| Box::new(Counterexample { seed, crash, what });
    let disk = SimVfs::new(seed).with_profile(crashes.profile);
    disk.snapshot_every(Some(Moment::Before));
    caught(|| workload(&disk)).map_err(|what| found(None, what))?;
    let mut moments = disk.take_snapshots();
    moments.push(disk.freeze());

    let mut rng = Rng::new(seed);
    let mut cases = Vec::new();
    for (moment, snapshot) in moments.iter().enumerate() {
        let pending = snapshot.pending_count();
        cases.extend(ways(pending, crashes.profile, &mut rng).into_iter().map(|way| (moment, way)));
    }
    let possible = cases.len();
    if possible > crashes.crashes_max {
        rng.shuffle(&mut cases);
        cases.truncate(crashes.crashes_max);
        cases.sort_by_key(|case| case.0);
    }
    for (moment, policy) in &cases {
        let snapshot = &moments[*moment];
        caught(|| check(&snapshot.crash(*policy), snapshot.mark()))
            .map_err(|what| found(Some((snapshot.clone(), *policy)), what))?;
    }
    Ok(Explored { moments: moments.len(), crashes: cases.len(), possible })
}

/// What may become of so many pending changes. A disk that tears has more than two fates for each.
fn ways(pending: usize, profile: Profile, rng: &mut Rng) -> Vec<LossPolicy> {
    if pending == 0 {
        return vec![LossPolicy::KeepAll];
    }
    if !profile.tears() && pending <= WAYS_MAX.ilog2() as usize {
        return (0..1 << pending).map(LossPolicy::Subset).collect();
    }
    let by_chance = |n| match n % 3 {
        0 => LossPolicy::LoseOnly(rng.below(pending as u64) as usize),
        1 => LossPolicy::KeepOnly(rng.below(pending as u64) as usize),
        _ => LossPolicy::Random(rng.next()),
    };
    [LossPolicy::LoseAll, LossPolicy::KeepAll].into_iter().chain((2..WAYS_MAX).map(by_chance)).collect()
}

fn caught(run: impl FnOnce() -> Outcome) -> Result<(), String> {
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(outcome) => outcome.map_err(|e| e.to_string()),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            Err(text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("a panic").to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vfs::{OpenMode, Vfs};
    use std::io::IoSlice;
    use std::path::Path;

    /// A program that replaces a file five times, and may forget to sync the new one before it takes the
    /// old one's place.
    fn replaces(forgets: bool) -> impl Fn(&SimVfs) -> Outcome {
        move |disk| {
            let dir = disk.create_dir_all(Path::new("/app"))?;
            for version in 1..=5u64 {
                let file = dir.open("new", OpenMode::CreateNew)?;
                file.write_at(&[IoSlice::new(&version.to_le_bytes())], 0)?;
                if !forgets {
                    file.sync_data()?;
                }
                dir.rename("new", "current")?;
                dir.sync()?;
                disk.set_mark(version);
            }
            Ok(())
        }
    }

    fn is_there(disk: &SimVfs, answered: u64) -> Outcome {
        let Ok(bytes) = disk.read_file("/app/current") else {
            return if answered == 0 { Ok(()) } else { Err("the file is gone".into()) };
        };
        let version = u64::from_le_bytes(bytes[..].try_into()?);
        assert!(version >= answered, "{answered} was answered, {version} is there");
        Ok(())
    }

    #[test]
    fn a_program_that_syncs_survives_every_crash() {
        let explored = explore(&Crashes::new(1), replaces(false), is_there).unwrap();
        assert!(explored.moments > 20 && explored.crashes > 50, "{explored:?}");
        assert_eq!(explored.crashes, explored.possible);
        let some = explore(&Crashes::new(1).crashes_max(10), replaces(false), is_there).unwrap();
        assert_eq!(some, Explored { crashes: 10, ..explored });
        for profile in [Profile::Ext4Ordered, Profile::GarbageOnTear] {
            explore(&Crashes::new(1).profile(profile), replaces(false), is_there).unwrap();
        }
    }

    #[test]
    fn a_forgotten_sync_is_found_and_found_again_with_its_seed() {
        let found = explore(&Crashes::new(3), replaces(true), is_there).unwrap_err();
        let again = explore(&Crashes::new(found.seed()), replaces(true), is_there).unwrap_err();
        assert_eq!(found.to_string(), again.to_string());
        assert!(found.to_string().starts_with("seed 3: power cut before "), "{found}");
        assert!(caught(|| is_there(&found.disk().unwrap(), 0)).is_err(), "the disk shows it: {found}");
    }

    #[test]
    fn a_workload_that_fails_or_panics_is_no_crash() {
        let failing: [fn(&SimVfs) -> Outcome; 2] = [|_| Err("no".into()), |_| panic!("no")];
        for workload in failing {
            let found = explore(&Crashes::new(9), workload, is_there).unwrap_err();
            assert_eq!(found.to_string(), "seed 9: without a crash, in the workload: no");
            assert!(found.disk().is_none());
        }
    }
}
