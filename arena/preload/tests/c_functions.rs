//! Each C function keeps the contract of ISO C, POSIX and glibc.
//!
//! What could go wrong: programs depend on the corners (size 0, overflow, the
//! value of `errno`, alignment of small blocks), and a corner that differs shows
//! up far from here. Every test runs in a process that preloads the library, so
//! that the functions are reached the way a program reaches them.

mod common;

use common::block::{self, Block, Call};
use common::in_preloaded_child;

/// One GiB in bytes.
const GIB: usize = 1 << 30;

/// Sizes around those where allocators change their ways.
fn interesting_sizes() -> impl Iterator<Item = usize> {
    let powers = (0..=22).map(|exponent| 1_usize << exponent);
    (0..=1100).chain(powers.flat_map(|power| [power - 1, power, power + 1]))
}

fn allocate(call: Call) -> Block {
    call.make()
        .unwrap_or_else(|code| panic!("{call:?} failed with errno {code}"))
}

/// If one function came from the C library, its blocks would be freed by the
/// wrong heap.
#[test]
fn every_function_comes_from_the_library() {
    in_preloaded_child(this_test!(), || {
        for name in block::FUNCTIONS {
            let file = block::origin_of(name);
            assert!(
                file.ends_with("libbrickyard.so"),
                "{name:?} comes from {file}"
            );
        }
    });
}

/// Too small a block or too small an alignment would show as a neighbour's
/// pattern changed, or a crash in code that uses vector instructions.
#[test]
fn blocks_are_aligned_and_usable_to_the_last_byte() {
    in_preloaded_child(this_test!(), || {
        let mut blocks = Vec::new();
        for (seed, size) in (0..=u8::MAX).cycle().zip(interesting_sizes()) {
            let mut block = allocate(Call::Malloc(size));
            assert_eq!(block.address() % 16, 0, "malloc({size}) is not aligned");
            block.claim_usable();
            let usable = block.bytes().len();
            assert!(
                usable >= size,
                "malloc({size}) has only {usable} usable bytes"
            );
            block.fill(seed);
            blocks.push((block, usable, seed));
        }
        for (mut block, usable, seed) in blocks {
            assert!(
                block.holds(usable, seed),
                "a block of {usable} bytes was overwritten"
            );
            block.free();
        }
    });
}

#[test]
fn size_zero_gives_unique_pointers() {
    in_preloaded_child(this_test!(), || {
        let calls = Call::all_of_size(0);
        let blocks: Vec<Block> = calls
            .iter()
            .chain(&calls)
            .map(|call| allocate(*call))
            .collect();
        let mut addresses: Vec<usize> = blocks.iter().map(Block::address).collect();
        addresses.sort_unstable();
        addresses.dedup();
        assert_eq!(
            addresses.len(),
            blocks.len(),
            "two live blocks share an address"
        );
        blocks.into_iter().for_each(Block::free);
    });
}

#[test]
fn absurd_sizes_fail_with_enomem() {
    in_preloaded_child(this_test!(), || {
        let greatest = isize::MAX.unsigned_abs();
        for size in [
            greatest,
            greatest + 1,
            usize::MAX - 4096,
            usize::MAX - 1,
            usize::MAX,
        ] {
            for call in Call::all_of_size(size) {
                assert_eq!(call.make().err(), Some(libc::ENOMEM), "{call:?}");
            }
        }
        for align in [16, 4096, GIB] {
            let call = Call::PosixMemalign(align, greatest - 15);
            assert_eq!(call.make().err(), Some(libc::ENOMEM), "{call:?}");
        }
        allocate(Call::Malloc(100)).free();
    });
}

#[test]
fn products_that_overflow_fail_with_enomem() {
    in_preloaded_child(this_test!(), || {
        let half = 1_usize << (usize::BITS / 2);
        for (count, size) in [
            (half, half),
            (usize::MAX, 2),
            (2, usize::MAX),
            (half + 1, half - 1),
        ] {
            assert_eq!(Call::Calloc(count, size).make().err(), Some(libc::ENOMEM));
            assert_eq!(
                Call::ReallocarrayNull(count, size).make().err(),
                Some(libc::ENOMEM)
            );
            let mut block = allocate(Call::Malloc(40));
            block.fill(9);
            let (mut block, code) = block.reallocarray(count, size).expect_err("overflow");
            assert_eq!(code, libc::ENOMEM);
            assert!(
                block.holds(40, 9),
                "reallocarray failed and changed the block"
            );
            block.free();
        }
    });
}

/// Memory that was used before is where a missing clear shows.
#[test]
fn calloc_clears_reused_memory() {
    in_preloaded_child(this_test!(), || {
        for size in [1, 16, 48, 100, 1000, 5000, 40_000, 300_000, 3_000_000] {
            for _ in 0..8 {
                let mut blocks: Vec<Block> = (0..4).map(|_| allocate(Call::Malloc(size))).collect();
                for block in &mut blocks {
                    block.claim_usable();
                    block.fill(255);
                }
                blocks.into_iter().for_each(Block::free);
                let mut block = allocate(Call::Calloc(size, 1));
                assert!(
                    block.bytes().iter().all(|byte| *byte == 0),
                    "calloc({size}, 1)"
                );
                block.free();
            }
        }
    });
}

