//! Many objects at once: they go through the thread's cache with one look at it.

use alloc::vec::Vec;
use core::mem::MaybeUninit;
use core::slice;

use crate::chunk::MOST_OBJECTS;
use crate::error::TryGetError;
use crate::guard::Pooled;
use crate::inner::{Inner, Slot};
use crate::pool::Pool;
use crate::recycle::Recycle;
#[cfg(feature = "std")]
use crate::wait::Grant;

impl<T, R: Recycle<T>> Pool<T, R> {
    /// Gets `count` objects, or none, without waiting, and appends them to `into`.
    ///
    /// # Errors
    ///
    /// As [`Pool::try_get`]; what was got by then is returned. `Empty` also if `count` is
    /// above the capacity. Of two calls at the same time that cannot both be served, neither
    /// may be: each holds what the other misses.
    #[track_caller]
    pub fn try_get_many<'p>(
        &'p self,
        count: usize,
        into: &mut Vec<Pooled<'p, T, R>>,
    ) -> Result<(), TryGetError<R::Error>> {
        let wanted = self.wanted(count, into.len()).ok_or(TryGetError::Empty)?;
        self.fill(into.len(), wanted, into)
    }

    /// How many there are to be, with `count` more than `len`; `None` if there can never be
    /// so many objects.
    pub(crate) fn wanted(&self, count: usize, len: usize) -> Option<usize> {
        let most = self.inner().shared.capacity().min(MOST_OBJECTS);
        len.checked_add(count).filter(|_| count <= most)
    }

    /// Gets objects until `into` has the length `wanted`; back to `before` on failure.
    #[track_caller]
    fn fill<'p>(
        &'p self,
        before: usize,
        wanted: usize,
        into: &mut Vec<Pooled<'p, T, R>>,
    ) -> Result<(), TryGetError<R::Error>> {
        loop {
            reserve_some(into, wanted);
            get_hot(self.inner(), wanted - into.len(), into);
            if into.len() == wanted {
                return Ok(());
            }
            match self.try_get() {
                Ok(one) => into.push(one),
                Err(error) => {
                    into.truncate(before);
                    return Err(error);
                }
            }
        }
    }

    /// Gets `count` objects and appends them to `into`; waits for what is missing if the pool
    /// is bounded. One call at a time collects, so that two which need more than is there
    /// do not hold half each and wait for ever; who gets single objects waits beside it,
    /// in order of arrival. New objects are created after that, when nobody waits for this
    /// call any more.
    ///
    /// # Errors
    ///
    /// [`TryGetError::Empty`] if `count` is above the capacity;
    /// [`TryGetError::Create`] if a new object was needed and its creation failed. What was
    /// got by then is returned.
    #[cfg(feature = "std")]
    #[track_caller]
    pub fn get_many<'p>(
        &'p self,
        count: usize,
        into: &mut Vec<Pooled<'p, T, R>>,
    ) -> Result<(), TryGetError<R::Error>> {
        let wanted = self.wanted(count, into.len()).ok_or(TryGetError::Empty)?;
        let before = into.len();
        if self.inner().shared.capacity() == usize::MAX {
            // Nobody waits for an object.
            return self.fill(before, wanted, into);
        }
        reserve_some(into, wanted);
        get_hot(self.inner(), count, into);
        if into.len() == wanted {
            return Ok(());
        }
        self.inner().surrender();
        // What was got goes back: who waits for the turn holds nothing that others wait for.
        into.truncate(before);
        for grant in self.collect(count) {
            match self.redeem(grant) {
                Ok(slot) => into.push(self.guard(slot)),
                Err(error) => {
                    into.truncate(before);
                    return Err(TryGetError::Create(error));
                }
            }
        }
        Ok(())
    }

    /// Waits for `count` grants, in its turn. No recycler runs meanwhile.
    #[cfg(feature = "std")]
    pub(crate) fn collect(&self, count: usize) -> Grants<'_, T, R> {
        let mut grants = Grants {
            pool: self,
            grants: Vec::new(),
        };
        let _turn = self.inner().turn();
        let held = &mut grants.grants;
        while held.len() < count {
            let grant = self.inner().take_slow_quietly();
            held.push(grant.unwrap_or_else(|| self.wait()));
            // Room first: nothing may allocate while the cache is looked at.
            let more = (count - held.len()).min(RETURN_SLOTS);
            held.reserve(more);
            self.inner().take_hot_many(more, |slots| {
                held.extend(slots.map(Grant::Idle));
            });
        }
        grants
    }

    /// Returns many objects: the same as dropping each guard, for less.
    ///
    /// Without a bound, up to 32 are on their way back while the iterator goes on: an object
    /// that is got meanwhile may be a new one. Should an object's reset panic, what follows
    /// is returned all the same.
    pub fn put_many<'p>(&'p self, guards: impl IntoIterator<Item = Pooled<'p, T, R>>) {
        if self.inner().shared.capacity() != usize::MAX {
            // Somebody may wait for each of them, the iterator itself perhaps.
            guards.into_iter().for_each(drop);
            return;
        }
        let mut returns = Returns::new(self.inner());
        let mut len = 0;
        for guard in guards {
            len = returns.put(guard, len);
        }
    }
}

