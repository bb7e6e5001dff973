//! Many objects at once: a batch goes through the thread's cache with one look at it.

use alloc::vec::Vec;
use core::mem::MaybeUninit;
use core::slice;

use crate::error::TryGetError;
use crate::guard::Pooled;
use crate::inner::{Inner, Slot};
use crate::pool::Pool;
use crate::recycle::Recycle;

impl<T, R: Recycle<T>> Pool<T, R> {
    /// Gets `count` objects, or none, without waiting, and appends them to `into`.
    ///
    /// # Errors
    ///
    /// As [`Pool::try_get`]; what was got by then is returned.
    #[track_caller]
    pub fn try_get_many<'p>(
        &'p self,
        count: usize,
        into: &mut Vec<Pooled<'p, T, R>>,
    ) -> Result<(), TryGetError<R::Error>> {
        let before = into.len();
        into.reserve(count);
        loop {
            get_hot(self.inner(), before + count - into.len(), into);
            if into.len() == before + count {
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
    /// in order of arrival.
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
        let before = into.len();
        into.reserve(count);
        get_hot(self.inner(), count, into);
        if into.len() == before + count {
            return Ok(());
        }
        // What was got goes back: who waits for the turn holds nothing that others wait for.
        into.truncate(before);
        if count > self.inner().shared.capacity() {
            return Err(TryGetError::Empty);
        }
        let _turn = self.inner().turn();
        while into.len() < before + count {
            match self.get() {
                Ok(one) => into.push(one),
                Err(error) => {
                    into.truncate(before);
                    return Err(TryGetError::Create(error));
                }
            }
            get_hot(self.inner(), before + count - into.len(), into);
        }
        Ok(())
    }

    /// Returns many objects: the same as dropping each guard, for less.
    ///
    /// Should an object's reset panic, what follows is returned all the same.
    pub fn put_many<'p>(&'p self, guards: impl IntoIterator<Item = Pooled<'p, T, R>>) {
        let mut batch = Batch::new(self.inner());
        let mut len = 0;
        for guard in guards {
            len = batch.put(guard, len);
        }
    }
}

/// Most slots that are given back together.
const BATCH_SLOTS: usize = 32;

/// Slots whose objects are ready, on their way back. What is in it when it is dropped, as
/// after a panic in a later object's reset, goes back too.
struct Batch<'p, T, R: Recycle<T>> {
    inner: &'p Inner<T, R>,
    /// B1: the first `len` are slots of the pool with objects that are ready, and ours.
    slots: [MaybeUninit<Slot>; BATCH_SLOTS],
    len: usize,
}

impl<'p, T, R: Recycle<T>> Batch<'p, T, R> {
    fn new(inner: &'p Inner<T, R>) -> Self {
        Self {
            inner,
            slots: [const { MaybeUninit::uninit() }; BATCH_SLOTS],
            len: 0,
        }
    }

    /// Returns what a guard holds: resets it, and keeps its slot in the batch.
    ///
    /// `len` is the batch's length, and the answer the new one. The caller keeps it in a
    /// register: the length in memory is there for panics, and reading it back each time
    /// would cost as much as all the rest.
    #[inline(always)]
    fn put(&mut self, guard: Pooled<'p, T, R>, mut len: usize) -> usize {
        if !guard.is_of(self.inner) {
            // From another pool of the same type.
            drop(guard);
            return len;
        }
        if len >= BATCH_SLOTS {
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

    /// Shares what is in the batch.
    fn flush(&mut self) {
        // SAFETY: B1.
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
            // SAFETY: B1; the pool is borrowed.
            unsafe { Inner::push(self.inner.into(), self.slots[left].assume_init(), true) };
        }
    }
}

impl<T, R: Recycle<T>> Drop for Batch<'_, T, R> {
    #[inline]
    fn drop(&mut self) {
        if self.len > 0 {
            self.flush();
        }
    }
}

/// Appends up to `count` guards over objects of the thread's cache to `into`, which has room
/// for so many.
#[inline]
fn get_hot<'p, T, R: Recycle<T>>(
    inner: &'p Inner<T, R>,
    count: usize,
    into: &mut Vec<Pooled<'p, T, R>>,
) {
    let before = into.len();
    let mut room = into.spare_capacity_mut().iter_mut();
    let mut got = 0;
    inner.take_hot_many(count.min(room.len()), |slot| {
        if let Some(place) = room.next() {
            // SAFETY: the slot was just taken out of the pool, which is borrowed.
            place.write(unsafe { Pooled::new(inner.into(), slot) });
            got += 1;
        }
    });
    // SAFETY: `got` guards were written, one after another, into spare capacity.
    unsafe { into.set_len(before + got) };
}
