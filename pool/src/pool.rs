//! The pool: building one, and the ways to get an object.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::future::Future;
use core::marker::PhantomData;
use core::panic::{RefUnwindSafe, UnwindSafe};
use core::pin::Pin;
use core::ptr::NonNull;
use core::task::{Context, Poll};
#[cfg(feature = "std")]
use core::time::Duration;

#[cfg(feature = "std")]
use crate::error::GetTimeoutError;
use crate::error::TryGetError;
use crate::guard::Pooled;
use crate::holders::Holder;
use crate::inner::{Inner, Options, Slot, wake_all};
use crate::metrics::Metrics;
use crate::recycle::{Owned, Recycle};
use crate::wait::{Grant, Waiter};

/// A pool of objects of type `T`, which recycler `R` creates, resets and judges.
///
/// Shared by reference or in an `Arc`; see the [crate] for how it works and what to choose.
///
/// A pool of a type that may not change threads may not be shared:
///
/// ```compile_fail,E0277
/// fn shared(_: &(impl Sync + ?Sized)) {}
/// shared(&brickyard_pool::Pool::new(|| std::rc::Rc::new(1)));
/// ```
pub struct Pool<T, R: Recycle<T>> {
    inner: NonNull<Inner<T, R>>,
    /// Owns objects and recycler; invariant in `T`, for objects go in and out.
    owns: PhantomData<(Owned<T>, R)>,
}

// SAFETY: the pool moves objects and recycler to the new thread (`Send`); guards on other
// threads go on using the recycler (`R: Sync`).
unsafe impl<T: Send, R: Recycle<T> + Send + Sync> Send for Pool<T, R> {}
// SAFETY: every thread may get an object out of a shared pool, so `T: Send` is what
// counts; the recycler is called by all (`R: Sync`), and dropped by whoever is last.
unsafe impl<T: Send, R: Recycle<T> + Send + Sync> Sync for Pool<T, R> {}

// A panic in anything that a user wrote leaves the pool whole: its object is gone, its slot
// free. What a panic may leave behind within an object shows in the guard, which is not
// unwind safe by itself.
impl<T, R: Recycle<T>> UnwindSafe for Pool<T, R> {}
impl<T, R: Recycle<T>> RefUnwindSafe for Pool<T, R> {}

/// Neither objects nor recycler lie in the handle.
impl<T, R: Recycle<T>> Unpin for Pool<T, R> {}

/// How a pool is to be; from [`Pool::builder`].
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until build"]
pub struct Builder {
    capacity: usize,
    retain: usize,
    prewarm: usize,
    name: &'static str,
    track_holders: bool,
    weight: usize,
    #[cfg(feature = "std")]
    idle_decay: Option<Duration>,
}

impl Builder {
    /// A pool without bound, without decay, that keeps every object.
    pub const fn new() -> Self {
        Self {
            capacity: usize::MAX,
            retain: usize::MAX,
            prewarm: 0,
            name: "",
            track_holders: false,
            weight: 0,
            #[cfg(feature = "std")]
            idle_decay: None,
        }
    }

    /// At most `objects` exist at any moment; who wants one more waits or is told
    /// [`TryGetError::Empty`], which is only said when no object is idle anywhere.
    pub const fn capacity(mut self, objects: usize) -> Self {
        self.capacity = objects;
        self
    }

    /// Returned objects are dropped once `objects` are idle in the part that all threads
    /// share, unless somebody waits for one. Each thread's cache holds up to 128 more: as
    /// many as fit into about 1 MiB ([`Builder::weight`]), at least two. What an exiting
    /// thread leaves beyond the limit is dropped by the next gets that find nothing in
    /// their caches, a few each. [`Builder::prewarm`] and decay may pass it.
    pub const fn retain(mut self, objects: usize) -> Self {
        self.retain = objects;
        self
    }

    /// An object holds about `bytes` beside its own size, as a buffer does: for the bound on
    /// what a thread's cache holds.
    pub const fn weight(mut self, bytes: usize) -> Self {
        self.weight = bytes;
        self
    }

