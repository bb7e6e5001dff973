//! Pools that hand their objects out by value: rings, lists, locked vectors.

use std::sync::Arc;

use crossbeam_queue::{ArrayQueue, SegQueue};

use crate::pools::adapter::{Object, Pool, Setting};

/// The two methods that are alike for every guard that leads to an [`Object`].
macro_rules! guarded {
    () => {
        #[inline(always)]
        fn touch(held: &mut Self::Held<'_>, value: u8) {
            held.touch(value);
        }

        #[inline(always)]
        fn put<'p>(&'p self, held: Self::Held<'p>) {
            drop(held);
        }
    };
}
pub(super) use guarded;

/// `crossbeam_queue::ArrayQueue`, popped and pushed by hand.
#[derive(Debug)]
pub(crate) struct ArrayRing<const N: usize>(ArrayQueue<Object<N>>);

impl<const N: usize> Pool for ArrayRing<N> {
    type Held<'p> = Object<N>;

    fn new(setting: &Setting) -> Self {
        Self(ArrayQueue::new(setting.capacity))
    }

    #[inline(always)]
    fn get(&self) -> Object<N> {
        self.0.pop().unwrap_or_default()
    }

    #[inline(always)]
    fn touch(held: &mut Object<N>, value: u8) {
        held.touch(value);
    }

    #[inline(always)]
    fn put(&self, held: Object<N>) {
        // A full ring hands the object back, and it is dropped.
        let _ = self.0.push(held);
    }
}

/// `crossbeam_queue::SegQueue`, popped and pushed by hand.
#[derive(Debug)]
pub(crate) struct SegList<const N: usize>(SegQueue<Object<N>>);

impl<const N: usize> Pool for SegList<N> {
    type Held<'p> = Object<N>;

    fn new(_: &Setting) -> Self {
        Self(SegQueue::new())
    }

    #[inline(always)]
    fn get(&self) -> Object<N> {
        self.0.pop().unwrap_or_default()
    }

    #[inline(always)]
    fn touch(held: &mut Object<N>, value: u8) {
        held.touch(value);
    }

    #[inline(always)]
    fn put(&self, held: Object<N>) {
        self.0.push(held);
    }
}

/// Creates for `opool`.
#[derive(Debug)]
pub(crate) struct Creator;

impl<const N: usize> opool::PoolAllocator<Object<N>> for Creator {
    #[inline]
    fn allocate(&self) -> Object<N> {
        Object::new()
    }
}

/// `opool::Pool` with its borrowing guard.
#[derive(Debug)]
pub(crate) struct Opool<const N: usize>(opool::Pool<Creator, Object<N>>);

impl<const N: usize> Pool for Opool<N> {
    type Held<'p> = opool::RefGuard<'p, Creator, Object<N>>;

    fn new(setting: &Setting) -> Self {
        Self(opool::Pool::new(setting.capacity, Creator))
    }

    #[inline(always)]
    fn get(&self) -> Self::Held<'_> {
        self.0.get()
    }

    guarded!();
}

/// `opool::Pool` with its counting guard.
#[derive(Debug)]
pub(crate) struct OpoolOwned<const N: usize>(Arc<opool::Pool<Creator, Object<N>>>);

impl<const N: usize> Pool for OpoolOwned<N> {
    type Held<'p> = opool::RcGuard<Creator, Object<N>>;

    fn new(setting: &Setting) -> Self {
        Self(opool::Pool::new(setting.capacity, Creator).to_rc())
    }

    #[inline(always)]
    fn get(&self) -> Self::Held<'_> {
        Arc::clone(&self.0).get_rc()
    }

    guarded!();
}

/// `object_pool::Pool` with its borrowing guard.
pub(crate) struct Locked<const N: usize>(object_pool::Pool<Object<N>>);

impl<const N: usize> Pool for Locked<N> {
    type Held<'p> = object_pool::Reusable<'p, Object<N>>;

    fn new(_: &Setting) -> Self {
        Self(object_pool::Pool::new(0, Object::new))
    }

    #[inline(always)]
    fn get(&self) -> Self::Held<'_> {
        self.0.pull(Object::new)
    }

    guarded!();
}

/// `object_pool::Pool` with its counting guard.
pub(crate) struct LockedOwned<const N: usize>(Arc<object_pool::Pool<Object<N>>>);

impl<const N: usize> Pool for LockedOwned<N> {
    type Held<'p> = object_pool::ReusableOwned<Object<N>>;

    fn new(_: &Setting) -> Self {
        Self(Arc::new(object_pool::Pool::new(0, Object::new)))
    }

    #[inline(always)]
    fn get(&self) -> Self::Held<'_> {
        self.0.pull_owned(Object::new)
    }

    guarded!();
}

/// `objectpool::Pool`, bounded, with its borrowing guard.
pub(crate) struct Counted<const N: usize>(objectpool::Pool<Object<N>>);

impl<const N: usize> Pool for Counted<N> {
    type Held<'p> = objectpool::ReusableObjectRef<'p, Object<N>>;

    fn new(setting: &Setting) -> Self {
        Self(objectpool::Pool::bounded(
            setting.capacity,
            Object::new,
            |_| {},
        ))
    }

    #[inline(always)]
    fn get(&self) -> Self::Held<'_> {
        self.0.get()
    }

    guarded!();
}

/// `objectpool::Pool`, bounded, with its counting guard.
pub(crate) struct CountedOwned<const N: usize>(objectpool::Pool<Object<N>>);

impl<const N: usize> Pool for CountedOwned<N> {
    type Held<'p> = objectpool::ReusableObject<Object<N>>;

    fn new(setting: &Setting) -> Self {
        Self(objectpool::Pool::bounded(
            setting.capacity,
            Object::new,
            |_| {},
        ))
    }

    #[inline(always)]
    fn get(&self) -> Self::Held<'_> {
        self.0.get_owned()
    }

    guarded!();
}

/// `deadpool::unmanaged::Pool` through `try_get`.
#[derive(Debug)]
pub(crate) struct Dead<const N: usize>(deadpool::unmanaged::Pool<Object<N>>);

impl<const N: usize> Dead<N> {
    /// The pool is empty: adds an object and takes it. Full of objects in use, or another
    /// thread was quicker: an object that does not belong to the pool.
    #[cold]
    fn grow(&self) -> Result<deadpool::unmanaged::Object<Object<N>>, Object<N>> {
        self.0
            .try_add(Object::new())
            .map_err(|(object, _)| object)?;
        self.0.try_get().map_err(|_| Object::new())
    }
}

impl<const N: usize> Pool for Dead<N> {
    type Held<'p> = Result<deadpool::unmanaged::Object<Object<N>>, Object<N>>;

    fn new(setting: &Setting) -> Self {
        Self(deadpool::unmanaged::Pool::new(setting.capacity))
    }

    #[inline(always)]
    fn get(&self) -> Self::Held<'_> {
        self.0.try_get().or_else(|_| self.grow())
    }

    #[inline(always)]
    fn touch(held: &mut Self::Held<'_>, value: u8) {
        match held {
            Ok(pooled) => pooled.touch(value),
            Err(plain) => plain.touch(value),
        }
    }

    #[inline(always)]
    fn put<'p>(&'p self, held: Self::Held<'p>) {
        drop(held);
    }
}
