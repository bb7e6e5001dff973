//! Many objects that stay together: one guard for all of them.
//!
//! A [`Pooled`] is two words, of which one says the same each time. A batch says it once and
//! keeps the slots one after another, as the cache does: getting and returning are copies.

use alloc::vec::Vec;
use core::fmt;
use core::marker::PhantomData;
use core::mem;

use crate::error::TryGetError;
use crate::guard::Pooled;
use crate::inner::{Inner, Slot};
use crate::many::{RETURN_SLOTS, reserve_some};
use crate::pool::Pool;
use crate::recycle::Recycle;

/// Many objects in use, borrowed from their pool; dropping the batch returns them all.
///
/// For less than as many [`Pooled`]: of objects that are got, used and returned together
/// each costs about two thirds of a single get and return. The batch keeps its own memory when
/// it is cleared, so one that is used again and again does not allocate.
///
/// # Examples
///
/// ```
/// let pool = brickyard_pool::Pool::new(|| Vec::<u8>::with_capacity(1500));
/// let mut packets = pool.batch();
/// for round in 0..3 {
///     assert!(packets.try_get(32).is_ok());
///     for packet in packets.iter_mut() {
///         packet.clear();
///         packet.push(round);
///     }
///     packets.clear(); // back in the pool
/// }
/// assert_eq!(pool.metrics().created, 32);
/// ```
#[must_use = "dropping the batch returns its objects at once"]
pub struct Batch<'p, T, R: Recycle<T>> {
    pool: &'p Pool<T, R>,
    /// B1: slots of the pool with objects, and ours.
    slots: Vec<Slot>,
    /// As in [`Pooled`].
    objects: PhantomData<&'p mut T>,
}

// SAFETY: as for `Pooled`: objects and calls of the recycler go to the other thread.
unsafe impl<T: Send, R: Recycle<T> + Send + Sync> Send for Batch<'_, T, R> {}
// SAFETY: a shared batch gives `&T` only.
unsafe impl<T: Sync, R: Recycle<T>> Sync for Batch<'_, T, R> {}

impl<T, R: Recycle<T>> Pool<T, R> {
    /// An empty batch, to get many objects into.
    pub fn batch(&self) -> Batch<'_, T, R> {
        Batch {
            pool: self,
            slots: Vec::new(),
            objects: PhantomData,
        }
    }
}

impl<'p, T, R: Recycle<T>> Batch<'p, T, R> {
    /// Gets `count` objects more, or none, without waiting.
    ///
    /// # Errors
    ///
    /// As [`Pool::try_get_many`]; `Empty` also if the batch would hold more than the capacity.
    #[track_caller]
    pub fn try_get(&mut self, count: usize) -> Result<(), TryGetError<R::Error>> {
        let before = self.slots.len();
        let wanted = self.wanted(count).ok_or(TryGetError::Empty)?;
        loop {
            self.get_hot(wanted);
            if self.slots.len() == wanted {
                return Ok(());
            }
            match self.pool.try_get() {
                Ok(one) => self.slots.push(one.into_parts().1),
                Err(error) => {
                    self.truncate(before);
                    return Err(error);
                }
            }
        }
    }

    /// Gets `count` objects more; waits for them if the pool is bounded, as
    /// [`Pool::get_many`] does. What is in the batch already is kept meanwhile: two that
    /// wait for what the other one keeps wait for ever.
    ///
    /// # Errors
    ///
    /// As [`Pool::get_many`]; `Empty` also if the batch would hold more than the capacity.
    #[cfg(feature = "std")]
    #[track_caller]
    pub fn get(&mut self, count: usize) -> Result<(), TryGetError<R::Error>> {
        let before = self.slots.len();
        let wanted = self.wanted(count).ok_or(TryGetError::Empty)?;
        if self.pool.capacity().is_none() {
            // Nobody waits for an object.
            return self.try_get(count);
        }
        self.get_hot(wanted);
        if self.slots.len() == wanted {
            return Ok(());
        }
        self.pool.inner().surrender();
        self.truncate(before);
        for grant in self.pool.collect(count) {
            match self.pool.redeem(grant) {
                Ok(slot) => self.slots.push(slot),
                Err(error) => {
                    self.truncate(before);
                    return Err(TryGetError::Create(error));
                }
            }
        }
        Ok(())
    }

    /// How many there are to be, with `count` more; `None` if there can never be so many.
    fn wanted(&self, count: usize) -> Option<usize> {
        let all = self.slots.len().checked_add(count)?;
        self.pool.wanted(all, 0)
    }

    /// Takes objects out of the thread's cache, until there are `wanted` or it has none.
    #[inline]
    fn get_hot(&mut self, wanted: usize) {
        reserve_some(&mut self.slots, wanted);
        let (before, mut got) = (self.slots.len(), 0);
        let room = self.slots.spare_capacity_mut();
        let count = (wanted - before).min(room.len());
        self.pool.inner().take_hot_many(count, |slots| {
            got = slots.write_to(room, |slot| slot);
        });
        // SAFETY: `got` slots were written, one after another, into spare capacity.
        unsafe { self.slots.set_len(before + got) };
    }

