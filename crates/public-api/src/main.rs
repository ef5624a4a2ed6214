//! Prints the public API of a crate, of which rustdoc wrote JSON: an item a line.
//!
//! What is hidden from the documentation is no part of it (`internals`, `random`), nor what every type has.
//! Of the traits that the compiler implements by itself those are listed that a program notices the loss of.

use public_api::PublicItem;
use std::process::ExitCode;

/// Implemented by the compiler, and relied upon all the same.
const NOTICED: [&str; 3] = ["core::marker::Send", "core::marker::Sync", "core::marker::Unpin"];

/// All that it implements.
const BY_ITSELF: [&str; 6] = [
    NOTICED[0],
    NOTICED[1],
    NOTICED[2],
    "core::marker::Freeze",
    "core::panic::unwind_safe::RefUnwindSafe",
    "core::panic::unwind_safe::UnwindSafe",
];

fn main() -> ExitCode {
    let Some(path) = std::env::args().nth(1) else {
        eprintln!("usage: raftwood-public-api FILE.json");
        return ExitCode::from(2);
    };
    match public_api::Builder::from_rustdoc_json(&path).sorted(true).omit_blanket_impls(true).build() {
        Ok(api) => {
            api.items()
                .map(PublicItem::to_string)
                .filter(|item| is_listed(item))
                .for_each(|item| println!("{item}"));
            ExitCode::SUCCESS
        }
        Err(e) => {
            eprintln!("{path}: {e}");
            ExitCode::FAILURE
        }
    }
}

fn is_listed(item: &str) -> bool {
    let implements = |name: &&str| item.starts_with("impl") && item.contains(&format!(" {name} for "));
    !BY_ITSELF.iter().any(|name| implements(&name)) || NOTICED.iter().any(|name| implements(&name))
}
