//! What an engine has to do here: take batches of entries of many regions, and give entries back.

use bytes::Bytes;
use std::error::Error;
use std::ops::Range;

/// What goes wrong ends the run; the report has the error's text.
pub(crate) type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// Bytes of a hard state: term, vote, commit and some.
pub(crate) const HARD_STATE_BYTES: usize = 40;

/// What a batch does to one region.
pub(crate) struct Part {
    pub(crate) region: u64,
    /// The index of its first entry.
    pub(crate) first: u64,
    pub(crate) hard_state: Option<[u8; HARD_STATE_BYTES]>,
    /// Entries that are not needed any more: all that the region has below the end. May be empty.
    pub(crate) dropped: Range<u64>,
    payloads: Range<usize>,
}

/// One atomic write. Used again and again, so that the harness allocates nothing for it.
#[derive(Default)]
pub(crate) struct Batch<'p> {
    /// Which writer makes it.
    pub(crate) writer: usize,
    parts: Vec<Part>,
    payloads: Vec<&'p Bytes>,
}

impl<'p> Batch<'p> {
    pub(crate) fn of(writer: usize) -> Batch<'p> {
        Batch { writer, ..Batch::default() }
    }

    pub(crate) fn clear(&mut self) {
        self.parts.clear();
        self.payloads.clear();
    }

    pub(crate) fn push(
        &mut self,
        region: u64,
        first: u64,
        payloads: impl Iterator<Item = &'p Bytes>,
        hard_state: Option<[u8; HARD_STATE_BYTES]>,
        dropped: Range<u64>,
    ) {
        let from = self.payloads.len();
        self.payloads.extend(payloads);
        self.parts.push(Part { region, first, hard_state, dropped, payloads: from..self.payloads.len() });
    }

    pub(crate) fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// The entries of a part, with their indexes.
    pub(crate) fn entries(&self, part: &Part) -> impl ExactSizeIterator<Item = (u64, &'p Bytes)> {
        let payloads = self.payloads[part.payloads.clone()].iter();
        payloads.enumerate().map(|(n, payload)| (part.first + n as u64, *payload))
    }

    /// Bytes of all payloads.
    pub(crate) fn bytes(&self) -> u64 {
        self.payloads.iter().map(|p| p.len() as u64).sum()
    }
}

/// Waits for what becomes of a batch that was handed over.
pub(crate) type Outcome = Box<dyn FnOnce() -> Result<()>>;

/// An engine that is open. All entries are of one term.
pub(crate) trait PeerLog: Send + Sync {
    /// Writes a batch, and returns when it is on the device (`synced`), or else when a killed
    /// process would not lose it.
    fn write(&self, batch: &Batch<'_>, synced: bool) -> Result<()>;

    /// Hands a batch over. It is on the device when the outcome is there.
    fn submit(&self, _batch: &Batch<'_>) -> Result<Outcome> {
        Err("it takes no batch without waiting for it".into())
    }

    /// Appends the payloads of those entries of the range that are there, in order.
    fn read(&self, region: u64, range: Range<u64>, out: &mut Vec<Bytes>) -> Result<()>;

    /// The hard state of a region.
    fn hard_state(&self, _region: u64) -> Result<Option<Vec<u8>>> {
        Ok(None)
    }

    /// What the program has to call now and then for space to be given back.
    fn upkeep(&self) -> Result<()> {
        Ok(())
    }

    /// Makes everything written so far durable.
    fn sync(&self) -> Result<()>;

    /// Ends all that runs in the background, and closes.
    fn close(self: Box<Self>) -> Result<()>;
}
