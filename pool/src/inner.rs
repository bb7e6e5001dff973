//! A pool of objects of one type: the shared part, the recycler, and what happens to an
//! object at get and return.
//!
//! Functions that return something take a pointer instead of a reference: the pool may go
//! away with the object that is given back.
//!
//! # Invariants
//!
//! - O1: a slot that is idle or in the hands of a user holds a valid object; a vacant slot
//!   holds none.
//! - O2: an `Inner` lives until the pool's handle is closed and the last object is gone;
//!   whoever takes the count to zero frees it.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::alloc::Layout;
use core::marker::PhantomData;
use core::mem::{self, ManuallyDrop, MaybeUninit};
use core::panic::Location;
use core::pin::Pin;
use core::ptr::NonNull;
use core::task::Waker;

use crate::cache::{Cache, Taken};
use crate::chunk::{MOST_OBJECTS, Object};
use crate::holders::Holders;
use crate::recycle::{DropReason, Keep, Place, Recycle};
use crate::shared::{Bounds, Limits, Put, Shared};
use crate::wait::Grant;
pub(crate) use crate::wait::wake_all;

#[cfg(feature = "std")]
use crate::thread::{self, Key};

pub(crate) type Slot = NonNull<Object>;

/// See the module.
pub(crate) struct Inner<T, R> {
    pub(crate) shared: Shared,
    #[cfg(feature = "std")]
    key: Key,
    recycle: R,
    pub(crate) name: &'static str,
    pub(crate) holders: Option<Holders>,
    #[cfg(feature = "std")]
    decay: Option<crate::decay::Decay>,
    /// Held by the one `get_many` that waits.
    #[cfg(feature = "std")]
    turn: std::sync::Mutex<()>,
    objects: PhantomData<T>,
}

/// What [`Inner::new`] needs to know.
pub(crate) struct Options {
    pub(crate) capacity: usize,
    pub(crate) retain: usize,
    pub(crate) name: &'static str,
    pub(crate) track_holders: bool,
    pub(crate) weight: usize,
    #[cfg(feature = "std")]
    pub(crate) idle_decay: Option<core::time::Duration>,
}

impl<T, R: Recycle<T>> Inner<T, R> {
    const LAYOUT: Layout = Layout::new::<T>();

    pub(crate) fn new(options: &Options, recycle: R) -> NonNull<Self> {
        let limits = Limits::new(Bounds {
            capacity: options.capacity,
            retain: options.retain,
            weight: Self::LAYOUT.size().saturating_add(options.weight),
            caches: !options.track_holders,
        });
        let inner = Box::new(Self {
            shared: Shared::new(Self::LAYOUT, limits),
            #[cfg(feature = "std")]
            key: Key::new(),
            recycle,
            name: options.name,
            holders: options.track_holders.then(Holders::new),
            #[cfg(feature = "std")]
            decay: options.idle_decay.map(crate::decay::Decay::new),
            #[cfg(feature = "std")]
            turn: std::sync::Mutex::new(()),
            objects: PhantomData,
        });
        NonNull::from(Box::leak(inner))
    }

    /// The object of a slot.
    #[inline(always)]
    pub(crate) fn object(slot: Slot) -> NonNull<T> {
        slot.cast()
    }

    /// Takes an idle slot from the calling thread's cache.
    #[inline(always)]
    pub(crate) fn take_hot(&self) -> Option<Slot> {
        #[cfg(feature = "std")]
        return thread::with_hot(NonNull::from(self).cast(), || self.key.own(), Cache::pop);
        #[cfg(not(feature = "std"))]
        None
    }

