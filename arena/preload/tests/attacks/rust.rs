//! The attacks in Rust: what `unsafe` code can do to a heap that is told layouts.
//!
//! Each calls [`done`] right after the misuse, and returns its exit status.

use core::alloc::{GlobalAlloc as _, Layout};
use core::hint::black_box;
use std::io::Write as _;
use std::thread;

use brickyard_arena::Arena;

use crate::{DONE, GLOBAL, ZEROES};

/// A program and its name.
pub(crate) type Attack = (&'static str, fn() -> i32);

/// All of them.
pub(crate) const ATTACKS: &[Attack] = &[
    ("box_dropped_twice", box_dropped_twice),
    ("box_dropped_twice_later", box_dropped_twice_later),
    ("box_dropped_on_two_threads", box_dropped_on_two_threads),
    ("vec_freed_with_a_smaller_capacity", || {
        wrong_layout(SMALL, layout(40))
    }),
    ("vec_freed_with_a_capacity_of_its_class", || {
        wrong_layout(SMALL, layout(90))
    }),
    ("small_freed_as_large", || wrong_layout(SMALL, LARGE)),
    ("large_freed_as_small", || wrong_layout(LARGE, SMALL)),
    ("large_freed_as_larger", || {
        wrong_layout(LARGE, layout(1 << 19))
    }),
    ("slice_freed_from_its_middle", slice_freed_from_its_middle),
    ("static_str_freed", static_str_freed),
    ("local_freed", local_freed),
    ("block_of_malloc_freed", block_of_malloc_freed),
    ("string_read_after_drop", string_read_after_drop),
    ("vec_written_after_drop", vec_written_after_drop),
    ("freed_block_resized", || {
        resize(|block| free(block, SMALL), SMALL)
    }),
    ("block_resized_with_wrong_layout", || {
        resize(|_| {}, layout(400))
    }),
    (
        "element_behind_the_end_written",
        element_behind_the_end_written,
    ),
    ("element_in_front_written", element_in_front_written),
    (
        "heap_block_used_by_another_heap",
        heap_block_used_by_another_heap,
    ),
];

const SMALL: Layout = layout(96);
const LARGE: Layout = layout(100_000);

const fn layout(size: usize) -> Layout {
    match Layout::from_size_align(size, 8) {
        Ok(layout) => layout,
        Err(_) => Layout::new::<u64>(),
    }
}

fn done() {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(DONE.as_bytes());
    let _ = out.flush();
}

fn get(layout: Layout) -> *mut u8 {
    // SAFETY: no layout here has size zero.
    let block = unsafe { GLOBAL.alloc(layout) };
    assert!(!block.is_null());
    // SAFETY: just allocated with that size.
    unsafe { block.write_bytes(b'x', layout.size()) };
    black_box(block)
}

/// Frees whatever it is given.
fn free(block: *mut u8, layout: Layout) {
    // SAFETY: not upheld, on purpose: the process is to end here or a little later. The
    // call goes to the allocator itself, so the compiler knows nothing about the pointer.
    unsafe { GLOBAL.dealloc(black_box(block), layout) };
}

/// Lets every free block of the layout come back, several times.
fn work(layout: Layout) {
    for _ in 0..20 {
        let blocks: Vec<*mut u8> = (0..600).map(|_| get(layout)).collect();
        blocks.into_iter().for_each(|block| free(block, layout));
    }
    Arena::trim();
}

fn box_dropped_twice() -> i32 {
    let block = get(SMALL);
    free(block, SMALL);
    free(block, SMALL);
    done();
    work(SMALL);
    0
}

fn box_dropped_twice_later() -> i32 {
    let others: Vec<*mut u8> = (0..600).map(|_| get(SMALL)).collect();
    let block = get(SMALL);
    free(block, SMALL);
    others.into_iter().for_each(|other| free(other, SMALL));
    free(block, SMALL);
    done();
    work(SMALL);
    0
}

fn box_dropped_on_two_threads() -> i32 {
    let addr = get(SMALL).expose_provenance();
    for _ in 0..2 {
        let dropped =
            thread::spawn(move || free(core::ptr::with_exposed_provenance_mut(addr), SMALL));
        let _ = dropped.join();
    }
    done();
    work(SMALL);
    0
}

fn wrong_layout(right: Layout, wrong: Layout) -> i32 {
    let block = get(right);
    free(block, wrong);
    done();
    work(wrong);
    work(right);
    0
}

fn slice_freed_from_its_middle() -> i32 {
    free(get(SMALL).wrapping_add(16), SMALL);
    done();
    work(SMALL);
    0
}

fn static_str_freed() -> i32 {
    free("bricks".as_ptr().cast_mut(), SMALL);
    done();
    work(SMALL);
    0
}

fn local_freed() -> i32 {
    let mut local = [0_u64; 12];
    free(local.as_mut_ptr().cast(), SMALL);
    done();
    work(SMALL);
    0
}

fn block_of_malloc_freed() -> i32 {
    // SAFETY: malloc has no preconditions.
    free(unsafe { libc::malloc(96) }.cast(), SMALL);
    done();
    work(SMALL);
    0
}

fn string_read_after_drop() -> i32 {
    let block = get(SMALL);
    free(block, SMALL);
    // SAFETY: not upheld, on purpose: the block was freed.
    let byte = unsafe { black_box(block).add(8).read_volatile() };
    done();
    if byte == 0 { ZEROES } else { 0 }
}

fn vec_written_after_drop() -> i32 {
    let block = get(SMALL);
    free(block, SMALL);
    // SAFETY: not upheld, on purpose: the block was freed.
    unsafe { black_box(block).add(8).write_volatile(b'y') };
    done();
    work(SMALL);
    0
}

fn resize(before: fn(*mut u8), layout: Layout) -> i32 {
    let block = get(SMALL);
    before(block);
    // SAFETY: not upheld, on purpose: the block was freed, or has another layout.
    let moved = unsafe { GLOBAL.realloc(black_box(block), layout, 2 * layout.size()) };
    black_box(moved);
    done();
    work(layout);
    work(SMALL);
    0
}

/// Of many blocks, takes one whose neighbour in that direction is one of them, too, if there
/// is one: so that nothing else is hit.
fn write_at(distance: isize) -> i32 {
    let blocks: Vec<*mut u8> = (0..64).map(|_| get(SMALL)).collect();
    let has_neighbour = |block: &&*mut u8| {
        let out = block.wrapping_offset(distance).addr();
        let mut others = blocks.iter().filter(|other| *other != *block);
        others.any(|other| (other.addr()..other.addr() + 96).contains(&out))
    };
    let block = *blocks.iter().find(has_neighbour).unwrap_or(&blocks[0]);
    // SAFETY: not upheld, on purpose: outside the block.
    unsafe { black_box(block).offset(distance).write_volatile(b'y') };
    done();
    free(block, SMALL);
    work(SMALL);
    0
}

fn element_behind_the_end_written() -> i32 {
    write_at(96)
}

fn element_in_front_written() -> i32 {
    write_at(-8)
}

fn heap_block_used_by_another_heap() -> i32 {
    let Ok(heap) = brickyard_arena::Heap::new() else {
        return 1;
    };
    free(heap.alloc(SMALL), SMALL);
    done();
    work(SMALL);
    0
}