#[test]
fn realloc_keeps_the_content() {
    in_preloaded_child(this_test!(), || {
        let sizes = [
            1,
            15,
            16,
            17,
            200,
            24,
            5000,
            4096,
            70_000,
            1 << 20,
            5 << 20,
            9 << 20,
            3,
            64,
        ];
        let mut block = allocate(Call::ReallocNull(1));
        let mut len = 1;
        for (seed, size) in (0..=u8::MAX).zip(sizes.into_iter().cycle().take(100)) {
            block.fill(seed);
            block = block.realloc(size).expect("there is memory");
            assert_eq!(block.address() % 16, 0);
            assert!(
                block.holds(len.min(size), seed),
                "realloc from {len} to {size} bytes"
            );
            len = size;
        }
        block.free();
    });
}

/// There is no smaller block to move to.
#[test]
fn realloc_leaves_the_smallest_blocks_where_they_are() {
    in_preloaded_child(this_test!(), || {
        for size in (1..=16).rev().chain(1..=16) {
            let mut block = allocate(Call::Malloc(16));
            block.fill(7);
            let address = block.address();
            let mut block = block.realloc(size).expect("there is memory");
            assert_eq!(block.address(), address, "moved for {size} bytes");
            assert!(block.holds(size, 7));
            block.free();
        }
    });
}

#[test]
fn realloc_that_fails_keeps_the_block() {
    in_preloaded_child(this_test!(), || {
        for size in [24, 5000, 2 << 20] {
            for absurd in [usize::MAX, isize::MAX.unsigned_abs(), usize::MAX / 2 + 1] {
                let mut block = allocate(Call::Malloc(size));
                block.fill(3);
                let (mut block, code) = block.realloc(absurd).expect_err("absurd size");
                assert_eq!(code, libc::ENOMEM);
                assert!(block.holds(size, 3), "realloc failed and changed the block");
                block.free();
            }
        }
    });
}

/// glibc frees and returns null; a leak would show in the live bytes.
#[test]
fn realloc_to_zero_frees_and_returns_null() {
    in_preloaded_child(this_test!(), || {
        let size = 10_000;
        let before = block::mallinfo2().uordblks;
        for _ in 0..1000 {
            assert!(allocate(Call::Malloc(size)).realloc_to_zero());
        }
        let grown = block::mallinfo2().uordblks.saturating_sub(before);
        assert!(grown < 100 * size, "{grown} bytes more are live");
    });
}

#[test]
fn posix_memalign_checks_its_alignment() {
    in_preloaded_child(this_test!(), || {
        for align in [0, 1, 2, 4, 3, 12, 24, 4095, usize::MAX, GIB + 8] {
            let call = Call::PosixMemalign(align, 10);
            assert_eq!(call.make().err(), Some(libc::EINVAL), "{call:?}");
        }
    });
}

#[test]
fn every_power_of_two_alignment_up_to_a_gib_is_kept() {
    in_preloaded_child(this_test!(), || {
        for exponent in 3..=30 {
            let align = 1_usize << exponent;
            for size in [0, 1, align / 2, align.min(1 << 20) + 1] {
                for call in [
                    Call::PosixMemalign(align, size),
                    Call::AlignedAlloc(align, size),
                    Call::Memalign(align, size),
                ] {
                    let block = allocate(call);
                    assert_eq!(block.address() % align, 0, "{call:?}");
                    block.free();
                }
            }
        }
    });
}

#[test]
fn aligned_alloc_refuses_what_is_no_power_of_two() {
    in_preloaded_child(this_test!(), || {
        for align in [0, 3, 24, usize::MAX] {
            assert_eq!(
                Call::AlignedAlloc(align, 48).make().err(),
                Some(libc::EINVAL)
            );
        }
        // Small powers of two are valid, and a size that is no multiple too.
        for align in [1, 2, 4, 8, 64] {
            allocate(Call::AlignedAlloc(align, 7)).free();
        }
    });
}

#[test]
fn memalign_rounds_its_alignment_up() {
    in_preloaded_child(this_test!(), || {
        for (align, multiple) in [(0, 16), (1, 16), (24, 32), (33, 64), (5000, 8192)] {
            let block = allocate(Call::Memalign(align, 10));
            assert_eq!(block.address() % multiple, 0, "memalign({align}, 10)");
            block.free();
        }
        for align in [usize::MAX, usize::MAX / 2 + 2] {
            assert_eq!(Call::Memalign(align, 10).make().err(), Some(libc::EINVAL));
        }
    });
}

#[test]
fn valloc_and_pvalloc_give_whole_pages() {
    in_preloaded_child(this_test!(), || {
        // Page sizes of Linux are multiples of 4 KiB.
        for size in [1, 100, 4096, 4097, 100_000] {
            let block = allocate(Call::Valloc(size));
            assert_eq!(block.address() % 4096, 0, "valloc({size})");
            block.free();
            let mut block = allocate(Call::Pvalloc(size));
            assert_eq!(block.address() % 4096, 0, "pvalloc({size})");
            block.claim_usable();
            assert!(
                block.bytes().len() >= size.next_multiple_of(4096),
                "pvalloc({size})"
            );
            block.fill(1);
            block.free();
        }
    });
}

