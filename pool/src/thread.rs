//! Which cache of which pool a thread owns.
//!
//! Two thread-locals. The *hot table* is a constant with no destructor, so that reaching
//! it costs no check and works at any moment of a thread's life: places, each with the
//! address of a pool and the thread's cache of it. A pool is given the place that the fewest
//! pools have; the pool that was on the slow path last is in the *latest* place as well. The
//! *bindings* list every cache of the thread by the pool's number, which is never used twice;
//! they have the destructor that hands the caches back, and are asked when the hot table
//! misses.
//!
//! The latest place is there for its fixed address. A return knows its pool from the guard,
//! and where guards come out of memory (a `Vec` of them), the address of the pool's own place
//! hangs on three loads, one behind the other. A processor that believes, wrongly, that the
//! guard was written by the return before it waits for them in every return; that made 12 ns
//! of 5. A comparison with a fixed place is guessed, and nothing waits.
//!
//! Addresses are used again: a new pool may lie where a dead one lay, and find the dead
//! one's cache in the hot table. That cache is closed and frozen for ever, so nothing comes
//! out of it and nothing stays in it, and the slow path that follows asks the bindings.
//!
//! # Invariants
//!
//! - H1: a place with an address that is not null names a cache that the bindings of the
//!   same thread keep alive.
//! - H2: that cache belongs to the pool at this address, or is closed and frozen.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};
use core::ptr::NonNull;
use std::thread_local;

use crate::cache::Cache;
use crate::shared::Shared;
use crate::sync::{AtomicU64, Mutex, Ordering};

/// 1 KiB of thread-local memory.
const PLACES: usize = 64;

#[repr(C)]
struct Hot {
    latest: Place,
    places: [Place; PLACES],
}

#[repr(C)]
struct Place {
    pool: Cell<*const ()>,
    cache: Cell<*const Cache>,
}

impl Place {
    const fn new() -> Self {
        Self {
            pool: Cell::new(core::ptr::null()),
            cache: Cell::new(core::ptr::null()),
        }
    }

    /// The cache of the pool at `address`, if it is in this place.
    #[inline(always)]
    fn cache_of(&self, address: NonNull<()>) -> Option<*const Cache> {
        (self.pool.get() == address.as_ptr().cast_const()).then(|| self.cache.get())
    }

    fn set(&self, address: NonNull<()>, cache: &Arc<Cache>) {
        self.cache.set(Arc::as_ptr(cache));
        self.pool.set(address.as_ptr());
    }
}

/// A cache of this thread.
struct Binding {
    number: u64,
    cache: Arc<Cache>,
    /// Live until the cache is closed.
    shared: NonNull<Shared>,
}

struct Bindings(Vec<Binding>);

thread_local! {
    static HOT: Hot = const {
        Hot {
            latest: Place::new(),
            places: [const { Place::new() }; PLACES],
        }
    };
    static BINDINGS: RefCell<Bindings> = const { RefCell::new(Bindings(Vec::new())) };
}

/// What a pool is to threads.
#[derive(Debug)]
pub(crate) struct Key {
    number: u64,
    own: OwnPlace,
}

/// The pool's own place: bytes from the start of the places, so that no path need compute it.
/// K1: a multiple of a place's size, within the table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OwnPlace(usize);

/// Pools at each place of the hot table.
static POOLS_AT: Mutex<[usize; PLACES]> = Mutex::new([0; PLACES]);
static LAST_NUMBER: AtomicU64 = AtomicU64::new(0);

impl Key {
    pub(crate) fn new() -> Self {
        let mut pools = POOLS_AT.lock();
        let place = (0..PLACES).min_by_key(|&place| pools[place]).unwrap_or(0);
        pools[place] += 1;
        Self {
            // Relaxed: only has to differ. 2⁶⁴ pools do not happen.
            number: LAST_NUMBER.fetch_add(1, Ordering::Relaxed) + 1,
            own: OwnPlace(place * size_of::<Place>()),
        }
    }

    #[inline(always)]
    pub(crate) fn own(&self) -> OwnPlace {
        self.own
    }
}

