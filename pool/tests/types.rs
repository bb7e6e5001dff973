//! Which types may change threads, and which may be shared, is what the object allows.
//!
//! What could go wrong: a pool of objects that may not change threads is shared, and hands
//! one object to another thread (`lockfree-object-pool` and others did); a guard is `Sync`
//! although its object is not; a change of a private field takes `Send` away from users.

#![cfg(not(loom))]

use core::cell::Cell;
use core::convert::Infallible;
use core::marker::PhantomPinned;
use core::panic::{RefUnwindSafe, UnwindSafe};
use std::rc::Rc;
use std::sync::MutexGuard;

use brickyard_pool::{
    Batch, Buffer, BufferPool, Builder, Cleared, CreateReset, DropReason, Dropped, Get,
    GetTimeoutError, Holder, InPlace, Keep, Key, Keyed, Metrics, MetricsPage, Place, Placed, Pool,
    Pooled, PooledOwned, Recycle, TryCreate, TryGetError, WaitHistogram,
};
use static_assertions::{assert_impl_all, assert_not_impl_any};

/// A recycler that may be anything.
struct With<X>(X);

impl<T: Default, X> Recycle<T> for With<X> {
    type Error = Infallible;

    fn create<'p>(&self, place: Place<'p, T>) -> Result<Placed<'p, T>, Infallible> {
        Ok(place.write(T::default()))
    }
}

type Plain = With<()>;
/// `Send` and not `Sync`.
type Mobile = Cell<u8>;
/// Neither.
type Bound = Rc<u8>;
/// `Sync` and not `Send`.
type Fixed = MutexGuard<'static, u8>;

