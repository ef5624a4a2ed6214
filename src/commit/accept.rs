//! How a batch is to be accepted.

use crate::clock;
use crate::error::Result;
use crate::format::batch::{Batch, Encoded};
use crate::format::record::RecordKind;
use crate::index::Discard;
use crate::planted::{Bug, planted};
use crate::types::{Durability, RegionId, RollbackScope};
use bytes::Bytes;
use std::time::Instant;

/// What to do while the bound on bytes in flight is reached.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum OnFull {
    Wait,
    Fail,
}

/// Asked with what would be discarded, and by which batch; an error refuses the batch. Returns what is to
/// become a part of it.
pub(crate) type BeforeRollback<'a> = &'a dyn Fn(&[Discard], &Encoded) -> Result<Option<Encoded>>;

/// How a batch is to be accepted.
pub(crate) struct Accept<'a> {
    pub(crate) durability: Durability,
    pub(crate) on_full: OnFull,
    /// When the caller handed the batch over.
    pub(crate) began: Instant,
    pub(crate) origin: Origin<'a>,
}

/// Where a record comes from.
pub(crate) enum Origin<'a> {
    /// A caller: its operations are checked against the regions.
    Caller {
        /// Asked before entries are discarded, with no lock held; `None` when nobody listens.
        before_rollback: Option<BeforeRollback<'a>>,
        scope: RollbackScope,
    },
    /// The engine itself: recovery re-persists what was checked once, and nothing else of its own has
    /// operations.
    Engine,
}

impl Accept<'_> {
    /// For the engine's own records.
    pub(crate) fn internal(durability: Durability) -> Accept<'static> {
        Accept { durability, on_full: OnFull::Wait, began: clock::now(), origin: Origin::Engine }
    }

    /// The region that the batch appends to, as a spent disk budget sees it.
    pub(super) fn appends_to(&self, batch: &Batch) -> Option<RegionId> {
        match self.origin {
            Origin::Caller { .. } if planted(Bug::BudgetRefusesVotes) => {
                batch.sections.first().map(|section| section.region)
            }
            Origin::Caller { .. } => batch.appends_to(),
            Origin::Engine => None,
        }
    }
}

/// A record without content: it carries the durable watermark.
pub(super) fn watermark_record() -> Encoded {
    Encoded {
        kind: RecordKind::Watermark,
        batch: Batch::default(),
        blocks: Vec::new(),
        desc: Bytes::new(),
        desc_crc: crate::codec::checksum::crc32(0, &[]),
        payload: Bytes::new(),
    }
}
