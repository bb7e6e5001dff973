//! What the threads of a pool share, and how slots move between them. Knows nothing of
//! the objects' type.
//!
//! A pool is in one of two modes:
//!
//! | mode | gets and returns | when |
//! |---|---|---|
//! | *plenty* | each thread's cache, whole magazines through the depot | normally |
//! | *scarce* | one loose stack, slot by slot; all caches are frozen and empty | a bounded pool had nothing left in depot and cache, or somebody waits |
//!
//! The bound is kept by counting what exists, at creation and drop; gets and returns do
//! not count. So "empty" may only be said when no object is idle anywhere, and that is
//! found out by going to the scarce mode: with all cache locks held and all caches frozen
//! and emptied onto the loose stack, one look at that stack is exact.
//!
//! # Invariants
//!
//! - P1: objects that exist or are being created never exceed `capacity`.
//! - P2: in scarce mode every idle slot is on the loose stack or in the hands of one call.
//! - P3: the mode changes under the registry lock with all cache locks held (to scarce), or
//!   under the registry and the queue lock with nobody waiting (to plenty).
//! - P4: a waiter in the queue implies scarce mode, or a thread on its way there.
//!
//! Locks, in order: registry, caches, queue, waiter.

mod exit;
mod reclaim;

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::alloc::Layout;
use core::ptr::NonNull;
use core::task::Waker;

use crate::cache::{CACHE_SLOTS, Cache, CacheState};
use crate::chunk::{Object, Storage};
use crate::depot::{Depot, MAGAZINE_SLOTS};
use crate::live::Live;
use crate::metrics::{Counters, Metrics};
use crate::sync::{
    AtomicU64, Mutex, MutexGuard, Ordering, Step, asymmetric_fences_work, fence, heavy_barrier,
    left_out,
};
use crate::wait::{Grant, WaitQueue, Waiter, wake_all};

use self::reclaim::Excess;

/// Bytes of objects that one cache may hold, about.
const CACHE_BYTES: usize = 1 << 20;
/// Slow calls in scarce mode before plenty is tried again; doubles each time.
const FIRST_SCARCE_CALLS: u64 = if cfg!(loom) { 1 } else { 64 };
const MOST_SCARCE_CALLS: u64 = 1 << 16;

/// The sizes that follow from a pool's options.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Most objects that may exist; `usize::MAX` for no bound.
    pub(crate) capacity: usize,
    /// Most idle objects to keep in the depot.
    pub(crate) retain: usize,
    /// Slots that move between cache and depot at once.
    pub(crate) magazine: usize,
    /// Whether threads have caches at all.
    pub(crate) caches_open: bool,
}

/// What [`Limits::new`] is told.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    pub(crate) capacity: usize,
    pub(crate) retain: usize,
    /// Bytes that an object holds, about.
    pub(crate) weight: usize,
    /// Whether threads may have caches.
    pub(crate) caches: bool,
}

impl Limits {
    pub(crate) fn new(bounds: Bounds) -> Self {
        let Bounds {
            capacity, retain, ..
        } = bounds;
        let by_bytes = CACHE_BYTES / 2 / bounds.weight.max(1);
        Self {
            capacity,
            retain,
            magazine: by_bytes.min(capacity / 4).clamp(1, MAGAZINE_SLOTS),
            caches_open: bounds.caches && asymmetric_fences_work(),
        }
    }

    fn cache(&self) -> usize {
        (2 * self.magazine).min(CACHE_SLOTS)
    }
}

/// Every cache of the pool.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    caches: Vec<Arc<Cache>>,
    closed: bool,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Shared {
    limits: Limits,
    storage: Storage,
    depot: Depot,
    pub(crate) live: Live,
    /// Changes of mode so far; odd: scarce.
    mode: AtomicU64,
    scarce_calls: AtomicU64,
    scarce_limit: AtomicU64,
    registry: Mutex<Registry>,
    queue: WaitQueue,
    excess: Excess,
    pub(crate) counters: Counters,
}

fn is_scarce(mode: u64) -> bool {
    mode % 2 == 1
}

