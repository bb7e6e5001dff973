//! A pair of the arena in Rust: one block allocated and freed.

use core::alloc::{GlobalAlloc as _, Layout};
use core::hint::black_box;

use brickyard_arena::Arena;

/// The heap of the process, as every `Arena`.
static ARENA: Arena = Arena::new();

/// A `Box` made and dropped, through what the compiler puts between it and the global allocator.
#[inline(never)]
pub(super) fn boxes<const SIZE: usize>(count: usize) {
    for _ in 0..count {
        let mut object = Box::<[u8; SIZE]>::new_uninit();
        black_box(object.as_mut_ptr());
    }
}

/// The arena's own code, inlined, as where a collection is told its allocator.
#[inline(never)]
pub(super) fn inlined<const SIZE: usize>(count: usize) {
    let layout = Layout::new::<[u8; SIZE]>();
    for _ in 0..count {
        // SAFETY: the layout's size is not 0: no caller asks for that.
        let block = black_box(unsafe { ARENA.alloc(layout) });
        if !block.is_null() {
            // SAFETY: the block came from ARENA with this layout and is not used any more.
            unsafe { ARENA.dealloc(block, layout) };
        }
    }
}
