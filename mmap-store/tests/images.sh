#!/usr/bin/env bash
# Images of a disk under a running writer, as a power cut leaves it.
#
#   mmap-store/tests/images.sh [IMAGES]
#
# Mounts an ext4 file system from a file, lets the writer of tests/kill.rs commit there, and
# copies the file under it, over and over: what the copy has is what the file system had
# handed to its disk. Each copy is mounted (ext4 replays its journal) and opened; a commit that
# was acknowledged before the copy began must be in it. The control is a writer that waits for
# no barrier: if its images lose nothing, the test sees nothing. (A copy is no atomic
# photograph; it may show orders of writes that no disk has, never fewer writes than synced.)
#
# Needs root: losetup, mount, mkfs.ext4. By hand, not in CI.
set -euo pipefail
cd "$(dirname "$0")/../.."

images=${1:-20}
test=a_killed_writer_loses_no_acknowledged_commit
program=$(cargo test -p brickyard-store --test kill --no-run --message-format=json |
    sed -n 's/.*"executable":"\([^"]*\/kill-[^"]*\)".*/\1/p' | tail -1)
work=$(mktemp -d)
loop=
writer=

clean_up() {
    [ -z "$writer" ] || kill -KILL "$writer" 2>/dev/null || true
    for mounted in "$work/copy" "$work/disk"; do
        ! mountpoint -q "$mounted" || umount "$mounted"
    done
    [ -z "$loop" ] || losetup -d "$loop"
    rm -rf "$work"
}
trap clean_up EXIT

# acknowledged: the last number that the writer said lasts.
acknowledged() { sed -n 's/^lasts \([0-9]*\)$/\1/p' "$work/said" | tail -1; }

# run NAME ENVIRONMENT...: images of one writer; sets `lost`.
run() {
    local name=$1 image acked found lowest=
    shift
    lost=0
    mkdir -p "$work/disk" "$work/copy"
    truncate -s 64M "$work/disk.img"
    mkfs.ext4 -q -F "$work/disk.img"
    loop=$(losetup --show -f "$work/disk.img")
    mount "$loop" "$work/disk"
    env "$@" BRICKYARD_KILL_CHILD="$work/disk/store" \
        "$program" --nocapture --exact "$test" >"$work/said" 2>&1 &
    writer=$!
    until [ -n "$(acknowledged)" ]; do sleep 0.05; done
    for image in $(seq "$images"); do
        sleep "0.$((RANDOM % 9))"
        acked=$(acknowledged)
        cp --sparse=always "$work/disk.img" "$work/copy.img"
        mount -o loop "$work/copy.img" "$work/copy"
        found=$(BRICKYARD_KILL_READER="$work/copy/store" \
            "$program" --nocapture --exact "$test" 2>&1 | sed -n 's/^.*found \([0-9]*\)$/\1/p')
        umount "$work/copy"
        if [ -z "$found" ]; then
            echo "$name: image $image does not open or is not sound"
            [ "$name" = control ] || exit 1
            found=0
        fi
        [ "$found" -ge "$acked" ] || lost=$((lost + 1))
        lowest="$lowest $acked/$found"
    done
    kill -KILL "$writer"
    wait "$writer" 2>/dev/null || true
    writer=
    umount "$work/disk"
    losetup -d "$loop"
    loop=
    echo "$name: $lost of $images images lost an acknowledged commit (acknowledged/found:$lowest)"
}

run writer UNUSED=
[ "$lost" = 0 ] || exit 1
run control BRICKYARD_KILL_LIAR=1
[ "$lost" -gt 0 ] || { echo "the control lost nothing: this test sees nothing"; exit 1; }
