//! `raftwood dump`: the entries of a store, and what else its regions hold.

use crate::out::{count, say, with_causes};
use crate::{Failure, Outcome};
use raftwood::{Entry, Error, ErrorKind, Health, LogState, Options, ReadLimit, Reader, RegionId};
use serde::Serialize;
use std::fmt::Write;
use std::path::PathBuf;

/// Arguments of `dump`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The directory of the store.
    dir: PathBuf,
    /// Only this region; may be given several times.
    #[arg(long = "region", value_name = "ID")]
    regions: Vec<u64>,
    /// Entries from this index on.
    #[arg(long, value_name = "INDEX", default_value_t = 0)]
    from: u64,
    /// Entries up to this index, it included.
    #[arg(long, value_name = "INDEX", default_value_t = u64::MAX, hide_default_value = true)]
    to: u64,
    /// How payloads, hard states and values are printed.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// At most so many bytes of each payload; 0 prints none of it. JSON has all of it unless this is given.
    #[arg(long, value_name = "BYTES")]
    payload_bytes: Option<usize>,
    /// Also entries that are not known to be on the device, which a power cut may take; they are marked.
    #[arg(long)]
    unproven: bool,
    /// One JSON object a line: the same as --format json.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// As text; bytes that are none are escaped.
    Text,
    /// As hexadecimal digits.
    Hex,
    /// One JSON object a line; bytes as hexadecimal digits.
    Json,
}

/// So much of a payload stands in a line of text.
const LINE_BYTES: usize = 40;

/// So many bytes of payload are read at once.
const CHUNK: ReadLimit = ReadLimit::bytes(1 << 20);

/// How often a dump looks anew at a store whose engine gives files back. Each look goes on where the one
/// before ended, so a dump that needs more of them falls behind the engine.
const LOOKS_MAX: u32 = 100;

/// Runs `dump`.
pub(crate) fn run(args: &Args) -> Result<Outcome, Failure> {
    let format = if args.json { Format::Json } else { args.format };
    let reader = Options::new().open_read_only(&args.dir)?;
    let all: Vec<RegionId> = reader.regions().iter().map(|r| r.id).collect();
    let asked: Vec<RegionId> = args.regions.iter().map(|id| RegionId(*id)).collect();
    if let Some(id) = asked.iter().find(|id| all.binary_search(id).is_err()) {
        return Err(Failure::new(format!("there is no region {} in {}", id.0, args.dir.display())));
    }
    let regions = if asked.is_empty() { all } else { asked };
    let wrong = reader.report().damage.len() as u64;
    let mut dump = Dump { args, format, reader, looks: 0, wrong };
    for error in dump.reader.report().damage.clone() {
        dump.damage(None, &error)?;
    }
    for id in regions {
        dump.region(id)?;
    }
    Ok(if dump.wrong == 0 { Outcome::Fine } else { Outcome::FoundWrong })
}

