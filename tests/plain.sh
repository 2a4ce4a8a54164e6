#!/bin/sh
# Passes the tests of the store and of the command line on SQLite as its crate compiles it, without the flags of
# .cargo/config.toml: only speed may depend on those. You may give other arguments for `cargo test`.
set -eu
cd "$(dirname "$0")/.."
# A variable that is set, even to nothing, overrides Cargo's configuration. In a folder of their own, both builds stay.
export LIBSQLITE3_FLAGS='' CARGO_TARGET_DIR=target/plain
# One of these tests runs an example, which Cargo only builds for all tests.
cargo build --bins --examples
if grep -q DEFAULT_MEMSTATUS=0 target/plain/debug/asyncq; then echo "the flags are in this build, too" >&2; exit 1; fi
[ $# -gt 0 ] || set -- --test store --test cli
exec cargo test "$@"
