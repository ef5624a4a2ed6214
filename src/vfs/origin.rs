//! Which process something was made in.
//!
//! After a `fork` without `exec` there are two of everything: two engines with one log, two owners of one
//! lock. The child's must do nothing. What must not work there therefore remembers its process, and asks
//! before each call; asking costs one load from memory, since a system call for every batch would be felt.

use super::map::WipedOnFork;

/// The process in which it was made.
#[derive(Debug)]
pub(crate) struct Origin {
    /// Intact in that process alone.
    page: Option<WipedOnFork>,
    /// For systems without such a page.
    process: u32,
}

impl Origin {
    /// This process.
    pub(crate) fn here() -> Origin {
        Origin { page: WipedOnFork::new(), process: std::process::id() }
    }

    /// Whether this still is the process, and not a fork of it.
    pub(crate) fn is_here(&self) -> bool {
        match &self.page {
            Some(page) => page.is_intact(),
            None => self.process == std::process::id(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_its_own_origin() {
        let origin = Origin::here();
        assert_eq!(origin.page.is_some(), cfg!(all(target_os = "linux", not(miri))));
        assert!(origin.is_here());
        let without = Origin { page: None, process: std::process::id() };
        assert!(without.is_here());
        assert!(!Origin { process: 0, ..without }.is_here());
    }
}