/// `free` runs in error paths, between a failed call and the look at `errno`.
#[test]
fn free_keeps_errno() {
    in_preloaded_child(this_test!(), || {
        for size in [1, 100, 4000, 100_000, 1 << 20, 40 << 20] {
            // Enough of the small ones to overflow caches and empty spans.
            let count = if size <= 4000 { 20_000 } else { 20 };
            let blocks: Vec<Block> = (0..count)
                .map(|_| {
                    let mut block = allocate(Call::Malloc(size));
                    block.bytes()[0] = 1;
                    block
                })
                .collect();
            for block in blocks {
                block::set_errno(libc::EBADMSG);
                block.free();
                assert_eq!(block::errno(), libc::EBADMSG, "free of {size} bytes");
            }
        }
        block::set_errno(libc::EBADMSG);
        block::free_null();
        assert_eq!(block::errno(), libc::EBADMSG);
        assert_eq!(block::usable_size_of_null(), 0);
    });
}

#[test]
fn sized_frees_give_the_memory_back() {
    in_preloaded_child(this_test!(), || {
        let before = block::mallinfo2().uordblks;
        for size in [0, 1, 24, 1000, 70_000] {
            for _ in 0..200 {
                allocate(Call::Malloc(size)).free_sized();
                allocate(Call::AlignedAlloc(128, size)).free_aligned_sized(128);
            }
        }
        let grown = block::mallinfo2().uordblks.saturating_sub(before);
        assert!(grown < 10 * 70_000, "{grown} bytes more are live");
    });
}

#[test]
fn mallinfo_counts_what_is_held() {
    in_preloaded_child(this_test!(), || {
        let before = block::mallinfo2();
        let blocks: Vec<Block> = (0..100).map(|_| allocate(Call::Malloc(10_000))).collect();
        let held = block::mallinfo2();
        assert!(
            held.uordblks >= before.uordblks + 1_000_000,
            "{held:?} after {before:?}"
        );
        assert!(held.arena >= held.uordblks, "{held:?}");
        assert_eq!(held.fordblks, held.arena - held.uordblks);
        blocks.into_iter().for_each(Block::free);
        let after = block::mallinfo2();
        assert!(
            after.uordblks < held.uordblks - 900_000,
            "{after:?} after {held:?}"
        );
        let old_form = usize::try_from(block::mallinfo().uordblks).expect("not negative");
        assert!(
            old_form.abs_diff(after.uordblks) < 100_000,
            "{old_form} against {after:?}"
        );
        assert!([0, 1].contains(&block::malloc_trim()));
    });
}

/// Blocks change hands between threads, and children of a fork allocate while
/// the other threads of the parent were inside the heap.
#[test]
fn threads_and_forked_children_share_the_heap() {
    in_preloaded_child(this_test!(), || {
        let (sender, receiver) = std::sync::mpsc::sync_channel::<(Block, u8)>(64);
        let makers: Vec<_> = (0..3_u8)
            .map(|maker| {
                let sender = sender.clone();
                std::thread::spawn(move || {
                    for round in 0..20_000_usize {
                        let mut block = allocate(Call::Malloc(1 + round * 7 % 3000));
                        block.fill(maker);
                        sender.send((block, maker)).expect("the receiver waits");
                    }
                })
            })
            .collect();
        drop(sender);
        let forker = std::thread::spawn(|| (0..30).for_each(|_| fork_and_allocate()));
        for (mut block, maker) in receiver {
            let len = block.bytes().len();
            assert!(block.holds(len, maker), "a block changed on its way");
            block.free();
        }
        makers
            .into_iter()
            .for_each(|maker| maker.join().expect("no maker failed"));
        forker.join().expect("every child allocated");
    });
}

/// Forks; the child allocates and frees, and is killed when it hangs.
fn fork_and_allocate() {
    // SAFETY: the child calls only functions that may be called after a fork in
    // a threaded program with this library: malloc and free among them (that is
    // the claim under test), alarm and _exit. It does not return.
    let child = unsafe { libc::fork() };
    assert!(child >= 0, "fork failed");
    if child == 0 {
        // SAFETY: alarm takes a number; SIGALRM ends the process.
        unsafe { libc::alarm(20) };
        let mut good = true;
        for size in [1, 100, 5000, 200_000, 3 << 20] {
            match Call::Malloc(size).make() {
                Ok(block) => block.free(),
                Err(_) => good = false,
            }
        }
        // SAFETY: _exit takes a number and does not return.
        unsafe { libc::_exit(i32::from(!good)) };
    }
    let mut status = 0;
    // SAFETY: `status` is valid for writing; `child` is our child.
    let reaped = unsafe { libc::waitpid(child, &raw mut status, 0) };
    assert_eq!(
        (reaped, status),
        (child, 0),
        "the child hung, crashed or got no memory"
    );
}
