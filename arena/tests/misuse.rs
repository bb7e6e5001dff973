//! A program that frees what it must not free dies at once, with one clear line.
//!
//! What could go wrong: the heap takes the pointer into a magazine, gives the
//! block out twice later and corrupts somebody else's data; or it notices, but
//! panics, hangs or prints from inside the allocator. Each test runs itself again
//! in a child process that commits the misuse, and looks at how the child died: by
//! `SIGABRT`, with one line on standard error that starts with `brickyard: `.
//!
//! A freed block is compared with the newest entries of its magazine, so an
//! immediate double free is seen at once. Everything else is seen when the block
//! leaves the magazine, or the depot behind it: those children push several hundred blocks of the
//! class after it, let the thread exit, or trim.

#![cfg(not(loom))]

use core::alloc::{GlobalAlloc, Layout};
use core::hint::black_box;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::thread;

use brickyard_arena::Arena;

#[global_allocator]
static GLOBAL: Arena = Arena::new();

/// Set in the child that commits the misuse.
const CHILD: &str = "BRICKYARD_MISUSE_CHILD";

/// Blocks freed after a misuse so that a magazine of 128 overflows for sure.
const OVERFLOW_BLOCKS: usize = 600;

const SMALL: Layout = Layout::new::<[u64; 12]>();

/// Runs `misuse` in a child and checks how the child dies.
#[track_caller]
fn dies_with(test: &str, word: &str, misuse: fn()) {
    if std::env::var_os(CHILD).is_some() {
        misuse();
        // Survived: the parent sees the exit status and fails.
        std::process::exit(0);
    }
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(CHILD, "1")
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(
        output.status.signal(),
        Some(libc::SIGABRT),
        "{test}: {:?}, stderr: {stderr}",
        output.status
    );
    let lines: Vec<&str> = stderr
        .lines()
        .filter(|line| line.starts_with("brickyard: "))
        .collect();
    assert_eq!(lines.len(), 1, "{test}: stderr: {stderr}");
    assert!(
        lines[0].contains(word),
        "{test}: {:?} does not say {word:?}",
        lines[0]
    );
}

fn alloc(layout: Layout) -> *mut u8 {
    // SAFETY: no layout in this file has size zero.
    let block = unsafe { GLOBAL.alloc(layout) };
    assert!(!block.is_null());
    black_box(block)
}

/// Frees whatever it is given: the misuse itself.
fn free(block: *mut u8, layout: Layout) {
    // SAFETY: not upheld, on purpose: the process is to end here or a little
    // later, before anybody uses memory that was freed wrongly. The call goes to
    // the allocator itself, so the compiler knows nothing about the pointer.
    unsafe { GLOBAL.dealloc(black_box(block), layout) };
}

/// Lets the blocks in the magazine of `layout` leave it.
fn overflow_magazine(layout: Layout) {
    let blocks: Vec<*mut u8> = (0..OVERFLOW_BLOCKS).map(|_| alloc(layout)).collect();
    for block in blocks {
        free(block, layout);
    }
}

/// Frees `count` blocks of `layout` that were allocated before the misuse.
fn free_all(blocks: Vec<*mut u8>, layout: Layout) {
    for block in blocks {
        free(block, layout);
    }
}

fn many(layout: Layout) -> Vec<*mut u8> {
    (0..OVERFLOW_BLOCKS).map(|_| alloc(layout)).collect()
}

#[test]
fn a_double_free_at_once_is_stopped() {
    dies_with("a_double_free_at_once_is_stopped", "double free", || {
        let block = alloc(SMALL);
        free(block, SMALL);
        free(block, SMALL);
    });
}

#[test]
fn a_double_free_after_other_frees_is_stopped() {
    dies_with(
        "a_double_free_after_other_frees_is_stopped",
        "double free",
        || {
            let others = many(SMALL);
            let block = alloc(SMALL);
            let few: Vec<*mut u8> = (0..12).map(|_| alloc(SMALL)).collect();
            free(block, SMALL);
            free_all(few, SMALL);
            free(block, SMALL);
            free_all(others, SMALL);
        },
    );
}

#[test]
fn a_double_free_long_after_is_stopped() {
    dies_with("a_double_free_long_after_is_stopped", "double free", || {
        let others = many(SMALL);
        let block = alloc(SMALL);
        free(block, SMALL);
        free_all(others, SMALL);
        let others = many(Layout::new::<[u64; 14]>());
        free_all(others, Layout::new::<[u64; 14]>());
        // The block was set aside above, or is free in its span.
        free(block, SMALL);
        thread::spawn(|| {}).join().unwrap();
        overflow_magazine(SMALL);
        Arena::trim();
    });
}

