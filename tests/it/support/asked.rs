//! A listener that remembers what it was asked to let go.

use raftwood::{BoxError, EventListener, RegionId, Rollback, RollbackCause};
use std::error::Error;
use std::sync::{Arc, Mutex};

/// Region, first and last index, and what discards them.
pub(crate) type Question = (RegionId, u64, u64, RollbackCause);

/// Refuses while it is told to.
#[derive(Default)]
pub(crate) struct Asked {
    asked: Mutex<Vec<Question>>,
    refuses: Mutex<bool>,
}

impl Asked {
    pub(crate) fn new() -> Arc<Asked> {
        Arc::default()
    }

    pub(crate) fn refuse(&self, yes: bool) {
        *self.refuses.lock().unwrap() = yes;
    }

    /// What it was asked since the last time.
    pub(crate) fn take(&self) -> Vec<Question> {
        std::mem::take(&mut *self.asked.lock().unwrap())
    }
}

impl EventListener for Asked {
    fn before_rollback(&self, r: &Rollback<'_>) -> Result<(), BoxError> {
        self.asked.lock().unwrap().push((r.region(), r.first(), r.last(), r.cause()));
        if *self.refuses.lock().unwrap() { Err("not these".into()) } else { Ok(()) }
    }
}

/// What an error says, with all that it was caused by.
pub(crate) fn with_causes(error: &dyn Error) -> String {
    let mut said = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        said += &format!(": {error}");
        cause = error.source();
    }
    said
}