    /// Takes up to `count` idle slots from the calling thread's cache.
    #[inline]
    pub(crate) fn take_hot_many(&self, count: usize, take: impl FnOnce(Taken<'_>)) {
        #[cfg(feature = "std")]
        let _ = thread::with_hot(
            NonNull::from(self).cast(),
            || self.key.own(),
            |cache| {
                cache.pop_many(count, take);
                Some(())
            },
        );
        #[cfg(not(feature = "std"))]
        let _ = (count, take);
    }

    /// The cache of the calling thread, made if need be. `None` also where gets and returns
    /// must not pass by the slow path's eyes: then nothing is ever in the hot table.
    fn cache(&self) -> Option<Arc<Cache>> {
        if !self.shared.caches_open() {
            return None;
        }
        #[cfg(feature = "std")]
        // SAFETY: `self` is borrowed, so the pool is live now; `close` marks the caches.
        return unsafe {
            thread::cache(
                &self.key,
                NonNull::from(self).cast(),
                NonNull::from(&self.shared),
            )
        };
        #[cfg(not(feature = "std"))]
        None
    }

    /// Looks everywhere for an idle slot, or gets the permit to create an object.
    #[cold]
    #[inline(never)]
    pub(crate) fn take_slow(&self) -> Option<Grant> {
        let cache = self.cache();
        self.tick(cache.as_deref());
        self.shared.take_slow(cache.as_deref())
    }

    /// As [`Inner::take_slow`], for the holder of the turn: no destructor runs.
    #[cfg(feature = "std")]
    pub(crate) fn take_slow_quietly(&self) -> Option<Grant> {
        self.shared.take_slow(self.cache().as_deref())
    }

    /// To be called by who found no slot in the thread's cache and does not go to the slow
    /// path at once.
    #[cfg(feature = "std")]
    pub(crate) fn surrender(&self) {
        if let Some(cache) = self.cache() {
            self.shared.surrender(&cache);
        }
    }

    /// The turn to collect many objects, waiting. It protects nothing but the wait: one who
    /// panicked in it leaves nothing behind.
    #[cfg(feature = "std")]
    pub(crate) fn turn(&self) -> std::sync::MutexGuard<'_, ()> {
        self.turn
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Lets the decay look at the clock, and drops a few of the objects that are too many.
    fn tick(&self, cache: Option<&Cache>) {
        #[cfg(feature = "std")]
        if let Some(decay) = &self.decay {
            // The clock is not free: while a thread refills again and again, one look in four
            // must do.
            let often = cache.is_some_and(Cache::was_here_lately);
            if !often || self.shared.counters.misses() % 4 == 0 {
                if let Some(mut epoch) = decay.begin_epoch() {
                    epoch.low = self.shared.decay(epoch.last_low);
                }
            }
        }
        if !self.shared.has_excess() {
            return;
        }
        // Destructors may panic, and we would not come to the slow path.
        if let Some(cache) = cache {
            self.shared.surrender(cache);
        }
        self.shared.shed(|slot, reason| {
            // SAFETY: idle slots that were taken out; the pool is open (`&self` came from
            // its handle), so it does not go with them.
            unsafe { Self::destroy(NonNull::from(self), slot, reason) };
        });
    }

    /// Creates an object with a permit. The permit is given back if that fails.
    pub(crate) fn create(&self) -> Result<Slot, R::Error> {
        let slot = self.vacant();
        let unfinished = Unfinished { inner: self, slot };
        self.fill(slot)?;
        mem::forget(unfinished);
        self.shared.counters.note_created();
        Ok(slot)
    }

    /// An empty slot for a permit.
    fn vacant(&self) -> Slot {
        self.shared.storage().take_vacant().unwrap_or_else(|_| {
            wake_all(self.release_open_permit());
            panic!("a pool holds at most {MOST_OBJECTS} objects");
        })
    }

    /// Runs the recycler on an empty slot; generic in the brand, so that each call has its
    /// own.
    fn fill(&self, slot: Slot) -> Result<(), R::Error> {
        let mut place = Self::object(slot).cast::<MaybeUninit<T>>();
        // SAFETY: the slot is vacant and ours, so its object is unused memory of this type.
        let place = unsafe { place.as_mut() };
        self.recycle.create(Place::new(place))?.into_filled();
        Ok(())
    }

    /// Puts an object that was made elsewhere into a slot, with a permit.
    pub(crate) fn place(&self, object: T) -> Slot {
        let slot = self.vacant();
        // SAFETY: the slot is vacant and ours.
        unsafe { Self::object(slot).write(object) };
        self.shared.counters.note_created();
        slot
    }

    /// Gives back a permit while the pool is open.
    pub(crate) fn release_open_permit(&self) -> Vec<Waker> {
        let mut wake = Vec::new();
        // SAFETY: the pool is borrowed.
        let last = unsafe { Shared::release_permit(NonNull::from(&self.shared), &mut wake) };
        debug_assert!(!last, "the handle is open");
        wake
    }

    /// A returned object: reset, kept or dropped.
    ///
    /// # Safety
    ///
    /// - `inner` is live, and `slot` is one of its slots with an object that the caller owns.
    /// - `borrowed` only if the caller borrows the open pool beyond this call.
    /// - Neither is used afterwards: if not borrowed, the pool may be gone.
    #[inline]
    pub(crate) unsafe fn put(inner: NonNull<Self>, slot: Slot, borrowed: bool) {
        // SAFETY: by contract.
        if unsafe { Self::make_ready(inner, slot) } {
            // SAFETY: by contract; the slot is still the caller's.
            unsafe { Self::push(inner, slot, borrowed) };
        }
    }

    /// Resets a returned object; drops it if it is not to be kept. Whether it is kept: then
    /// the slot stays with the caller.
    ///
    /// # Safety
    ///
    /// As [`Inner::put`]; if the object is kept, pool and slot may still be used.
    #[inline]
    pub(crate) unsafe fn make_ready(inner: NonNull<Self>, slot: Slot) -> bool {
        let panicked = Panicked { inner, slot };
        // SAFETY: live by contract, and as long as the slot is ours (O2).
        let recycle = unsafe { &inner.as_ref().recycle };
        let mut object = Self::object(slot);
        // SAFETY: ours, valid (O1); it does not move until it is dropped, unless it is
        // `Unpin`: no other interface hands out `&mut T` otherwise.
        recycle.reset(unsafe { Pin::new_unchecked(object.as_mut()) });
        // SAFETY: ours, valid.
        let keep = recycle.keep(unsafe { object.as_ref() });
        mem::forget(panicked);
        if let Keep::Drop(reason) = keep {
            // SAFETY: by contract.
            unsafe { Self::destroy(inner, slot, reason) };
            return false;
        }
        true
    }

    /// Gives a slot back whose object is ready.
    ///
    /// # Safety
    ///
    /// As [`Inner::put`].
    #[inline]
    pub(crate) unsafe fn push(inner: NonNull<Self>, slot: Slot, borrowed: bool) {
        #[cfg(feature = "std")]
        {
            // SAFETY: called before the push, so the slot is still ours and the pool live.
            let own = || unsafe { inner.as_ref() }.key.own();
            // Once the slot is pushed, whoever freezes the cache may have it, and the pool may
            // be gone with it. Only the cache, which is the thread's, may be touched to find
            // out whether it is still ours.
            let gone = thread::with_hot(inner.cast(), own, |cache| {
                let pushed = cache.push(slot);
                Some(pushed.map_or_else(|refused| !cache.settle_push(refused), |()| true))
            });
            if gone != Some(true) {
                // SAFETY: the slot is ours; the rest by contract.
                unsafe { Self::put_slow(inner, slot, borrowed) };
            }
        }
        #[cfg(not(feature = "std"))]
        // SAFETY: by contract.
        unsafe {
            Self::put_ours(inner, slot, None, borrowed);
        }
    }

    /// Gives slots back whose objects are ready, if the thread's cache has room for all of
    /// them. `false`: nothing has changed.
    #[inline]
    pub(crate) fn push_hot_many(&self, slots: &[Slot]) -> bool {
        #[cfg(feature = "std")]
        {
            thread::with_hot(
                NonNull::from(self).cast(),
                || self.key.own(),
                |cache| {
                    Some(match cache.push_many(slots) {
                        Ok(done) => done,
                        // Whoever froze the cache has taken all of them, or none.
                        Err(refused) => !cache.settle_push(refused),
                    })
                },
            )
            .unwrap_or(false)
        }
        #[cfg(not(feature = "std"))]
        slots.is_empty()
    }

    /// Gives a slot back that found no place in the thread's cache.
    ///
    /// # Safety
    ///
    /// As [`Inner::put`].
    #[cfg(feature = "std")]
    #[cold]
    #[inline(never)]
    unsafe fn put_slow(inner: NonNull<Self>, slot: Slot, borrowed: bool) {
        // SAFETY: the slot is ours, so the pool is live.
        let this = unsafe { inner.as_ref() };
        let cache = this.cache();
        // SAFETY: by contract.
        unsafe { Self::put_ours(inner, slot, cache.as_deref(), borrowed) };
    }

    /// Returns a slot under the lock of `cache`, or of the registry.
    ///
    /// # Safety
    ///
    /// As [`Inner::put`].
    unsafe fn put_ours(inner: NonNull<Self>, slot: Slot, cache: Option<&Cache>, borrowed: bool) {
        let mut wake = Vec::new();
        // SAFETY: the slot is ours, so the pool is live; while the lock is held it stays so.
        let this = unsafe { inner.as_ref() };
        if let Some(holders) = &this.holders {
            holders.forget(slot);
        }
        let shared = &this.shared;
        let put = match cache {
            Some(cache) => {
                let mut held = cache.lock();
                shared.put_locked(cache, &mut held, slot, &mut wake)
            }
            None if borrowed => shared.put_shared(slot, &mut wake),
            // SAFETY: the slot is ours, so the pool is live.
            None => unsafe { Shared::put_unborrowed(NonNull::from(shared), slot, &mut wake) },
        };
        let reason = match put {
            Put::Done => None,
            Put::Surplus => Some(DropReason::Surplus),
            Put::Closed => Some(DropReason::Closed),
        };
        wake_all(wake);
        if let Some(reason) = reason {
            // SAFETY: the slot was left with us.
            unsafe { Self::destroy(inner, slot, reason) };
        }
    }

    /// Gives back a slot whose object is ready, without reset: the caller never had it.
    pub(crate) fn put_unused(&self, slot: Slot) {
        // SAFETY: `self` is borrowed from the open pool, so it does not go away.
        unsafe { Self::put_ours(NonNull::from(self), slot, self.cache().as_deref(), true) };
    }

    /// Drops the object of a slot for good.
    ///
    /// # Safety
    ///
    /// As [`Inner::put`].
    #[cold]
    pub(crate) unsafe fn destroy(inner: NonNull<Self>, slot: Slot, reason: DropReason) {
        // Also if the destructor panics.
        let _gone = Gone {
            inner,
            slot,
            reason,
        };
        // SAFETY: ours, valid, and dropped once: `Gone` makes the slot vacant.
        unsafe { Self::object(slot).drop_in_place() };
    }

    /// Takes the object of a slot out for good.
    ///
    /// # Safety
    ///
    /// As [`Inner::put`].
    pub(crate) unsafe fn detach(inner: NonNull<Self>, slot: Slot) -> T {
        let _gone = Gone {
            inner,
            slot,
            reason: DropReason::Detached,
        };
        // SAFETY: ours, valid, and read once: `Gone` makes the slot vacant.
        unsafe { Self::object(slot).read() }
    }

    /// Closes the pool's handle and drops what is idle. Returns whether nothing is out any
    /// more: then the caller frees the pool. Not done here, for the recycler's destructor may
    /// panic, and a panic that leaves here means "call again".
    ///
    /// # Safety
    ///
    /// Called by the owner of the handle, which nobody borrows; not used afterwards, but
    /// for calling it again after a panic, and for `free` if that is the answer.
    pub(crate) unsafe fn close(inner: NonNull<Self>) -> bool {
        // SAFETY: live: the handle is open.
        let this = unsafe { inner.as_ref() };
        #[cfg(feature = "tracing")]
        this.report_holders();
        let shared = &this.shared;
        for index in 0..shared.storage().slots() {
            let keyed = shared.storage().key_at(index);
            // A reference that was forgotten keeps its object.
            if let Some(Some(slot)) = keyed.and_then(|key| shared.storage().remove(key)) {
                // SAFETY: nobody has the slot any more; the handle keeps the pool.
                unsafe { Self::destroy(inner, slot, DropReason::Closed) };
            }
        }
        shared.close(|slot| {
            // SAFETY: an idle slot that was taken out; the handle keeps the pool.
            unsafe { Self::destroy(inner, slot, DropReason::Closed) };
        });
        shared.live.release()
    }

    /// The leak report: who still holds an object, if holders are tracked.
    #[cfg(feature = "tracing")]
    fn report_holders(&self) {
        for holder in self.holders.iter().flat_map(Holders::list) {
            tracing::warn!(pool = self.name, %holder, "still held as its pool is dropped");
        }
    }

    /// # Safety
    ///
    /// The count of references has reached zero, and the caller saw it.
    pub(crate) unsafe fn free(inner: NonNull<Self>) {
        // SAFETY: leaked from a box in `new`, used by nobody any more.
        drop(unsafe { Box::from_raw(inner.as_ptr()) });
    }

    /// Drops every idle object and gives memory back. Returns how many objects.
    pub(crate) fn trim(&self) -> usize {
        let mut dropped = 0;
        self.shared.trim(|slot| {
            dropped += 1;
            // SAFETY: an idle slot that was taken out; the pool is open.
            unsafe { Self::destroy(NonNull::from(self), slot, DropReason::Idle) };
        });
        dropped
    }

    /// Notes who holds a slot, if holders are tracked.
    #[inline]
    pub(crate) fn note_holder(&self, slot: Slot, location: &'static Location<'static>) {
        if let Some(holders) = &self.holders {
            holders.note(slot, location);
        }
    }
}

/// A slot whose object was not created: back to the vacant ones, the permit too.
struct Unfinished<'i, T, R: Recycle<T>> {
    inner: &'i Inner<T, R>,
    slot: Slot,
}

