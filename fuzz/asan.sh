#!/usr/bin/env bash
# Runs the oracle's tests under AddressSanitizer, with free blocks poisoned by hand.
#
# tests/asan_planted.rs shows that planted errors are reported; the others must run
# clean. Needs a nightly toolchain for x86_64 or aarch64 Linux.
set -euo pipefail
cd "$(dirname "$0")/.."

if ! rustc +nightly --version >/dev/null 2>&1; then
    echo "asan: skipped, no nightly toolchain"
    exit 0
fi

target="$(rustc +nightly -vV | sed -n 's/^host: //p')"
export RUSTFLAGS="-Zsanitizer=address --cfg brickyard_asan"
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-target}/asan"
# Every suite, the rest too when one has failed.
exec cargo +nightly test -p brickyard-fuzz --lib --tests --target "$target" --no-fail-fast "$@"
