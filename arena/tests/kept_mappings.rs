//! Freed mappings that a growing buffer takes over.
//!
//! What could go wrong: the buffer loses bytes on its way, or finds those of the mapping's last
//! user in its own; room that it was left with is cut off or copied out of before it is used;
//! it keeps room that the program gave back; a mapping has two users.

#![cfg(not(loom))]

use core::alloc::Layout;
use core::slice;
use core::time::Duration;

use brickyard_arena::{Arena, Heap, HeapCache};

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

/// A heap that keeps what is freed for as long as it lives.
fn heap() -> Heap {
    let options = Arena::builder().decay(Duration::MAX);
    Heap::with_options(&options).expect("few heaps live")
}

fn layout(bytes: usize) -> Layout {
    Layout::from_size_align(bytes, 8).expect("a small layout")
}

/// The byte that belongs at `index`.
fn byte(index: usize) -> u8 {
    u8::try_from(index / 509 % 251).expect("less than 251")
}

/// A buffer of the program, all of it written.
#[derive(Debug)]
struct Buffer {
    block: *mut u8,
    bytes: usize,
}

impl Buffer {
    fn new(cache: &mut HeapCache<'_>, bytes: usize) -> Self {
        let block = cache.alloc(layout(bytes));
        assert!(!block.is_null());
        let mut buffer = Self { block, bytes: 0 };
        buffer.write_to(bytes);
        buffer
    }

    fn write_to(&mut self, bytes: usize) {
        for index in self.bytes..bytes {
            // SAFETY: the block has `bytes` bytes.
            unsafe { self.block.add(index).write(byte(index)) };
        }
        self.bytes = bytes;
    }

    /// Changes the size and checks what it holds; whether it moved.
    fn resize(&mut self, cache: &mut HeapCache<'_>, bytes: usize) -> bool {
        let before = self.block;
        // SAFETY: the block has this layout.
        self.block = unsafe { cache.realloc(before, layout(self.bytes), bytes) };
        assert!(!self.block.is_null());
        let held = self.bytes.min(bytes);
        // SAFETY: so many bytes were written.
        let contents = unsafe { slice::from_raw_parts(self.block, held) };
        assert!(contents.iter().enumerate().all(|(i, &b)| b == byte(i)));
        self.bytes = held;
        self.write_to(bytes);
        self.block != before
    }

    fn free(self, cache: &mut HeapCache<'_>) {
        // SAFETY: the block has this layout, and nobody uses it any more.
        unsafe { cache.dealloc(self.block, layout(self.bytes)) };
    }
}

#[test]
fn a_buffer_that_grows_moves_once_into_the_mapping_of_one_that_grew_before() {
    let heap = heap();
    let mut cache = heap.cache().expect("memory");
    let former = Buffer::new(&mut cache, 9 * MIB);
    let place = former.block;
    former.free(&mut cache);
    let mut buffer = Buffer::new(&mut cache, 600 * KIB);
    assert!(buffer.resize(&mut cache, 1200 * KIB), "out of its run");
    assert_eq!(buffer.block, place);
    assert!(!buffer.resize(&mut cache, 2400 * KIB), "into its own room");
    assert!(
        !buffer.resize(&mut cache, 4800 * KIB),
        "four times the first"
    );
    heap.validate().expect("the heap is whole");
    let other = Buffer::new(&mut cache, 2 * MIB);
    assert!(other.block != place, "a mapping has two users");
    other.free(&mut cache);
    buffer.free(&mut cache);
    assert_eq!(heap.stats().live, 0);
}

#[test]
fn a_buffer_that_grows_pins_no_more_than_four_times_its_size() {
    let heap = heap();
    let mut cache = heap.cache().expect("memory");
    Buffer::new(&mut cache, 9 * MIB).free(&mut cache);
    let mut buffer = Buffer::new(&mut cache, MIB);
    buffer.resize(&mut cache, 1200 * KIB);
    assert_eq!(heap.stats().large, 4800 * KIB);
    // A buffer that starts so large may stay so: no more than it asks for.
    buffer.free(&mut cache);
    let other = Buffer::new(&mut cache, 1200 * KIB);
    assert_eq!(heap.stats().large, 1200 * KIB);
    other.free(&mut cache);
}

#[test]
fn room_that_a_buffer_grew_into_goes_when_the_program_cuts_it() {
    let heap = heap();
    let mut cache = heap.cache().expect("memory");
    Buffer::new(&mut cache, 9 * MIB).free(&mut cache);
    let mut buffer = Buffer::new(&mut cache, MIB);
    buffer.resize(&mut cache, 2 * MIB);
    assert_eq!(heap.stats().large, 8 * MIB);
    let committed = heap.stats().committed;
    assert!(!buffer.resize(&mut cache, 2 * MIB - 1), "the same pages");
    assert!(!buffer.resize(&mut cache, 1500 * KIB), "in its place");
    assert_eq!(heap.stats().large, 1500 * KIB);
    assert!(heap.stats().committed <= committed - 6 * MIB);
    heap.validate().expect("the heap is whole");
    buffer.free(&mut cache);
}

#[test]
fn a_mapping_too_long_by_far_is_left_alone() {
    let heap = heap();
    let mut cache = heap.cache().expect("memory");
    let former = Buffer::new(&mut cache, 40 * MIB);
    let place = former.block;
    former.free(&mut cache);
    let mut buffer = Buffer::new(&mut cache, MIB);
    assert!(buffer.resize(&mut cache, 1200 * KIB));
    assert!(buffer.block != place, "more than eight times the size");
    buffer.free(&mut cache);
}