    /// [`Builder::build`] creates `objects` at once, no more than the capacity.
    pub const fn prewarm(mut self, objects: usize) -> Self {
        self.prewarm = objects;
        self
    }

    /// The name in metrics.
    pub const fn name(mut self, name: &'static str) -> Self {
        self.name = name;
        self
    }

    /// Objects that were not needed for two epochs of this length are dropped by threads that
    /// use the pool, at most 64 in one get: there is no thread of its own, and a pool that
    /// nobody uses keeps what it has until [`Pool::trim`].
    #[cfg(feature = "std")]
    pub const fn idle_decay(mut self, epoch: Duration) -> Self {
        self.idle_decay = Some(epoch);
        self
    }

    /// Notes where each object was got, since when and by which thread, for
    /// [`Pool::holders`]. Every get and return then takes the slow path: some 100 ns.
    pub const fn track_holders(mut self, track: bool) -> Self {
        self.track_holders = track;
        self
    }

    /// The pool, with objects that `create` makes.
    pub fn build<T, C: Fn() -> T>(&self, create: C) -> Pool<T, C> {
        let Ok(pool) = self.build_with(create);
        pool
    }

    /// The pool, with objects that `recycler` makes.
    ///
    /// # Errors
    ///
    /// What the recycler says, if creating an object for [`Builder::prewarm`] fails.
    pub fn build_with<T, R: Recycle<T>>(&self, recycler: R) -> Result<Pool<T, R>, R::Error> {
        let pool = self.cold(recycler);
        pool.prewarm(self.prewarm)?;
        Ok(pool)
    }

    /// The pool without objects.
    fn cold<T, R: Recycle<T>>(&self, recycler: R) -> Pool<T, R> {
        let options = Options {
            capacity: self.capacity,
            retain: self.retain,
            name: self.name,
            track_holders: self.track_holders,
            weight: self.weight,
            #[cfg(feature = "std")]
            idle_decay: self.idle_decay,
        };
        Pool {
            inner: Inner::new(&options, recycler),
            owns: PhantomData,
        }
    }
}

impl Default for Builder {
    fn default() -> Self {
        Self::new()
    }
}

impl<T, C: Fn() -> T> Pool<T, C> {
    /// An unbounded pool of objects that `create` makes and nobody resets.
    ///
    /// # Examples
    ///
    /// ```
    /// let pool = brickyard_pool::Pool::new(|| Vec::<u8>::with_capacity(4096));
    /// let Ok(mut buffer) = pool.get();
    /// buffer.clear();
    /// buffer.extend_from_slice(b"brick");
    /// drop(buffer); // back in the pool
    /// ```
    pub fn new(create: C) -> Self {
        Builder::new().build(create)
    }
}

impl Pool<(), fn()> {
    /// Options for a pool of any type.
    pub const fn builder() -> Builder {
        Builder::new()
    }
}

impl<T, R: Recycle<T>> Pool<T, R> {
    /// An unbounded pool of objects that `recycler` creates, resets and judges.
    pub fn with(recycler: R) -> Self {
        Builder::new().cold(recycler)
    }

    pub(crate) fn inner(&self) -> &Inner<T, R> {
        // SAFETY: the handle is open, so the pool is live.
        unsafe { self.inner.as_ref() }
    }