impl<T, R: Recycle<T>> Drop for Unfinished<'_, T, R> {
    fn drop(&mut self) {
        self.inner.shared.storage().put_vacant(self.slot);
        wake_all(self.inner.release_open_permit());
    }
}

/// A slot on whose object the recycler panics.
struct Panicked<T, R: Recycle<T>> {
    inner: NonNull<Inner<T, R>>,
    slot: Slot,
}

impl<T, R: Recycle<T>> Drop for Panicked<T, R> {
    fn drop(&mut self) {
        // SAFETY: made in `put`, by whose contract the slot is ours and not used again.
        unsafe { Inner::destroy(self.inner, self.slot, DropReason::Panicked) };
    }
}

/// A slot whose object is gone.
struct Gone<T, R: Recycle<T>> {
    inner: NonNull<Inner<T, R>>,
    slot: Slot,
    reason: DropReason,
}

impl<T, R: Recycle<T>> Drop for Gone<T, R> {
    fn drop(&mut self) {
        let mut wake = Vec::new();
        let last = {
            // SAFETY: our permit keeps the pool until `release_permit`.
            let inner = unsafe { self.inner.as_ref() };
            if let Some(holders) = &inner.holders {
                holders.forget(self.slot);
            }
            inner.shared.counters.note_dropped(self.reason);
            inner.shared.storage().put_vacant(self.slot);
            // SAFETY: the permit is ours, so the pool is live.
            unsafe { Shared::release_permit(NonNull::from(&inner.shared), &mut wake) }
        };
        if last {
            // SAFETY: `release_permit` said that it was the last.
            unsafe { Inner::free(self.inner) };
        }
        wake_all(wake);
    }
}

/// A slot on its way out of a guard that must not return it.
pub(crate) fn disarm<G>(guard: G) -> ManuallyDrop<G> {
    ManuallyDrop::new(guard)
}
