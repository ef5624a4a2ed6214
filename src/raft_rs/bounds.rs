//! Whether what raft accepts is what the engine accepts.

use crate::limits::{BATCH_BYTES_MAX, DESC_BYTES_MAX, ENTRY_BYTES_MAX};
use crate::{Error, ErrorKind, Result};
use raft::Config;

/// The largest proposal that [`check_proposal`] lets pass, in bytes of data and context: an entry's payload
/// has up to eleven more.
pub const PROPOSAL_BYTES_MAX: usize = ENTRY_BYTES_MAX - 11;

/// What the entries of one group may take in a batch, so that there is room for what describes them.
const GROUP_BYTES_MAX: usize = BATCH_BYTES_MAX - 2 * DESC_BYTES_MAX;

/// Refuses a proposal whose entry the engine would refuse: call it before `propose`. raft takes any size,
/// and cannot take back what [`ReadyBatch::add_as`](super::ReadyBatch::add_as) refuses.
///
/// `len` is that of data and context together, in bytes.
///
/// # Errors
/// `TooLarge` beyond [`PROPOSAL_BYTES_MAX`].
///
/// ```
/// use raftwood::raft_rs::{PROPOSAL_BYTES_MAX, check_proposal};
/// assert!(check_proposal(b"put x 1".len()).is_ok());
/// assert!(check_proposal(PROPOSAL_BYTES_MAX + 1).is_err());
/// ```
pub fn check_proposal(len: usize) -> Result<()> {
    if len <= PROPOSAL_BYTES_MAX {
        return Ok(());
    }
    let why = format!(
        "a proposal of {len} bytes refused: at most {PROPOSAL_BYTES_MAX} (PROPOSAL_BYTES_MAX); propose it in parts"
    );
    Err(Error::new(ErrorKind::TooLarge, why))
}

/// Whether a group with this `Config`, whose proposals have at most `proposal` bytes of data and context, can
/// come to a `Ready` that the engine refuses: call it once, where the groups' `Config` is made.
///
/// A `Ready` with too many bytes stops its replica, unless it is added
/// [in parts](super::ReadyBatch::add_in_parts). What raft bounds by count alone, or not at all, is not
/// checked: a batch describes at least 1.8 million entries ([`DESC_BYTES_MAX`]).
///
/// # Errors
/// `InvalidArgument`, with the name of the first field that lets too much through. `TooLarge` for
/// `proposal`, as [`check_proposal`].
///
/// ```
/// use raft::Config;
/// use raftwood::raft_rs::check_config;
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let config = Config {
///     max_size_per_msg: 1 << 20,
///     max_inflight_msgs: 128,
///     max_uncommitted_size: 256 << 20,
///     ..Config::default()
/// };
/// check_config(&config, 4 << 20)?; // no proposal is larger than 4 MiB
/// assert!(check_config(&Config::default(), 4 << 20).is_err());
/// # Ok(()) }
/// ```
pub fn check_config(config: &Config, proposal: usize) -> Result<()> {
    check_proposal(proposal)?;
    // A leader takes one proposal whatever the limit says.
    if config.max_uncommitted_size > GROUP_BYTES_MAX as u64 {
        return Err(Error::new(
            ErrorKind::InvalidArgument,
            format!(
                "Config::max_uncommitted_size refused: it lets a leader append {}, and one batch takes {GROUP_BYTES_MAX} of a \
             group; set it lower",
                size(config.max_uncommitted_size)
            ),
        ));
    }
    // An entry that is larger than the limit of a message goes alone.
    let message = config.max_size_per_msg.max(proposal as u64);
    let messages = config.max_inflight_msgs as u64;
    if message.saturating_mul(messages) > GROUP_BYTES_MAX as u64 {
        return Err(Error::new(
            ErrorKind::InvalidArgument,
            format!(
                "Config::max_inflight_msgs refused: {messages} appends of up to {} (max_size_per_msg, or a larger proposal) may \
             come to a follower before its next Ready, and one batch takes {GROUP_BYTES_MAX} bytes of a group; set either lower",
                size(message)
            ),
        ));
    }
    Ok(())
}

fn size(bytes: u64) -> String {
    if bytes == raft::NO_LIMIT { "any number of bytes".to_string() } else { format!("{bytes} bytes") }
}
