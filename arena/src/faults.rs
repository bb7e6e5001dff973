//! The operating system as the heap sees it, with failures on demand.
//!
//! [`Os`] forwards to [`crate::os`] unless a [`FaultPlan`] says that this call fails, so
//! that tests reach every path that a full machine would reach.

use core::ptr::NonNull;

use crate::config::HugePages;
use crate::os;
use crate::sync::{AtomicU64, Ordering};
use crate::units::align_up;

/// Which calls to the operating system fail, for testing how a program behaves when
/// memory runs out.
///
/// Counts every call by which a heap asks the system for memory or changes a mapping.
///
/// # Examples
///
/// ```
/// use brickyard_arena::{FaultPlan, Heap};
/// use core::alloc::Layout;
///
/// static PLAN: FaultPlan = FaultPlan::new();
/// let heap = Heap::with_faults(&PLAN)?;
/// PLAN.fail_nth(1, true);
/// assert!(heap.alloc(Layout::new::<u64>()).is_null());
/// PLAN.succeed();
/// assert!(!heap.alloc(Layout::new::<u64>()).is_null());
/// # Ok::<(), brickyard_arena::HeapError>(())
/// ```
#[derive(Debug)]
pub struct FaultPlan {
    calls: AtomicU64,
    /// Failing calls: from `first` on, up to but not including `end`.
    first: AtomicU64,
    end: AtomicU64,
}

impl FaultPlan {
    /// A plan in which every call succeeds.
    pub const fn new() -> Self {
        Self {
            calls: AtomicU64::new(0),
            first: AtomicU64::new(u64::MAX),
            end: AtomicU64::new(u64::MAX),
        }
    }

    /// Lets the `n`-th call from now fail (1 is the next), and all that follow it if
    /// `forever`.
    pub fn fail_nth(&self, n: u64, forever: bool) {
        // Relaxed throughout: the plan carries numbers only, nothing is read through it;
        // a test sets it while no other thread uses the heap.
        let first = self.calls.load(Ordering::Relaxed).saturating_add(n);
        let end = if forever {
            u64::MAX
        } else {
            first.saturating_add(1)
        };
        self.first.store(first, Ordering::Relaxed);
        self.end.store(end, Ordering::Relaxed);
    }

    /// Lets every call succeed from now on.
    pub fn succeed(&self) {
        // Relaxed: as in `fail_nth`.
        self.first.store(u64::MAX, Ordering::Relaxed);
        self.end.store(u64::MAX, Ordering::Relaxed);
    }

    /// Calls counted so far.
    pub fn calls(&self) -> u64 {
        // Relaxed: a number only.
        self.calls.load(Ordering::Relaxed)
    }

    fn fails(&self) -> bool {
        // Relaxed: as in `fail_nth`.
        let call = self.calls.fetch_add(1, Ordering::Relaxed) + 1;
        let first = self.first.load(Ordering::Relaxed);
        call >= first && call < self.end.load(Ordering::Relaxed)
    }
}

impl Default for FaultPlan {
    fn default() -> Self {
        Self::new()
    }
}

/// The operating system behind one heap.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Os {
    faults: Option<&'static FaultPlan>,
    huge_pages: HugePages,
}

impl Os {
    /// The system as it is.
    pub(crate) const fn new() -> Self {
        Self {
            faults: None,
            huge_pages: HugePages::System,
        }
    }

    /// The system with failures by `plan`.
    pub(crate) const fn with_faults(plan: &'static FaultPlan) -> Self {
        Self {
            faults: Some(plan),
            huge_pages: HugePages::System,
        }
    }

    /// The same with a policy for the mappings that it makes.
    pub(crate) const fn with_huge_pages(self, huge_pages: HugePages) -> Self {
        Self {
            faults: self.faults,
            huge_pages,
        }
    }

    /// Tells the system about huge pages for a mapping just made.
    fn advise(self, got: NonNull<u8>, len: usize) -> NonNull<u8> {
        let wanted = match self.huge_pages {
            HugePages::System => return got,
            HugePages::Never => false,
            HugePages::Always => true,
        };
        // SAFETY: whole OS pages that were mapped just above.
        unsafe { os::advise_huge(got.as_ptr().addr(), len, wanted) };
        got
    }

