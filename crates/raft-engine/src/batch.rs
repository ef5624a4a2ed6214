//! What is to be written, before it meets an engine.

use crate::error::{Error, Result};
use protobuf::Message;
use raftwood::limits::{
    BATCH_BYTES_MAX, DESC_BYTES_MAX, ENTRY_BYTES_MAX, INDEX_MAX, KEY_BYTES_MAX, VALUE_BYTES_MAX,
};

/// Says of a type of protobuf messages that they are entries, and where an entry stands in its log.
///
/// An implementation for raft-engine fits as it is. With [`term`](MessageExt::term) it may say more.
pub trait MessageExt: Send + Sync {
    /// The message.
    type Entry: Message + Clone + PartialEq;

    /// The index of an entry.
    fn index(entry: &Self::Entry) -> u64;

    /// The term of an entry; raft-engine knows no terms. Where it is `None`, the engine notes the term of the
    /// log's last entry, or 0 in a log that has none. Nothing that this crate reads depends on it: what reads
    /// a store through Raftwood's own API, or its tool, sees those terms.
    ///
    /// Terms that are given must not fall from one entry to the next: such a batch is refused.
    fn term(entry: &Self::Entry) -> Option<u64> {
        let _ = entry;
        None
    }
}

/// What may be done to a whole log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Forgets the region: entries and key-values.
    Clean,
    /// Drops the entries before an index.
    Compact {
        /// The first that stays.
        index: u64,
    },
}

/// Entries, commands and key-values of any regions: the atomic unit of writing. They apply in the order in
/// which they were added.
///
/// ```
/// use raftwood_raft_engine::{Command, LogBatch};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let mut batch = LogBatch::with_capacity(2);
/// batch.put(7, b"state".to_vec(), b"term 1".to_vec())?;
/// batch.add_command(9, Command::Clean);
/// assert!(!batch.is_empty());
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogBatch {
    pub(crate) items: Vec<Item>,
    /// Of all appends, in their order.
    pub(crate) entries: Vec<Meta>,
    /// The bytes of all entries, back to back.
    pub(crate) payload: Vec<u8>,
    /// Bytes of keys and values.
    inline_bytes: usize,
}

/// One operation on one region.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Item {
    pub(crate) region: u64,
    pub(crate) op: Op,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Op {
    /// The next `count` entries of the batch, from the index `first` on.
    Append {
        first: u64,
        count: usize,
    },
    Command(Command),
    Put {
        key: Vec<u8>,
        value: Vec<u8>,
    },
    Delete {
        key: Vec<u8>,
    },
}

/// An entry's bytes in the batch, and its term if that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Meta {
    pub(crate) len: usize,
    pub(crate) term: Option<u64>,
}

/// The one key that raft-engine keeps for itself. Nothing here uses it, and a store that has no such key can
/// go back there.
const RESERVED_KEY: &[u8] = b"__\x01";

/// What an operation takes in a batch's description at most, beside its key and value.
const ITEM_BYTES: usize = 104;

/// The same of an entry.
const ENTRY_BYTES: usize = 24;

impl LogBatch {
    /// An empty batch with room for `cap` operations.
    pub fn with_capacity(cap: usize) -> LogBatch {
        LogBatch { items: Vec::with_capacity(cap), ..LogBatch::default() }
    }

    /// Moves everything out of `rhs` to the end of this batch.
    ///
    /// # Errors
    /// `Full`; both are as they were then.
    pub fn merge(&mut self, rhs: &mut LogBatch) -> Result<()> {
        self.has_room(rhs.payload.len(), rhs.description_bytes())?;
        self.items.append(&mut rhs.items);
        self.entries.append(&mut rhs.entries);
        self.payload.append(&mut rhs.payload);
        self.inline_bytes += std::mem::take(&mut rhs.inline_bytes);
        Ok(())
    }

    /// Adds entries with consecutive indexes. Entries of the log from the first index on are replaced.
    ///
    /// # Errors
    /// `Full` when the batch would grow beyond 1 GiB; `InvalidArgument` when indexes are not consecutive, or
    /// an entry has more than 256 MiB; `Protobuf` when a message cannot be encoded. The batch is then as it
    /// was.
    pub fn add_entries<M: MessageExt>(&mut self, region_id: u64, entries: &[M::Entry]) -> Result<()> {
        let Some(first) = entries.first().map(M::index) else { return Ok(()) };
        if first > INDEX_MAX || INDEX_MAX - first < entries.len() as u64 - 1 {
            return Err(Error::invalid(format!("region {region_id}: an index is {INDEX_MAX} at most")));
        }
        let (old_entries, old_bytes) = (self.entries.len(), self.payload.len());
        let added = entries.iter().zip(first..).try_for_each(|(e, index)| self.add::<M>(region_id, e, index));
        if added.is_ok() {
            let op = Op::Append { first, count: entries.len() };
            self.items.push(Item { region: region_id, op });
        } else {
            self.entries.truncate(old_entries);
            self.payload.truncate(old_bytes);
        }
        added
    }

