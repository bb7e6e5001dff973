//! Recyclers for collections: cleared as they come back, dropped if they grew too big.

use alloc::collections::{BinaryHeap, VecDeque};
use alloc::string::String;
use alloc::vec::Vec;
use core::convert::Infallible;
use core::pin::Pin;

use crate::recycle::{DropReason, Keep, Place, Placed, Recycle};

/// A collection that keeps its memory when it is cleared.
pub trait Collection: Unpin {
    /// An empty collection with room for `elements`.
    fn with_room(elements: usize) -> Self;

    /// Drops the elements, keeps the memory.
    fn clear(&mut self);

    /// Elements (bytes, for strings and buffers) that fit without growing.
    fn room(&self) -> usize;
}

macro_rules! collection {
    ($([$($generics:tt)*] $collection:ty,)*) => {$(
        impl<$($generics)*> Collection for $collection {
            fn with_room(elements: usize) -> Self {
                Self::with_capacity(elements)
            }

            #[inline]
            fn clear(&mut self) {
                self.clear();
            }

            #[inline]
            fn room(&self) -> usize {
                self.capacity()
            }
        }
    )*};
}

collection! {
    [T: Unpin] Vec<T>,
    [T: Unpin] VecDeque<T>,
    [T: Ord + Unpin] BinaryHeap<T>,
    [] String,
}

#[cfg(feature = "bytes")]
collection! {
    [] bytes::BytesMut,
}

#[cfg(feature = "std")]
macro_rules! hashed {
    ($([$($generics:tt)*] $collection:ty,)*) => {$(
        impl<$($generics)* S: core::hash::BuildHasher + Default + Unpin> Collection for $collection {
            fn with_room(elements: usize) -> Self {
                Self::with_capacity_and_hasher(elements, S::default())
            }

            #[inline]
            fn clear(&mut self) {
                self.clear();
            }

            #[inline]
            fn room(&self) -> usize {
                self.capacity()
            }
        }
    )*};
}

#[cfg(feature = "std")]
hashed! {
    [K: Unpin, V: Unpin,] std::collections::HashMap<K, V, S>,
    [K: Unpin,] std::collections::HashSet<K, S>,
}

/// A recycler of [`Collection`]s.
///
/// # Examples
///
/// ```
/// use brickyard_pool::{Cleared, Pool};
///
/// let recycler = Cleared::new().room(256).retain_up_to(64 * 1024);
/// let lines = Pool::<String, _>::with(recycler);
/// let Ok(mut line) = lines.get();
/// line.push_str("brick");
/// drop(line);
/// let Ok(line) = lines.get();
/// assert!(line.is_empty() && line.capacity() >= 256);
/// ```
#[derive(Clone, Copy, Debug)]
#[must_use = "a recycler does nothing outside a pool"]
pub struct Cleared {
    room: usize,
    fewest: usize,
    most: usize,
}

impl Cleared {
    /// Starts empty, keeps collections of any size.
    pub const fn new() -> Self {
        Self {
            room: 0,
            fewest: 0,
            most: usize::MAX,
        }
    }

    /// New collections have room for `elements`.
    pub const fn room(mut self, elements: usize) -> Self {
        self.room = elements;
        self
    }

    /// A collection that comes back with room for fewer than `elements` is dropped
    /// ([`DropReason::TooSmall`]): its holder took the memory out or shrank it.
    pub const fn retain_from(mut self, elements: usize) -> Self {
        self.fewest = elements;
        self
    }

    /// A collection that comes back with room for more than `elements` is dropped
    /// ([`DropReason::TooBig`]), so that one big use does not cost its memory for ever.
    pub const fn retain_up_to(mut self, elements: usize) -> Self {
        self.most = elements;
        self
    }
}

impl Default for Cleared {
    fn default() -> Self {
        Self::new()
    }
}

impl<C: Collection> Recycle<C> for Cleared {
    type Error = Infallible;

    #[inline]
    fn create<'p>(&self, place: Place<'p, C>) -> Result<Placed<'p, C>, Infallible> {
        Ok(place.write(C::with_room(self.room)))
    }

    #[inline]
    fn reset(&self, collection: Pin<&mut C>) {
        collection.get_mut().clear();
    }

    #[inline]
    fn keep(&self, collection: &C) -> Keep {
        let room = collection.room();
        if room > self.most {
            Keep::Drop(DropReason::TooBig)
        } else if room < self.fewest {
            Keep::Drop(DropReason::TooSmall)
        } else {
            Keep::Keep
        }
    }
}