    fn fails(self) -> bool {
        self.faults.is_some_and(FaultPlan::fails)
    }

    /// Maps `len` bytes of zeroed memory.
    pub(crate) fn map(self, len: usize) -> Option<NonNull<u8>> {
        if self.fails() { None } else { os::map(len) }
    }

    /// Maps `len` bytes of zeroed memory at `addr` if nothing is there.
    pub(crate) fn map_at(self, addr: usize, len: usize) -> Option<NonNull<u8>> {
        if self.fails() {
            None
        } else {
            os::map_at(addr, len).map(|got| self.advise(got, len))
        }
    }

    /// Maps `len` bytes at a multiple of `align`, a power of two and at least an OS page.
    pub(crate) fn map_aligned(self, len: usize, align: usize) -> Option<NonNull<u8>> {
        let got = self.map(len)?;
        let addr = got.as_ptr().addr();
        if addr % align == 0 {
            return Some(self.advise(got, len));
        }
        // Not aligned by luck: map enough to cut an aligned piece out.
        // SAFETY: the mapping was made just above and nobody else knows it.
        unsafe { self.unmap(addr, len) };
        let wide = len.checked_add(align)?;
        let got = self.map(wide)?;
        let addr = got.as_ptr().addr();
        let start = align_up(addr, align)?;
        let head = start - addr;
        let tail = wide - head - len;
        // A refused cut leaves address space unused behind, never memory in use.
        if head > 0 {
            // SAFETY: the head of the mapping just made; only we know it.
            unsafe { self.unmap(addr, head) };
        }
        if tail > 0 {
            // SAFETY: the tail of the mapping just made; only we know it.
            unsafe { self.unmap(start + len, tail) };
        }
        NonNull::new(got.as_ptr().with_addr(start)).map(|got| self.advise(got, len))
    }

    /// Forgets a mapping; `false` if it is still there.
    ///
    /// # Safety
    ///
    /// As for [`os::unmap`].
    pub(crate) unsafe fn unmap(self, addr: usize, len: usize) -> bool {
        // SAFETY: by contract.
        !self.fails() && unsafe { os::unmap(addr, len) }
    }

    /// Drops the contents of whole OS pages; `false` if they are still there.
    ///
    /// # Safety
    ///
    /// As for [`os::purge`].
    pub(crate) unsafe fn purge(self, addr: usize, len: usize) -> bool {
        // SAFETY: by contract.
        !self.fails() && unsafe { os::purge(addr, len) }
    }

    /// Sets what may be done with whole OS pages; `false` if that is as it was.
    ///
    /// # Safety
    ///
    /// As for [`os::protect`].
    pub(crate) unsafe fn protect(self, addr: usize, len: usize, access: os::Access) -> bool {
        // SAFETY: by contract.
        !self.fails() && unsafe { os::protect(addr, len, access) }
    }

    /// Gives whole OS pages back, so that each access to them is a fault; `false` if that is as
    /// it was.
    ///
    /// # Safety
    ///
    /// As for [`os::fence`].
    pub(crate) unsafe fn fence(self, addr: usize, len: usize) -> bool {
        // SAFETY: by contract.
        !self.fails() && unsafe { os::fence(addr, len) }
    }

    /// Takes back what [`Self::fence`] did; `false` if that is as it was.
    ///
    /// # Safety
    ///
    /// As for [`os::unfence`].
    pub(crate) unsafe fn unfence(self, addr: usize, len: usize) -> bool {
        // SAFETY: by contract.
        !self.fails() && unsafe { os::unfence(addr, len) }
    }

    /// Grows a mapping in place.
    ///
    /// # Safety
    ///
    /// As for [`os::extend`].
    pub(crate) unsafe fn extend(self, addr: usize, old: usize, new: usize) -> bool {
        // SAFETY: by contract.
        !self.fails() && unsafe { os::extend(addr, old, new) }
    }

    /// Moves pages on to another mapping.
    ///
    /// # Safety
    ///
    /// As for [`os::relocate`].
    pub(crate) unsafe fn relocate(self, from: usize, old: usize, to: usize, new: usize) -> bool {
        // SAFETY: by contract.
        !self.fails() && unsafe { os::relocate(from, old, to, new) }
    }
}
