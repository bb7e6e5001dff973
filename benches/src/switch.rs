//! The one global allocator of this program: a switch that is set before the
//! first allocation and forwards every call to the allocator under test.
//!
//! Each measurement runs in a process of its own. The parent names the
//! allocator in the environment variable [`VARIABLE`]; a function in
//! `.init_array` reads it with `getenv`, which allocates nothing, before any
//! Rust code has run. From then on each call costs one load of a static byte,
//! one `match` and one jump, whichever allocator was chosen.
//!
//! The choice [`COUNTING`] is the system allocator with two counters beside it.
//! It is never timed: one run under it tells how many bytes a workload asked
//! for and still holds, which is the same number under every allocator.

use core::alloc::{GlobalAlloc, Layout};
use core::ffi::CStr;
use core::sync::atomic::{AtomicI64, AtomicU8, Ordering};
use std::alloc::System;

use brickyard_arena::Arena;

/// The environment variable that names the allocator of a process.
pub(crate) const VARIABLE: &str = "BRICKYARD_ALLOCATOR";

/// The same name as [`VARIABLE`], in the form `getenv` takes.
const C_VARIABLE: &CStr = c"BRICKYARD_ALLOCATOR";

/// The name of the choice that counts live bytes.
pub(crate) const COUNTING: &str = "counting";

/// The name of the choice that is the arena with `Builder::hardened`: measured on request.
pub(crate) const HARDENED: &str = "hardened";

/// Names of all choices; the index is the value of [`CHOICE`] and the number of
/// the arm in `forward!`.
const NAMES: &[&str] = &[
    "system",
    "arena",
    COUNTING,
    HARDENED,
    #[cfg(feature = "peers")]
    "mimalloc3",
    #[cfg(feature = "peers")]
    "mimalloc2",
    #[cfg(feature = "peers")]
    "jemalloc",
    #[cfg(feature = "peers")]
    "snmalloc",
    #[cfg(feature = "peers")]
    "rpmalloc",
    #[cfg(feature = "peers")]
    "rusty_alloc",
];

const SYSTEM_INDEX: u8 = 0;
const ARENA_INDEX: u8 = 1;
const COUNTING_INDEX: u8 = 2;
const HARDENED_INDEX: u8 = 3;

/// The index in [`NAMES`] of the allocator of this process. Written once, by
/// [`choose`], before there is a second thread.
static CHOICE: AtomicU8 = AtomicU8::new(SYSTEM_INDEX);

/// Bytes asked for and not yet given back, under [`COUNTING`] only.
static LIVE_BYTES: AtomicI64 = AtomicI64::new(0);

static ARENA: Arena = Arena::new();
static HARDENED_ARENA: Arena = Arena::builder().hardened(true).build();

#[global_allocator]
static SWITCH: Switch = Switch;

/// The name of the allocator this process runs on.
pub(crate) fn chosen() -> &'static str {
    NAMES[usize::from(CHOICE.load(Ordering::Relaxed))]
}

/// The names of the allocators that can be measured, the system's first.
pub(crate) fn measurable() -> impl Iterator<Item = &'static str> {
    NAMES.iter().copied().filter(|name| *name != COUNTING)
}

/// Bytes this process holds, if it runs on [`COUNTING`].
pub(crate) fn live_bytes() -> Option<u64> {
    (CHOICE.load(Ordering::Relaxed) == COUNTING_INDEX)
        .then(|| u64::try_from(LIVE_BYTES.load(Ordering::Relaxed)).unwrap_or(0))
}

/// Allocations made before [`choose`] ran. Counted in debug builds only, so
/// that the timed build pays nothing for it.
#[cfg(debug_assertions)]
static EARLY_CALLS: AtomicI64 = AtomicI64::new(0);

/// Whether [`choose`] has run.
#[cfg(debug_assertions)]
static CHOSEN: core::sync::atomic::AtomicBool = core::sync::atomic::AtomicBool::new(false);

/// Allocations made before the choice, where the build counts them.
pub(crate) fn early_calls() -> Option<i64> {
    #[cfg(debug_assertions)]
    return Some(EARLY_CALLS.load(Ordering::Relaxed));
    #[cfg(not(debug_assertions))]
    None
}

// Sound: the loader calls every entry of `.init_array` once, after the C
// library is set up and before `main`; `choose` has the C calling convention
// and ignores the arguments it may be given, which that convention permits.
#[used]
#[unsafe(link_section = ".init_array")]
static CHOOSE: extern "C" fn() = choose;

/// Sets [`CHOICE`] from the environment. Unknown names leave the system
/// allocator in place; the child compares [`chosen`] with what it was told.
extern "C" fn choose() {
    #[cfg(debug_assertions)]
    CHOSEN.store(true, Ordering::Relaxed);
    // SAFETY: the argument is a C string, and no other thread exists yet that
    // could change the environment during the call.
    let value = unsafe { libc::getenv(C_VARIABLE.as_ptr()) };
    if value.is_null() {
        return;
    }
    // SAFETY: getenv returned a non-null pointer, hence a C string inside the
    // environment block; nobody changes that block while `name` is in use.
    let name = unsafe { CStr::from_ptr(value) }.to_bytes();
    for (index, known) in (0..).zip(NAMES) {
        if known.as_bytes() == name {
            // Relaxed: threads started later see it through their creation.
            CHOICE.store(index, Ordering::Relaxed);
        }
    }
}

/// Forwards to the chosen allocator.
#[derive(Debug)]
struct Switch;

