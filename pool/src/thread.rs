//! Which cache of which pool a thread owns.
//!
//! Two thread-locals. The *hot table* is a constant with no destructor, so that reaching
//! it costs no check and works at any moment of a thread's life: [`PLACES`] places, each
//! with the key of a pool and its cache. A pool is given the place that the fewest pools
//! have, and keys are never used twice, so a place that some dead pool left behind
//! matches nobody. The *bindings* list every cache of the thread; they have the destructor
//! that hands the caches back, and are used when the hot table misses.
//!
//! # Invariants
//!
//! - H1: a place with a key that is not 0 names a cache that the bindings of the same
//!   thread keep alive.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};
use core::ptr::NonNull;
use std::thread_local;

use crate::cache::Cache;
use crate::shared::Shared;
use crate::sync::{AtomicU64, Mutex, Ordering};

const PLACES: usize = 16;

struct Place {
    key: Cell<u64>,
    cache: Cell<*const Cache>,
}

/// A cache of this thread.
struct Binding {
    key: u64,
    cache: Arc<Cache>,
    /// Live until the cache is closed.
    shared: NonNull<Shared>,
}

struct Bindings(Vec<Binding>);

thread_local! {
    static HOT: [Place; PLACES] = const {
        [const { Place { key: Cell::new(0), cache: Cell::new(core::ptr::null()) } }; PLACES]
    };
    static BINDINGS: RefCell<Bindings> = const { RefCell::new(Bindings(Vec::new())) };
}

/// The name of a pool among threads.
#[derive(Debug)]
pub(crate) struct Key {
    number: u64,
    place: usize,
}

/// Pools at each place of the hot table.
static POOLS_AT: Mutex<[usize; PLACES]> = Mutex::new([0; PLACES]);
static LAST_KEY: AtomicU64 = AtomicU64::new(0);

impl Key {
    pub(crate) fn new() -> Self {
        let mut pools = POOLS_AT.lock();
        let place = (0..PLACES).min_by_key(|&place| pools[place]).unwrap_or(0);
        pools[place] += 1;
        Self {
            // Relaxed: only has to differ. 2⁶⁴ pools do not happen.
            number: LAST_KEY.fetch_add(1, Ordering::Relaxed) + 1,
            place,
        }
    }
}

impl Drop for Key {
    fn drop(&mut self) {
        POOLS_AT.lock()[self.place] -= 1;
    }
}

/// A pool's key, copied out so that the pool itself need not be touched again.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KeyRef {
    number: u64,
    place: usize,
}

impl Key {
    #[inline(always)]
    pub(crate) fn copy(&self) -> KeyRef {
        KeyRef {
            number: self.number,
            place: self.place,
        }
    }
}

/// Runs `f` on the calling thread's cache of the pool, if the hot table has it. `f` calls
/// no foreign code.
#[inline(always)]
pub(crate) fn with_hot<R>(key: KeyRef, f: impl FnOnce(&Cache) -> Option<R>) -> Option<R> {
    HOT.with(|places| {
        let place = &places[key.place % PLACES];
        if place.key.get() != key.number {
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
pub(crate) unsafe fn cache(key: KeyRef, shared: NonNull<Shared>) -> Option<Arc<Cache>> {
    BINDINGS
        .try_with(|bindings| {
            // A borrow that is out means that we are inside `attach` below, called again
            // from an allocator that uses a pool: it goes without a cache.
            let mut bindings = bindings.try_borrow_mut().ok()?;
            let known = bindings.0.iter().find(|binding| binding.key == key.number);
            let cache = match known {
                Some(binding) => Arc::clone(&binding.cache),
                None => {
                    // SAFETY: the caller holds an object of the pool or borrows it.
                    let cache = unsafe { shared.as_ref() }.attach()?;
                    bindings.forget_closed();
                    bindings.0.push(Binding {
                        key: key.number,
                        cache: Arc::clone(&cache),
                        shared,
                    });
                    cache
                }
            };
            HOT.with(|places| {
                let place = &places[key.place % PLACES];
                place.cache.set(Arc::as_ptr(&cache));
                place.key.set(key.number);
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
                forget_hot(binding.key);
            }
            !closed
        });
    }
}

/// Takes a key out of the hot table, before its binding goes (H1).
fn forget_hot(key: u64) {
    HOT.with(|places| {
        for place in places.iter().filter(|place| place.key.get() == key) {
            place.key.set(0);
        }
    });
}

impl Drop for Bindings {
    /// The thread exits: its caches go back to their pools.
    fn drop(&mut self) {
        for binding in self.0.drain(..) {
            forget_hot(binding.key);
            // SAFETY: `shared` was live when the cache was attached and is until the cache
            // is closed.
            unsafe { Shared::abandon(binding.shared, &binding.cache) };
        }
    }
}
