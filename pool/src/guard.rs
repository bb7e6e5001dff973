//! The objects' users: guards that return what they hold when they are dropped.
//!
//! Two words each: the pool and the slot.

use core::fmt;
use core::marker::PhantomData;
use core::ops::{Deref, DerefMut};
use core::pin::Pin;
use core::ptr::NonNull;

use crate::inner::{Inner, Slot, disarm};
use crate::recycle::{DropReason, Owned, Recycle};

/// An object in use, borrowed from its pool; dropping the guard returns the object.
///
/// Forgetting a guard ([`mem::forget`](core::mem::forget)) leaks its object and, with a
/// bound, its place; nothing else breaks.
///
/// A guard does not outlive its pool:
///
/// ```compile_fail,E0505
/// let pool = brickyard_pool::Pool::new(|| 1_u8);
/// let Ok(one) = pool.get();
/// drop(pool);
/// drop(one);
/// ```
///
/// and what it leads to is as long-lived as the pool says:
///
/// ```compile_fail
/// fn shorten<'a>(
///     guard: brickyard_pool::Pooled<'a, &'static str, fn() -> &'static str>,
/// ) -> brickyard_pool::Pooled<'a, &'a str, fn() -> &'static str> {
///     guard
/// }
/// ```
#[must_use = "dropping the guard returns the object at once"]
pub struct Pooled<'p, T, R: Recycle<T>> {
    inner: NonNull<Inner<T, R>>,
    slot: Slot,
    /// Invariant in `T`: a shorter-lived object must not get into the pool through it.
    pool: PhantomData<(&'p (), &'p mut T, &'p R)>,
}

/// An object in use, owned: as [`Pooled`], but it may go wherever `T` may, for as long as
/// it likes, also beyond the life of its pool's handle. Made by [`Pooled::into_owned`],
/// at no cost: no reference is counted.
#[must_use = "dropping the guard returns the object at once"]
pub struct PooledOwned<T, R: Recycle<T>> {
    inner: NonNull<Inner<T, R>>,
    slot: Slot,
    /// Owns a `T`, invariant as in [`Pooled`].
    pool: PhantomData<(Owned<T>, R)>,
}

// SAFETY: the object goes with the guard (`T: Send`); on the other thread the guard calls
// the recycler, which others call too (`R: Sync`), and drops objects that others left idle
// (`T: Send`), and perhaps the recycler with the pool (`R: Send`).
unsafe impl<T: Send, R: Recycle<T> + Send + Sync> Send for Pooled<'_, T, R> {}
// SAFETY: a shared guard gives `&T` only.
unsafe impl<T: Sync, R: Recycle<T>> Sync for Pooled<'_, T, R> {}
// SAFETY: as for `Pooled`.
unsafe impl<T: Send, R: Recycle<T> + Send + Sync> Send for PooledOwned<T, R> {}
// SAFETY: as for `Pooled`.
unsafe impl<T: Sync, R: Recycle<T>> Sync for PooledOwned<T, R> {}

/// The object does not lie in the guard.
impl<T, R: Recycle<T>> Unpin for PooledOwned<T, R> {}

impl<T, R: Recycle<T>> Pooled<'_, T, R> {
    /// # Safety
    ///
    /// `inner` is an open pool, borrowed for the guard's lifetime; `slot` is one of its
    /// slots, with an object, and the caller's own.
    #[inline(always)]
    pub(crate) unsafe fn new(inner: NonNull<Inner<T, R>>, slot: Slot) -> Self {
        Self {
            inner,
            slot,
            pool: PhantomData,
        }
    }

    /// Makes the guard independent of the pool's lifetime. Costs nothing.
    #[inline(always)]
    pub fn into_owned(self) -> PooledOwned<T, R> {
        let guard = disarm(self);
        PooledOwned {
            inner: guard.inner,
            slot: guard.slot,
            pool: PhantomData,
        }
    }

    /// Whether the object is from this pool.
    pub(crate) fn is_of(&self, inner: &Inner<T, R>) -> bool {
        core::ptr::eq(self.inner.as_ptr(), inner)
    }

    /// What the guard holds; it returns nothing any more.
    pub(crate) fn into_parts(self) -> (NonNull<Inner<T, R>>, Slot) {
        let guard = disarm(self);
        (guard.inner, guard.slot)
    }
}

macro_rules! guard {
    ($guard:ident, [$($generics:tt)*], borrowed: $borrowed:literal) => {
        impl<$($generics)* T, R: Recycle<T>> $guard<$($generics)* T, R> {
            /// The object, pinned: it does not move until it is dropped.
            #[inline(always)]
            pub fn as_pin_mut(&mut self) -> Pin<&mut T> {
                // SAFETY: the object is the guard's and valid (O1). It stays in its slot
                // until it is dropped: `&mut T` is handed out for `Unpin` types only.
                unsafe { Pin::new_unchecked(Inner::<T, R>::object(self.slot).as_mut()) }
            }

            /// Takes the object out of the pool for good; its place becomes free.
            pub fn detach(self) -> T
            where
                T: Unpin,
            {
                let guard = disarm(self);
                // SAFETY: the slot was the guard's, which does nothing any more.
                unsafe { Inner::detach(guard.inner, guard.slot) }
            }

            /// Drops the object instead of returning it, and says why: for one that is
            /// broken, say. It is not reset; its place becomes free.
            pub fn discard(self, reason: DropReason) {
                let guard = disarm(self);
                // SAFETY: as in `detach`.
                unsafe { Inner::destroy(guard.inner, guard.slot, reason) };
            }
        }

        impl<$($generics)* T, R: Recycle<T>> Drop for $guard<$($generics)* T, R> {
            #[inline]
            fn drop(&mut self) {
                // SAFETY: the slot is the guard's; nothing is used afterwards. A borrowing guard
                // borrows the pool for longer than it lives.
                unsafe { Inner::put(self.inner, self.slot, $borrowed) };
            }
        }

        impl<$($generics)* T, R: Recycle<T>> Deref for $guard<$($generics)* T, R> {
            type Target = T;

            #[inline(always)]
            fn deref(&self) -> &T {
                // SAFETY: the object is the guard's and valid (O1).
                unsafe { Inner::<T, R>::object(self.slot).as_ref() }
            }
        }

        impl<$($generics)* T: Unpin, R: Recycle<T>> DerefMut for $guard<$($generics)* T, R> {
            #[inline(always)]
            fn deref_mut(&mut self) -> &mut T {
                self.as_pin_mut().get_mut()
            }
        }

        impl<$($generics)* T, R: Recycle<T>> AsRef<T> for $guard<$($generics)* T, R> {
            fn as_ref(&self) -> &T {
                self
            }
        }

        impl<$($generics)* T: Unpin, R: Recycle<T>> AsMut<T> for $guard<$($generics)* T, R> {
            fn as_mut(&mut self) -> &mut T {
                self
            }
        }

        impl<$($generics)* T: fmt::Debug, R: Recycle<T>> fmt::Debug for $guard<$($generics)* T, R> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                (**self).fmt(f)
            }
        }

        impl<$($generics)* T: fmt::Display, R: Recycle<T>> fmt::Display for $guard<$($generics)* T, R> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                (**self).fmt(f)
            }
        }
    };
}

guard!(Pooled, ['p,], borrowed: true);
guard!(PooledOwned, [], borrowed: false);
