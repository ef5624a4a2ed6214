# What CI runs, as recipes. `just --list` shows them.

# Everything that must pass before a change lands.
ci:
    .ci/run

# The main job: the benchmark on an embedded default.
bench *ARGS:
    cargo run --release --features cli -- bench {{ARGS}}

# Raftwood beside other engines, a few seconds a row; writes docs/benchmarks.
peers *ARGS:
    cargo run --release --manifest-path benches/peers/Cargo.toml -- report --quick {{ARGS}}

# The oldest compiler, other platforms, each feature alone, and the package.
platforms:
    .ci/platforms

# All tests.
test:
    cargo test --all-features

# The lints that CI insists on.
lint:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets --all-features -- -D warnings

# One fuzz target for a minute.
fuzz TARGET:
    cargo +nightly fuzz run --release {{TARGET}} -- -max_total_time=60

# Plants each known mistake in turn, or those named, and shows which test notices it (an hour or more).
planted *BUGS:
    .ci/planted {{BUGS}}

# Writes down the public API as it is, where it was changed on purpose.
public-api:
    .ci/public-api --write

# The mapping of files under AddressSanitizer.
sanitize:
    .ci/sanitize

# What does no real I/O, under Miri (needs the nightly component).
miri:
    .ci/miri

# The model of the log and its recovery, with wider bounds than its tests have time for.
model *ARGS:
    cargo run --release -p raftwood-model --example deep {{ARGS}}

# The same random program on raft-engine and on its API over Raftwood, for so many seconds.
doors SECONDS="60":
    STRESS_SECONDS={{SECONDS}} cargo test --manifest-path crates/migrate/Cargo.toml stress -- --nocapture

# The engine's threads in one interleaving after another.
interleavings:
    .ci/interleavings

# What may be depended on, known vulnerabilities included (needs cargo-deny).
deny:
    cargo deny --all-features check
