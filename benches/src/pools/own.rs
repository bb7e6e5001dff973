//! Our pool, and no pool at all.

use core::hint::black_box;
use core::mem::MaybeUninit;

use brickyard_pool::{Builder, Pooled, PooledOwned};

use super::adapter::{Object, Pool, Setting};

/// The recycler: a pointer to [`Object::new`].
type Create<const N: usize> = fn() -> Object<N>;

/// Our pool as `setting` wants it: unbounded, as its users get it by default.
fn create<const N: usize>(setting: &Setting) -> brickyard_pool::Pool<Object<N>, Create<N>> {
    let builder = Builder::new();
    let builder = match setting.decay {
        Some(epoch) => builder.idle_decay(epoch),
        None => builder,
    };
    builder.build(Object::new as Create<N>)
}

/// Our pool with the guard that borrows it.
#[derive(Debug)]
pub(crate) struct Borrowed<const N: usize>(brickyard_pool::Pool<Object<N>, Create<N>>);

impl<const N: usize> Pool for Borrowed<N> {
    type Held<'p> = Pooled<'p, Object<N>, Create<N>>;

    fn new(setting: &Setting) -> Self {
        Self(create(setting))
    }

    #[inline(always)]
    fn get(&self) -> Self::Held<'_> {
        let Ok(held) = self.0.get();
        held
    }

    #[inline(always)]
    fn touch(held: &mut Self::Held<'_>, value: u8) {
        held.touch(value);
    }

    #[inline(always)]
    fn put<'p>(&'p self, held: Self::Held<'p>) {
        drop(held);
    }

    #[inline(never)]
    fn many(&self, count: usize, rounds: usize) {
        let mut batch = self.0.batch();
        for _ in 0..rounds {
            let got = batch.try_get(count);
            assert!(got.is_ok(), "a pool without bound is never empty");
            batch.iter_mut().for_each(|object| object.touch(1));
            batch.clear();
        }
    }
}

/// Our pool with the guard that owns its object.
#[derive(Debug)]
pub(crate) struct Owned<const N: usize>(brickyard_pool::Pool<Object<N>, Create<N>>);

impl<const N: usize> Pool for Owned<N> {
    type Held<'p> = PooledOwned<Object<N>, Create<N>>;

    fn new(setting: &Setting) -> Self {
        Self(create(setting))
    }

    #[inline(always)]
    fn get(&self) -> Self::Held<'_> {
        let Ok(held) = self.0.get();
        held.into_owned()
    }

    #[inline(always)]
    fn touch(held: &mut Self::Held<'_>, value: u8) {
        held.touch(value);
    }

    #[inline(always)]
    fn put<'p>(&'p self, held: Self::Held<'p>) {
        drop(held);
    }
}

/// A block from the allocator on each get, freed on each return.
#[derive(Debug)]
pub(crate) struct Boxed<const N: usize>;

impl<const N: usize> Pool for Boxed<N> {
    type Held<'p> = Box<[MaybeUninit<u8>]>;

    fn new(_: &Setting) -> Self {
        Self
    }

    #[inline(always)]
    fn get(&self) -> Self::Held<'_> {
        Box::new_uninit_slice(N)
    }

    #[inline(always)]
    fn touch(held: &mut Self::Held<'_>, value: u8) {
        held[0].write(value);
        black_box(held.as_mut_ptr());
    }

    #[inline(always)]
    fn put<'p>(&'p self, held: Self::Held<'p>) {
        drop(held);
    }
}
