//! Memory of a write transaction that starts where the file's bytes would start, so that
//! values are aligned there, too.

use core::ops::{Deref, DerefMut};

use crate::ids::{Alignment, LEAF_ALIGNMENT_BYTES, PAGE_BYTES, PageBuf};

/// A node's bytes.
#[derive(Clone, Debug)]
#[repr(C, align(64))]
pub(crate) struct PageMemory(PageBuf);

const _: () = assert!(align_of::<PageMemory>() == LEAF_ALIGNMENT_BYTES);

impl PageMemory {
    pub(crate) fn new() -> Self {
        Self([0; PAGE_BYTES])
    }
}

impl Deref for PageMemory {
    type Target = PageBuf;

    fn deref(&self) -> &PageBuf {
        &self.0
    }
}

impl DerefMut for PageMemory {
    fn deref_mut(&mut self) -> &mut PageBuf {
        &mut self.0
    }
}

/// A value that gets pages of its own.
#[derive(Debug)]
pub(crate) struct ValueMemory {
    /// The value, with room to start it where it is aligned.
    bytes: Box<[u8]>,
    start: usize,
    len: usize,
}

impl ValueMemory {
    pub(crate) fn copy_of(value: &[u8], alignment: Alignment) -> Self {
        let mut new = Self::zeroed(value.len(), alignment);
        new.copy_from_slice(value);
        new
    }

    /// `len` zeros.
    pub(crate) fn zeroed(len: usize, alignment: Alignment) -> Self {
        let bytes = vec![0; len + alignment.bytes() - 1].into_boxed_slice();
        // The box is never moved to other memory.
        let start = bytes.as_ptr().align_offset(alignment.bytes());
        Self { bytes, start, len }
    }
}

impl Deref for ValueMemory {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[self.start..][..self.len]
    }
}

impl DerefMut for ValueMemory {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..][..self.len]
    }
}