    /// A guard over a slot with an object that is the caller's.
    #[inline(always)]
    pub(crate) fn guard(&self, slot: Slot) -> Pooled<'_, T, R> {
        // SAFETY: every caller has just taken the slot out of the pool, which is borrowed.
        unsafe { Pooled::new(self.inner, slot) }
    }

    /// Gets an object without waiting: an idle one, or a new one if the bound allows it.
    ///
    /// # Errors
    ///
    /// [`TryGetError::Empty`] if the pool is bounded and every object is in use or promised
    /// to somebody who waits; [`TryGetError::Create`] if a new object was needed and its
    /// creation failed.
    ///
    /// # Complexity
    ///
    /// Constant, wait-free and without a shared write if the thread's cache has an object;
    /// a bounded pool that is nearly used up looks at all threads' caches.
    #[inline]
    #[track_caller]
    pub fn try_get(&self) -> Result<Pooled<'_, T, R>, TryGetError<R::Error>> {
        let slot = match self.inner().take_hot() {
            Some(slot) => slot,
            None => self.try_get_slow()?,
        };
        Ok(self.guard(slot))
    }

    #[cold]
    #[inline(never)]
    #[track_caller]
    fn try_get_slow(&self) -> Result<Slot, TryGetError<R::Error>> {
        let grant = self.inner().take_slow().ok_or(TryGetError::Empty)?;
        self.redeem(grant).map_err(TryGetError::Create)
    }

    /// The slot that a grant is for, with an object.
    #[track_caller]
    pub(crate) fn redeem(&self, grant: Grant) -> Result<Slot, R::Error> {
        let slot = match grant {
            Grant::Idle(slot) => slot,
            Grant::Permit => self.inner().create()?,
        };
        self.inner()
            .note_holder(slot, core::panic::Location::caller());
        Ok(slot)
    }

    /// Leaves the queue; a grant that came already goes to the next.
    fn leave(&self, waiter: &Arc<Waiter>) {
        if let Some(grant) = self.inner().shared.stop_waiting(waiter) {
            self.pass_on(grant);
        }
    }

    /// Gives a grant back that was not used.
    pub(crate) fn pass_on(&self, grant: Grant) {
        match grant {
            Grant::Idle(slot) => self.inner().put_unused(slot),
            Grant::Permit => wake_all(self.inner().release_open_permit()),
        }
    }

    /// Gets an object; waits for one if the pool is bounded and all are in use, after those
    /// who came before. It waits by [`std::thread::park`], and may leave the thread's token
    /// set: who parks too sees a spurious wake-up, as `park` says it may.
    ///
    /// # Errors
    ///
    /// What the recycler says if a new object was needed and its creation failed. With an
    /// infallible recycler: `let Ok(object) = pool.get();`.
    #[cfg(feature = "std")]
    #[inline]
    #[track_caller]
    pub fn get(&self) -> Result<Pooled<'_, T, R>, R::Error> {
        let slot = match self.inner().take_hot() {
            Some(slot) => slot,
            None => self.get_slow()?,
        };
        Ok(self.guard(slot))
    }

    #[cfg(feature = "std")]
    #[cold]
    #[inline(never)]
    #[track_caller]
    fn get_slow(&self) -> Result<Slot, R::Error> {
        let grant = self.inner().take_slow();
        self.redeem(grant.unwrap_or_else(|| self.wait()))
    }

    /// Queues and sleeps until a grant comes.
    #[cfg(feature = "std")]
    pub(crate) fn wait(&self) -> Grant {
        loop {
            if let Some(grant) = self.wait_until(None) {
                return grant;
            }
        }
    }

    /// Gets an object; waits for one at most `timeout`, after those who came before.
    ///
    /// # Errors
    ///
    /// [`GetTimeoutError::Timeout`] if no object came back in time;
    /// [`GetTimeoutError::Create`] if a new object was needed and its creation failed.
    #[cfg(feature = "std")]
    #[inline]
    #[track_caller]
    pub fn get_timeout(
        &self,
        timeout: Duration,
    ) -> Result<Pooled<'_, T, R>, GetTimeoutError<R::Error>> {
        let slot = match self.inner().take_hot() {
            Some(slot) => slot,
            None => self.get_timeout_slow(timeout)?,
        };
        Ok(self.guard(slot))
    }

    #[cfg(feature = "std")]
    #[cold]
    #[inline(never)]
    #[track_caller]
    fn get_timeout_slow(&self, timeout: Duration) -> Result<Slot, GetTimeoutError<R::Error>> {
        let grant = match self.inner().take_slow() {
            Some(grant) => grant,
            // A time beyond what the clock can say is no limit.
            None => match std::time::Instant::now().checked_add(timeout) {
                deadline @ Some(_) => self.wait_until(deadline).ok_or(GetTimeoutError::Timeout)?,
                None => return self.get_slow().map_err(GetTimeoutError::Create),
            },
        };
        self.redeem(grant).map_err(GetTimeoutError::Create)
    }

    /// Queues and sleeps until a grant comes or the time is over.
    #[cfg(feature = "std")]
    fn wait_until(&self, deadline: Option<std::time::Instant>) -> Option<Grant> {
        use std::time::Instant;

        struct Unpark(std::thread::Thread);
        impl alloc::task::Wake for Unpark {
            fn wake(self: Arc<Self>) {
                self.0.unpark();
            }
        }
        struct Queued<'w, T, R: Recycle<T>>(&'w Pool<T, R>, &'w Arc<Waiter>);
        impl<T, R: Recycle<T>> Drop for Queued<'_, T, R> {
            fn drop(&mut self) {
                self.0.leave(self.1);
            }
        }
        let waker = Arc::new(Unpark(std::thread::current())).into();
        let begun = Instant::now();
        let shared = &self.inner().shared;
        let mut wake = Vec::new();
        let waiter = shared.wait(&waker, &mut wake);
        // Leaves the queue if another's waker panics.
        let queued = Queued(self, &waiter);
        wake_all(wake);
        core::mem::forget(queued);
        let grant = loop {
            if let Some(grant) = waiter.poll(&waker) {
                break Some(grant);
            }
            match deadline.map(|deadline| deadline.saturating_duration_since(Instant::now())) {
                None => std::thread::park(),
                // A grant that came just now is as good as one in time.
                Some(Duration::ZERO) => break shared.stop_waiting(&waiter),
                Some(left) => std::thread::park_timeout(left),
            }
        };
        shared.counters.note_wait(begun.elapsed());
        grant
    }

    /// Gets an object; the future waits for one if the pool is bounded and all are in use,
    /// after those who came before. For any executor; dropping the future gives its place,
    /// or the object that was on its way, to the next. One that waits and is *forgotten*
    /// (`mem::forget`) is still granted an object, which is then lost to the pool.
    #[track_caller]
    pub fn get_async(&self) -> Get<'_, T, R> {
        Get {
            pool: self,
            waiter: None,
            #[cfg(feature = "std")]
            begun: None,
            location: core::panic::Location::caller(),
        }
    }

    /// Puts an object that was made elsewhere under the pool's care.
    ///
    /// # Errors
    ///
    /// The object itself, if the bound is reached.
    #[track_caller]
    pub fn attach(&self, object: T) -> Result<Pooled<'_, T, R>, T> {
        if !self.inner().shared.reserve() {
            return Err(object);
        }
        let slot = self.inner().place(object);
        self.inner()
            .note_holder(slot, core::panic::Location::caller());
        Ok(self.guard(slot))
    }

    /// Creates idle objects until `objects` exist, or the bound is reached.
    ///
    /// # Errors
    ///
    /// What the recycler says; objects created before stay.
    pub fn prewarm(&self, objects: usize) -> Result<(), R::Error> {
        /// Shares what was made, also if creating the next fails or panics.
        struct Made<'p, T, R: Recycle<T>>(&'p Inner<T, R>, Vec<Slot>);
        impl<T, R: Recycle<T>> Drop for Made<'_, T, R> {
            fn drop(&mut self) {
                wake_all(self.0.shared.put_many_unused(&self.1));
            }
        }
        let mut made = Made(self.inner(), Vec::new());
        while made.0.shared.live() < objects {
            made.1.reserve(1);
            if !made.0.shared.reserve() {
                break;
            }
            let slot = made.0.create()?;
            made.1.push(slot);
        }
        Ok(())
    }

    /// Drops every idle object and gives the memory of unused slots back. Returns how many
    /// objects that were.
    ///
    /// # Complexity
    ///
    /// Linear in threads and idle objects; threads that use the pool meanwhile are sent
    /// through the slow path once.
    pub fn trim(&self) -> usize {
        self.inner().trim()
    }

    /// The bound on objects that exist; `None` if there is none.
    pub fn capacity(&self) -> Option<usize> {
        let capacity = self.inner().shared.capacity();
        (capacity != usize::MAX).then_some(capacity)
    }

    /// The name in metrics, empty if it has none.
    pub fn name(&self) -> &'static str {
        self.inner().name
    }

    /// What the pool has done and holds. Linear in the number of threads.
    pub fn metrics(&self) -> Metrics {
        let mut metrics = Metrics {
            name: self.name(),
            ..Metrics::default()
        };
        self.inner().shared.read_metrics(&mut metrics);
        metrics
    }

    /// Who holds an object, longest first (without `std` in no order): for finding leaks. `None` unless the pool was
    /// built with [`Builder::track_holders`].
    pub fn holders(&self) -> Option<Vec<Holder>> {
        let holders = self.inner().holders.as_ref()?;
        Some(holders.list())
    }
}