/// What becomes of a slot that was to be returned.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Put {
    /// The pool has it. Nothing of the pool may be touched any more: it may be gone.
    Done,
    /// The caller drops the object: more are idle than are retained.
    Surplus,
    /// The caller drops the object: the pool is closed.
    Closed,
}

impl Shared {
    pub(crate) fn new(object: Layout, limits: Limits) -> Self {
        Self {
            limits,
            storage: Storage::new(object, limits.capacity),
            depot: Depot::new(),
            live: Live::new(),
            mode: AtomicU64::new(0),
            scarce_calls: AtomicU64::new(0),
            scarce_limit: AtomicU64::new(FIRST_SCARCE_CALLS),
            registry: Mutex::new(Registry::default()),
            queue: WaitQueue::new(),
            excess: Excess::new(),
            counters: Counters::new(),
        }
    }

    /// Most objects that may exist at once.
    pub(crate) fn capacity(&self) -> usize {
        self.limits.capacity
    }

    pub(crate) fn storage(&self) -> &Storage {
        &self.storage
    }

    /// Whether threads have caches. If not, every get and return passes here.
    pub(crate) fn caches_open(&self) -> bool {
        self.limits.caches_open
    }

    /// A cache for the calling thread: one that an exited thread left, or a new one.
    /// `None` once the pool is closed.
    pub(crate) fn attach(&self) -> Option<Arc<Cache>> {
        let mut registry = self.registry.lock();
        if registry.closed {
            return None;
        }
        if let Some(cache) = registry.caches.iter().find(|cache| cache.adopt()) {
            return Some(Arc::clone(cache));
        }
        let cache = Arc::new(Cache::new(self.limits.cache()));
        registry.caches.push(Arc::clone(&cache));
        Some(cache)
    }

    /// Shares slots with objects that nobody has used yet.
    pub(crate) fn put_many_unused(&self, slots: &[NonNull<Object>]) -> Vec<Waker> {
        let _registry = self.registry.lock();
        let mut wake = Vec::new();
        // Relaxed: the mode changes under the registry lock (P3).
        if is_scarce(self.mode.load(Ordering::Relaxed)) {
            for &slot in slots {
                self.depot.put_loose(&self.storage, slot);
            }
            self.serve(&mut wake);
        } else {
            let mut magazine = self.depot.empty();
            for &slot in slots {
                self.load(&mut magazine, slot);
            }
            self.depot.put(magazine);
        }
        wake
    }

    /// Takes the right to create an object, if the bound allows it.
    pub(crate) fn reserve(&self) -> bool {
        self.live.reserve(self.limits.capacity).is_ok()
    }

    /// The calling thread's fast path failed to take a slot: looks everywhere.
    #[cold]
    pub(crate) fn take_slow(&self, cache: Option<&Cache>) -> Option<Grant> {
        self.counters.note_miss();
        if let Some(cache) = cache {
            self.surrender(cache);
        }
        loop {
            // Acquire: pairs with the Release at the changes of mode.
            let mode = self.mode.load(Ordering::Acquire);
            if is_scarce(mode) {
                match self.take_scarce(mode) {
                    Ok(answer) => return answer,
                    Err(ModeChanged) => continue,
                }
            }
            let idle = match cache {
                Some(cache) => match self.refill(cache) {
                    Ok(idle) => idle,
                    Err(ModeChanged) => continue,
                },
                None => self.take_shared(),
            };
            if let Some(slot) = idle {
                return Some(Grant::Idle(slot));
            }
            if self.reserve() {
                return Some(Grant::Permit);
            }
            self.become_scarce();
        }
    }

    /// Fills the owner's cache from the depot and takes one slot.
    fn refill(&self, cache: &Cache) -> Result<Option<NonNull<Object>>, ModeChanged> {
        let mut held = cache.lock();
        cache.normalise(&mut held);
        // Relaxed: the mode becomes scarce only while this cache's lock is held (P3).
        if is_scarce(self.mode.load(Ordering::Relaxed)) {
            return Err(ModeChanged);
        }
        cache.thaw(&mut held);
        if self.has_excess() {
            cache.hurry(&mut held);
        }
        if let Some(slot) = cache.pop_locked(&mut held) {
            return Ok(Some(slot));
        }
        self.depot.take_with(&self.storage, |mut slots| {
            cache.load_locked(&mut held, &mut slots);
            // A magazine holds no more than a cache; should it ever, nothing is lost.
            slots.for_each(|slot| self.depot.put_loose(&self.storage, slot));
        });
        Ok(cache
            .pop_locked(&mut held)
            .or_else(|| self.depot.take_loose(&self.storage)))
    }

