//! `raftwood explain`: why an open decides what it decides, in words.

use crate::out::{count, say, say_json, size, with_causes};
use crate::{Failure, Outcome};
use raftwood::{
    Explanation, Lsn, Options, Proof, RecordFinding, RecordState, SegmentFinding, TailPolicy, Verdict,
};
use serde::Serialize;
use std::path::PathBuf;

/// Arguments of `explain`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The directory of the store.
    dir: PathBuf,
    /// As an open with TailPolicy::AssumeTorn would decide.
    #[arg(long)]
    assume_torn: bool,
    /// As an open with TailPolicy::AcceptLoss would decide.
    #[arg(long, conflicts_with = "assume_torn")]
    accept_loss: bool,
    /// One JSON object.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Serialize)]
struct Shown {
    in_use: bool,
    opens: bool,
    refusal: Option<String>,
    checkpoint: u32,
    bad_checkpoints: u64,
    durable: String,
    proof: String,
    end: String,
    hole: Option<String>,
    acknowledged: Option<String>,
    torn_bytes: u64,
    segments: Vec<ShownSegment>,
    judged: Vec<ShownRecord>,
    suspects: Vec<String>,
    damage: Vec<String>,
}

#[derive(Serialize)]
struct ShownSegment {
    id: u32,
    sealed: bool,
    records: u64,
    end: u32,
    follows: Option<String>,
    in_log: bool,
    past_hole: u64,
}

#[derive(Serialize)]
struct ShownRecord {
    at: String,
    file: PathBuf,
    state: String,
    torn: bool,
    old_bytes: bool,
    one_flip: bool,
    was_whole: bool,
    verdict: String,
}

/// Runs `explain`. Like a check it finds wrong what an open would not take as it is.
pub(crate) fn run(args: &Args) -> Result<Outcome, Failure> {
    let policy = match (args.assume_torn, args.accept_loss) {
        (true, _) => TailPolicy::AssumeTorn,
        (_, true) => TailPolicy::AcceptLoss,
        _ => TailPolicy::Prove,
    };
    let why = Options::new().tail_policy(policy).explain(&args.dir)?;
    match args.json {
        true => say_json(&shown(&why))?,
        false => print(args, &why)?,
    }
    let r = &why.report;
    let fine =
        why.refusal.is_none() && r.damage.is_empty() && r.suspects.is_empty() && r.bad_checkpoints == 0;
    Ok(if fine { Outcome::Fine } else { Outcome::FoundWrong })
}

fn shown(why: &Explanation) -> Shown {
    let (t, r) = (&why.trail, &why.report);
    let segment = |s: &SegmentFinding| ShownSegment {
        id: s.id,
        sealed: s.sealed,
        records: s.records,
        end: s.end,
        follows: s.follows.map(|lsn| lsn.to_string()),
        in_log: s.in_log,
        past_hole: s.past_hole,
    };
    let record = |f: &RecordFinding| ShownRecord {
        at: f.at.to_string(),
        file: f.path.clone(),
        state: format!("{:?}", f.state).to_lowercase(),
        torn: f.torn,
        old_bytes: f.old_bytes,
        one_flip: f.one_flip,
        was_whole: f.was_whole,
        verdict: format!("{:?}", f.verdict).to_lowercase(),
    };
    let errors = |all: &[raftwood::Error]| all.iter().map(|e| with_causes(e)).collect();
    Shown {
        in_use: why.in_use,
        opens: why.refusal.is_none(),
        refusal: why.refusal.as_ref().map(|e| with_causes(e)),
        checkpoint: r.checkpoint,
        bad_checkpoints: r.bad_checkpoints,
        durable: t.durable.to_string(),
        proof: proof(t.proof),
        end: why.end.to_string(),
        hole: t.hole.map(|lsn| lsn.to_string()),
        acknowledged: t.acknowledged.map(|lsn| lsn.to_string()),
        torn_bytes: r.torn_bytes,
        segments: t.segments.iter().map(segment).collect(),
        judged: t.judged.iter().map(record).collect(),
        suspects: errors(&r.suspects),
        damage: errors(&r.damage),
    }
}

fn proof(proof: Proof) -> String {
    match proof {
        Proof::Nothing => "nothing says how far".to_string(),
        Proof::Checkpoint => "the checkpoint".to_string(),
        Proof::Mark => "MARK".to_string(),
        Proof::Segment(id) => format!("segment {id}"),
        other => format!("{other:?}"),
    }
}

