//! `raftwood dump`: the entries of a store, and what else its regions hold.

use super::args::{Args, columns_after};
use crate::inspect::described;
use crate::out::{Damage, count, hex, in_columns, say, say_json, with_causes};
use crate::{Failure, Outcome};
use raftwood::{Entry, Error, ErrorKind, Health, LogState, ReadLimit, Reader, RegionId};
use serde::Serialize;

/// So many bytes of payload are read at once.
const CHUNK: ReadLimit = ReadLimit::bytes(1 << 20);

/// How often a dump looks anew at a store whose engine gives files back. Each look goes on where the one
/// before ended, so a dump that needs more of them falls behind the engine.
const LOOKS_MAX: u32 = 100;

/// Runs `dump` of regions.
pub(super) fn run(args: &Args) -> Result<Outcome, Failure> {
    if args.from > args.to {
        return Err(Failure::new(format!(
            "--from {} is past --to {}: no entry is asked for",
            args.from, args.to
        )));
    }
    let reader = args.look()?;
    let all: Vec<RegionId> = reader.regions().iter().map(|r| r.id).collect();
    let asked: Vec<RegionId> = args.regions.iter().map(|id| RegionId(*id)).collect();
    if let Some(id) = asked.iter().find(|id| all.binary_search(id).is_err()) {
        return Err(Failure::new(format!("there is no region {} in {}", id.0, args.dir.display())));
    }
    let regions = if asked.is_empty() { all } else { asked };
    let wrong = reader.report().damage.len() as u64;
    let mut dump = Dump { args, reader, looks: 0, wrong };
    for error in dump.reader.report().damage.clone() {
        dump.damage(None, &error)?;
    }
    for id in regions {
        dump.region(id)?;
    }
    dump.foot()?;
    Ok(if dump.wrong == 0 { Outcome::Fine } else { Outcome::FoundWrong })
}

struct Dump<'a> {
    args: &'a Args,
    reader: Reader,
    looks: u32,
    wrong: u64,
}

/// What a line of JSON is about.
#[derive(Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
enum Line {
    Region {
        region: u64,
        base_index: Option<u64>,
        base_term: Option<u64>,
        first: u64,
        last: u64,
        durable: u64,
        hard_state: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        decoded: Option<String>,
        health: String,
    },
    Key {
        region: u64,
        key: String,
        value: String,
    },
    Entry {
        region: u64,
        index: u64,
        term: u64,
        bytes: usize,
        durable: bool,
        #[serde(skip_serializing_if = "Option::is_none")]
        decoded: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        payload: Option<String>,
    },
}

