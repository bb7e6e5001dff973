//! When memory runs out, requests are answered with null, and the heap goes on.
//!
//! What could go wrong: an addition overflows and a tiny block is given out for an
//! absurd size; the heap dies, or keeps a half-made span, when the system refuses
//! memory; freed memory does not become available again. Children under a limit on
//! the address space allocate until null, check what they hold, free it and
//! allocate again.

#![cfg(not(loom))]

use core::alloc::{GlobalAlloc, Layout};
use core::hint::black_box;
use std::process::Command;

use brickyard_arena::Arena;

#[global_allocator]
static GLOBAL: Arena = Arena::new();

const CHILD: &str = "BRICKYARD_EXHAUSTION_CHILD";

/// Address space that a child may take on top of what it has.
const ROOM_BYTES: u64 = 96 << 20;

/// Largest alignment that is promised.
const MAX_ALIGN: usize = 1 << 30;

/// Blocks, newest first, chained through themselves: a vector of them would need
/// memory just when there is none.
struct Chain {
    newest: *mut u8,
    len: usize,
    layout: Layout,
}

impl Chain {
    /// Allocates blocks of `layout` until null.
    fn until_null(layout: Layout) -> Self {
        let mut chain = Self {
            newest: core::ptr::null_mut(),
            len: 0,
            layout,
        };
        loop {
            // SAFETY: no layout in this file has size zero.
            let block = unsafe { GLOBAL.alloc(layout) };
            if block.is_null() {
                return chain;
            }
            assert!(block.addr() % layout.align() == 0);
            let last = block.wrapping_add(layout.size() - 1);
            // SAFETY: the block was just given to us for `layout`, which holds a
            // pointer at its start and a byte at its end.
            unsafe {
                last.write(0x5a);
                block.cast::<*mut u8>().write(chain.newest);
            }
            chain.newest = block;
            chain.len += 1;
        }
    }

    fn free_all(self) {
        let mut block = self.newest;
        for _ in 0..self.len {
            // SAFETY: written in `until_null`, live since.
            let (next, last) = unsafe {
                (
                    block.cast::<*mut u8>().read(),
                    block.wrapping_add(self.layout.size() - 1).read(),
                )
            };
            assert!(
                self.layout.size() <= 8 || last == 0x5a,
                "a block's end was overwritten"
            );
            // SAFETY: allocated in `until_null` with this layout, freed once.
            unsafe { GLOBAL.dealloc(block, self.layout) };
            block = next;
        }
        assert!(block.is_null(), "the chain is longer than it was");
    }
}

#[test]
fn exhaustion_gives_null_and_freed_memory_serves_again() {
    if std::env::var_os(CHILD).is_none() {
        return in_child("exhaustion_gives_null_and_freed_memory_serves_again");
    }
    limit_address_space();
    for (size, align) in [
        (16, 8),
        (48, 16),
        (1024, 8),
        (5000, 8),
        (32_768, 8),
        (40_000, 8),
        (700, 8192),
        (1 << 20, 8),
        (5 << 20, 8),
    ] {
        let layout = Layout::from_size_align(size, align).unwrap();
        let first = Chain::until_null(layout);
        let held = first.len * size.max(align);
        first.free_all();
        Arena::trim();
        // Metadata, alignment and the room that other sizes left behind take their
        // share; a block of 5 MiB has its own mapping at a multiple of 4 MiB.
        assert!(
            held as u64 > ROOM_BYTES / 6,
            "{layout:?}: {held} bytes before null"
        );
        let second = Chain::until_null(layout);
        let again = second.len * size.max(align);
        second.free_all();
        Arena::trim();
        assert!(
            again >= held / 10 * 9,
            "{layout:?}: {held} bytes, then only {again}"
        );
    }
}

