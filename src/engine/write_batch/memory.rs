//! The memory of batches: what a refused one is restored from, and what the next one begins with.

use super::{Identity, WriteBatch};
use crate::format::batch::{Batch, Encoded};
use crate::index::Table;
use bytes::BytesMut;
use std::cell::Cell;
use std::sync::Arc;

/// What is left of a batch that was encoded: enough to restore it when it is refused.
pub(crate) struct Remains {
    pub(super) table: Arc<Table>,
    /// The payloads, where they went to the log in another form.
    pub(super) raw: Option<Vec<u8>>,
    pub(super) values: BytesMut,
    pub(super) inline_bytes: usize,
    pub(super) is_spoilt: bool,
}

impl Remains {
    /// The batch as it was.
    pub(crate) fn restore(self, encoded: Encoded) -> WriteBatch {
        let Remains { table, raw, values, inline_bytes, is_spoilt } = self;
        // Of the buffer that both lie in.
        drop(encoded.desc);
        let payload = raw.unwrap_or_else(|| Vec::from(encoded.payload));
        let identity = Identity::default();
        WriteBatch { table, batch: encoded.batch, payload, values, inline_bytes, is_spoilt, identity }
    }

    /// The batch was accepted: its memory is for the next one.
    pub(crate) fn recycle(self, encoded: Encoded) {
        let Encoded { batch, desc, payload, .. } = encoded;
        let body = if payload.is_empty() {
            desc
        } else {
            drop(desc);
            payload
        };
        // While others hold it, the log or a reader, it is theirs.
        let payload = if body.is_unique() { Vec::from(body) } else { Vec::new() };
        Memory { batch, payload, values: self.values }.give_back();
    }
}

/// The memory of a batch that was written, kept by the thread that wrote it for the next one that it makes. A
/// batch would take ten vectors that grow from nothing otherwise.
#[derive(Default)]
pub(super) struct Memory {
    pub(super) batch: Batch,
    pub(super) payload: Vec<u8>,
    pub(super) values: BytesMut,
}

/// Hard states share buffers of this size.
pub(super) const VALUES_BYTES: usize = 1 << 10;

/// The most that a thread keeps in each of them.
const KEPT_BYTES_MAX: usize = 128 << 10;

thread_local! {
    static SPARE: Cell<Option<Memory>> = const { Cell::new(None) };
}

impl Memory {
    pub(super) fn take() -> Memory {
        SPARE.try_with(Cell::take).ok().flatten().unwrap_or_default()
    }

    fn give_back(mut self) {
        let Batch { sections, ops, runs, entries, committed } = &self.batch;
        let kept = self.payload.capacity().max(self.values.capacity());
        let kept = kept.max(size_of_val(&sections[..]) + size_of_val(&ops[..]));
        let kept = kept.max(size_of_val(&runs[..]) + size_of_val(&entries[..]));
        let kept = kept.max(size_of_val(&committed[..]));
        if kept <= KEPT_BYTES_MAX {
            empty(&mut self.batch);
            self.payload.clear();
            // A thread that is ending keeps nothing.
            let _ = SPARE.try_with(|spare| spare.set(Some(self)));
        }
    }
}

pub(super) fn empty(batch: &mut Batch) {
    batch.sections.clear();
    batch.ops.clear();
    batch.runs.clear();
    batch.entries.clear();
    batch.committed.clear();
}
