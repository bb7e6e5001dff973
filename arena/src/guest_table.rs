//! What starts in the lent runs of a segment: one byte for each 32 bytes of it, 0 for nothing,
//! else 1 + the class of the guest that starts there.
//!
//! The table is mapped when the first run of the segment is lent, and only what is touched
//! of it is resident: a page of it for 128 KiB in which there are guests.
//!
//! Invariants:
//! - L1: a byte is set exactly while its guest is outside: from before the guest is handed
//!   out until before its blocks are free again.
//! - L2: a guest's bytes of memory are blocks of its host whose bits are clear (S1), so no
//!   two guests overlap, and no guest overlaps a block that is handed out.

use core::mem::size_of;
use core::ptr;

use crate::faults::Os;
use crate::lend::{GuestEntry, LEAST_HOST_BYTES};
use crate::sync::{AtomicPtr, Ordering};
use crate::units::{ClassIndex, SEGMENT_BYTES};

/// Bytes of a table, which are its entries.
pub(crate) const TABLE_BYTES: usize = SEGMENT_BYTES / LEAST_HOST_BYTES;
const _: () = assert!(size_of::<GuestEntry>() == 1);

/// The table of one segment. All zeros is a valid one that is not mapped.
#[derive(Debug)]
pub(crate) struct GuestTable {
    bytes: AtomicPtr<GuestEntry>,
}

impl GuestTable {
    /// Maps the table if it is not; `Some(true)` if this call did, `None` when memory is
    /// short.
    pub(crate) fn prepare(&self, os: Os) -> Option<bool> {
        // Acquire: as in `entry`.
        if !self.bytes.load(Ordering::Acquire).is_null() {
            return Some(false);
        }
        let new = os.map(TABLE_BYTES)?;
        // AcqRel: publishes the zeroes of the mapping to the Acquire in `entry`, or sees
        // the table of whoever was faster.
        let put = self.bytes.compare_exchange(
            ptr::null_mut(),
            new.as_ptr().cast(),
            Ordering::AcqRel,
            Ordering::Acquire,
        );
        if put.is_err() {
            // SAFETY: mapped above, and nobody else has heard of it.
            unsafe { os.unmap(new.addr().get(), TABLE_BYTES) };
        }
        Some(put.is_ok())
    }

    /// Unmaps the table.
    ///
    /// # Safety
    ///
    /// Nobody uses the segment any more.
    pub(crate) unsafe fn drop_mapping(&self, os: Os) {
        // Relaxed: nobody else is there.
        let bytes = self.bytes.swap(ptr::null_mut(), Ordering::Relaxed);
        if !bytes.is_null() {
            // SAFETY: mapped in `prepare`, and by contract not used any more.
            unsafe { os.unmap(bytes.addr(), TABLE_BYTES) };
        }
    }

    fn entry(&self, addr: usize) -> Option<&GuestEntry> {
        // Acquire: pairs with the exchange in `prepare`.
        let bytes = self.bytes.load(Ordering::Acquire);
        if bytes.is_null() {
            return None;
        }
        let index = addr % SEGMENT_BYTES / LEAST_HOST_BYTES;
        // SAFETY: the table has `TABLE_BYTES` zeroed bytes, of which `index` is one, each a
        // valid entry, and is mapped as long as the segment.
        Some(unsafe { &*bytes.add(index) })
    }

    /// Notes that a guest of `class` starts at `addr`. Its blocks are the caller's.
    pub(crate) fn put(&self, addr: usize, class: ClassIndex) {
        if let Some(entry) = self.entry(addr) {
            entry.put(class);
        }
    }

    /// The class of the guest that starts at `addr`, if there is one.
    pub(crate) fn get(&self, addr: usize) -> Option<ClassIndex> {
        self.entry(addr)?.get()
    }

    /// Reads the entry for `addr` and does not wait for it.
    pub(crate) fn touch(&self, addr: usize) {
        if let Some(entry) = self.entry(addr) {
            entry.touch();
        }
    }

    /// Forgets the guest that starts at `addr`, if it is one of `class`. Of several threads
    /// that give it back, one gets `true`.
    pub(crate) fn take(&self, addr: usize, class: ClassIndex) -> bool {
        self.entry(addr).is_some_and(|entry| entry.take(class))
    }
}
