//! `raftwood diff`: where the logs of two replicas first differ.

use crate::out::{count, in_columns, say, say_json};
use crate::{Failure, Outcome};
use raftwood::{Error, ErrorKind, Options, Reader, RegionId};
use serde::Serialize;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Arguments of `diff`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The directory of one store.
    a: PathBuf,
    /// The directory of the other.
    b: PathBuf,
    /// Only this region; may be given several times.
    #[arg(long = "region", value_name = "ID")]
    regions: Vec<u64>,
    /// Also entries that are not known to be on the device.
    #[arg(long)]
    unproven: bool,
    /// Also regions that are equal.
    #[arg(long)]
    all: bool,
    /// One JSON object a region.
    #[arg(long)]
    pub(crate) json: bool,
}

/// So many entries are compared by one digest. Of the first of these that differ, halves are, and so on.
const STRETCH: u64 = 64 << 10;

/// How often it looks anew at a store whose engine gives files back.
const LOOKS_MAX: u32 = 100;

/// What was found of one region.
#[derive(Serialize)]
struct Line {
    kind: &'static str,
    region: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    a: Option<Side>,
    #[serde(skip_serializing_if = "Option::is_none")]
    b: Option<Side>,
    /// Entries that both have, and that were compared.
    #[serde(skip_serializing_if = "Option::is_none")]
    common: Option<(u64, u64)>,
    /// The first that differs.
    #[serde(skip_serializing_if = "Option::is_none")]
    index: Option<u64>,
}

/// The log of one of the two.
#[derive(Serialize)]
struct Side {
    first: u64,
    last: u64,
    /// Of the entry that differs.
    #[serde(skip_serializing_if = "Option::is_none")]
    term: Option<u64>,
}

/// Runs `diff`.
pub(crate) fn run(args: &Args) -> Result<Outcome, Failure> {
    let mut stores = Stores::open(args)?;
    let asked: BTreeSet<u64> = args.regions.iter().copied().collect();
    let all = |reader: &Reader| reader.regions().iter().map(|r| r.id.0).collect::<BTreeSet<u64>>();
    let (in_a, in_b) = (all(&stores.a), all(&stores.b));
    let ids = if asked.is_empty() { in_a.union(&in_b).copied().collect() } else { asked };
    if let Some(id) = ids.iter().find(|id| !in_a.contains(id) && !in_b.contains(id)) {
        return Err(Failure::new(format!("there is no region {id} in either store")));
    }
    let mut differing = 0;
    for id in &ids {
        let line = stores.compare(args, RegionId(*id))?;
        differing += u64::from(line.kind != "equal");
        if line.kind != "equal" || args.all {
            if args.json { say_json(&line)? } else { print(&line)? }
        }
    }
    if !args.json {
        say!("{} compared, {differing} with differences", count(ids.len() as u64, "region"))?;
    }
    Ok(if differing == 0 { Outcome::Fine } else { Outcome::FoundWrong })
}

struct Stores {
    a: Reader,
    b: Reader,
    looks: u32,
}

impl Stores {
    fn open(args: &Args) -> Result<Stores, Failure> {
        let open = |dir: &Path| Options::new().show_unproven(args.unproven).open_read_only(dir);
        Ok(Stores { a: open(&args.a)?, b: open(&args.b)?, looks: 0 })
    }

    /// The same region in both, as often as it takes beside engines that give files back.
    fn compare(&mut self, args: &Args, id: RegionId) -> Result<Line, Failure> {
        loop {
            match self.difference(id) {
                Err(e) if e.kind() == ErrorKind::Locked && self.looks < LOOKS_MAX => {
                    *self = Stores { looks: self.looks + 1, ..Stores::open(args)? };
                }
                compared => return Ok(compared?),
            }
        }
    }

    fn difference(&self, id: RegionId) -> Result<Line, Error> {
        let side = |reader: &Reader| {
            let state = reader.state(id);
            Side { first: state.first, last: state.last, term: None }
        };
        let exists = |reader: &Reader| reader.regions().binary_search_by_key(&id, |r| r.id).is_ok();
        let mut line = Line {
            kind: "equal",
            region: id.0,
            a: Some(side(&self.a)),
            b: Some(side(&self.b)),
            common: None,
            index: None,
        };
        if !exists(&self.a) || !exists(&self.b) {
            line.kind = if exists(&self.a) { "only_a" } else { "only_b" };
            return Ok(line);
        }
        let (a, b) = (side(&self.a), side(&self.b));
        let (first, last) = (a.first.max(b.first), a.last.min(b.last));
        // The log of the one may go on where the other has not come to, or has dropped what was before.
        if first <= last && a.last > 0 && b.last > 0 {
            line.common = Some((first, last));
            let mut from = first;
            while from <= last && line.index.is_none() {
                let to = last.min(from.saturating_add(STRETCH - 1));
                line.index = self.first_difference(id, from, to)?;
                from = to + 1;
            }
        }
        if let Some(index) = line.index {
            line.kind = "differs";
            let term = |reader: &Reader| reader.term(id, index).ok();
            line.a = Some(Side { term: term(&self.a), ..a });
            line.b = Some(Side { term: term(&self.b), ..b });
        } else if a.last != b.last {
            line.kind = if a.last > b.last { "longer_a" } else { "longer_b" };
        }
        Ok(line)
    }

    /// The first entry of `from..=to` that differs, by halves.
    fn first_difference(&self, id: RegionId, mut from: u64, mut to: u64) -> Result<Option<u64>, Error> {
        let equal = |from, to| -> Result<bool, Error> {
            Ok(self.a.digest(id, from..=to)? == self.b.digest(id, from..=to)?)
        };
        if equal(from, to)? {
            return Ok(None);
        }
        while from < to {
            let middle = from + (to - from) / 2;
            match equal(from, middle)? {
                true => from = middle + 1,
                false => to = middle,
            }
        }
        Ok(Some(from))
    }
}

fn print(line: &Line) -> Result<(), Failure> {
    let id = line.region;
    let range = |side: &Option<Side>| match side {
        Some(s) if s.first <= s.last => format!("{}..={}", s.first, s.last),
        _ => "no entries".to_string(),
    };
    let term = |side: &Option<Side>| match side.as_ref().and_then(|s| s.term) {
        Some(term) => format!("term {term}"),
        None => "a term that cannot be read".to_string(),
    };
    let logs = format!("A {}, B {}", range(&line.a), range(&line.b));
    match (line.kind, line.index) {
        ("differs", Some(index)) => {
            let (a, b) = (term(&line.a), term(&line.b));
            let how = if a == b { format!("both of {a}, with other bytes") } else { format!("A {a}, B {b}") };
            let differs = format!("region {id}: DIFFERS from entry {index} on:");
            say!("{}\n  {logs}", in_columns(&differs, &how))
        }
        ("only_a", _) => say!("region {id}: only in A, {}", range(&line.a)),
        ("only_b", _) => say!("region {id}: only in B, {}", range(&line.b)),
        ("longer_a", _) => say!("region {id}: A goes on; what both have is equal\n  {logs}"),
        ("longer_b", _) => say!("region {id}: B goes on; what both have is equal\n  {logs}"),
        _ => say!("{}", in_columns(&format!("region {id}: equal,"), &logs)),
    }
}
