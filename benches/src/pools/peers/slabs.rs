//! Pools that keep objects, or room for them, in places of their own.

use std::sync::Arc;

use crate::pools::adapter::{Inline, Object, Pool, Setting, touch_inline};

use super::queues::guarded;

/// `lockfree_object_pool::LinearObjectPool` with its borrowing guard.
pub(crate) struct Linear<const N: usize>(lockfree_object_pool::LinearObjectPool<Object<N>>);

impl<const N: usize> Pool for Linear<N> {
    type Held<'p> = lockfree_object_pool::LinearReusable<'p, Object<N>>;

    fn new(_: &Setting) -> Self {
        Self(lockfree_object_pool::LinearObjectPool::new(
            Object::new,
            |_| {},
        ))
    }

    #[inline(always)]
    fn get(&self) -> Self::Held<'_> {
        self.0.pull()
    }

    guarded!();
}

/// `lockfree_object_pool::LinearObjectPool` with its counting guard.
pub(crate) struct LinearOwned<const N: usize>(
    Arc<lockfree_object_pool::LinearObjectPool<Object<N>>>,
);

impl<const N: usize> Pool for LinearOwned<N> {
    type Held<'p> = lockfree_object_pool::LinearOwnedReusable<Object<N>>;

    fn new(_: &Setting) -> Self {
        let pool = lockfree_object_pool::LinearObjectPool::new(Object::new, |_| {});
        Self(Arc::new(pool))
    }

    #[inline(always)]
    fn get(&self) -> Self::Held<'_> {
        self.0.pull_owned()
    }

    guarded!();
}

impl<const N: usize> Default for Object<N> {
    fn default() -> Self {
        Self::new()
    }
}

impl<const N: usize> sharded_slab::Clear for Object<N> {
    #[inline(always)]
    fn clear(&mut self) {}
}

/// `sharded_slab::Pool` with its borrowing guard; an object is free again when its key is
/// cleared.
#[derive(Debug)]
pub(crate) struct Sharded<const N: usize>(sharded_slab::Pool<Object<N>>);

impl<const N: usize> Pool for Sharded<N> {
    type Held<'p> = sharded_slab::pool::RefMut<'p, Object<N>>;

    fn new(_: &Setting) -> Self {
        Self(sharded_slab::Pool::new())
    }

    #[inline(always)]
    fn get(&self) -> Self::Held<'_> {
        self.0.create().expect("the slab has room for all rows")
    }

    #[inline(always)]
    fn touch(held: &mut Self::Held<'_>, value: u8) {
        held.touch(value);
    }

    #[inline(always)]
    fn put<'p>(&'p self, held: Self::Held<'p>) {
        let key = held.key();
        drop(held);
        self.0.clear(key);
    }
}

/// `sharded_slab::Pool` with its counting guard.
#[derive(Debug)]
pub(crate) struct ShardedOwned<const N: usize>(Arc<sharded_slab::Pool<Object<N>>>);

impl<const N: usize> Pool for ShardedOwned<N> {
    type Held<'p> = sharded_slab::pool::OwnedRefMut<Object<N>>;

    fn new(_: &Setting) -> Self {
        Self(Arc::new(sharded_slab::Pool::new()))
    }

    #[inline(always)]
    fn get(&self) -> Self::Held<'_> {
        let pool = Arc::clone(&self.0);
        pool.create_owned().expect("the slab has room for all rows")
    }

    #[inline(always)]
    fn touch(held: &mut Self::Held<'_>, value: u8) {
        held.touch(value);
    }

    #[inline(always)]
    fn put<'p>(&'p self, held: Self::Held<'p>) {
        let key = held.key();
        drop(held);
        self.0.clear(key);
    }
}

/// `shared_arena::SharedArena`: room in pages.
pub(crate) struct SharedRoom<const N: usize>(shared_arena::SharedArena<Inline<N>>);

impl<const N: usize> Pool for SharedRoom<N> {
    type Held<'p> = shared_arena::ArenaBox<Inline<N>>;

    const COUNTED: bool = false;

    fn new(_: &Setting) -> Self {
        Self(shared_arena::SharedArena::new())
    }

    #[inline(always)]
    fn get(&self) -> Self::Held<'_> {
        self.0
            .alloc([const { core::mem::MaybeUninit::uninit() }; N])
    }

    #[inline(always)]
    fn touch(held: &mut Self::Held<'_>, value: u8) {
        touch_inline(&mut held[..], value);
    }

    #[inline(always)]
    fn put<'p>(&'p self, held: Self::Held<'p>) {
        drop(held);
    }
}

/// An `atomic_pool`, a static for each size.
#[derive(Debug)]
pub(crate) struct StaticRoom<const N: usize>;

/// A `heapless::object_pool!`, a static for each size.
#[derive(Debug)]
pub(crate) struct Heapless<const N: usize>;

/// The adapters of pools that are statics; in a module, as their macros make structs.
macro_rules! statics {
    ($module:ident, $size:literal) => {
        #[expect(clippy::manual_div_ceil, reason = "inside the macro of atomic-pool")]
        mod $module {
            use super::{Heapless, Inline, Object, Pool, Setting, StaticRoom, touch_inline};

        atomic_pool::pool!(pub(crate) Room: [Inline<$size>; 1024]);

        impl Pool for StaticRoom<$size> {
            type Held<'p> = atomic_pool::Box<Room>;

            const COUNTED: bool = false;

            fn new(_: &Setting) -> Self {
                Self
            }

            #[inline(always)]
            fn get(&self) -> Self::Held<'_> {
                atomic_pool::Box::new([const { core::mem::MaybeUninit::uninit() }; $size])
                    .expect("no row holds a thousand objects")
            }

            #[inline(always)]
            fn touch(held: &mut Self::Held<'_>, value: u8) {
                touch_inline(&mut held[..], value);
            }

            #[inline(always)]
            fn put<'p>(&'p self, held: Self::Held<'p>) {
                drop(held);
            }
        }

        heapless::object_pool!(Objects: Object<$size>);

        impl Pool for Heapless<$size> {
            type Held<'p> = Result<heapless::pool::object::Object<Objects>, Object<$size>>;

            fn new(setting: &Setting) -> Self {
                for _ in 0..setting.capacity {
                    let block = heapless::pool::object::ObjectBlock::new(Object::new());
                    Objects.manage(Box::leak(Box::new(block)));
                }
                Self
            }

            #[inline(always)]
            fn get(&self) -> Self::Held<'_> {
                Objects.request().ok_or_else(Object::new)
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
        }
    };
}

statics!(small, 64);
statics!(medium, 1024);
statics!(large, 65_536);
