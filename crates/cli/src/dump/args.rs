//! What `dump` can be asked for, and how it prints bytes.

use crate::decode::Decode;
use crate::out::{COLUMNS, hex};
use raftwood::{Entry, Error, Lsn, Options, Reader, RegionId};
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
    pub(super) from: u64,
    /// Entries up to this index, it included.
    #[arg(long, value_name = "INDEX", default_value_t = u64::MAX, hide_default_value = true)]
    pub(super) to: u64,
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
    pub(super) format: Format,
    /// At most so many bytes of each payload; 0 prints none of it. JSON has all of it unless this is given.
    #[arg(long, value_name = "BYTES")]
    pub(super) payload_bytes: Option<usize>,
    /// Also what is not known to be on the device, which a power cut may take; it is marked.
    #[arg(long)]
    pub(crate) unproven: bool,
    /// One JSON object a line: the same as --format json.
    #[arg(long)]
    pub(super) json: bool,
}

impl Args {
    /// A look at the store, of what is to be shown of it.
    pub(crate) fn look(&self) -> Result<Reader, Error> {
        Options::new().show_unproven(self.unproven).open_read_only(&self.dir)
    }

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
    pub(crate) fn hard_state_text(&self, value: &[u8], columns: usize) -> String {
        match self.decode.hard_state(value) {
            Some(d) if d.rest.is_empty() => d.words,
            Some(d) => {
                let left = columns.saturating_sub(d.words.len() + 2);
                format!("{}: {}", d.words, self.bytes(d.rest, Some(left)))
            }
            None => self.bytes(value, Some(columns)),
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

/// So many columns are left in a line that begins with this.
pub(super) fn columns_after(begin: &str) -> usize {
    COLUMNS.saturating_sub(begin.chars().count())
}

/// Stands for the bytes that are not printed.
const MORE: &str = "...";
