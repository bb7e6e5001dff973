//! From the first call of the program to its end: on, off, and the numbers of events.
//!
//! | state | `note` |
//! |---|---|
//! | `UNBORN` | tries to begin: becomes `BEGINNING`, once the C library has the environment |
//! | `BEGINNING` | does nothing: what beginning itself allocates is not of the program |
//! | `ON` | gives the event a number and keeps it |
//! | `OFF` | does nothing, for ever: nothing was asked for, the file is lost, a fork, the end |
//!
//! In a copy of the process that began ([`process`]) all of them do nothing.

use core::ffi::{c_char, c_void};
use core::ptr;

use brickyard_recording::{Event, end};

use crate::buffer::{self, Buffer, Contents};
use crate::file;
use crate::process;
use crate::sync::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};

const UNBORN: u8 = 0;
const BEGINNING: u8 = 1;
const ON: u8 = 2;
const OFF: u8 = 3;

/// Keys below this are kept inside of the thread's descriptor: glibc allocates a table for
/// those above, at their first use.
const INLINE_KEYS: libc::pthread_key_t = 32;

/// How often glibc runs the destructors of a thread while they leave values behind.
const LAST_ENDING: u32 = 4;

/// Its thread has ended but for what the C library itself frees.
const GONE: *mut c_void = ptr::without_provenance_mut(1);

static STATE: AtomicU8 = AtomicU8::new(UNBORN);

/// The next event's number.
static NUMBERS: AtomicU64 = AtomicU64::new(0);

/// Events that found no buffer.
static LOST: AtomicU32 = AtomicU32::new(0);

// Relaxed everywhere: plain numbers, written before `STATE` becomes `ON`.
static KEY: AtomicU32 = AtomicU32::new(0);
static PROCESS: AtomicU32 = AtomicU32::new(0);

unsafe extern "C" {
    /// The C library's; null until it is set up. By the name that is its own: a program may
    /// define an `environ`.
    #[link_name = "__environ"]
    static ENVIRONMENT: *const *const c_char;
}

/// Run by the dynamic linker when the library is loaded.
#[used]
#[unsafe(link_section = ".init_array")]
static ON_LOAD: extern "C" fn() = on_load;

/// Run by the dynamic linker when the program exits.
#[used]
#[unsafe(link_section = ".fini_array")]
static ON_EXIT: extern "C" fn() = finish;

extern "C" fn on_load() {
    begin();
}

/// Records an event, if events are recorded.
///
/// The caller takes care that the number, which is given here, comes after the C library has
/// returned a block and before it is given one back.
#[inline]
pub(crate) fn note(event: Event) {
    // Acquire: pairs with the Release in `begin`.
    match STATE.load(Ordering::Acquire) {
        ON if process::is_marked() => keep(event),
        UNBORN if begin() => keep(event),
        _ => {}
    }
}

/// Gives the event a number and puts it into the thread's buffer.
fn keep(event: Event) {
    let Some(mut locked) = own_buffer().and_then(Buffer::lock) else {
        // Relaxed: a sum that is read at the end.
        LOST.fetch_add(1, Ordering::Relaxed);
        return;
    };
    // Relaxed: numbers are given out one after the other, and where one event happens before
    // another, by whatever the program or the C library does, so do these two steps. Under the
    // lock, so that numbers grow within the buffer.
    let number = NUMBERS.fetch_add(1, Ordering::Relaxed);
    if !locked.with(|events| events.push(number, event)) {
        // Relaxed: others see it some time; nothing is read through it.
        STATE.store(OFF, Ordering::Relaxed);
    }
}

/// The calling thread's buffer; `None` when there is no memory or the thread is gone.
fn own_buffer() -> Option<&'static Buffer> {
    let key = KEY.load(Ordering::Relaxed);
    // SAFETY: the key was made before the state became `ON` and is never deleted.
    let value = unsafe { libc::pthread_getspecific(key) };
    if value == GONE {
        return None;
    }
    if !value.is_null() {
        // SAFETY: neither null nor `GONE`, so from below: a buffer, which is never unmapped.
        return Some(unsafe { &*value.cast() });
    }
    file::keeping_errno(|| {
        let buffer = buffer::acquire()?;
        set_own(ptr::from_ref(buffer).cast_mut().cast());
        Some(buffer)
    })
}

