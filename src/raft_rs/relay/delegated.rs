//! An append without its entries, and how they are filled in.

use super::super::codec::id_of;
use super::super::storage::RegionStorage;
use crate::{EntryId, Error, ErrorKind, ReadLimit, Result};
use raft::prelude::{Message, MessageType};

/// The most bytes of payload that are filled into one message (64 MiB), unless one entry alone is larger. A
/// leader's `max_size_per_msg` is far below it.
pub const FILL_BYTES_MAX: u64 = 64 << 20;

/// An append message whose entries are to be filled in by a replica that has them.
#[derive(Clone, Debug, PartialEq)]
pub struct Delegated {
    /// The message for the follower `message.to`, without entries.
    pub message: Message,
    /// The last of the entries that belong into it; the first is the one after `message.index`.
    pub last: EntryId,
}

impl Delegated {
    /// Takes the entries out of an append message. Any other message, and an append without entries, comes
    /// back unchanged: send it directly.
    ///
    /// # Errors
    /// The message, unchanged.
    #[allow(clippy::result_large_err)] // the message comes back, it is no error
    pub fn new(mut message: Message) -> Result<Delegated, Message> {
        let last = match message.get_entries().last() {
            Some(last) if message.get_msg_type() == MessageType::MsgAppend => id_of(last),
            _ => return Err(message),
        };
        message.set_entries(Vec::new().into());
        Ok(Delegated { message, last })
    }

    /// At the agent: reads the entries on a thread of the engine, and hands the message, whole
    /// again, to `done`.
    ///
    /// The entries are the leader's: before and after reading, the agent's log must have the same term
    /// at the entry before the first and at the last, and logs that agree on an entry agree on all
    /// before it (Raft's log matching).
    ///
    /// # Errors
    /// `done` is given `Unavailable` or `Compacted` if this log does not have the leader's entries (yet): try
    /// again after the next append, or notify the leader, which calls `report_unreachable` and sends
    /// directly. `TooLarge` if the entries are more than [`FILL_BYTES_MAX`], whatever the wire says is their
    /// last. `WouldBlock` at once, on this thread, where [too many reads
    /// wait](crate::Options::fetch_queue_max). Other errors are those of reading.
    pub fn fill(self, storage: &RegionStorage, done: impl FnOnce(Result<Message>) + Send + 'static) {
        if let Err(e) = self.check(storage) {
            return done(Err(e));
        }
        let storage = storage.clone();
        let (first, last) = (self.message.get_index() + 1, self.last.index);
        let limit = ReadLimit::bytes(FILL_BYTES_MAX);
        storage.clone().engine().fetch(storage.region().id(), first..=last, limit, move |read| {
            let filled = read.and_then(|stored| {
                if stored.last().is_none_or(|e| e.id.index != last) {
                    let why = format!(
                        "entries {first}..={last} are more than {FILL_BYTES_MAX} bytes (FILL_BYTES_MAX)"
                    );
                    return Err(Error::new(ErrorKind::TooLarge, why).in_region(storage.region().id()));
                }
                let entries = storage.decode(&stored, None)?;
                // It may have been overwritten between the check and the read.
                self.check(&storage)?;
                let mut message = self.message;
                message.set_entries(entries.into());
                Ok(message)
            });
            done(filled);
        });
    }

    /// Whether the log has the leader's entries now, by the two terms that frame them.
    pub(super) fn check(&self, storage: &RegionStorage) -> Result<()> {
        let region = storage.region();
        let before = EntryId::new(self.message.get_log_term(), self.message.get_index());
        if before.index >= self.last.index {
            return Err(Error::new(ErrorKind::InvalidArgument, "the delegated message has no entries")
                .in_region(region.id()));
        }
        for id in [before, self.last] {
            let term = region.term(id.index)?;
            if term != id.term {
                let why = format!("entry {} has term {term} here, and {} at the leader", id.index, id.term);
                return Err(Error::new(ErrorKind::Unavailable, why).in_region(region.id()));
            }
        }
        Ok(())
    }
}