#[test]
fn a_double_free_by_two_threads_is_stopped() {
    dies_with(
        "a_double_free_by_two_threads_is_stopped",
        "double free",
        || {
            let block = alloc(SMALL);
            for _ in 0..2 {
                let addr = block.expose_provenance();
                // The thread's exit empties its magazines.
                thread::spawn(move || free(core::ptr::with_exposed_provenance_mut(addr), SMALL))
                    .join()
                    .unwrap();
            }
        },
    );
}

#[test]
fn a_double_free_of_a_large_block_is_stopped() {
    dies_with(
        "a_double_free_of_a_large_block_is_stopped",
        "double free",
        || {
            let layout = Layout::new::<[u8; 100_000]>();
            let block = alloc(layout);
            free(block, layout);
            free(block, layout);
        },
    );
}

#[test]
fn a_double_free_of_a_big_block_is_stopped() {
    dies_with("a_double_free_of_a_big_block_is_stopped", "free", || {
        let layout = Layout::from_size_align(3 << 20, 8).unwrap();
        let block = alloc(layout);
        free(block, layout);
        free(block, layout);
    });
}

#[test]
fn a_free_of_the_stack_is_stopped() {
    dies_with("a_free_of_the_stack_is_stopped", "did not give out", || {
        let mut local = [0_u64; 12];
        free(local.as_mut_ptr().cast(), SMALL);
        overflow_magazine(SMALL);
    });
}

#[test]
fn a_free_of_a_static_is_stopped() {
    static BYTES: [u64; 12] = [7; 12];
    dies_with("a_free_of_a_static_is_stopped", "did not give out", || {
        free(BYTES.as_ptr().cast_mut().cast(), SMALL);
        overflow_magazine(SMALL);
    });
}

#[test]
fn a_free_of_a_block_of_the_c_library_is_stopped() {
    dies_with(
        "a_free_of_a_block_of_the_c_library_is_stopped",
        "did not give out",
        || {
            // SAFETY: malloc has no preconditions.
            let foreign = unsafe { libc::malloc(96) };
            thread::spawn({
                let addr = foreign.expose_provenance();
                move || free(core::ptr::with_exposed_provenance_mut(addr), SMALL)
            })
            .join()
            .unwrap();
        },
    );
}

#[test]
fn a_free_of_the_stack_as_a_large_block_is_stopped() {
    dies_with(
        "a_free_of_the_stack_as_a_large_block_is_stopped",
        "did not give out",
        || {
            let mut local = 0_u64;
            free((&raw mut local).cast(), Layout::new::<[u8; 100_000]>());
        },
    );
}

#[test]
fn a_free_of_a_pointer_into_a_block_is_stopped() {
    dies_with(
        "a_free_of_a_pointer_into_a_block_is_stopped",
        "middle of a block",
        || {
            let block = alloc(SMALL);
            free(block.wrapping_add(8), SMALL);
            overflow_magazine(SMALL);
        },
    );
}

#[test]
fn a_free_of_a_pointer_into_a_large_block_is_stopped() {
    dies_with(
        "a_free_of_a_pointer_into_a_large_block_is_stopped",
        "middle of a block",
        || {
            let layout = Layout::new::<[u8; 100_000]>();
            free(alloc(layout).wrapping_add(4096), layout);
        },
    );
}

#[test]
fn a_free_with_the_layout_of_another_class_is_stopped() {
    dies_with(
        "a_free_with_the_layout_of_another_class_is_stopped",
        "layout",
        || {
            let wrong = Layout::new::<[u64; 40]>();
            free(alloc(SMALL), wrong);
            overflow_magazine(wrong);
        },
    );
}

#[test]
fn a_free_of_a_small_block_as_a_large_one_is_stopped() {
    dies_with(
        "a_free_of_a_small_block_as_a_large_one_is_stopped",
        "layout",
        || {
            free(alloc(SMALL), Layout::new::<[u8; 100_000]>());
        },
    );
}

#[test]
fn a_free_without_layout_of_a_foreign_pointer_is_stopped() {
    dies_with(
        "a_free_without_layout_of_a_foreign_pointer_is_stopped",
        "did not give out",
        || {
            let mut local = 0_u64;
            // SAFETY: not upheld, on purpose: the process ends here.
            unsafe { Arena::dealloc_unsized(black_box((&raw mut local).cast())) };
        },
    );
}

#[test]
fn a_double_free_without_layout_is_stopped() {
    dies_with(
        "a_double_free_without_layout_is_stopped",
        "double free",
        || {
            let block = black_box(Arena::alloc_unsized(200, 8));
            for _ in 0..2 {
                // SAFETY: upheld the first time; the second ends the process.
                unsafe { Arena::dealloc_unsized(black_box(block)) };
            }
        },
    );
}
