#!/bin/sh
# Draws where the time of a drain in a worker and of a batch goes: docs/flame-drain.svg, docs/flame-enqueue.svg.
# As root, on Debian or alike. What waits for the disk takes no processor and is not in the pictures.
set -eu
cd "$(dirname "$0")/.."
built=$PWD/target/flame
mkdir -p "$built"

command -v perf > /dev/null || missing=linux-perf
command -v python3 > /dev/null || missing="${missing:-} python3"
if [ -n "${missing:-}" ]; then
    apt-get update -qq
    # shellcheck disable=SC2086 # a list of packages
    apt-get install -y -qq --no-install-recommends $missing
fi
[ -x "$built/bin/inferno-flamegraph" ] || cargo install -q --locked inferno --root "$built"

# Frame pointers, for SQLite in C too: whole stacks, at little cost.
CARGO_TARGET_DIR=$built CARGO_PROFILE_RELEASE_DEBUG=line-tables-only CARGO_PROFILE_RELEASE_STRIP=none \
    RUSTFLAGS="-C force-frame-pointers=yes" CFLAGS="-fno-omit-frame-pointer" cargo build -q --release --bin asyncq
asyncq=$built/release/asyncq

# On the disk of this folder: in memory, what the kernel does for the store would look like less than it is.
work=$(mktemp -d "$built/work.XXXXXX")
trap 'rm -rf "$work"' EXIT
ASYNCQ_DB=$work/queue.db
export ASYNCQ_DB
"$asyncq" -q service add bench
"$asyncq" -q function add bench noop --worker -- python3 "$PWD/benches/peers/python/worker.py"

# calls COUNT: as many lines for a batch
calls() {
    yes '{"service":"bench","function":"noop","args":[1,"two"]}' | head -n "$1" > "$work/calls"
}

# record NAME TITLE COMMAND...: draws asyncq alone, all its threads, without the worker.
# The clock is the only counter of many virtual machines.
record() {
    name=$1 title=$2
    shift 2
    perf record -q -F 997 -e cpu-clock --call-graph fp -o "$work/perf.data" -- "$@" > /dev/null
    # The slots, `slot 1` and so on, are one tower. Hashes of names tell nothing. Code of the C library, without frame
    # pointers, begins with many unknown frames: one will do.
    perf script -i "$work/perf.data" 2> /dev/null | "$built/bin/inferno-collapse-perf" |
        sed -nE 's/::h[0-9a-f]{16}//g; /^(asyncq|slot);/p' |
        "$built/bin/inferno-collapse-recursive" > "$built/$name.stacks"
    "$built/bin/inferno-flamegraph" --title "$title" --minwidth 0.2 --hash "$built/$name.stacks" > "docs/flame-$name.svg"
}

calls 300000
"$asyncq" enqueue --batch "$work/calls" > /dev/null
record drain 'asyncq process: 300,000 calls that do nothing, in a worker' "$asyncq" -q process
calls 500000
record enqueue 'asyncq enqueue --batch: 500,000 calls' "$asyncq" enqueue --batch "$work/calls"

if grep -lwF -e "$PWD" -e "$HOME" -e "$(uname -n)" docs/flame-drain.svg docs/flame-enqueue.svg; then
    echo 'error: a picture names a folder of this machine, or itself' >&2
    exit 1
fi