/// The same with a default.
#[derive(Default)]
struct Shared(#[expect(dead_code, reason = "a mark")] Option<Fixed>);

/// Not `Unpin`.
#[derive(Default)]
struct Pinned(PhantomPinned);

assert_impl_all!(Shared: Sync);
assert_not_impl_any!(Shared: Send);

mod pools {
    use super::*;

    assert_impl_all!(Pool<u8, Plain>: Send, Sync, Unpin, UnwindSafe, RefUnwindSafe);
    assert_impl_all!(Pool<Mobile, Plain>: Send, Sync);
    assert_not_impl_any!(Pool<Bound, Plain>: Send, Sync);
    assert_not_impl_any!(Pool<Shared, Plain>: Send, Sync);
    assert_not_impl_any!(Pool<u8, With<Mobile>>: Send, Sync);
    assert_not_impl_any!(Pool<u8, With<Bound>>: Send, Sync);
    assert_impl_all!(Pool<Pinned, Plain>: Unpin);
    assert_impl_all!(Builder: Send, Sync, Unpin, Clone, UnwindSafe, RefUnwindSafe);
    assert_impl_all!(BufferPool: Send, Sync, Unpin);
    assert_impl_all!(Buffer: Send, Sync, Unpin);
}

mod guards {
    use super::*;

    assert_impl_all!(Pooled<'static, u8, Plain>: Send, Sync, Unpin);
    assert_impl_all!(PooledOwned<u8, Plain>: Send, Sync, Unpin);
    assert_impl_all!(Keyed<'static, u8, Plain>: Send, Sync, Unpin);
    assert_impl_all!(Pooled<'static, Mobile, Plain>: Send);
    assert_impl_all!(PooledOwned<Mobile, Plain>: Send);
    assert_not_impl_any!(Pooled<'static, Mobile, Plain>: Sync);
    assert_not_impl_any!(PooledOwned<Mobile, Plain>: Sync);
    assert_not_impl_any!(Keyed<'static, Mobile, Plain>: Send, Sync);
    assert_not_impl_any!(Pooled<'static, Bound, Plain>: Send, Sync);
    assert_not_impl_any!(PooledOwned<Bound, Plain>: Send, Sync);
    assert_not_impl_any!(Keyed<'static, Bound, Plain>: Send, Sync);
    // Reading is all that a shared guard allows.
    assert_impl_all!(Pooled<'static, Shared, Plain>: Sync);
    assert_impl_all!(PooledOwned<Shared, Plain>: Sync);
    assert_not_impl_any!(Pooled<'static, Shared, Plain>: Send);
    assert_not_impl_any!(PooledOwned<Shared, Plain>: Send);
    assert_impl_all!(Batch<'static, u8, Plain>: Send, Sync, Unpin);
    assert_impl_all!(Batch<'static, Mobile, Plain>: Send);
    assert_not_impl_any!(Batch<'static, Mobile, Plain>: Sync);
    assert_not_impl_any!(Batch<'static, Bound, Plain>: Send, Sync);
    // A guard on another thread calls the recycler, and may drop it.
    assert_not_impl_any!(Pooled<'static, u8, With<Mobile>>: Send);
    assert_not_impl_any!(PooledOwned<u8, With<Mobile>>: Send);
    // Objects stay where they are when their guard moves.
    assert_impl_all!(Pooled<'static, Pinned, Plain>: Unpin);
    assert_impl_all!(PooledOwned<Pinned, Plain>: Unpin);
    assert_impl_all!(Keyed<'static, Pinned, Plain>: Unpin);
    assert_impl_all!(Get<'static, Pinned, Plain>: Unpin);
    assert_impl_all!(Get<'static, u8, Plain>: Send, Unpin);
    assert_not_impl_any!(Get<'static, Bound, Plain>: Send, Sync);
}

mod values {
    use super::*;

    assert_impl_all!(Key: Send, Sync, Copy, Ord, core::hash::Hash, Unpin);
    assert_impl_all!(Holder: Send, Sync, Clone);
    assert_impl_all!(Metrics: Send, Sync, Clone, core::fmt::Display);
    assert_impl_all!(MetricsPage<'static>: Send, Sync, Copy, core::fmt::Display);
    assert_impl_all!(Dropped: Send, Sync);
    assert_impl_all!(WaitHistogram: Send, Sync);
    assert_impl_all!(DropReason: Send, Sync, Copy, Eq);
    assert_impl_all!(Keep: Send, Sync, Copy, Eq);
    assert_impl_all!(TryGetError<u8>: Send, Sync);
    assert_impl_all!(TryGetError<std::io::Error>: Send, Sync, core::error::Error);
    assert_impl_all!(GetTimeoutError<std::io::Error>: Send, Sync, core::error::Error);
    assert_impl_all!(Cleared: Send, Sync, Copy);
    assert_impl_all!(CreateReset<(), ()>: Send, Sync, Copy);
    assert_impl_all!(TryCreate<()>: Send, Sync, Copy);
    assert_impl_all!(InPlace<()>: Send, Sync, Copy);
    assert_not_impl_any!(InPlace<Bound>: Send, Sync);
    assert_not_impl_any!(CreateReset<Bound, ()>: Send, Sync);
    assert_not_impl_any!(TryCreate<Bound>: Send, Sync);
    // The place of one creation: what it holds decides.
    assert_impl_all!(Place<'static, u8>: Send);
    assert_not_impl_any!(Place<'static, Bound>: Send);
    assert_not_impl_any!(Placed<'static, Bound>: Send);
}

#[test]
fn guards_are_two_words_and_so_is_the_option_of_one() {
    let word = size_of::<usize>();
    assert_eq!(size_of::<Pooled<'_, [u64; 32], Plain>>(), 2 * word);
    assert_eq!(size_of::<PooledOwned<[u64; 32], Plain>>(), 2 * word);
    assert_eq!(size_of::<Option<Pooled<'_, u8, Plain>>>(), 2 * word);
    assert_eq!(size_of::<Option<PooledOwned<u8, Plain>>>(), 2 * word);
    assert_eq!(size_of::<Pool<u8, Plain>>(), word);
    assert_eq!(size_of::<Key>(), 8);
}
