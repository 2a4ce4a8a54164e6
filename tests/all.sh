#!/bin/sh
# Installs what the tests use on a Debian-like system, as root, and passes all tests. A filter of `cargo test` may follow.
set -eu
cd "$(dirname "$0")/.."

# Each command with the package that brings it.
missing=
for pair in cc:gcc sqlite3:sqlite3 python3:python3 kill:procps script:bsdutils setpriv:util-linux unshare:util-linux \
    mount:mount cron:cron strace:strace cmp:diffutils gzip:gzip tar:tar node:nodejs valgrind:valgrind \
    tmux:tmux bash:bash zsh:zsh fish:fish mandoc:mandoc col:bsdextrautils; do
    # Not the shell's own command of that name.
    env which "${pair%%:*}" > /dev/null 2>&1 || missing="$missing ${pair#*:}"
done
# For the tests of the Python package, which bring what they need into a folder of their own.
python3 -c 'import venv, ensurepip' > /dev/null 2>&1 || missing="$missing python3-venv"
# For the schemas of outputs. Another interpreter may come first on the path, and has no packages of Debian.
/usr/bin/python3 -c 'import jsonschema' > /dev/null 2>&1 || missing="$missing python3-jsonschema"
[ -e /usr/include/stdio.h ] || missing="$missing libc6-dev"
# valgrind has to find its way in the C library.
case "$missing" in *valgrind*) missing="$missing libc6-dbg" ;; esac
if [ -n "$missing" ]; then
    echo "installing$missing"
    apt-get update -q
    # shellcheck disable=SC2086 # one word for each package
    DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends $missing
fi

# Many tests wait most of the time, as for a deadline.
export RUST_TEST_THREADS="${RUST_TEST_THREADS:-$((2 * $(nproc)))}"
exec cargo test "$@"
