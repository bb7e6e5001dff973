//! Pages as readers see them: inside the file, and with the checksum their parent says.
//!
//! A page is verified and validated once per mapping, by whoever comes first; a bit
//! remembers. A page whose bit is set is not what it was only if somebody else writes to
//! the file. Invariants:
//!
//! - I1: `len` is at most the length of the file. Both go down only over pages that no
//!   snapshot reaches (`Shared::trim`), so that a page below `len` stays in the file as
//!   long as somebody's version has it.
//! - I2: the bit of a page is set only if its bytes had the right checksum and were a
//!   valid node, or were written by this handle; it is cleared before the page is reused.
//! - I3: what a version of an open store may reach is written by [`Pages::write`] only.

use std::io::{self, IoSlice};
use std::sync::Arc;

use crate::backing::{Backing, Map};
use crate::error::{Flaw, ReadError, damaged};
use crate::file_len::FileLen;
use crate::format::node::Node;
use crate::format::table::LargeRef;
use crate::ids::{Child, Extent, FIRST_PAGE, PAGE_BYTES, PageBuf, pages_for};
use crate::sync::{AtomicU64, Ordering};
use crate::validated::Validated;

/// No bytes, where a page could start.
#[repr(align(4096))]
struct Nothing([u8; 0]);

static NOTHING: Nothing = Nothing([]);

const _: () = assert!(align_of::<Nothing>() == PAGE_BYTES);

/// See the module. Shared by all threads.
#[derive(Debug)]
pub(crate) struct Pages {
    backing: Arc<dyn Backing>,
    /// That of `backing`, without a call.
    map: Arc<Map>,
    /// Pages of the file that may be touched.
    len: FileLen,
    /// One bit a page of address space.
    verified: Box<[AtomicU64]>,
    /// Values that were looked at.
    validated: Validated,
    /// Checksums are not looked at: what a test plants.
    #[cfg(test)]
    believe: bool,
}

impl Pages {
    pub(crate) fn new(backing: Arc<dyn Backing>, len: u32) -> Self {
        let words = vec![0_u64; backing.map().capacity().div_ceil(64)].into_boxed_slice();
        let words: *mut [u64] = Box::into_raw(words);
        // Zeroed pages from the system stay untouched until a bit is set in them.
        // SAFETY: `AtomicU64` has the size, alignment (on 64-bit targets, which the
        // mapping needs) and validity of `u64`; the box was given up above.
        let verified = unsafe { Box::from_raw(words as *mut [AtomicU64]) };
        let map = Arc::clone(backing.map());
        let new = Self {
            backing,
            map,
            len: FileLen::new(0),
            verified,
            validated: Validated::default(),
            #[cfg(test)]
            believe: false,
        };
        new.set_len(len);
        new
    }

    /// Without looking at checksums, if a test wants it so.
    #[cfg(test)]
    pub(crate) fn believing(mut self, believe: bool) -> Self {
        self.believe = believe;
        self
    }

    pub(crate) fn backing(&self) -> &Arc<dyn Backing> {
        &self.backing
    }

    /// Says that the file has grown to `len` pages, or will be cut to so many.
    pub(crate) fn set_len(&self, len: u32) {
        debug_assert!(self.backing.pages().is_ok_and(|pages| len <= pages));
        self.len.set(len);
    }

    /// Pages of the file.
    pub(crate) fn len(&self) -> u32 {
        self.len.get()
    }

    pub(crate) fn capacity(&self) -> usize {
        self.map.capacity()
    }

    /// Asks for `lines` cache lines of the page that `child` names, from byte `offset` on.
    #[inline]
    pub(crate) fn prefetch(&self, child: Child, offset: usize, lines: usize) {
        self.map.prefetch(child.page as usize, offset, lines);
    }

    /// The bytes of a run of pages that a snapshot or the writer's own version reaches.
    #[inline]
    fn slice(&self, extent: Extent) -> Result<&[u8], ReadError> {
        if extent.first < FIRST_PAGE || extent.end() > self.len.get() {
            return Err(damaged(extent.first, Flaw::OutOfFile));
        }
        // SAFETY: (1) the pages lie below the end of the file, by the check, and stay there
        // while their snapshot lives, by I1; (2)
        // nobody writes to pages that a live version reaches: the space map gives out
        // only pages that no snapshot, no publishable version and no checkpoint holds,
        // and that what it starts from is true was walked before the first write.
        Ok(unsafe { self.map.slice(extent.first as usize, extent.pages as usize) })
    }

    /// The bytes of a run of pages that a snapshot reaches, whatever they mean.
    pub(crate) fn run(&self, extent: Extent) -> Result<&[u8], ReadError> {
        self.slice(extent)
    }

    fn bit(page: u32) -> (usize, u64) {
        (page as usize / 64, 1 << (page % 64))
    }

    #[inline]
    fn is_verified(&self, page: u32) -> bool {
        let (word, bit) = Self::bit(page);
        // Acquire: pairs with `set_verified`; nothing is read through it, since the bytes
        // were published with the version that reaches them.
        let word = self.verified.get(word);
        word.is_some_and(|word| word.load(Ordering::Acquire) & bit != 0)
    }

    /// Remembers that the page is what it should be (I2).
    pub(crate) fn set_verified(&self, page: u32) {
        let (word, bit) = Self::bit(page);
        if let Some(word) = self.verified.get(word) {
            // Release: see `is_verified`.
            word.fetch_or(bit, Ordering::Release);
        }
    }

