#!/usr/bin/env bash
# Runs tests under AddressSanitizer.
#
#   fuzz/asan.sh [ARGUMENTS OF cargo test]   the oracle's tests, with free blocks of the
#       arena poisoned by hand; tests/asan_planted.rs shows that planted errors are
#       reported, the others must run clean
#   fuzz/asan.sh pool [ARGUMENTS]            the pool's own tests, and the pool's soak; leaks
#       are reported, too
#
# Needs a nightly toolchain for x86_64 or aarch64 Linux.
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
run() { cargo +nightly test --target "$target" --no-fail-fast "$@"; }

if [ "${1:-}" = pool ]; then
    shift
    run -p brickyard-pool --lib --tests "$@"
    run -p brickyard-fuzz --test pool_ops --test soak "$@" -- every_program hand_objects
else
    run -p brickyard-fuzz --lib --tests "$@"
fi
