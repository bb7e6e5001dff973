//! `AddressSanitizer` sees into a heap when the harness poisons by hand.
//!
//! What could go wrong: the poison is put in the wrong place, or lifted again, and
//! a clean run under `ASan` means nothing. So each test here runs itself again in
//! a child that plants one error, and expects `ASan`'s report of it. Built by
//! `fuzz/asan.sh`; without `--cfg brickyard_asan` there is nothing to test.

#![cfg(brickyard_asan)]

use core::alloc::Layout;
use core::hint::black_box;
use std::process::Command;

use brickyard_arena::Heap;
use brickyard_fuzz::handles::Handles;
use brickyard_fuzz::op::{CacheSlot, Via};

/// Set in the child that plants the error.
const CHILD: &str = "BRICKYARD_PLANTED_CHILD";

const CACHE: Via = Via::Cache(CacheSlot(0));

/// Runs `plant` in a child and looks for `ASan`'s report; or, with `report` false,
/// for its absence.
fn child_reports(test: &str, report: bool, plant: fn(&mut Handles<'_>)) {
    if std::env::var_os(CHILD).is_some() {
        let heap = Heap::new().expect("memory for a heap");
        plant(&mut Handles::new(&heap));
        return;
    }
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(CHILD, "1")
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(
        stderr.contains("AddressSanitizer: use-after-poison"),
        report,
        "{test}: {:?}\n{stderr}",
        output.status
    );
    assert_eq!(output.status.success(), !report, "{test}: {stderr}");
}

fn alloc(handles: &mut Handles<'_>, size: usize) -> (*mut u8, Layout) {
    let layout = Layout::from_size_align(size, 8).unwrap();
    let block = handles.alloc(CACHE, layout);
    assert!(!block.is_null());
    (block, layout)
}

#[test]
fn a_use_after_free_is_reported() {
    child_reports("a_use_after_free_is_reported", true, |handles| {
        let (block, layout) = alloc(handles, 100);
        // SAFETY: allocated above with this layout.
        unsafe { handles.dealloc(CACHE, block, layout) };
        // SAFETY: not upheld, on purpose: `ASan` ends the process here.
        black_box(unsafe { block.add(50).read_volatile() });
    });
}

#[test]
fn a_use_after_free_of_a_large_block_is_reported() {
    child_reports(
        "a_use_after_free_of_a_large_block_is_reported",
        true,
        |handles| {
            let (block, layout) = alloc(handles, 100_000);
            // SAFETY: allocated above with this layout.
            unsafe { handles.dealloc(CACHE, block, layout) };
            // SAFETY: not upheld, on purpose: `ASan` ends the process here.
            unsafe { block.add(70_000).write_volatile(1) };
        },
    );
}

#[test]
fn a_write_past_the_end_is_reported() {
    child_reports("a_write_past_the_end_is_reported", true, |handles| {
        // The block of the class has 112 bytes: only poison tells that byte 100
        // is not the program's.
        let (block, _) = alloc(handles, 100);
        // SAFETY: not upheld, on purpose: `ASan` ends the process here.
        unsafe { block.add(100).write_volatile(1) };
    });
}

#[test]
fn a_use_of_the_old_place_after_a_move_is_reported() {
    child_reports(
        "a_use_of_the_old_place_after_a_move_is_reported",
        true,
        |handles| {
            let (block, layout) = alloc(handles, 100);
            // SAFETY: allocated above with this layout.
            let moved = unsafe { handles.realloc(CACHE, block, layout, 5000) };
            assert!(!moved.is_null() && moved != block);
            // SAFETY: not upheld, on purpose: `ASan` ends the process here.
            black_box(unsafe { block.read_volatile() });
        },
    );
}

#[test]
fn use_within_bounds_is_not_reported() {
    child_reports("use_within_bounds_is_not_reported", false, |handles| {
        for round in 1..200_usize {
            let (block, layout) = alloc(handles, round * 5);
            // SAFETY: a live block of `round * 5` bytes.
            unsafe { block.write_bytes(1, layout.size()) };
            let zeroed = handles.alloc_zeroed(CACHE, layout);
            // SAFETY: a live, zeroed block of `round * 5` bytes.
            assert_eq!(unsafe { zeroed.add(layout.size() - 1).read_volatile() }, 0);
            for block in [block, zeroed] {
                // SAFETY: allocated above with this layout.
                let moved = unsafe { handles.realloc(CACHE, block, layout, round * 9) };
                // SAFETY: a live block of `round * 9` bytes.
                unsafe { moved.write_bytes(2, round * 9) };
                let layout = Layout::from_size_align(round * 9, 8).unwrap();
                // SAFETY: the block has this layout since the line above.
                unsafe { handles.dealloc(CACHE, moved, layout) };
            }
        }
    });
}