/// What [`own_buffer`] finds from here on.
fn set_own(value: *mut c_void) {
    // It cannot fail: it allocates nothing for a key this low.
    // SAFETY: as in `own_buffer`.
    unsafe { libc::pthread_setspecific(KEY.load(Ordering::Relaxed), value) };
}

/// Begins, if this process is to be recorded; whether it is.
#[cold]
fn begin() -> bool {
    // SAFETY: the variable belongs to the C library, which sets it before it runs any code of the
    // program; it is read as one word.
    if unsafe { ENVIRONMENT }.is_null() {
        return false;
    }
    // Relaxed: there is one thread as yet, and on failure nothing is read.
    if STATE
        .compare_exchange(UNBORN, BEGINNING, Ordering::Relaxed, Ordering::Relaxed)
        .is_err()
    {
        return false;
    }
    let on = file::keeping_errno(prepare);
    // Release: publishes key, process and file to the Acquire in `note`.
    STATE.store(if on { ON } else { OFF }, Ordering::Release);
    on
}

/// Opens the file and registers for the ends of threads and for fork.
fn prepare() -> bool {
    let Some(path) = file::variable(c"BRICKYARD_RECORD").filter(|path| !path.is_empty()) else {
        return false;
    };
    let mut key = 0;
    // SAFETY: `key` is valid for writing, and the destructor is a function of this library, which
    // is never unloaded.
    let failed = unsafe { libc::pthread_key_create(&raw mut key, Some(thread_ends)) };
    if failed != 0 || key >= INLINE_KEYS {
        return false;
    }
    KEY.store(key, Ordering::Relaxed);
    PROCESS.store(file::process(), Ordering::Relaxed);
    if !process::mark() {
        return false;
    }
    // SAFETY: the handler is a function of this library, which is never unloaded.
    let failed = unsafe { libc::pthread_atfork(None, None, Some(forked)) };
    failed == 0 && file::open(path)
}

/// Whether events are recorded, and this is the process that they are of.
fn is_on() -> bool {
    // Acquire: pairs with the Release in `begin`.
    STATE.load(Ordering::Acquire) == ON && process::is_marked()
}

/// Run in the child after a fork: the buffers are the parent's. For kernels on which the mark
/// of the process does not tell.
extern "C" fn forked() {
    // Relaxed: the child has one thread.
    STATE.store(OFF, Ordering::Relaxed);
}

/// The destructor of the key: run when a thread ends, and again as long as it leaves a value,
/// so that the frees of other destructors come before.
extern "C" fn thread_ends(value: *mut c_void) {
    if value == GONE {
        return;
    }
    // SAFETY: the C library runs this with what is not null, and it is not `GONE`: a buffer, as in
    // `own_buffer`.
    let buffer: &'static Buffer = unsafe { &*value.cast() };
    let Some(mut locked) = buffer.lock() else {
        return;
    };
    if locked.with(Contents::count_ending) < LAST_ENDING {
        set_own(value);
        return;
    }
    let written = !is_on() || locked.with(Contents::flush);
    drop(locked);
    if !written {
        // Relaxed: as in `keep`.
        STATE.store(OFF, Ordering::Relaxed);
    }
    set_own(GONE);
    buffer.disown();
}

/// Writes what all threads have, and the end. Also run before `_exit`.
pub(crate) extern "C" fn finish() {
    static FINISHING: AtomicBool = AtomicBool::new(false);
    // A child of `vfork` shares this memory, and must leave it alone.
    let stranger = file::process() != PROCESS.load(Ordering::Relaxed);
    if !is_on() || stranger {
        return;
    }
    // Relaxed: only one of several threads that exit at once goes on.
    if FINISHING.swap(true, Ordering::Relaxed) {
        return;
    }
    // Relaxed: an event that another thread keeps in this moment is written, or comes too late.
    STATE.store(OFF, Ordering::Relaxed);
    file::hurry();
    let mut whole = true;
    for buffer in buffer::all() {
        match buffer::lock_patiently(buffer) {
            Some(mut locked) => whole &= locked.with(Contents::flush),
            None => whole = false,
        }
    }
    if whole {
        // Relaxed: plain sums.
        let numbers = NUMBERS.load(Ordering::Relaxed);
        file::write(&end(numbers, LOST.load(Ordering::Relaxed)));
    }
}
