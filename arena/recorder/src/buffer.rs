//! A thread's chunk while it is filled, and the list of all of them.
//!
//! Buffers are mapped and never unmapped. A thread that ends leaves its buffer to the
//! next one. Fields, and who may touch them:
//!
//! | field | who |
//! |---|---|
//! | `next` | written once, before the buffer is in the list |
//! | `owned` | swapped by who wants the buffer; stored by who leaves it |
//! | `lock` | anybody |
//! | `thread`, `endings`, `chunk` | who holds the lock |

use core::ffi::c_void;
use core::ptr;
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, Ordering};

use brickyard_recording::{ChunkWriter, Event};

use crate::file;

/// How often [`Buffer::lock_patiently`] lets others run before it gives up: a write of a
/// chunk is a fraction of that.
const PATIENCE: u32 = 10_000;

/// The buffer that was mapped last.
static NEWEST: AtomicPtr<Buffer> = AtomicPtr::new(ptr::null_mut());

/// The next thread's number.
static THREADS: AtomicU32 = AtomicU32::new(0);

/// A thread's events. All zero bytes is a buffer that nobody owns.
#[repr(C)]
pub(crate) struct Buffer {
    next: *mut Self,
    owned: AtomicBool,
    lock: AtomicBool,
    thread: u32,
    /// How often the destructors of the thread have run.
    endings: u32,
    chunk: ChunkWriter,
}

/// A buffer whose lock is held.
pub(crate) struct Locked {
    buffer: *mut Buffer,
}

/// Takes a buffer that nobody owns, or maps one; null when there is no memory.
pub(crate) fn acquire() -> *mut Buffer {
    let free = all().find(|buffer| {
        // SAFETY: buffers of the list are never unmapped, and `owned` is atomic.
        let owned = unsafe { &(**buffer).owned };
        // Acquire: pairs with the Release in `release`; the chunk was written out before.
        !owned.swap(true, Ordering::Acquire)
    });
    let buffer = free.unwrap_or_else(map);
    if !buffer.is_null() {
        if let Some(mut locked) = lock(buffer) {
            locked.begin();
        }
    }
    buffer
}

/// All buffers, the newest first.
pub(crate) fn all() -> impl Iterator<Item = *mut Buffer> {
    // Acquire: pairs with the Release in `map`, which publishes `next`.
    let mut buffer = NEWEST.load(Ordering::Acquire);
    core::iter::from_fn(move || {
        let this = buffer;
        if this.is_null() {
            return None;
        }
        // SAFETY: in the list, so mapped for ever; `next` is not written any more.
        buffer = unsafe { (*this).next };
        Some(this)
    })
}

/// Maps a buffer that is owned already and puts it in the list.
fn map() -> *mut Buffer {
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
        return ptr::null_mut();
    }
    let buffer: *mut Buffer = address.cast();
    // Relaxed: published by the Release below.
    // SAFETY: mapped above, large enough, on a page boundary, and zero: a null pointer, two
    // `false`, numbers, and a chunk for which its type allows it. Nobody else knows it yet.
    unsafe { (*buffer).owned.store(true, Ordering::Relaxed) };
    // Relaxed: only put into `next`.
    let mut newest = NEWEST.load(Ordering::Relaxed);
    loop {
        // SAFETY: as above.
        unsafe { (*buffer).next = newest };
        // Release: publishes the fields above to the Acquire in `all`. Relaxed on failure:
        // `newest` is only put into `next`.
        match NEWEST.compare_exchange_weak(newest, buffer, Ordering::Release, Ordering::Relaxed) {
            Ok(_) => return buffer,
            Err(other) => newest = other,
        }
    }
}

/// Locks the buffer unless it is locked: by a signal handler's victim, or by who writes
/// all of them at the end.
pub(crate) fn lock(buffer: *mut Buffer) -> Option<Locked> {
    // SAFETY: buffers are never unmapped, and the lock is atomic.
    let lock = unsafe { &(*buffer).lock };
    // Acquire: pairs with the Release in `drop`.
    (!lock.swap(true, Ordering::Acquire)).then_some(Locked { buffer })
}

/// Locks the buffer of another thread, which holds its lock for a moment at a time. `None`
/// when that takes too long: the thread was ended in between.
pub(crate) fn lock_patiently(buffer: *mut Buffer) -> Option<Locked> {
    for _ in 0..PATIENCE {
        if let Some(locked) = lock(buffer) {
            return Some(locked);
        }
        file::yield_now();
    }
    None
}

/// Leaves the buffer to other threads. The caller has flushed it.
pub(crate) fn release(buffer: *mut Buffer) {
    // SAFETY: buffers are never unmapped, and `owned` is atomic.
    let owned = unsafe { &(*buffer).owned };
    // Release: see the Acquire in `acquire`.
    owned.store(false, Ordering::Release);
}

impl Locked {
    /// Makes the buffer that of a new thread.
    fn begin(&mut self) {
        // Relaxed: a number that nobody else gets; nothing is read through it.
        let thread = THREADS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the lock is held, so nobody else touches the fields.
        unsafe {
            (*self.buffer).thread = thread;
            (*self.buffer).endings = 0;
        }
    }

    /// Counts one more round of the thread's destructors; returns how many there were.
    pub(crate) fn count_ending(&mut self) -> u32 {
        // SAFETY: the lock is held, so nobody else touches the field.
        let endings = unsafe { &mut (*self.buffer).endings };
        *endings = endings.saturating_add(1);
        *endings
    }

    /// Adds an event; writes the chunk out when it is full. `false` when the file is lost.
    pub(crate) fn push(&mut self, number: u64, event: Event) -> bool {
        // SAFETY: the lock is held, so nobody else touches the chunk.
        let chunk = unsafe { &mut (*self.buffer).chunk };
        // There is room, or the chunk would have been written out; numbers are taken under the
        // lock, so they grow.
        chunk.push(number, event);
        !chunk.is_full() || self.flush()
    }

    /// Writes out what is there. `false` when the file is lost.
    pub(crate) fn flush(&mut self) -> bool {
        // SAFETY: the lock is held, so nobody else touches the two fields.
        let (thread, chunk) = unsafe { ((*self.buffer).thread, &mut (*self.buffer).chunk) };
        if chunk.is_empty() {
            return true;
        }
        let written = file::keeping_errno(|| file::write(chunk.seal(thread)));
        chunk.clear();
        written
    }
}

impl Drop for Locked {
    fn drop(&mut self) {
        // SAFETY: buffers are never unmapped, and the lock is atomic.
        let lock = unsafe { &(*self.buffer).lock };
        // Release: publishes what was done under the lock to the Acquire in `lock`.
        lock.store(false, Ordering::Release);
    }
}
