//! A thread's chunk while it is filled, and the list of all of them.
//!
//! Buffers are mapped and never unmapped. A thread that ends leaves its buffer to the
//! next one. Who may touch what is told in [`shared`](crate::shared).

use core::ffi::c_void;
use core::ptr;

use brickyard_recording::{ChunkWriter, Event};

use crate::file;
use crate::shared::{List, Locked, Node};
use crate::sync::{AtomicU32, Ordering};

/// How often [`lock_patiently`] lets others run before it gives up: a write of a
/// chunk is a fraction of that.
const PATIENCE: u32 = 10_000;

static BUFFERS: List<Contents> = List::new();

/// The next thread's number.
static THREADS: AtomicU32 = AtomicU32::new(0);

/// A buffer.
pub(crate) type Buffer = Node<Contents>;

/// A thread's events. All zero bytes is a thread that has none.
#[repr(C)]
pub(crate) struct Contents {
    thread: u32,
    /// How often the destructors of the thread have run.
    endings: u32,
    chunk: ChunkWriter,
}

/// Takes a buffer that nobody owns, or whose owner has ended, or maps one; `None` when there is no
/// memory, or the file is lost.
pub(crate) fn acquire() -> Option<&'static Buffer> {
    let thread = file::thread();
    let buffer = match all().find(|buffer| buffer.own(thread)) {
        Some(buffer) => buffer,
        // A thread whose first call is made by one of its last destructors gives nothing up. Asking is
        // a call to the system for each thread that lives, beside one that maps.
        None => match all().find(|buffer| buffer.inherit(thread, file::has_ended)) {
            Some(buffer) => buffer,
            None => map(thread)?,
        },
    };
    // Locked by who writes all of them at the end, if at all: too late for a new thread.
    if let Some(mut locked) = buffer.lock() {
        // What an owner has left that did not give it up.
        if !locked.with(Contents::flush) {
            return None;
        }
        locked.with(Contents::begin);
    }
    Some(buffer)
}

/// All buffers, the newest first.
pub(crate) fn all() -> impl Iterator<Item = &'static Buffer> {
    BUFFERS.all()
}

/// Maps a buffer for the caller and puts it in the list.
fn map(thread: u32) -> Option<&'static Buffer> {
    let (protection, flags) = (
        libc::PROT_READ | libc::PROT_WRITE,
        libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
    );
    // SAFETY: a fresh mapping at an address that the kernel chooses touches nothing that
    // exists.
    let address: *mut c_void = unsafe {
        libc::mmap(
            ptr::null_mut(),
            size_of::<Buffer>(),
            protection,
            flags,
            -1,
            0,
        )
    };
    if address == libc::MAP_FAILED {
        return None;
    }
    // SAFETY: mapped above for ever, large enough, on a page boundary, and zero: a null pointer,
    // two claims that nobody has, numbers, and a chunk for which its type allows it.
    let buffer: &'static Buffer = unsafe { &*address.cast() };
    // Nobody else knows it yet.
    buffer.own(thread);
    BUFFERS.push(buffer);
    Some(buffer)
}

/// Locks the buffer of another thread, which holds its lock for a moment at a time. `None`
/// when that takes too long: the thread was ended in between.
pub(crate) fn lock_patiently(buffer: &'static Buffer) -> Option<Locked<Contents>> {
    for _ in 0..PATIENCE {
        if let Some(locked) = buffer.lock() {
            return Some(locked);
        }
        file::yield_now();
    }
    None
}

impl Contents {
    /// Makes the buffer that of a new thread.
    fn begin(&mut self) {
        // Relaxed: a number that nobody else gets; nothing is read through it.
        self.thread = THREADS.fetch_add(1, Ordering::Relaxed);
        self.endings = 0;
    }

    /// Counts one more round of the thread's destructors; returns how many there were.
    pub(crate) fn count_ending(&mut self) -> u32 {
        self.endings = self.endings.saturating_add(1);
        self.endings
    }

    /// Adds an event; writes the chunk out when it is full. `false` when the file is lost.
    pub(crate) fn push(&mut self, number: u64, event: Event) -> bool {
        // There is room, or the chunk would have been written out; numbers are taken under the
        // lock, so they grow.
        self.chunk.push(number, event);
        !self.chunk.is_full() || self.flush()
    }

    /// Writes out what is there. `false` when the file is lost.
    pub(crate) fn flush(&mut self) -> bool {
        if self.chunk.is_empty() {
            return true;
        }
        let written = file::keeping_errno(|| file::write(self.chunk.seal(self.thread)));
        self.chunk.clear();
        written
    }
}
