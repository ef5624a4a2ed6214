//! `raftwood dump`: the entries of a store, and what else its regions hold.

use crate::decode::Decode;
use crate::inspect::described;
use crate::out::{count, hex, say, say_json, with_causes};
use crate::{Failure, Outcome, records};
use raftwood::{Entry, Error, ErrorKind, Health, LogState, Lsn, Options, ReadLimit, Reader, RegionId};
use serde::Serialize;
use std::path::PathBuf;

/// Arguments of `dump`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The directory of the store.
    pub(crate) dir: PathBuf,
    /// Only this region; may be given several times.
    #[arg(long = "region", value_name = "ID")]
    pub(crate) regions: Vec<u64>,
    /// Entries from this index on.
    #[arg(long, value_name = "INDEX", default_value_t = 0)]
    from: u64,
    /// Entries up to this index, it included.
    #[arg(long, value_name = "INDEX", default_value_t = u64::MAX, hide_default_value = true)]
    to: u64,
    /// The log, record by record in its order, instead of the regions: what each write did.
    #[arg(long, conflicts_with_all = ["from", "to"])]
    pub(crate) records: bool,
    /// The same, and go on as the engine does, until interrupted or until nobody reads the output.
    #[arg(long, conflicts_with_all = ["from", "to"])]
    pub(crate) follow: bool,
    /// Records from this position on: the `end` of the last one that was seen.
    #[arg(long, value_name = "SEGMENT:OFFSET", value_parser = position)]
    pub(crate) since: Option<Lsn>,
    /// The entries of each record too.
    #[arg(long)]
    pub(crate) entries: bool,
    /// Whose payloads and hard states these are: shows in words what the adapter stored of its library's.
    #[arg(long, value_enum, default_value_t = Decode::None)]
    pub(crate) decode: Decode,
    /// How payloads, hard states and values are printed.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// At most so many bytes of each payload; 0 prints none of it. JSON has all of it unless this is given.
    #[arg(long, value_name = "BYTES")]
    payload_bytes: Option<usize>,
    /// Also what is not known to be on the device, which a power cut may take; it is marked.
    #[arg(long)]
    pub(crate) unproven: bool,
    /// One JSON object a line: the same as --format json.
    #[arg(long)]
    json: bool,
}

impl Args {
    /// Whether it prints JSON.
    pub(crate) fn is_json(&self) -> bool {
        self.json || self.format == Format::Json
    }

    /// Bytes for people: as many as asked for, else as many as fit into so many columns.
    pub(crate) fn bytes(&self, all: &[u8], columns: Option<usize>) -> String {
        let text = |bytes: &[u8]| match self.format {
            Format::Hex | Format::Json => hex(bytes),
            Format::Text => bytes.escape_ascii().to_string(),
        };
        let width = |byte: u8| match self.format {
            Format::Hex | Format::Json => 2,
            Format::Text => std::ascii::escape_default(byte).len(),
        };
        let fits = |columns: usize| {
            let ends = all.iter().scan(0, |end, byte| {
                *end += width(*byte);
                Some(*end)
            });
            ends.take_while(|end| *end <= columns).count()
        };
        let shown = match (self.payload_bytes, columns) {
            (Some(most), _) => all.len().min(most),
            (None, Some(columns)) if fits(columns) < all.len() => fits(columns.saturating_sub(MORE.len())),
            (None, _) => all.len(),
        };
        let more = if shown < all.len() && self.payload_bytes != Some(0) { MORE } else { "" };
        format!("{}{more}", text(&all[..shown]))
    }

    /// A payload for programs, unless none of it is asked for.
    pub(crate) fn payload(&self, all: &[u8]) -> Option<String> {
        let shown = &all[..all.len().min(self.payload_bytes.unwrap_or(usize::MAX))];
        (self.payload_bytes != Some(0)).then(|| hex(shown))
    }

