//! `Heap` as an allocator for single collections.

use core::alloc::Layout;
use core::ptr::NonNull;

use allocator_api2::alloc::{AllocError, Allocator};

use crate::heap::Heap;

fn slice(block: *mut u8, size: usize) -> Result<NonNull<[u8]>, AllocError> {
    let block = NonNull::new(block).ok_or(AllocError)?;
    Ok(NonNull::slice_from_raw_parts(block, size))
}

// SAFETY: blocks stay valid until they are freed or the heap is dropped, which a borrow of
// it outlives not; copies of the reference are the same heap; any of them may free.
unsafe impl Allocator for &Heap {
    fn allocate(&self, layout: Layout) -> Result<NonNull<[u8]>, AllocError> {
        slice(self.alloc(layout), layout.size())
    }

    fn allocate_zeroed(&self, layout: Layout) -> Result<NonNull<[u8]>, AllocError> {
        slice(self.alloc_zeroed(layout), layout.size())
    }

    unsafe fn deallocate(&self, block: NonNull<u8>, layout: Layout) {
        // SAFETY: by the contract of `Allocator::deallocate`.
        unsafe { self.dealloc(block.as_ptr(), layout) };
    }

    unsafe fn grow(
        &self,
        block: NonNull<u8>,
        old: Layout,
        new: Layout,
    ) -> Result<NonNull<[u8]>, AllocError> {
        if old.align() == new.align() {
            // SAFETY: by the contract of `Allocator::grow`.
            return slice(
                unsafe { self.realloc(block.as_ptr(), old, new.size()) },
                new.size(),
            );
        }
        let to = self.allocate(new)?;
        // SAFETY: the new block is longer by contract, and apart from the old one.
        unsafe {
            block.copy_to_nonoverlapping(to.cast(), old.size());
            self.deallocate(block, old);
        }
        Ok(to)
    }
}

#[cfg(test)]
mod tests {
    use allocator_api2::vec::Vec;

    use crate::Heap;

    #[test]
    fn a_vector_grows_and_shrinks_in_a_heap() {
        let heap = Heap::new().expect("fewer than 4095 heaps live");
        let mut numbers = Vec::new_in(&heap);
        numbers.extend(0..100_000_u32);
        assert!(heap.stats().requested >= 400_000);
        assert!(numbers.iter().copied().eq(0..100_000));
        numbers.truncate(10);
        numbers.shrink_to_fit();
        assert_eq!(heap.stats().requested, 40);
        drop(numbers);
        assert_eq!(heap.stats().live, 0);
    }
}
