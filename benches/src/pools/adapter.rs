//! The one way in which every pool is used.
//!
//! The object is a `Box<[u8; N]>` that counts itself, so that a pool which moves its
//! objects moves eight bytes whatever `N` is. Pools that have room and no objects get an
//! `Inline`, of which nothing is written on a get. Each use writes one byte.

use core::hint::black_box;
#[cfg(feature = "peers-pool")]
use core::mem::MaybeUninit;
use core::sync::atomic::{AtomicUsize, Ordering};

/// Objects in existence, of every size.
static LIVE: AtomicUsize = AtomicUsize::new(0);

/// A pooled object of `N` bytes.
#[derive(Debug)]
#[expect(
    unreachable_pub,
    reason = "the macro of heapless makes what holds it public"
)]
pub struct Object<const N: usize>(Box<[u8; N]>);

impl<const N: usize> Object<N> {
    /// A new object.
    #[inline(never)]
    pub(crate) fn new() -> Self {
        LIVE.fetch_add(1, Ordering::SeqCst);
        Self(Box::new([0; N]))
    }

    /// Uses the object: writes one byte where the optimiser cannot leave it out.
    #[inline(always)]
    pub(crate) fn touch(&mut self, value: u8) {
        self.0[0] = value;
        black_box(&mut *self.0);
    }
}

impl<const N: usize> Drop for Object<N> {
    fn drop(&mut self) {
        LIVE.fetch_sub(1, Ordering::SeqCst);
    }
}

/// How many objects exist.
pub(crate) fn live() -> usize {
    LIVE.load(Ordering::SeqCst)
}

/// `N` bytes inside the pool's own memory; making one writes nothing.
#[cfg(feature = "peers-pool")]
pub(crate) type Inline<const N: usize> = [MaybeUninit<u8>; N];

/// Uses such bytes as [`Object::touch`] does.
#[cfg(feature = "peers-pool")]
#[inline(always)]
pub(crate) fn touch_inline(bytes: &mut [MaybeUninit<u8>], value: u8) {
    bytes[0].write(value);
    black_box(bytes.as_mut_ptr());
}

/// How a pool is to be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Setting {
    /// Objects that a bounded pool keeps; others ignore it.
    #[cfg_attr(
        not(feature = "peers-pool"),
        expect(dead_code, reason = "ours has no bound")
    )]
    pub(crate) capacity: usize,
    /// Whether surplus is to go, in pools that can tell.
    pub(crate) decay: Option<core::time::Duration>,
}

/// A pool under test.
pub(crate) trait Pool: Sync + Sized + 'static {
    /// An object in use.
    type Held<'p>
    where
        Self: 'p;

    /// Whether its objects are counted: not where it keeps room and no objects.
    const COUNTED: bool = true;

    /// A pool without objects, or with what it cannot do without.
    fn new(setting: &Setting) -> Self;

    /// Gets an object; creates one if there is none.
    fn get(&self) -> Self::Held<'_>;

    /// Writes one byte of it.
    fn touch(held: &mut Self::Held<'_>, value: u8);

    /// Returns it.
    fn put<'p>(&'p self, held: Self::Held<'p>);

    /// So many times: gets `count` objects at once, uses each, returns them at once. One by
    /// one where the pool has no such call.
    #[inline(never)]
    fn many(&self, count: usize, rounds: usize) {
        let mut all = Vec::with_capacity(count);
        for _ in 0..rounds {
            all.extend(core::iter::repeat_with(|| self.get()).take(count));
            for held in &mut all {
                Self::touch(held, 1);
            }
            for held in all.drain(..) {
                self.put(held);
            }
        }
    }
}
