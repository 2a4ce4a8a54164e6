#!/bin/sh
# Runs the tests of tests/faults at full size, all or those named, and prints their figures. Takes hours in all.
# `ASYNCQ_SEED=N` repeats a run as far as the system allows.
set -eu
cd "$(dirname "$0")/.."
export ASYNCQ_FAULTS=full
[ $# -gt 0 ] || set -- ""
for name in "$@"; do
    cargo test --profile faults --test faults -- --nocapture --test-threads=1 "$name"
done