fn print(args: &Args, why: &Explanation) -> Result<(), Failure> {
    let (t, r) = (&why.trail, &why.report);
    match &why.refusal {
        None => say!("{}: opens", args.dir.display())?,
        Some(e) => say!("{}: DOES NOT OPEN\n  {}", args.dir.display(), with_causes(e))?,
    }
    if r.bad_checkpoints > 0 {
        say!("  {} could not be believed", count(r.bad_checkpoints, "newer checkpoint"))?;
    }
    match r.checkpoint {
        0 => say!("  no checkpoint serves: the table is rebuilt from the log alone")?,
        n => say!("  checkpoint {n} serves; the log from there on is replayed")?,
    }
    match t.proof {
        Proof::Nothing => say!("  nothing says how far the log was durable")?,
        by => say!("  durable up to {}: {} says so", t.durable, proof(by))?,
    }
    for segment in &t.segments {
        say!("  segment {}", of_segment(segment))?;
    }
    match (t.hole, t.acknowledged) {
        (Some(hole), Some(proof)) => {
            say!("  no record follows at {hole}, and the log was durable up to {proof}:")?;
            say!("    what is missing there was acknowledged. That is damage, and no tear")?;
        }
        (Some(hole), None) => {
            say!("  no record follows at {hole}, and nothing proves that one was acknowledged there:")?;
            say!("    the log ends there")?;
        }
        (None, _) => say!("  the log was not followed to its end")?,
    }
    if why.in_use {
        say!("  an engine has the store open: the end of its log is being written, and is not judged")?;
    }
    for (n, finding) in t.judged.iter().enumerate() {
        if n == 0 {
            say!("  past the durable position:")?;
        }
        let (state, verdict) = of_record(finding);
        say!("    {}  {state}\n      {verdict}", finding.at)?;
    }
    if r.torn_bytes > 0 {
        say!("  {} are dropped", count(r.torn_bytes, "byte"))?;
    }
    for e in &r.damage {
        say!("  DAMAGE {}", with_causes(e))?;
    }
    for e in &r.suspects {
        say!("  SUSPECT {}", with_causes(e))?;
    }
    say!("  the log ends at {}", why.end)
}

fn of_segment(s: &SegmentFinding) -> String {
    let from = match s.follows {
        Some(Lsn::ZERO) => ", the first of the store".to_string(),
        Some(at) => format!(", follows the record that ends at {at}"),
        None if s.records == 0 && !s.sealed => String::new(),
        None => ", the header of its first record cannot be read".to_string(),
    };
    let what = match s.sealed {
        true => format!("sealed, ends at {}", s.end),
        false => format!("{}, the last ends at {}", count(s.records, "record"), s.end),
    };
    let hole = match s.past_hole {
        0 => String::new(),
        n => format!("; {} of records stand past a place that cannot be read", size(n)),
    };
    match (s.in_log, s.records == 0 && !s.sealed) {
        (_, true) => format!("{}: prepared, holds no record{hole}", s.id),
        (true, _) => format!("{}: {what}{from}{hole}", s.id),
        (false, _) => format!("{}: NO PART OF THE LOG: {what}{from}, which is not its end{hole}", s.id),
    }
}

/// What stands there, and what becomes of it and why.
fn of_record(f: &RecordFinding) -> (&'static str, String) {
    let state = match f.state {
        RecordState::Right => "a whole record",
        RecordState::WrongInPayload => "a record with payloads that are wrong",
        _ => "no record that could be read",
    };
    let verdict = match f.verdict {
        Verdict::Keep => "kept: it is written again where the new run begins".to_string(),
        Verdict::Torn if f.torn => {
            "torn: sectors of it were never written, so it was never acknowledged".to_string()
        }
        Verdict::Torn => {
            "torn: the file was used before, and a sector that was not written shows older bytes; \
             so it was never acknowledged"
                .to_string()
        }
        Verdict::Fence if f.one_flip => {
            "suspect: one flipped bit explains it, as rot does; kept, and its wrong entries are fenced"
                .to_string()
        }
        Verdict::Fence => {
            "suspect: nothing shows that it was torn, it may have been acknowledged; kept, and its wrong \
             entries are fenced"
                .to_string()
        }
        Verdict::Refuse => format!(
            "in doubt: nothing shows that it was torn, and nothing says whose it was; the open refuses{}",
            if f.was_whole { ". A recovery before had found it whole: it has rotted" } else { "" }
        ),
        Verdict::Lose => {
            "dropped, because the tail policy says so; it may have been acknowledged".to_string()
        }
        other => format!("{other:?}"),
    };
    (state, verdict)
}
