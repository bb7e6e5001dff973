//! Boxes of a crate that does not define the global allocator, as most code is: its calls go
//! through the functions that the compiler puts between.

use core::hint::black_box;

/// Makes and drops so many boxes of 64 bytes.
#[inline(never)]
pub fn boxes(count: usize) {
    for _ in 0..count {
        let mut object = Box::<[u8; 64]>::new_uninit();
        black_box(object.as_mut_ptr());
    }
}
