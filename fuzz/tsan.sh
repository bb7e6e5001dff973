#!/usr/bin/env bash
# Runs the threads' tests under ThreadSanitizer, with the standard library built for it too:
# the soak of heap and pools, the store's readers and writers, the pool's tests.
#
#   fuzz/tsan.sh            BRICKYARD_SOAK_SECONDS for each soak, 20 without
#   fuzz/tsan.sh --check    says whether it can run here (exit status)
#
# Needs the sources of the standard library: `rustup component add rust-src --toolchain nightly`.
# With TSAN_RUSTC=path another compiler that has them is taken, with TSAN_CLANG=name for its
# linker and run-time library (Debian 12: rustc-web, rust-web-src, clang-22, libclang-rt-22-dev).
#
# ThreadSanitizer does not know fences: where only a fence orders two accesses to memory that is not
# atomic, its report would be false. So far there was none.
set -euo pipefail
cd "$(dirname "$0")/.."

if [ -n "${TSAN_RUSTC:-}" ]; then
    export RUSTC=$TSAN_RUSTC
    flags="-Zexternal-clangrt -Clinker=${TSAN_CLANG:-clang} -Clink-arg=-fsanitize=thread"
else
    RUSTC=$(rustup which --toolchain nightly rustc 2>/dev/null) || {
        echo "ThreadSanitizer (no nightly toolchain)"
        exit 1
    }
    export RUSTC
    flags=
fi
if ! [ -f "$("$RUSTC" --print sysroot)/lib/rustlib/src/rust/library/Cargo.lock" ]; then
    echo "ThreadSanitizer (no sources of the standard library)"
    exit 1
fi
[ "${1:-}" != --check ] || exit 0

export RUSTC_BOOTSTRAP=1
export RUSTFLAGS="-Zsanitizer=thread $flags"
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-target}/tsan"
export BRICKYARD_SOAK_SECONDS=${BRICKYARD_SOAK_SECONDS:-20}
target="$("$RUSTC" -vV | sed -n 's/^host: //p')"

# With `abort`, the standard library would be built twice, which does not link.
export CARGO_PROFILE_RELEASE_PANIC=unwind
run() { cargo test -Zbuild-std --target "$target" --release --no-fail-fast --quiet "$@"; }

run -p brickyard-fuzz --test soak
run -p brickyard-store --test threads
run -p brickyard-pool --lib --tests
