#!/bin/sh
# Runs the tests of tests/faults at full size, all or those whose names contain one of the words given, and prints their
# figures. Takes hours in all. `ASYNCQ_PART=4` runs a quarter of everything that is counted. `ASYNCQ_SEED=N` repeats a run
# as far as the system allows. `python::NAME` are tests of the Python package.
set -eu
cd "$(dirname "$0")/.."
export ASYNCQ_FAULTS="full${ASYNCQ_PART:+/$ASYNCQ_PART}"
[ $# -gt 0 ] || set -- ""
faults() { cargo test --profile faults --test faults -- "$@"; }
for name in "$@"; do
    case "$name" in
        '') cargo test --test python -- --nocapture ;;
        python::*) cargo test --test python -- --nocapture "${name#python::}"; continue ;;
    esac
    faults --list "$name" | grep -q ': test$' || { echo "no test has \`$name\` in its name" >&2; exit 66; }
    faults --nocapture --test-threads=1 "$name"
done