    /// A payload for people, decoded if that was asked for, in so many columns unless told otherwise.
    pub(crate) fn entry_text(&self, entry: &Entry, columns: usize) -> String {
        match self.decode.entry(entry) {
            Some(d) if d.rest.is_empty() => d.words,
            Some(d) => {
                let left = columns.saturating_sub(d.words.len() + 2);
                format!("{}: {}", d.words, self.bytes(d.rest, Some(left)))
            }
            None => self.bytes(&entry.payload, Some(columns)),
        }
    }

    /// A hard state for people.
    pub(crate) fn hard_state_text(&self, value: &[u8]) -> String {
        match self.decode.hard_state(value) {
            Some(d) if d.rest.is_empty() => d.words,
            Some(d) => format!("{}: {}", d.words, self.bytes(d.rest, None)),
            None => self.bytes(value, None),
        }
    }

    /// The regions that were asked for; none for all.
    pub(crate) fn shows(&self, region: RegionId) -> bool {
        self.regions.is_empty() || self.regions.contains(&region.0)
    }
}

/// A position as it is printed: `segment:offset`.
fn position(text: &str) -> Result<Lsn, String> {
    let parts = text.split_once(':').and_then(|(s, o)| Some((s.parse().ok()?, o.parse().ok()?)));
    let (segment, offset) = parts.ok_or("a position is SEGMENT:OFFSET, as records are printed with")?;
    Ok(Lsn::new(segment, offset))
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// As text; bytes that are none are escaped.
    Text,
    /// As hexadecimal digits.
    Hex,
    /// One JSON object a line; bytes as hexadecimal digits.
    Json,
}

/// A payload has so many columns in a line of 80.
pub(crate) const PAYLOAD_COLUMNS: usize = 43;

/// Stands for the bytes that are not printed.
const MORE: &str = "...";

/// So many bytes of payload are read at once.
const CHUNK: ReadLimit = ReadLimit::bytes(1 << 20);

/// How often a dump looks anew at a store whose engine gives files back. Each look goes on where the one
/// before ended, so a dump that needs more of them falls behind the engine.
const LOOKS_MAX: u32 = 100;

/// Runs `dump`.
pub(crate) fn run(args: &Args) -> Result<Outcome, Failure> {
    if args.records || args.follow {
        return records::run(args);
    }
    if args.from > args.to {
        return Err(Failure::new(format!(
            "--from {} is past --to {}: no entry is asked for",
            args.from, args.to
        )));
    }
    let reader = Options::new().open_read_only(&args.dir)?;
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
        let base = state.base.map_or(String::new(), |b| format!(", base {} of term {}", b.index, b.term));
        let unproven = match state.last.saturating_sub(state.durable) {
            0 => None,
            _ if state.is_empty() => None,
            n if self.args.unproven => Some(format!("{} not known to be on the device", count(n, "entry"))),
            n => {
                Some(format!("{} not known to be on the device (--unproven prints them)", count(n, "entry")))
            }
        };
        say!("region {}: {log}{base}", id.0)?;
        if let Some(unproven) = unproven {
            say!("  {unproven}")?;
        }
        if health != Health::Healthy {
            say!("  HEALTH {}", described(&health))?;
        }
        if let Some(value) = hard_state {
            say!("  hard state  {}", self.args.hard_state_text(&value))?;
        }
        for (key, value) in keys {
            let (key, value) = (self.args.bytes(&key, None), self.args.bytes(&value, Some(PAYLOAD_COLUMNS)));
            say!("  key  {key} = {value}")?;
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
        let payload = self.args.entry_text(entry, PAYLOAD_COLUMNS - mark.len());
        say!("  {:>12}  {:>8}  {bytes:>9}  {mark}{payload}", entry.id.index, entry.id.term)
    }

    fn damage(&self, of: Option<(RegionId, u64)>, error: &Error) -> Result<(), Failure> {
        let says = with_causes(error);
        let (region, index) = (of.map(|(id, _)| id.0), of.map(|(_, index)| index));
        match of {
            _ if self.args.is_json() => self.json(&Line::Damage { region, index, error: says }),
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
