//! What a pool does with its objects: create, reset, keep or drop.

use core::convert::Infallible;
use core::fmt;
use core::marker::PhantomData;
use core::mem::MaybeUninit;
use core::pin::Pin;

/// Why an object left the pool for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DropReason {
    /// [`Recycle::keep`] found it too big to keep.
    TooBig,
    /// [`Recycle::keep`] found it too small to be of use.
    TooSmall,
    /// [`Recycle::keep`] found it broken.
    Broken,
    /// [`Recycle::keep`] found that it has served long enough.
    Expired,
    /// `reset` or `keep` panicked on it.
    Panicked,
    /// Its holder called `discard`, for a reason that is none of the others.
    Discarded,
    /// Its holder called `detach`.
    Detached,
    /// More objects were idle than the pool retains.
    Surplus,
    /// It was idle for two epochs, or `trim` was called.
    Idle,
    /// The pool was dropped.
    Closed,
}

impl DropReason {
    /// How many reasons there are, for arrays of counters.
    pub(crate) const COUNT: usize = 10;

    /// All reasons, in the order of their numbers.
    pub const ALL: [Self; Self::COUNT] = [
        Self::TooBig,
        Self::TooSmall,
        Self::Broken,
        Self::Expired,
        Self::Panicked,
        Self::Discarded,
        Self::Detached,
        Self::Surplus,
        Self::Idle,
        Self::Closed,
    ];

    /// The name in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::TooBig => "too_big",
            Self::TooSmall => "too_small",
            Self::Broken => "broken",
            Self::Expired => "expired",
            Self::Panicked => "panicked",
            Self::Discarded => "discarded",
            Self::Detached => "detached",
            Self::Surplus => "surplus",
            Self::Idle => "idle",
            Self::Closed => "closed",
        }
    }
}

/// The answer of [`Recycle::keep`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// The object goes back to the pool.
    Keep,
    /// The object is dropped, for this reason.
    Drop(DropReason),
}

/// What a pool does with objects of type `T`.
///
/// A panic in any of the methods loses no slot: the object it happened on is dropped,
/// its place is free again, and the panic goes on to the caller.
pub trait Recycle<T> {
    /// Why an object could not be created; [`Infallible`] where that cannot happen.
    type Error;

    /// Creates an object in its slot, where it stays until it is dropped.
    ///
    /// # Errors
    ///
    /// Whatever creation may fail with; the slot stays empty.
    fn create<'p>(&self, place: Place<'p, T>) -> Result<Placed<'p, T>, Self::Error>;

    /// Makes a returned object ready for its next user. Called exactly once a return.
    #[inline]
    fn reset(&self, object: Pin<&mut T>) {
        let _ = object;
    }

    /// Whether a returned object is kept. Called after `reset`.
    #[inline]
    fn keep(&self, object: &T) -> Keep {
        let _ = object;
        Keep::Keep
    }
}

/// The empty slot in which an object is created, in place.
///
/// `'p` is a brand of its own for each creation: a [`Placed`] with the same brand proves
/// that this very slot was filled.
pub struct Place<'p, T> {
    slot: &'p mut MaybeUninit<T>,
    brand: Brand<'p>,
}

/// Invariant in `'p`.
type Brand<'p> = PhantomData<fn(&'p ()) -> &'p ()>;

/// Proof that the slot of a [`Place`] holds an object.
pub struct Placed<'p, T> {
    slot: *mut T,
    brand: Brand<'p>,
}

impl<'p, T> Place<'p, T> {
    /// The brand must be chosen anew for each creation: call it inside a function that is
    /// generic in it.
    pub(crate) fn new(slot: &'p mut MaybeUninit<T>) -> Self {
        Self {
            slot,
            brand: PhantomData,
        }
    }

    /// Moves `value` into the slot. In optimised builds a large value that is made in the
    /// argument is usually built in place; [`Place::fill`] and [`Place::init`] guarantee it.
    #[inline]
    pub fn write(self, value: T) -> Placed<'p, T> {
        let slot: *mut T = self.slot.write(value);
        Placed {
            slot,
            brand: self.brand,
        }
    }

    /// Lets `fill` initialise the slot through a pointer: nothing passes over the stack.
    ///
    /// # Safety
    ///
    /// When `fill` returns, the memory at its argument must hold a valid `T`.
    #[inline]
    pub unsafe fn init(self, fill: impl FnOnce(*mut T)) -> Placed<'p, T> {
        let slot = self.slot.as_mut_ptr();
        fill(slot);
        Placed {
            slot,
            brand: self.brand,
        }
    }
}