    /// In scarce mode: makes loose what is left in the owner's cache. Whoever emptied it has
    /// left the slots that a pop was about to take and then did not, for it found the cache
    /// frozen; nobody else would find them (P2). Called after each pop that failed, before
    /// anything else can go wrong or take time.
    pub(crate) fn surrender(&self, cache: &Cache) {
        if !cache.may_hold_slots() || left_out(Step::Surrender) {
            return;
        }
        let mut wake = Vec::new();
        {
            // Whoever froze the cache has this lock until the mode is what it makes it.
            let mut held = cache.lock();
            // Relaxed: the mode becomes scarce only while this cache's lock is held (P3).
            if !is_scarce(self.mode.load(Ordering::Relaxed)) {
                return;
            }
            cache.normalise(&mut held);
            while let Some(slot) = cache.pop_locked(&mut held) {
                self.depot.put_loose(&self.storage, slot);
            }
            self.serve(&mut wake);
        }
        // The caller has no grant yet that a waker's panic could take away.
        wake_all(wake);
    }

    /// Takes one slot for a thread without a cache.
    fn take_shared(&self) -> Option<NonNull<Object>> {
        if let Some(slot) = self.depot.take_loose(&self.storage) {
            return Some(slot);
        }
        // The lock: nobody may find the depot empty while we have a magazine's rest in
        // hands (P2).
        let _registry = self.registry.lock();
        let mut first = None;
        self.depot.take(&self.storage, |slot| match first {
            None => first = Some(slot),
            Some(_) => self.depot.put_loose(&self.storage, slot),
        });
        first.or_else(|| self.depot.take_loose(&self.storage))
    }

    /// Takes a loose slot or a permit in scarce mode.
    fn take_scarce(&self, mode: u64) -> Result<Option<Grant>, ModeChanged> {
        // Relaxed: a count that decides only when to try plenty again.
        let calls = self.scarce_calls.fetch_add(1, Ordering::Relaxed);
        if calls >= self.scarce_limit.load(Ordering::Relaxed) && self.try_become_plenty() {
            return Err(ModeChanged);
        }
        if self.queue.len() > 0 {
            // What is idle belongs to those who wait.
            return Ok(None);
        }
        loop {
            if let Some(slot) = self.depot.take_loose(&self.storage) {
                return Ok(Some(Grant::Idle(slot)));
            }
            let full = match self.live.reserve(self.limits.capacity) {
                Ok(()) => return Ok(Some(Grant::Permit)),
                Err(full) => full,
            };
            // Once more, now that nothing can be created.
            if let Some(slot) = self.depot.take_loose(&self.storage) {
                return Ok(Some(Grant::Idle(slot)));
            }
            // Acquire: after both looks.
            if self.mode.load(Ordering::Acquire) != mode {
                return Err(ModeChanged);
            }
            // Nothing could be created from the one look until now, and at the other one
            // nothing was idle.
            if self.live.is_still(full) {
                return Ok(None);
            }
        }
    }

    /// Objects that exist or are being created.
    pub(crate) fn live(&self) -> usize {
        self.live.count()
    }

    /// Freezes and empties every cache; all idle slots become loose.
    #[cold]
    pub(crate) fn become_scarce(&self) {
        let registry = self.registry.lock();
        // Relaxed: changed under the registry lock only.
        if is_scarce(self.mode.load(Ordering::Relaxed)) {
            return;
        }
        let mut held: Vec<_> = registry.caches.iter().map(|cache| cache.lock()).collect();
        if !left_out(Step::EmptyCaches) {
            self.caches_to_loose(&registry, &mut held);
        }
        while self.depot.take(&self.storage, |slot| {
            self.depot.put_loose(&self.storage, slot);
        }) > 0
        {}
        // Relaxed: see `take_scarce`.
        self.scarce_calls.store(0, Ordering::Relaxed);
        // Release: pairs with the Acquire loads of the mode.
        self.mode.fetch_add(1, Ordering::Release);
        drop(held);
        drop(registry);
        // A subscriber of events may use the pool: no lock is held.
        self.counters.note_steal();
    }