    /// Forgets about pages that are about to be written anew.
    fn clear_verified(&self, extent: Extent) {
        for page in extent.first..extent.end() {
            let (word, bit) = Self::bit(page);
            if let Some(word) = self.verified.get(word) {
                // Release: see `is_verified`.
                word.fetch_and(!bit, Ordering::Release);
            }
        }
    }

    /// Writes `buffers`, whole pages in all, one after another from page `first`, which no
    /// version reaches. What was known of these pages is forgotten first.
    pub(crate) fn write(&self, first: u32, buffers: &[IoSlice<'_>]) -> io::Result<()> {
        let bytes = buffers.iter().map(|each| each.len() as u64).sum();
        let pages = u32::try_from(pages_for(bytes)).unwrap_or(u32::MAX);
        let extent = Extent { first, pages };
        self.clear_verified(extent);
        self.validated.forget(extent);
        self.backing.write_pages(first, buffers)
    }

    pub(crate) fn validated(&self) -> &Validated {
        &self.validated
    }

    /// Where bytes that a reader was lent start: the page and the byte of it. `None` if they
    /// are not of the file; if they are none; and if they may vanish, since what is
    /// remembered would then be wrong.
    #[inline]
    pub(crate) fn place_of(&self, bytes: &[u8]) -> Option<(u32, usize)> {
        let raw = self.map.raw();
        let at = bytes.as_ptr().addr().checked_sub(raw.as_ptr().addr())?;
        if at >= raw.len() || bytes.is_empty() || self.map.is_guarded() {
            return None;
        }
        Some((u32::try_from(at / PAGE_BYTES).ok()?, at % PAGE_BYTES))
    }

    /// The node that `child` names.
    #[inline]
    pub(crate) fn node(&self, child: Child) -> Result<Node<'_>, ReadError> {
        let page = self.page(child)?;
        Node::parse(page).map_err(|flaw| damaged(child.page, flaw))
    }

    /// The bytes of the page that `child` names.
    #[inline]
    pub(crate) fn page(&self, child: Child) -> Result<&PageBuf, ReadError> {
        let bytes = self.slice(Extent {
            first: child.page,
            pages: 1,
        })?;
        let page: &PageBuf = bytes.try_into().expect("a page has 4096 bytes");
        if !self.is_verified(child.page) {
            self.verify_slow(child, page)?;
        }
        Ok(page)
    }

    #[cold]
    #[inline(never)]
    fn verify_slow(&self, child: Child, page: &PageBuf) -> Result<(), ReadError> {
        self.verify(child, page)?;
        self.set_verified(child.page);
        Ok(())
    }

    fn verify(&self, child: Child, page: &PageBuf) -> Result<(), ReadError> {
        let flawed = |flaw| damaged(child.page, flaw);
        if !self.fits(page, child.crc) {
            return Err(flawed(Flaw::Checksum));
        }
        let node = Node::parse(page).map_err(flawed)?;
        node.validate().map_err(flawed)?;
        node.names_file_pages().map_err(flawed)
    }

    fn fits(&self, bytes: &[u8], crc: u32) -> bool {
        #[cfg(test)]
        if self.believe {
            return true;
        }
        crc32c::crc32c(bytes) == crc
    }

    /// Like [`Pages::node`], and looks at the checksum whatever the bit says.
    pub(crate) fn node_checked(&self, child: Child) -> Result<Node<'_>, ReadError> {
        let page = self.page(child)?;
        self.verify(child, page)?;
        Node::parse(page).map_err(|flaw| damaged(child.page, flaw))
    }

    /// A large value as one slice that starts on a page.
    pub(crate) fn large(&self, large: &LargeRef) -> Result<&[u8], ReadError> {
        self.large_with(large, !self.is_verified(large.page))
    }

    /// Like [`Pages::large`]; looks at the checksum if `check` says so.
    pub(crate) fn large_with(&self, large: &LargeRef, check: bool) -> Result<&[u8], ReadError> {
        if *large == LargeRef::EMPTY {
            return Ok(&NOTHING.0);
        }
        let extent = large.extent();
        let bytes = self.slice(extent.ok_or(damaged(large.page, Flaw::Record))?)?;
        let bytes = bytes.get(..usize::try_from(large.len).unwrap_or(usize::MAX));
        let bytes = bytes.ok_or(damaged(large.page, Flaw::Record))?;
        if check {
            if !self.fits(bytes, large.crc) {
                return Err(damaged(large.page, Flaw::Checksum));
            }
            self.set_verified(large.page);
        }
        Ok(bytes)
    }

    /// Whether bytes vanished under a reader.
    #[inline]
    pub(crate) fn has_vanished(&self) -> bool {
        self.map.is_lost()
    }

    /// What was read, unless bytes vanished meanwhile or before, so that it may be wrong.
    /// Where a user gets what was read, this comes last.
    #[inline]
    pub(crate) fn intact<T>(&self, read: Result<T, ReadError>) -> Result<T, ReadError> {
        if self.has_vanished() {
            return Err(ReadError::Vanished);
        }
        read
    }

    /// The map of free pages of a checkpoint.
    pub(crate) fn free_map(&self, map: Extent, crc: u32) -> Result<&[u8], ReadError> {
        if map.pages == 0 {
            return Ok(&[]);
        }
        let bytes = self.slice(map)?;
        if !self.fits(bytes, crc) {
            return Err(damaged(map.first, Flaw::Checksum));
        }
        debug_assert_eq!(bytes.len() % PAGE_BYTES, 0);
        Ok(bytes)
    }
}
