//! What the listeners have agreed that a batch may discard.

use super::accept::BeforeRollback;
use crate::error::{Error, ErrorKind, Result};
use crate::format::batch::Encoded;
use crate::index::Discard;

/// How often the listeners are asked about one batch whose region does not stand still meanwhile.
const ASKED_MAX: u32 = 100;

/// Of one batch. Its region may change while they are asked: then they are asked again.
#[derive(Default)]
pub(super) struct Approval {
    approved: Vec<Discard>,
    asked: u32,
    /// The batch as it was handed over, where listeners have added to it.
    handed_over: Option<Encoded>,
}

impl Approval {
    /// Whether something would be discarded that the listeners have not agreed to.
    pub(super) fn lacks(&self, discards: &[Discard]) -> bool {
        !discards.iter().all(|d| self.approved.iter().any(|a| a.covers(d)))
    }

    /// What the listeners are to be [asked](Approval::ask) about, once no lock is held.
    pub(super) fn note(&mut self, discards: &[Discard]) {
        discards.clone_into(&mut self.approved);
    }

    /// An error refuses the batch. What the listeners add is a part of it from here on; what they added when
    /// they were asked before is not.
    pub(super) fn ask(&mut self, before_rollback: BeforeRollback<'_>, batch: &mut Encoded) -> Result<()> {
        self.asked += 1;
        if self.asked > ASKED_MAX {
            return Err(self.asked_too_often());
        }
        self.take_back(batch);
        if let Some(evidence) = before_rollback(&self.approved, batch)? {
            let whole = batch.joined(&evidence);
            self.handed_over = Some(std::mem::replace(batch, whole));
        }
        Ok(())
    }

    /// The batch as it was handed over.
    pub(super) fn take_back(&mut self, batch: &mut Encoded) {
        if let Some(handed_over) = self.handed_over.take() {
            *batch = handed_over;
        }
    }

    fn asked_too_often(&self) -> Error {
        let error = Error::new(
            ErrorKind::Refused,
            format!(
                "the region changed each of the {ASKED_MAX} times that the listeners were asked what it may discard; does \
                 a thread that one of them waits for write to it?"
            ),
        );
        match self.approved.first() {
            Some(first) => error.in_region(first.region),
            None => error,
        }
    }
}
