//! Which cache of which pool a thread owns.
//!
//! Two thread-locals. The *hot table* is a constant with no destructor, so that reaching
//! it costs no check and works at any moment of a thread's life: [`PLACES`] places, each
//! with the address of a pool and the thread's cache of it. A pool is given the place that
//! the fewest pools have. The *bindings* list every cache of the thread by the pool's number,
//! which is never used twice; they have the destructor that hands the caches back, and are
//! asked when the hot table misses.
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
struct Place {
    pool: Cell<*const ()>,
    cache: Cell<*const Cache>,
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
    static HOT: [Place; PLACES] = const {
        [const { Place { pool: Cell::new(core::ptr::null()), cache: Cell::new(core::ptr::null()) } };
            PLACES]
    };
    static BINDINGS: RefCell<Bindings> = const { RefCell::new(Bindings(Vec::new())) };
}

/// What a pool is to threads.
#[derive(Debug)]
pub(crate) struct Key {
    number: u64,
    /// Bytes from the start of the hot table to the pool's place, so that the fast path
    /// need not compute it. K1: a multiple of a place's size, within the table.
    offset: usize,
}

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
            offset: place * size_of::<Place>(),
        }
    }

    /// The place of the pool, which lies at `address`.
    #[inline(always)]
    pub(crate) fn at(&self, address: NonNull<()>) -> PlaceOf {
        PlaceOf {
            offset: self.offset,
            address,
        }
    }
}

impl Drop for Key {
    fn drop(&mut self) {
        POOLS_AT.lock()[self.offset / size_of::<Place>()] -= 1;
    }
}

/// Where a pool is in the hot table, copied out so that the pool itself need not be touched
/// again.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PlaceOf {
    offset: usize,
    address: NonNull<()>,
}

/// Runs `f` on the calling thread's cache of the pool, if the hot table has it. `f` calls
/// no foreign code.
#[inline(always)]
pub(crate) fn with_hot<R>(of: PlaceOf, f: impl FnOnce(&Cache) -> Option<R>) -> Option<R> {
    HOT.with(|places| {
        // SAFETY: K1: the offset leads to a place within the table.
        let place = unsafe { &*places.as_ptr().byte_add(of.offset) };
        if place.pool.get() != of.address.as_ptr().cast_const() {
            return None;
        }
        // SAFETY: H1: the binding keeps the cache alive, and it is only removed by this
        // thread, outside of `f`.
        f(unsafe { &*place.cache.get() })
    })
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
            HOT.with(|places| {
                let place = &places[key.offset / size_of::<Place>()];
                place.cache.set(Arc::as_ptr(&cache));
                place.pool.set(address.as_ptr());
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
    HOT.with(|places| {
        for place in places {
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