impl Dump<'_> {
    fn region(&mut self, id: RegionId) -> Result<(), Failure> {
        self.head(id)?;
        let mut next = self.args.from.max(self.reader.state(id).first);
        // Entries before one that cannot be read are read alone.
        let mut before = u64::MAX;
        loop {
            let state = self.reader.state(id);
            next = next.max(state.first);
            let to = state.last.min(self.args.to).min(before);
            if state.is_empty() || next > to {
                return Ok(());
            }
            match self.reader.entries(id, next..=to, CHUNK) {
                Ok(entries) => {
                    for entry in &entries {
                        self.entry(id, &state, entry)?;
                        next = entry.id.index + 1;
                    }
                    if next > before {
                        before = u64::MAX;
                    }
                }
                Err(e) if e.kind() == ErrorKind::Locked && self.looks < LOOKS_MAX => {
                    self.looks += 1;
                    self.reader = self.args.look()?;
                }
                Err(e) => match e.entries().map(|indexes| *indexes.start()) {
                    Some(index) if index > next && index <= to => before = index - 1,
                    Some(index) if index == next && is_of_the_bytes(&e) => {
                        self.wrong += 1;
                        self.damage(Some((id, index)), &e)?;
                        (next, before) = (index + 1, u64::MAX);
                    }
                    _ => return Err(e.into()),
                },
            }
        }
    }

    /// Says that there is more than was shown.
    fn foot(&self) -> Result<(), Failure> {
        let (shown, written) = (self.reader.end(), self.reader.written());
        if written > shown && !self.args.is_json() {
            say!("{shown} to {written}: not known to be on the device (--unproven prints it)")?;
        }
        Ok(())
    }

    fn head(&self, id: RegionId) -> Result<(), Failure> {
        let state = self.reader.state(id);
        let (hard_state, health) = (self.reader.hard_state(id), self.reader.health(id));
        let keys = self.reader.scan(id, b"");
        if self.args.is_json() {
            let decoded =
                hard_state.as_ref().and_then(|value| Some(self.args.decode.hard_state(value)?.words));
            let hard_state = hard_state.map(|value| hex(&value));
            self.json(&Line::Region {
                region: id.0,
                base_index: state.base.map(|b| b.index),
                base_term: state.base.map(|b| b.term),
                first: state.first,
                last: state.last,
                durable: state.durable,
                hard_state,
                decoded,
                health: described(&health),
            })?;
            for (key, value) in keys {
                self.json(&Line::Key { region: id.0, key: hex(&key), value: hex(&value) })?;
            }
            return Ok(());
        }
        let log = match state.is_empty() {
            true => "no entries".to_string(),
            false => format!("entries {}..={}", state.first, state.last),
        };
        let base = state.base.map(|b| format!("base {} of term {}", b.index, b.term));
        let unproven = match state.last.saturating_sub(state.durable) {
            0 => None,
            _ if state.is_empty() => None,
            n => Some(format!("{} not known to be on the device", count(n, "entry"))),
        };
        let head = format!("region {}: {log}", id.0);
        say!("{}", base.map_or(head.clone(), |base| in_columns(&format!("{head},"), &base)))?;
        if let Some(unproven) = unproven {
            say!("  {unproven}")?;
        }
        if health != Health::Healthy {
            say!("  HEALTH {}", described(&health))?;
        }
        if let Some(value) = hard_state {
            let begin = "  hard state  ";
            say!("{begin}{}", self.args.hard_state_text(&value, columns_after(begin)))?;
        }
        for (key, value) in keys {
            let begin = format!("  key  {} = ", self.args.bytes(&key, None));
            say!("{begin}{}", self.args.bytes(&value, Some(columns_after(&begin))))?;
        }
        if !state.is_empty() {
            say!("  {:>12}  {:>8}  {:>9}  payload", "index", "term", "bytes")?;
        }
        Ok(())
    }

    fn entry(&self, id: RegionId, state: &LogState, entry: &Entry) -> Result<(), Failure> {
        let durable = entry.id.index <= state.durable;
        let bytes = entry.payload.len();
        if self.args.is_json() {
            let payload = self.args.payload(&entry.payload);
            let decoded = self.args.decode.entry(entry).map(|d| d.words);
            let (index, term) = (entry.id.index, entry.id.term);
            return self.json(&Line::Entry { region: id.0, index, term, bytes, durable, decoded, payload });
        }
        let mark = if durable { "" } else { "unproven  " };
        let begin = before_payload(entry.id.index, entry.id.term, bytes) + mark;
        let payload = self.args.entry_text(entry, columns_after(&begin));
        say!("{begin}{payload}")
    }

    fn damage(&self, of: Option<(RegionId, u64)>, error: &Error) -> Result<(), Failure> {
        let says = with_causes(error);
        match of {
            _ if self.args.is_json() => say_json(&Damage::new(of, says)),
            Some((_, index)) => say!("  {index:>12}  DAMAGE {says}"),
            None => say!("DAMAGE {says}"),
        }
    }

    fn json(&self, line: &Line) -> Result<(), Failure> {
        say_json(line)
    }
}

/// Whether the error says something of this one entry, after which the next can be read.
fn is_of_the_bytes(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Damaged | ErrorKind::Io)
}

/// What stands before a payload, in columns that are as wide as in the title unless a number is longer.
fn before_payload(index: u64, term: u64, bytes: usize) -> String {
    format!("  {index:>12}  {term:>8}  {bytes:>9}  ")
}