#[test]
fn a_failing_realloc_leaves_the_block_as_it_was() {
    if std::env::var_os(CHILD).is_none() {
        return in_child("a_failing_realloc_leaves_the_block_as_it_was");
    }
    limit_address_space();
    for size in [100, 20_000, 100_000, 3 << 20] {
        let layout = Layout::from_size_align(size, 8).unwrap();
        // SAFETY: the size is not zero.
        let block = unsafe { GLOBAL.alloc_zeroed(layout) };
        assert!(!block.is_null());
        for new_size in [2 << 30, isize::MAX.unsigned_abs() - 7] {
            // SAFETY: a live block with its layout; the new size is valid for it.
            let moved = unsafe { GLOBAL.realloc(block, layout, black_box(new_size)) };
            assert!(moved.is_null(), "{size} to {new_size} bytes");
        }
        // SAFETY: the block is as it was: zeroed, `size` bytes.
        let bytes = unsafe { core::slice::from_raw_parts(block, size) };
        assert!(bytes.iter().all(|&byte| byte == 0), "{size} bytes");
        // SAFETY: allocated above with this layout, still live.
        unsafe { GLOBAL.dealloc(block, layout) };
    }
}

#[test]
fn absurd_sizes_give_null() {
    for align in (0..=30).map(|shift| 1_usize << shift) {
        let largest = isize::MAX.unsigned_abs() - (align - 1);
        for size in [largest, largest - 1, largest / 2, 1 << 53] {
            let layout = Layout::from_size_align(size, align).unwrap();
            // SAFETY: the size is not zero.
            let block = unsafe { GLOBAL.alloc(black_box(layout)) };
            assert!(block.is_null(), "a block for {layout:?}");
            // SAFETY: the size is not zero.
            let block = unsafe { GLOBAL.alloc_zeroed(black_box(layout)) };
            assert!(block.is_null(), "a zeroed block for {layout:?}");
        }
    }
    for size in [usize::MAX, usize::MAX - 4096, isize::MAX.unsigned_abs() + 1] {
        assert!(Arena::alloc_unsized(black_box(size), 8).is_null(), "{size}");
        assert!(
            Arena::alloc_zeroed_unsized(black_box(size), 4096).is_null(),
            "{size}"
        );
    }
}

#[test]
fn every_alignment_up_to_a_gib_is_kept() {
    let mut align = 1;
    while align <= MAX_ALIGN {
        for size in [1, 48, 1000, 5000, 40_000, 1 << 20, (1 << 20) + 1, 5 << 20] {
            let layout = Layout::from_size_align(size, align).unwrap();
            // SAFETY: the size is not zero.
            let blocks = [(); 3].map(|()| unsafe { GLOBAL.alloc_zeroed(layout) });
            for block in blocks {
                assert!(!block.is_null(), "{layout:?}");
                assert!(
                    block.addr().is_multiple_of(align),
                    "{layout:?} at {block:?}"
                );
                // SAFETY: a block of `size` bytes, all initialised.
                unsafe {
                    assert_eq!(block.wrapping_add(size - 1).read(), 0, "{layout:?}");
                    block.write(1);
                    block.wrapping_add(size - 1).write(1);
                }
            }
            for block in blocks {
                // SAFETY: allocated above with this layout.
                unsafe { GLOBAL.dealloc(block, layout) };
            }
        }
        align *= 2;
    }
}

/// Many blocks that are aligned beyond their size must not use up what other
/// requests need.
#[test]
fn small_blocks_of_wide_alignment_do_not_block_the_heap() {
    let wide = Layout::from_size_align(640, 16 << 10).unwrap();
    // SAFETY: the size is not zero.
    let blocks: Vec<*mut u8> = (0..1000).map(|_| unsafe { GLOBAL.alloc(wide) }).collect();
    let refused = blocks.iter().filter(|block| block.is_null()).count();
    for block in blocks {
        if !block.is_null() {
            // SAFETY: allocated above with this layout.
            unsafe { GLOBAL.dealloc(block, wide) };
        }
    }
    assert_eq!(refused, 0, "of 1000 blocks of {wide:?}");
}

fn in_child(test: &str) {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(CHILD, "1")
        .env("RUST_BACKTRACE", "0")
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{:?}\n{}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Allows this process [`ROOM_BYTES`] of address space more than it has.
fn limit_address_space() {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let os_pages: u64 = statm.split(' ').next().unwrap().parse().unwrap();
    // SAFETY: sysconf has no preconditions.
    let os_page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    let limit = os_pages * u64::try_from(os_page).unwrap() + ROOM_BYTES;
    let limit = libc::rlimit {
        rlim_cur: limit,
        rlim_max: limit,
    };
    // SAFETY: the pointer is to a live rlimit.
    let failed = unsafe { libc::setrlimit(libc::RLIMIT_AS, &raw const limit) };
    assert_eq!(failed, 0);
}
