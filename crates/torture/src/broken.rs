//! A rule that does not hold: in words for people, and with the engine's own error for code, if there is one.

use raftwood::Error;
use std::fmt;

/// What does not hold.
#[derive(Clone, Debug)]
pub struct Broken {
    words: String,
    error: Option<Error>,
}

impl Broken {
    /// `what` failed with the engine's error.
    pub(super) fn by(what: &str, error: Error) -> Broken {
        Broken { words: format!("{what}: {error:?}"), error: Some(error) }
    }

    /// The same, with the moment before it.
    pub(super) fn when(self, when: &str) -> Broken {
        Broken { words: format!("{when}: {}", self.words), ..self }
    }

    /// What the engine answered, if that is what is wrong.
    pub(super) fn error(&self) -> Option<&Error> {
        self.error.as_ref()
    }
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words)
    }
}

impl From<String> for Broken {
    fn from(words: String) -> Broken {
        Broken { words, error: None }
    }
}

impl From<Broken> for String {
    fn from(broken: Broken) -> String {
        broken.words
    }
}