/// Grants that were collected; those that are not taken out go back.
#[cfg(feature = "std")]
pub(crate) struct Grants<'p, T, R: Recycle<T>> {
    pool: &'p Pool<T, R>,
    grants: Vec<Grant>,
}

#[cfg(feature = "std")]
impl<T, R: Recycle<T>> Iterator for Grants<'_, T, R> {
    type Item = Grant;

    fn next(&mut self) -> Option<Grant> {
        self.grants.pop()
    }
}

#[cfg(feature = "std")]
impl<T, R: Recycle<T>> Drop for Grants<'_, T, R> {
    fn drop(&mut self) {
        while let Some(grant) = self.grants.pop() {
            self.pool.pass_on(grant);
        }
    }
}

/// Most slots that are given back together.
pub(crate) const RETURN_SLOTS: usize = 32;

/// Slots whose objects are ready, on their way back. What is in it when it is dropped, as
/// after a panic in a later object's reset, goes back too.
struct Returns<'p, T, R: Recycle<T>> {
    inner: &'p Inner<T, R>,
    /// R1: the first `len` are slots of the pool with objects that are ready, and ours.
    slots: [MaybeUninit<Slot>; RETURN_SLOTS],
    len: usize,
}

impl<'p, T, R: Recycle<T>> Returns<'p, T, R> {
    fn new(inner: &'p Inner<T, R>) -> Self {
        Self {
            inner,
            slots: [const { MaybeUninit::uninit() }; RETURN_SLOTS],
            len: 0,
        }
    }

    /// Returns what a guard holds: resets it, and keeps its slot here.
    ///
    /// `len` is the length, and the answer the new one. The caller keeps it in a
    /// register: the length in memory is there for panics, and reading it back each time
    /// would cost as much as all the rest.
    #[inline(always)]
    fn put(&mut self, guard: Pooled<'p, T, R>, mut len: usize) -> usize {
        if !guard.is_of(self.inner) {
            // From another pool of the same type.
            drop(guard);
            return len;
        }
        if len >= RETURN_SLOTS {
            self.flush();
            len = 0;
        }
        let (inner, slot) = guard.into_parts();
        // SAFETY: the guard's slot; the pool is borrowed for longer than this call.
        if unsafe { Inner::make_ready(inner, slot) } {
            self.slots[len].write(slot);
            len += 1;
            self.len = len;
        }
        len
    }

    /// Shares what is here.
    fn flush(&mut self) {
        // SAFETY: R1.
        let slots = unsafe { slice::from_raw_parts(self.slots.as_ptr().cast(), self.len) };
        if self.inner.push_hot_many(slots) {
            self.len = 0;
        } else {
            self.flush_singly();
        }
    }

    #[cold]
    fn flush_singly(&mut self) {
        while let Some(left) = self.len.checked_sub(1) {
            // First, so that what panics below is not given back twice.
            self.len = left;
            // SAFETY: R1; the pool is borrowed.
            unsafe { Inner::push(self.inner.into(), self.slots[left].assume_init(), true) };
        }
    }
}

impl<T, R: Recycle<T>> Drop for Returns<'_, T, R> {
    #[inline]
    fn drop(&mut self) {
        if self.len > 0 {
            self.flush();
        }
    }
}

/// Makes room for some more, up to the length `wanted`, which may be far off.
pub(crate) fn reserve_some<T>(into: &mut Vec<T>, wanted: usize) {
    into.reserve((wanted - into.len()).min(1024));
}

/// Appends up to `count` guards over objects of the thread's cache to `into`, which has room
/// for so many.
#[inline]
fn get_hot<'p, T, R: Recycle<T>>(
    inner: &'p Inner<T, R>,
    count: usize,
    into: &mut Vec<Pooled<'p, T, R>>,
) {
    let (before, mut got) = (into.len(), 0);
    let room = into.spare_capacity_mut();
    inner.take_hot_many(count.min(room.len()), |slots| {
        got = slots.write_to(room, |slot| {
            // SAFETY: the slot was just taken out of the pool, which is borrowed.
            unsafe { Pooled::new(inner.into(), slot) }
        });
    });
    // SAFETY: `got` guards were written, one after another, into spare capacity.
    unsafe { into.set_len(before + got) };
}