/// Makes a module of four functions that call one allocator. They stay out of
/// line: the switch then is a load, a comparison and a jump for every choice,
/// and no allocator pays for registers that another one saves.
macro_rules! entry_points {
    ($module:ident, $allocator:expr) => {
        mod $module {
            use core::alloc::{GlobalAlloc as _, Layout};

            #[inline(never)]
            pub(super) unsafe fn alloc(layout: Layout) -> *mut u8 {
                // SAFETY: the caller keeps the contract of the method called.
                unsafe { $allocator.alloc(layout) }
            }

            #[inline(never)]
            pub(super) unsafe fn alloc_zeroed(layout: Layout) -> *mut u8 {
                // SAFETY: the caller keeps the contract of the method called.
                unsafe { $allocator.alloc_zeroed(layout) }
            }

            #[inline(never)]
            pub(super) unsafe fn dealloc(ptr: *mut u8, layout: Layout) {
                // SAFETY: the caller keeps the contract of the method called.
                unsafe { $allocator.dealloc(ptr, layout) }
            }

            #[inline(never)]
            pub(super) unsafe fn realloc(ptr: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
                // SAFETY: the caller keeps the contract of the method called.
                unsafe { $allocator.realloc(ptr, layout, new_size) }
            }
        }
    };
}

entry_points!(system, std::alloc::System);
entry_points!(arena, super::ARENA);
entry_points!(counting, super::Counting);
entry_points!(hardened, super::HARDENED_ARENA);
#[cfg(feature = "peers")]
entry_points!(mimalloc3, crate::peers::MIMALLOC3);
#[cfg(feature = "peers")]
entry_points!(mimalloc2, crate::peers::MIMALLOC2);
#[cfg(feature = "peers")]
entry_points!(jemalloc, crate::peers::JEMALLOC);
#[cfg(feature = "peers")]
entry_points!(snmalloc, crate::peers::SNMALLOC);
#[cfg(feature = "peers")]
entry_points!(rpmalloc, crate::peers::RPMALLOC);
#[cfg(feature = "peers")]
entry_points!(rusty_alloc, crate::peers::RUSTY_ALLOC);

/// Calls `$method` of the chosen allocator. The arms for peers exist only where
/// they are compiled in, so that the default build has four.
macro_rules! forward {
    ($method:ident($($argument:expr),*)) => {
        // Relaxed: the byte never changes after `choose`.
        match CHOICE.load(Ordering::Relaxed) {
            ARENA_INDEX => arena::$method($($argument),*),
            COUNTING_INDEX => counting::$method($($argument),*),
            HARDENED_INDEX => hardened::$method($($argument),*),
            #[cfg(feature = "peers")]
            4 => mimalloc3::$method($($argument),*),
            #[cfg(feature = "peers")]
            5 => mimalloc2::$method($($argument),*),
            #[cfg(feature = "peers")]
            6 => jemalloc::$method($($argument),*),
            #[cfg(feature = "peers")]
            7 => snmalloc::$method($($argument),*),
            #[cfg(feature = "peers")]
            8 => rpmalloc::$method($($argument),*),
            #[cfg(feature = "peers")]
            9 => rusty_alloc::$method($($argument),*),
            _ => system::$method($($argument),*),
        }
    };
}

/// Notes a call made before the choice.
#[inline(always)]
fn note_call() {
    #[cfg(debug_assertions)]
    if !CHOSEN.load(Ordering::Relaxed) {
        EARLY_CALLS.fetch_add(1, Ordering::Relaxed);
    }
}

// SAFETY: every call goes to one allocator, the same from the first call to
// the last, because `CHOICE` is written only before the first allocation (a
// debug build counts calls before it and a test asks for none). That allocator
// keeps the contract of `GlobalAlloc`, and the arguments pass unchanged.
unsafe impl GlobalAlloc for Switch {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note_call();
        // SAFETY: the caller keeps the contract of this very method.
        unsafe { forward!(alloc(layout)) }
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        note_call();
        // SAFETY: the caller keeps the contract of this very method.
        unsafe { forward!(alloc_zeroed(layout)) }
    }

    #[inline]
    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of this very method.
        unsafe { forward!(dealloc(ptr, layout)) }
    }

    #[inline]
    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: the caller keeps the contract of this very method.
        unsafe { forward!(realloc(ptr, layout, new_size)) }
    }
}

/// The system allocator with a count of the bytes asked for.
#[derive(Debug)]
struct Counting;

impl Counting {
    /// Adds a block to the count unless the allocation failed.
    fn add(block: *mut u8, size: usize) {
        if !block.is_null() {
            // Relaxed: a sum; nothing is read through it.
            LIVE_BYTES.fetch_add(signed(size), Ordering::Relaxed);
        }
    }
}

/// A size of a [`Layout`], which by its contract is at most `isize::MAX`.
fn signed(size: usize) -> i64 {
    i64::try_from(size).unwrap_or(i64::MAX)
}

// SAFETY: every call goes to `System` with unchanged arguments, and its result
// is returned unchanged; the count beside it touches no block.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps the contract of this very method.
        let block = unsafe { System.alloc(layout) };
        Self::add(block, layout.size());
        block
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps the contract of this very method.
        let block = unsafe { System.alloc_zeroed(layout) };
        Self::add(block, layout.size());
        block
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        LIVE_BYTES.fetch_sub(signed(layout.size()), Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of this very method.
        unsafe { System.dealloc(ptr, layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: the caller keeps the contract of this very method.
        let block = unsafe { System.realloc(ptr, layout, new_size) };
        if !block.is_null() {
            let growth = signed(new_size) - signed(layout.size());
            LIVE_BYTES.fetch_add(growth, Ordering::Relaxed);
        }
        block
    }
}
