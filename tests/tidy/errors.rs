//! What happens next is decided by a type that the callee returns, not by looking into an error.

use super::{check, sources};

/// Where an error is looked into all the same, and why. A folder stands for all of its files.
const EDGES: &[(&str, &str)] = &[
    // What the operating system says becomes a type here.
    ("src/error.rs", "makes the kinds, and gives them the names that the standard library has"),
    ("src/vfs/meaning.rs", "makes types of what a Vfs fails with"),
    ("src/vfs/by_name.rs", "opens files again where descriptors lacked"),
    ("src/vfs/os.rs", "is the Vfs of the operating system"),
    ("src/vfs/faulty.rs", "is a Vfs that breaks what another promises"),
    ("src/vfs/conformance/", "checks what a Vfs fails with"),
    ("src/vfs/sim/", "is a Vfs whose directories have to be its own, and shows what a test panicked with"),
    ("src/recovery/unrecovered.rs", "makes types of what the layers below recovery fail with"),
    // What is shown of an error, or handed on as another's.
    ("src/commit/completion.rs", "shows what a callback panicked with"),
    ("src/engine/write_error.rs", "shows the kind of the error in it"),
    ("src/listener.rs", "chooses the event that shows an error of the background"),
    ("src/openraft_shared/mod.rs", "hands errors on as those of openraft"),
    ("src/raft_rs/mod.rs", "hands errors on as those of raft-rs"),
    ("src/raft_rs/ready.rs", "shows the kind of the error in it"),
    // Callers of the public API, which has nothing else.
    ("src/healing/healer.rs", "asks regions as users do"),
    ("src/engine/retry.rs", "is given what users were refused for"),
    ("src/raft_rs/far_reads.rs", "asks an engine as users do"),
    ("src/raft_rs/relay/agent.rs", "asks regions as users do"),
    ("src/raft_rs/storage.rs", "asks regions as users do"),
];

#[test]
fn what_happens_next_is_not_decided_by_looking_into_an_error() {
    let mut wrong = Vec::new();
    let mut used = vec![false; EDGES.len()];
    for source in sources("src") {
        let name = source.name();
        let edge = EDGES.iter().position(|(edge, _)| name == *edge || name.starts_with(edge));
        for (n, line) in source.code().filter(|(_, line)| looks_into_an_error(line)) {
            match edge {
                Some(edge) => used[edge] = true,
                None => wrong.push(format!("{name}:{n}: return a type that says what happens next: {line}")),
            }
        }
    }
    // A door that stands open is shut.
    let unused = EDGES.iter().zip(used).filter(|(_, used)| !used);
    wrong.extend(unused.map(|((edge, _), _)| format!("{edge} looks into no error: take it out of EDGES")));
    check(wrong);
}

fn looks_into_an_error(line: &str) -> bool {
    [".kind()", "::kind", "downcast", ".raw_os_error()", ".source()", "is_retryable()"]
        .iter()
        .any(|look| line.contains(look))
        && !line.contains("fn is_retryable")
}

#[test]
fn a_look_into_an_error_is_found_however_it_is_written() {
    for line in [
        "Err(e) if e.kind() == ErrorKind::NoSpace => {}",
        "let kind = os_error.map(io::Error::kind);",
        "match e.downcast_ref::<Error>() {",
        "Some(e) if e.source().is_some() => {}",
    ] {
        assert!(looks_into_an_error(line), "{line}");
    }
    assert!(!looks_into_an_error("Err(Unwritten::NoSpace(_)) => {}"));
}
