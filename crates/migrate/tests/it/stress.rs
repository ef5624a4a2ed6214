//! The same program on both engines: every read answers the same, after restarts and kills too.

use crate::child;
use crate::program::Program;
use crate::sides::{Ours, Side, Theirs};
use fastrand::Rng;
use std::time::{Duration, Instant};

/// Reads that are compared after each step of an open engine, and after each restart.
const READS: usize = 3;
const READS_AFTER_RESTART: usize = 200;

fn compare(theirs: &Theirs, ours: &Ours, program: &Program, rng: &mut Rng, reads: usize, when: &str) {
    for _ in 0..reads {
        let read = program.read(rng);
        let answers = [theirs.read(&read), ours.read(&read)];
        // An empty region is there until files are purged and it is opened again; here it stays.
        let [there, here] = answers.map(|answer| match answer.as_str() {
            "Err(EntryNotFound) []" if program.is_empty(&read) => "Ok(0) []".to_owned(),
            _ => answer,
        });
        assert_eq!(there, here, "{when}: {read:?}");
    }
}

fn round(seed: u64, end: Instant) -> u64 {
    let dir = tempfile::tempdir().unwrap();
    let (there, here) = (dir.path().join("theirs"), dir.path().join("ours"));
    let mut rng = Rng::with_seed(seed ^ 0x5eed);
    let mut done = 0;
    for restart in 0..12 {
        let steps = rng.u64(1..400);
        let when = || format!("seed {seed}, restart {restart}, {done} to {} steps", done + steps);
        if rng.bool() {
            child::run::<Theirs>(&there, seed, done, done + steps);
            child::run::<Ours>(&here, seed, done, done + steps);
        } else {
            let (theirs, ours) = (Theirs::open(&there), Ours::open(&here));
            let mut program = Program::after(seed, done);
            program.check_opened(&theirs, &when());
            program.check_opened(&ours, &when());
            for _ in 0..steps {
                let step = program.step();
                assert_eq!(theirs.apply(&step), ours.apply(&step), "{}: {step:?}", when());
                compare(&theirs, &ours, &program, &mut rng, READS, &when());
            }
            program.check(&theirs, &when());
            program.check(&ours, &when());
        }
        let (theirs, ours) = (Theirs::open(&there), Ours::open(&here));
        let program = Program::after(seed, done + steps);
        program.check_opened(&theirs, &when());
        program.check_opened(&ours, &when());
        compare(&theirs, &ours, &program, &mut rng, READS_AFTER_RESTART, &when());
        done += steps;
        if Instant::now() > end {
            break;
        }
    }
    done
}

/// `STRESS_SECONDS` for longer than four, `STRESS_SEED` for another beginning.
#[test]
fn the_same_program_reads_the_same_from_both_engines() {
    let number = |name: &str, default| std::env::var(name).map_or(default, |text| text.parse().unwrap());
    let end = Instant::now() + Duration::from_secs(number("STRESS_SECONDS", 4));
    let mut seed = number("STRESS_SEED", 1);
    let mut steps = 0;
    while Instant::now() < end {
        steps += round(seed, end);
        seed += 1;
    }
    println!("{steps} steps, next seed {seed}");
    assert!(steps > 0);
}