struct Dump<'a> {
    args: &'a Args,
    format: Format,
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
        payload: Option<String>,
    },
    Damage {
        region: Option<u64>,
        index: Option<u64>,
        error: String,
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
            let last = if self.args.unproven { state.last } else { state.durable.min(state.last) };
            let to = last.min(self.args.to).min(before);
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
                    self.reader = Options::new().open_read_only(&self.args.dir)?;
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

    fn head(&self, id: RegionId) -> Result<(), Failure> {
        let state = self.reader.state(id);
        let (hard_state, health) = (self.reader.hard_state(id), self.reader.health(id));
        let keys = self.reader.scan(id, b"");
        if self.format == Format::Json {
            let hard_state = hard_state.map(|value| hex(&value));
            self.json(&Line::Region {
                region: id.0,
                base_index: state.base.map(|b| b.index),
                base_term: state.base.map(|b| b.term),
                first: state.first,
                last: state.last,
                durable: state.durable,
                hard_state,
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
        let base = state.base.map_or(String::new(), |b| format!(", base {} of term {}", b.index, b.term));
        let unproven = match state.last.saturating_sub(state.durable) {
            0 => String::new(),
            _ if state.is_empty() => String::new(),
            n if self.args.unproven => format!(", {} not known to be on the device", count(n, "entry")),
            n => format!(", {} not known to be on the device (--unproven prints them)", count(n, "entry")),
        };
        say!("region {}: {log}{base}{unproven}", id.0)?;
        if health != Health::Healthy {
            say!("  HEALTH {}", described(&health))?;
        }
        if let Some(value) = hard_state {
            say!("  hard state  {}", self.bytes(&value, None))?;
        }
        for (key, value) in keys {
            say!("  key  {} = {}", self.bytes(&key, None), self.bytes(&value, Some(LINE_BYTES)))?;
        }
        if !state.is_empty() {
            say!("  {:>12}  {:>8}  {:>9}  payload", "index", "term", "bytes")?;
        }
        Ok(())
    }

    fn entry(&self, id: RegionId, state: &LogState, entry: &Entry) -> Result<(), Failure> {
        let durable = entry.id.index <= state.durable;
        let bytes = entry.payload.len();
        if self.format == Format::Json {
            let shown = &entry.payload[..bytes.min(self.args.payload_bytes.unwrap_or(usize::MAX))];
            let payload = (self.args.payload_bytes != Some(0)).then(|| hex(shown));
            let (index, term) = (entry.id.index, entry.id.term);
            return self.json(&Line::Entry { region: id.0, index, term, bytes, durable, payload });
        }
        let mark = if durable { "" } else { "unproven  " };
        let payload = self.bytes(&entry.payload, Some(LINE_BYTES));
        say!("  {:>12}  {:>8}  {bytes:>9}  {mark}{payload}", entry.id.index, entry.id.term)
    }

    fn damage(&self, of: Option<(RegionId, u64)>, error: &Error) -> Result<(), Failure> {
        let says = with_causes(error);
        match self.format {
            Format::Json => self.json(&Line::Damage {
                region: of.map(|(id, _)| id.0),
                index: of.map(|(_, index)| index),
                error: says,
            }),
            _ => match of {
                Some((_, index)) => say!("  {index:>12}  DAMAGE {says}"),
                None => say!("DAMAGE {says}"),
            },
        }
    }

    /// Bytes for people, no more than asked for.
    fn bytes(&self, all: &[u8], usual: Option<usize>) -> String {
        let max = self.args.payload_bytes.or(usual).unwrap_or(usize::MAX);
        let shown = &all[..all.len().min(max)];
        let more = if shown.len() < all.len() && max > 0 { "..." } else { "" };
        match self.format {
            Format::Hex | Format::Json => format!("{}{more}", hex(shown)),
            Format::Text => format!("{}{more}", shown.escape_ascii()),
        }
    }

    fn json(&self, line: &Line) -> Result<(), Failure> {
        say!("{}", serde_json::to_string(line)?)
    }
}

/// Whether the error says something of this one entry, after which the next can be read.
fn is_of_the_bytes(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Damaged | ErrorKind::Io)
}

fn described(health: &Health) -> String {
    match health {
        Health::Healthy => "healthy".to_string(),
        Health::Suspect { ranges } => format!("suspect: entries {}", listed(ranges)),
        Health::Damaged { ranges, hard_state } => {
            let hard_state = format!("{hard_state:?}").to_lowercase();
            format!("damaged: entries {}, hard state {hard_state}", listed(ranges))
        }
        other => format!("{other:?}"),
    }
}

fn listed(ranges: &[(u64, u64)]) -> String {
    let all: Vec<String> = ranges.iter().map(|(a, b)| format!("{a}..={b}")).collect();
    if all.is_empty() { "none".to_string() } else { all.join(", ") }
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        // A string takes everything.
        let _ = write!(text, "{byte:02x}");
    }
    text
}