impl<T, R: Recycle<T>> Drop for Pool<T, R> {
    /// Drops all idle objects. Those in use are dropped as they come back.
    fn drop(&mut self) {
        /// Goes on after a destructor that panics; a second panic aborts.
        struct Again<T, R: Recycle<T>>(NonNull<Inner<T, R>>);
        impl<T, R: Recycle<T>> Drop for Again<T, R> {
            fn drop(&mut self) {
                // SAFETY: the first call panicked before it gave up the handle.
                if unsafe { Inner::close(self.0) } {
                    // SAFETY: `close` said so.
                    unsafe { Inner::free(self.0) };
                }
            }
        }
        let again = Again(self.inner);
        // SAFETY: `&mut self`: nobody borrows the handle, and it is not used again.
        let last = unsafe { Inner::close(self.inner) };
        core::mem::forget(again);
        if last {
            // SAFETY: `close` said so.
            unsafe { Inner::free(self.inner) };
        }
    }
}

impl<T, R: Recycle<T>> fmt::Debug for Pool<T, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let metrics = self.metrics();
        f.debug_struct("Pool")
            .field("name", &metrics.name)
            .field("capacity", &metrics.capacity)
            .field("in_use", &metrics.in_use)
            .field("idle", &metrics.idle)
            .finish_non_exhaustive()
    }
}