    fn add<M: MessageExt>(&mut self, region: u64, entry: &M::Entry, index: u64) -> Result<()> {
        if M::index(entry) != index {
            let found = M::index(entry);
            let why = format!("entry {found} stands where entry {index} is due: indexes are consecutive");
            return Err(Error::invalid(format!("region {region}: {why}")));
        }
        self.has_room(0, ENTRY_BYTES + ITEM_BYTES)?;
        let start = self.payload.len();
        entry.write_to_vec(&mut self.payload)?;
        let len = self.payload.len() - start;
        if len > ENTRY_BYTES_MAX {
            return Err(Error::invalid(format!(
                "region {region}: entry {index} has {len} bytes, and {ENTRY_BYTES_MAX} at most are taken"
            )));
        }
        self.has_room(0, ENTRY_BYTES + ITEM_BYTES)?;
        self.entries.push(Meta { len, term: M::term(entry) });
        Ok(())
    }

    /// Adds a command.
    pub fn add_command(&mut self, region_id: u64, cmd: Command) {
        self.items.push(Item { region: region_id, op: Op::Command(cmd) });
    }

    /// Removes a key of a region; fine if it is not there.
    pub fn delete(&mut self, region_id: u64, key: Vec<u8>) {
        // No such key was ever taken.
        if key != RESERVED_KEY && key.len() <= KEY_BYTES_MAX {
            self.inline_bytes += key.len();
            self.items.push(Item { region: region_id, op: Op::Delete { key } });
        }
    }

    /// Sets a key of a region to a message.
    ///
    /// # Errors
    /// As [`put`](LogBatch::put); `Protobuf` when the message cannot be encoded.
    pub fn put_message<S: Message>(&mut self, region_id: u64, key: Vec<u8>, s: &S) -> Result<()> {
        self.put(region_id, key, s.write_to_bytes()?)
    }

    /// Sets a key of a region.
    ///
    /// # Errors
    /// `Full` when keys and values of the batch would be more than 16 MiB; `InvalidArgument` for the key that
    /// raft-engine keeps for itself (`__` and a byte 1), a key of more than 4 KiB, a value of more than 1
    /// MiB.
    pub fn put(&mut self, region_id: u64, key: Vec<u8>, value: Vec<u8>) -> Result<()> {
        let refuse = |why: String| Err(Error::invalid(format!("region {region_id}: {why}")));
        if key == RESERVED_KEY {
            return refuse(format!("the key {key:?} is reserved"));
        }
        if key.len() > KEY_BYTES_MAX {
            return refuse(format!("a key of {} bytes, and {KEY_BYTES_MAX} at most are taken", key.len()));
        }
        if value.len() > VALUE_BYTES_MAX {
            let len = value.len();
            return refuse(format!(
                "key {key:?}: a value of {len} bytes, and {VALUE_BYTES_MAX} at most are taken"
            ));
        }
        self.has_room(0, key.len() + value.len() + ITEM_BYTES)?;
        self.inline_bytes += key.len() + value.len();
        self.items.push(Item { region: region_id, op: Op::Put { key, value } });
        Ok(())
    }

    /// Whether nothing was added.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// About as many bytes as it takes in the log, uncompressed; 0 when it is empty.
    pub fn approximate_size(&self) -> usize {
        self.payload.len() + self.description_bytes()
    }

    /// A bound of what names regions, entries and key-values.
    fn description_bytes(&self) -> usize {
        self.inline_bytes + ITEM_BYTES * self.items.len() + ENTRY_BYTES * self.entries.len()
    }

    /// Refuses here what the engine would refuse as too large.
    fn has_room(&self, payload: usize, description: usize) -> Result<()> {
        let description = self.description_bytes() + description;
        let all = self.payload.len() + payload + description;
        match description < DESC_BYTES_MAX && all < BATCH_BYTES_MAX {
            true => Ok(()),
            false => Err(Error::Full),
        }
    }

    /// Empties it and keeps the memory, unless that is much.
    pub(crate) fn clear(&mut self) {
        self.items.clear();
        self.entries.clear();
        self.payload.clear();
        self.payload.shrink_to(KEPT_BYTES_MAX);
        self.inline_bytes = 0;
    }
}

/// What a batch that is used again keeps of its memory.
const KEPT_BYTES_MAX: usize = 8 << 20;
