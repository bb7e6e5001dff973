//! Runs that C's `realloc` makes longer a little at a time.
//!
//! What could go wrong: the run moves at each step because others are put behind it, and leaves
//! what it had behind; it loses bytes on its way; it is put where others are; its old place is
//! counted as in use.

#![cfg(not(loom))]

use core::slice;

use brickyard_arena::Arena;

const KIB: usize = 1 << 10;

/// The byte that belongs at `index`.
fn byte(index: usize) -> u8 {
    u8::try_from(index / 509 % 251).expect("less than 251")
}

#[test]
fn a_run_that_grows_a_little_at_a_time_seldom_moves() {
    let before = Arena::stats().large;
    let mut len = 40 * KIB;
    let mut run = Arena::alloc_unsized(len, 16);
    assert!(!run.is_null());
    let mut written = 0;
    let mut moves = 0;
    let mut others = Vec::new();
    loop {
        // SAFETY: the block has `len` bytes.
        let bytes = unsafe { slice::from_raw_parts_mut(run, len) };
        for (index, byte_there) in bytes.iter_mut().enumerate().skip(written) {
            *byte_there = byte(index);
        }
        written = len;
        if len == 200 * KIB {
            break;
        }
        // One that is put where it fits best.
        let other = Arena::alloc_unsized(36 * KIB, 16);
        assert!(!other.is_null());
        // SAFETY: a block of that size, just allocated.
        unsafe { other.write_bytes(0xa5, 36 * KIB) };
        others.push(other);
        len += 4 * KIB;
        // SAFETY: the block is in use, and the old pointer is forgotten.
        let grown = unsafe { Arena::realloc_unsized(run, len) };
        assert!(!grown.is_null());
        moves += usize::from(grown != run);
        run = grown;
        // SAFETY: `written` bytes were written before it grew.
        let bytes = unsafe { slice::from_raw_parts(run, written) };
        assert!(bytes.iter().enumerate().all(|(i, &b)| b == byte(i)));
    }
    assert!(moves <= 4, "{moves} moves in 40 steps");
    for &other in &others {
        // SAFETY: a block of that size, which nobody else writes to.
        let bytes = unsafe { slice::from_raw_parts(other, 36 * KIB) };
        assert!(bytes.iter().all(|&b| b == 0xa5), "two blocks overlap");
        // SAFETY: allocated above, and used by nobody any more.
        unsafe { Arena::dealloc_unsized(other) };
    }
    // SAFETY: as above.
    unsafe { Arena::dealloc_unsized(run) };
    assert_eq!(Arena::stats().large, before);
}