    /// Adds an object; gives it back if it is from another pool.
    ///
    /// # Errors
    ///
    /// The guard itself.
    pub fn push(&mut self, one: Pooled<'p, T, R>) -> Result<(), Pooled<'p, T, R>> {
        if !one.is_of(self.pool.inner()) {
            return Err(one);
        }
        // Room first: if there is none, the guard still returns its object.
        self.slots.reserve(1);
        self.slots.push(one.into_parts().1);
        Ok(())
    }

    /// Takes one object out, with a guard of its own.
    pub fn pop(&mut self) -> Option<Pooled<'p, T, R>> {
        // The slot was the batch's own (B1), and the guard has it now.
        self.slots.pop().map(|slot| self.pool.guard(slot))
    }

    /// Objects in the batch.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// The objects.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.slots.iter().map(|&slot| {
            // SAFETY: the object is the batch's (B1) and valid; it is shared as `self` is.
            unsafe { Inner::<T, R>::object(slot).as_ref() }
        })
    }

    /// The objects, to be changed.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut T>
    where
        T: Unpin,
    {
        self.slots.iter_mut().map(|&mut slot| {
            // SAFETY: the object is the batch's (B1) and valid; each slot is passed once, and
            // `self` is borrowed for as long as what it leads to.
            unsafe { Inner::<T, R>::object(slot).as_mut() }
        })
    }

    /// Returns all objects to the pool.
    ///
    /// With a bound they come back one by one, and with a panic of one object's reset the rest
    /// stays in the batch; without a bound all are reset first, and then come back together.
    pub fn clear(&mut self) {
        self.truncate(0);
    }

    /// Returns what is beyond the first `len`.
    #[inline]
    fn truncate(&mut self, len: usize) {
        if self.pool.inner().shared.capacity() != usize::MAX {
            // Somebody may wait for each of them, the next one's reset perhaps.
            while self.slots.len() > len {
                drop(self.pop());
            }
        } else if self.slots.len() > len {
            Returning::new(self.pool.inner(), &mut self.slots, len).run();
        }
    }
}

impl<T, R: Recycle<T>> Drop for Batch<'_, T, R> {
    #[inline]
    fn drop(&mut self) {
        /// Goes on after a reset that panics; a second panic aborts.
        struct Rest<'b, 'p, T, R: Recycle<T>>(&'b mut Batch<'p, T, R>);
        impl<T, R: Recycle<T>> Drop for Rest<'_, '_, T, R> {
            fn drop(&mut self) {
                self.0.clear();
            }
        }
        let rest = Rest(self);
        rest.0.clear();
        mem::forget(rest);
    }
}

/// The objects of a batch on their way back to a pool without bound, in two steps: resetting,
/// which may panic or use the pool, and sharing. A panic ends neither: the object that it
/// happened on is dropped, and the rest goes on.
struct Returning<'b, T, R: Recycle<T>> {
    inner: &'b Inner<T, R>,
    slots: &'b mut Vec<Slot>,
    /// Those below stay.
    from: usize,
    /// Those from `from` up to here are ready.
    ready: usize,
    /// The one there is being reset.
    resets: bool,
}

impl<'b, T, R: Recycle<T>> Returning<'b, T, R> {
    #[inline]
    fn new(inner: &'b Inner<T, R>, slots: &'b mut Vec<Slot>, from: usize) -> Self {
        Self {
            inner,
            slots,
            from,
            ready: from,
            resets: false,
        }
    }

    #[inline]
    fn run(&mut self) {
        self.resets = true;
        while let Some(&slot) = self.slots.get(self.ready) {
            // SAFETY: the batch's slot (B1), of a pool that is borrowed. If this panics the
            // slot is the pool's again, and our destructor takes it out.
            if unsafe { Inner::make_ready(self.inner.into(), slot) } {
                self.ready += 1;
            } else {
                self.slots.swap_remove(self.ready);
            }
        }
        self.resets = false;
        while self.slots.len() > self.from {
            let start = self.slots.len().saturating_sub(RETURN_SLOTS);
            self.share(start.max(self.from));
        }
    }

    /// Shares the slots from `start` on, no more than are shared together.
    #[inline]
    fn share(&mut self, start: usize) {
        if self.inner.push_hot_many(&self.slots[start..]) {
            self.slots.truncate(start);
        } else {
            self.share_singly(start);
        }
    }

    #[cold]
    fn share_singly(&mut self, start: usize) {
        while self.slots.len() > start {
            let Some(slot) = self.slots.pop() else { return };
            // SAFETY: a slot of the pool, which is borrowed, whose object is ready; it was
            // taken out of the batch.
            unsafe { Inner::push(self.inner.into(), slot, true) };
        }
    }
}

impl<T, R: Recycle<T>> Drop for Returning<'_, T, R> {
    /// After a panic: goes on. A second one aborts.
    #[inline]
    fn drop(&mut self) {
        if self.resets && self.ready < self.slots.len() {
            self.slots.swap_remove(self.ready);
        }
        if self.slots.len() > self.from {
            self.run();
        }
    }
}

impl<T: fmt::Debug, R: Recycle<T>> fmt::Debug for Batch<'_, T, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}