    /// Moves what is in the caches onto the loose stack; all locks are held.
    fn caches_to_loose(&self, registry: &Registry, held: &mut [MutexGuard<'_, CacheState>]) {
        Self::empty_caches(registry, held, |slot| {
            self.depot.put_loose(&self.storage, slot);
        });
    }

    /// Freezes all caches and passes their slots on; all locks are held.
    fn empty_caches(
        registry: &Registry,
        held: &mut [MutexGuard<'_, CacheState>],
        mut pass: impl FnMut(NonNull<Object>),
    ) {
        for (cache, held) in registry.caches.iter().zip(&mut *held) {
            cache.freeze(held);
        }
        heavy_barrier();
        for (cache, held) in registry.caches.iter().zip(held) {
            cache.take_all(held, &mut pass);
        }
    }

    /// Back to plenty, if nobody waits and half of the objects are idle.
    fn try_become_plenty(&self) -> bool {
        // Relaxed, here and below: see `take_scarce`.
        self.scarce_calls.store(0, Ordering::Relaxed);
        if 2 * self.depot.loose(&self.storage) < self.limits.capacity {
            return false;
        }
        let Some(_registry) = self.registry.try_lock() else {
            return false;
        };
        let queue = self.queue.lock();
        let somebody_waits = !queue.is_empty() && !left_out(Step::AskQueue);
        if somebody_waits || !is_scarce(self.mode.load(Ordering::Relaxed)) {
            return false;
        }
        let limit = self.scarce_limit.load(Ordering::Relaxed);
        let limit = (2 * limit).min(MOST_SCARCE_CALLS);
        self.scarce_limit.store(limit, Ordering::Relaxed);
        // Release: as in `become_scarce`.
        self.mode.fetch_add(1, Ordering::Release);
        true
    }

    /// The owner's push failed and its slot is its own again: returns it under the lock.
    ///
    /// The pool may be gone as soon as the lock is released after [`Put::Done`].
    pub(crate) fn put_locked(
        &self,
        cache: &Cache,
        held: &mut CacheState,
        slot: NonNull<Object>,
        wake: &mut Vec<Waker>,
    ) -> Put {
        cache.normalise(held);
        if held.closed {
            return Put::Closed;
        }
        // Relaxed: the mode becomes scarce only while this cache's lock is held (P3).
        if is_scarce(self.mode.load(Ordering::Relaxed)) {
            return self.put_loose(slot, wake);
        }
        cache.thaw(held);
        if cache.push_locked(held, slot) {
            return Put::Done;
        }
        if self.is_surplus() {
            return Put::Surplus;
        }
        let magazine = self.depot.empty();
        cache.take_newest(held, self.limits.magazine, |newest| {
            self.depot.fill(&magazine, newest);
        });
        self.depot.put(magazine);
        let fits = cache.push_locked(held, slot);
        debug_assert!(fits, "a magazine was just taken out");
        Put::Done
    }

    /// Returns a slot from a thread without a cache, which borrows the pool: it cannot close
    /// meanwhile.
    pub(crate) fn put_shared(&self, slot: NonNull<Object>, wake: &mut Vec<Waker>) -> Put {
        self.put_loose(slot, wake)
    }

    /// Returns a slot from a thread without a cache that does not borrow the pool.
    ///
    /// # Safety
    ///
    /// `shared` is live for as long as the slot is the caller's, which it is if the answer is
    /// not [`Put::Done`].
    pub(crate) unsafe fn put_unborrowed(
        shared: NonNull<Self>,
        slot: NonNull<Object>,
        wake: &mut Vec<Waker>,
    ) -> Put {
        // SAFETY: the slot is the caller's, so it is live now, and while the lock is held:
        // closing waits for it. A pointer and no reference came in, for a reference must be
        // good until we return.
        let this = unsafe { shared.as_ref() };
        let registry = this.registry.lock();
        if registry.closed {
            return Put::Closed;
        }
        this.put_loose(slot, wake)
    }

    /// Gives a slot to who waits, or makes it loose.
    fn put_loose(&self, slot: NonNull<Object>, wake: &mut Vec<Waker>) -> Put {
        // Who joins the queue after this look is given the permit instead.
        if self.queue.len() == 0 && self.is_surplus() {
            return Put::Surplus;
        }
        self.depot.put_loose(&self.storage, slot);
        self.serve(wake);
        Put::Done
    }

    /// Whether one more idle object would be more than are retained.
    fn is_surplus(&self) -> bool {
        let retain = self.limits.retain;
        retain != usize::MAX && self.depot.idle(&self.storage) >= retain
    }

    /// Hands loose slots and free permits to those who wait. Called by whoever has made
    /// one loose, and by whoever has joined the queue.
    ///
    /// Both give first and look then, with a fence between: if the giver's look at the
    /// queue misses the waiter, the waiter's look at the stack finds the slot.
    pub(crate) fn serve(&self, wake: &mut Vec<Waker>) {
        // Pairs with the fence of the other caller of this function.
        if !left_out(Step::ServeFence) {
            fence(Ordering::SeqCst);
        }
        if self.queue.len() == 0 {
            return;
        }
        let mut queue = self.queue.lock();
        while !queue.is_empty() {
            if let Some(slot) = self.depot.take_loose(&self.storage) {
                queue.grant(Grant::Idle(slot), wake);
            } else if self.reserve() {
                queue.grant(Grant::Permit, wake);
            } else {
                return;
            }
        }
    }

    /// Joins the queue. The grant may come at once.
    pub(crate) fn wait(&self, waker: &Waker, wake: &mut Vec<Waker>) -> Arc<Waiter> {
        // Foreign code, so before the lock.
        let waker = waker.clone();
        let waiter = self.queue.lock().join(waker);
        // Whatever is idle in caches becomes loose, and from now on every return looks at
        // the queue (P4).
        self.become_scarce();
        self.serve(wake);
        waiter
    }

    /// Leaves the queue; a grant that came first goes to the next.
    pub(crate) fn stop_waiting(&self, waiter: &Arc<Waiter>) -> Option<Grant> {
        self.queue.leave(waiter)
    }

    /// An object is gone, or was not created: its permit goes to who waits, or back.
    /// Returns whether the pool was closed and this was its last object: then the caller
    /// frees it.
    ///
    /// # Safety
    ///
    /// `shared` is live until the permit is given up, which is the caller's.
    pub(crate) unsafe fn release_permit(shared: NonNull<Self>, wake: &mut Vec<Waker>) -> bool {
        // SAFETY: by contract. A pointer and no reference came in: once the permit is given up,
        // others may free the pool, and a reference must be good until we return.
        let this = unsafe { shared.as_ref() };
        if this.live.is_open() {
            let mut queue = this.queue.lock();
            // Again: it closes under this lock.
            if this.live.is_open() {
                if queue.is_empty() {
                    let last = this.live.release();
                    debug_assert!(!last, "the handle is there");
                } else {
                    queue.grant(Grant::Permit, wake);
                }
                return false;
            }
        }
        this.live.release()
    }

    /// Fills in the figures that are known here.
    pub(crate) fn read_metrics(&self, metrics: &mut Metrics) {
        self.counters.read(metrics);
        let registry = self.registry.lock();
        let mut cached = 0;
        for cache in &registry.caches {
            let held = cache.lock();
            metrics.hits += held.hits;
            cached += cache.len(&held);
        }
        metrics.caches = registry.caches.len();
        metrics.capacity = (self.limits.capacity != usize::MAX).then_some(self.limits.capacity);
        metrics.live = self.live();
        metrics.idle = cached + self.depot.idle(&self.storage);
        metrics.in_use = metrics.live.saturating_sub(metrics.idle);
        metrics.slot_bytes = self.storage.bytes();
    }
}

/// The mode changed while a call looked: it looks again.
struct ModeChanged;