impl Drop for Key {
    fn drop(&mut self) {
        POOLS_AT.lock()[self.own.0 / size_of::<Place>()] -= 1;
    }
}

/// Runs `f` on the calling thread's cache of the pool at `address`, if the hot table has it.
/// `own` says where to look if the pool is not the latest; it runs before `f`. `f` calls no
/// foreign code.
#[inline(always)]
pub(crate) fn with_hot<R>(
    address: NonNull<()>,
    own: impl FnOnce() -> OwnPlace,
    f: impl FnOnce(&Cache) -> Option<R>,
) -> Option<R> {
    // The address comes out of `with`, for what is done in there is not always inlined.
    // SAFETY: the table has no destructor, so it is there as long as the thread, which is here.
    let hot = unsafe { &*HOT.with(core::ptr::from_ref) };
    let cache = match hot.latest.cache_of(address) {
        Some(cache) => cache,
        None => hot.own_cache(own(), address)?.as_ptr(),
    };
    // SAFETY: H1: the binding keeps the cache alive, and it is only removed by this thread,
    // outside of `f`.
    f(unsafe { &*cache })
}

impl Hot {
    /// The cache in a pool's own place. Not inlined: merged with the way of the latest place, it
    /// costs that one an instruction each time.
    #[cold]
    #[inline(never)]
    fn own_cache(&self, own: OwnPlace, address: NonNull<()>) -> Option<NonNull<Cache>> {
        NonNull::new(self.place(own).cache_of(address)?.cast_mut())
    }

    #[inline(always)]
    fn place(&self, own: OwnPlace) -> &Place {
        // SAFETY: K1: the offset leads to a place within the table.
        unsafe { &*self.places.as_ptr().byte_add(own.0) }
    }
}

/// The calling thread's cache of the pool; made if need be. `None` once the pool is closed
/// or the thread's bindings are gone.
///
/// # Safety
///
/// `shared` is live until its `close` has been called, which marks the caches.
#[cold]
pub(crate) unsafe fn cache(
    key: &Key,
    address: NonNull<()>,
    shared: NonNull<Shared>,
) -> Option<Arc<Cache>> {
    BINDINGS
        .try_with(|bindings| {
            // A borrow that is out means that we are inside `attach` below, called again
            // from an allocator that uses a pool: it goes without a cache.
            let mut bindings = bindings.try_borrow_mut().ok()?;
            let known = bindings
                .0
                .iter()
                .find(|binding| binding.number == key.number);
            let cache = match known {
                Some(binding) => Arc::clone(&binding.cache),
                None => {
                    // SAFETY: the caller holds an object of the pool or borrows it.
                    let cache = unsafe { shared.as_ref() }.attach()?;
                    bindings.forget_closed();
                    bindings.0.push(Binding {
                        number: key.number,
                        cache: Arc::clone(&cache),
                        shared,
                    });
                    cache
                }
            };
            HOT.with(|hot| {
                hot.place(key.own).set(address, &cache);
                hot.latest.set(address, &cache);
            });
            Some(cache)
        })
        .ok()
        .flatten()
}

impl Bindings {
    /// Lets go of the caches of pools that are closed.
    fn forget_closed(&mut self) {
        self.0.retain(|binding| {
            let closed = binding.cache.lock().closed;
            if closed {
                forget_hot(&binding.cache);
            }
            !closed
        });
    }
}

/// Takes a cache out of the hot table, before its binding goes (H1).
fn forget_hot(cache: &Arc<Cache>) {
    HOT.with(|hot| {
        for place in hot.places.iter().chain([&hot.latest]) {
            if place.cache.get() == Arc::as_ptr(cache) {
                place.pool.set(core::ptr::null());
            }
        }
    });
}

impl Drop for Bindings {
    /// The thread exits: its caches go back to their pools.
    fn drop(&mut self) {
        for binding in self.0.drain(..) {
            forget_hot(&binding.cache);
            // SAFETY: `shared` was live when the cache was attached and is until the cache
            // is closed.
            unsafe { Shared::abandon(binding.shared, &binding.cache) };
        }
    }
}