impl<'p, T, const N: usize> Place<'p, [T; N]> {
    /// Makes an array in its slot, element by element in the order of their numbers: no more
    /// than one of them passes over the stack.
    #[inline]
    pub fn fill(self, mut element: impl FnMut(usize) -> T) -> Placed<'p, [T; N]> {
        /// The first `len` elements, dropped again if making the next one panics.
        struct Made<T> {
            first: *mut T,
            len: usize,
        }
        impl<T> Drop for Made<T> {
            fn drop(&mut self) {
                let made = core::ptr::slice_from_raw_parts_mut(self.first, self.len);
                // SAFETY: `len` elements were written from `first` on, which nobody else uses.
                unsafe { made.drop_in_place() };
            }
        }
        let slot = self.slot.as_mut_ptr();
        let mut made = Made {
            first: slot.cast::<T>(),
            len: 0,
        };
        while made.len < N {
            let value = element(made.len);
            // SAFETY: `len < N`, so the element lies in the slot, and nothing is in it yet.
            unsafe { made.first.add(made.len).write(value) };
            made.len += 1;
        }
        core::mem::forget(made);
        Placed {
            slot,
            brand: self.brand,
        }
    }
}

impl<T> Placed<'_, T> {
    /// The object; it may be changed in place before it is handed out.
    pub fn as_ptr(&self) -> *mut T {
        self.slot
    }
}

impl<T> Drop for Placed<'_, T> {
    /// A creator that filled the slot and then failed: the object goes again.
    fn drop(&mut self) {
        // SAFETY: only the creator's own `Placed` is dropped (`into_filled` forgets the one
        // that is handed back), so the object is initialised and used by nobody else.
        unsafe { self.slot.drop_in_place() };
    }
}

impl<T> Placed<'_, T> {
    /// Takes the proof: the object is the pool's now.
    pub(crate) fn into_filled(self) {
        core::mem::forget(self);
    }
}

impl<T> fmt::Debug for Place<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Place").finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for Placed<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Placed").finish_non_exhaustive()
    }
}

/// A closure that makes objects is a recycler of them, without reset.
impl<T, C: Fn() -> T> Recycle<T> for C {
    type Error = Infallible;

    #[inline]
    fn create<'p>(&self, place: Place<'p, T>) -> Result<Placed<'p, T>, Infallible> {
        Ok(place.write(self()))
    }
}

/// Creates by one closure, resets by another.
#[derive(Clone, Copy, Debug)]
pub struct CreateReset<C, S> {
    create: C,
    reset: S,
}

impl<C, S> CreateReset<C, S> {
    /// A recycler of objects that `create` makes and that `reset` is run on as they come
    /// back.
    pub const fn new(create: C, reset: S) -> Self {
        Self { create, reset }
    }
}

impl<T: Unpin, C: Fn() -> T, S: Fn(&mut T)> Recycle<T> for CreateReset<C, S> {
    type Error = Infallible;

    #[inline]
    fn create<'p>(&self, place: Place<'p, T>) -> Result<Placed<'p, T>, Infallible> {
        Ok(place.write((self.create)()))
    }

    #[inline]
    fn reset(&self, object: Pin<&mut T>) {
        (self.reset)(object.get_mut());
    }
}

/// Creates by a closure that may fail.
#[derive(Clone, Copy, Debug)]
pub struct TryCreate<C> {
    create: C,
}

impl<C> TryCreate<C> {
    /// A recycler of objects that `create` makes, or fails to make.
    pub const fn new(create: C) -> Self {
        Self { create }
    }
}

impl<T, E, C: Fn() -> Result<T, E>> Recycle<T> for TryCreate<C> {
    type Error = E;

    #[inline]
    fn create<'p>(&self, place: Place<'p, T>) -> Result<Placed<'p, T>, E> {
        (self.create)().map(|object| place.write(object))
    }
}

/// Creates by a closure that is given the place: for objects that are too big to pass over the
/// stack, or that must not move.
///
/// # Examples
///
/// ```
/// use brickyard_pool::{InPlace, Place, Pool};
///
/// // 8 MiB, which would overflow the stack.
/// let create = InPlace::new(|place: Place<'_, [u64; 1 << 20]>| place.fill(|_| 0));
/// let tables = Pool::with(create);
/// let Ok(mut table) = tables.get();
/// table[7] = 7;
/// ```
#[derive(Clone, Copy, Debug)]
pub struct InPlace<C> {
    create: C,
}

impl<C> InPlace<C> {
    /// A recycler of objects that `create` makes in their places.
    pub const fn new<T>(create: C) -> Self
    where
        C: for<'p> Fn(Place<'p, T>) -> Placed<'p, T>,
    {
        Self { create }
    }
}

impl<T, C: for<'p> Fn(Place<'p, T>) -> Placed<'p, T>> Recycle<T> for InPlace<C> {
    type Error = Infallible;

    #[inline]
    fn create<'p>(&self, place: Place<'p, T>) -> Result<Placed<'p, T>, Infallible> {
        Ok((self.create)(place))
    }
}

/// Owns a `T`, and is invariant in it: for what lets objects in and out.
pub(crate) type Owned<T> = (T, PhantomData<fn(T) -> T>);