/// The future of [`Pool::get_async`].
#[must_use = "futures do nothing unless polled"]
pub struct Get<'p, T, R: Recycle<T>> {
    pool: &'p Pool<T, R>,
    waiter: Option<Arc<Waiter>>,
    #[cfg(feature = "std")]
    begun: Option<std::time::Instant>,
    location: &'static core::panic::Location<'static>,
}

impl<'p, T, R: Recycle<T>> Future for Get<'p, T, R> {
    type Output = Result<Pooled<'p, T, R>, R::Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let pool = self.pool;
        let inner = pool.inner();
        let grant = match &self.waiter {
            Some(waiter) => waiter.poll(context.waker()),
            None => match inner.take_hot() {
                Some(slot) => Some(Grant::Idle(slot)),
                None => inner.take_slow(),
            },
        };
        let grant = match grant {
            Some(grant) => grant,
            None if self.waiter.is_some() => return Poll::Pending,
            None => {
                let mut wake = Vec::new();
                let waiter = inner.shared.wait(context.waker(), &mut wake);
                // Before others are woken: should a waker panic, `drop` leaves the queue.
                let waiter = Arc::clone(self.waiter.insert(waiter));
                wake_all(wake);
                #[cfg(feature = "std")]
                {
                    self.begun = Some(std::time::Instant::now());
                }
                match waiter.poll(context.waker()) {
                    Some(grant) => grant,
                    None => return Poll::Pending,
                }
            }
        };
        self.waiter = None;
        #[cfg(feature = "std")]
        if let Some(begun) = self.begun.take() {
            inner.shared.counters.note_wait(begun.elapsed());
        }
        let slot = match grant {
            Grant::Idle(slot) => slot,
            Grant::Permit => match inner.create() {
                Ok(slot) => slot,
                Err(error) => return Poll::Ready(Err(error)),
            },
        };
        inner.note_holder(slot, self.location);
        Poll::Ready(Ok(pool.guard(slot)))
    }
}

impl<T, R: Recycle<T>> Drop for Get<'_, T, R> {
    fn drop(&mut self) {
        if let Some(waiter) = self.waiter.take() {
            self.pool.leave(&waiter);
        }
    }
}

impl<T, R: Recycle<T>> fmt::Debug for Get<'_, T, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Get")
            .field("waits", &self.waiter.is_some())
            .finish_non_exhaustive()
    }
}
