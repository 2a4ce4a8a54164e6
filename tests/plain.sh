#!/bin/sh
# Passes the tests of the store and of the command line on SQLite as its crate compiles it, without the flags of
# .cargo/config.toml: only speed may depend on those. You may give other arguments for `cargo test`.
set -eu
cd "$(dirname "$0")/.."
[ $# -gt 0 ] || set -- --test store --test cli
# A variable that is set, even to nothing, overrides Cargo's configuration. In a folder of their own, both builds stay.
LIBSQLITE3_FLAGS='' exec cargo test --target-dir target/plain "$@"
