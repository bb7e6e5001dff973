//! Objects under keys: a pool as a slab.

use core::fmt;
use core::ops::Deref;
use core::ptr::NonNull;

use crate::guard::Pooled;
use crate::inner::{Inner, Slot};
use crate::key::Key;
use crate::pool::Pool;
use crate::recycle::Recycle;

/// A shared reference to an object under a key, from [`Pool::lookup`]. While it lives, the
/// object stays, also if its key is removed meanwhile.
pub struct Keyed<'p, T, R: Recycle<T>> {
    pool: &'p Pool<T, R>,
    slot: Slot,
    key: Key,
}

// SAFETY: gives `&T`, as a reference would (`T: Sync`); the last one returns the object,
// which may be on another thread than where it was made (`T: Send`, and the recycler).
unsafe impl<T: Send + Sync, R: Recycle<T> + Send + Sync> Send for Keyed<'_, T, R> {}
// SAFETY: as for `Send`; a shared `Keyed` gives `&T`.
unsafe impl<T: Send + Sync, R: Recycle<T> + Send + Sync> Sync for Keyed<'_, T, R> {}

impl<T, R: Recycle<T>> Keyed<'_, T, R> {
    /// The key that led here.
    pub fn key(&self) -> Key {
        self.key
    }
}

impl<T, R: Recycle<T>> Pooled<'_, T, R> {
    /// Hands the object to the pool under a key, by which any thread can reach it until
    /// [`Pool::remove`].
    pub fn publish(self) -> Key {
        let (inner, slot) = self.into_parts();
        // SAFETY: the guard borrowed the pool.
        let storage = unsafe { inner.as_ref() }.shared.storage();
        storage.publish(slot)
    }
}

impl<T, R: Recycle<T>> Pool<T, R> {
    /// Puts an object into the pool under a key.
    ///
    /// # Errors
    ///
    /// The object itself, if the bound is reached.
    ///
    /// # Examples
    ///
    /// ```
    /// let pool = brickyard_pool::Pool::new(|| String::new());
    /// let key = pool.insert("brick".to_owned()).expect("the pool has no bound");
    /// assert_eq!(pool.lookup(key).expect("it is there").as_str(), "brick");
    /// assert!(pool.remove(key));
    /// assert!(pool.lookup(key).is_none(), "the key is stale");
    /// ```
    #[track_caller]
    pub fn insert(&self, object: T) -> Result<Key, T> {
        self.attach(object).map(Pooled::publish)
    }

    /// The object under `key`, unless it was removed.
    ///
    /// Every thread may look the same object up at the same time, so it must be [`Sync`]:
    ///
    /// ```compile_fail,E0277
    /// let pool = brickyard_pool::Pool::new(|| core::cell::Cell::new(0));
    /// let key = pool.insert(core::cell::Cell::new(1)).expect("the pool has no bound");
    /// let _ = pool.lookup(key);
    /// ```
    ///
    /// # Complexity
    ///
    /// Constant, lock-free: one exchange, and one when the reference is dropped.
    pub fn lookup(&self, key: Key) -> Option<Keyed<'_, T, R>>
    where
        T: Sync,
    {
        let slot = self.inner().shared.storage().enter(key)?;
        Some(Keyed {
            pool: self,
            slot,
            key,
        })
    }

    /// Makes `key` stale; the object goes back to the pool, after its last user. Returns
    /// whether the key was valid: of several that remove it, one is told so.
    pub fn remove(&self, key: Key) -> bool {
        match self.inner().shared.storage().remove(key) {
            None => false,
            Some(None) => true,
            Some(Some(slot)) => {
                self.give_back(slot);
                true
            }
        }
    }

    /// The objects under keys, in no order. One that comes or goes meanwhile may be missed.
    ///
    /// # Complexity
    ///
    /// Linear in the most slots that the pool ever had.
    pub fn keyed(&self) -> impl Iterator<Item = Keyed<'_, T, R>> + '_
    where
        T: Sync,
    {
        let storage = self.inner().shared.storage();
        (0..storage.slots()).filter_map(move |index| self.lookup(storage.key_at(index)?))
    }

    /// A slot that was under a key and has no user any more.
    fn give_back(&self, slot: Slot) {
        // SAFETY: the slot is ours: its last reference is gone. The pool is borrowed.
        unsafe { Inner::put(NonNull::from(self.inner()), slot, true) };
    }
}

impl<T, R: Recycle<T>> Drop for Keyed<'_, T, R> {
    fn drop(&mut self) {
        if self.pool.inner().shared.storage().leave(self.key) {
            self.pool.give_back(self.slot);
        }
    }
}

impl<T, R: Recycle<T>> Deref for Keyed<'_, T, R> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: the slot holds a valid object (O1), which is shared while references to
        // it are counted.
        unsafe { Inner::<T, R>::object(self.slot).as_ref() }
    }
}

impl<T, R: Recycle<T>> AsRef<T> for Keyed<'_, T, R> {
    fn as_ref(&self) -> &T {
        self
    }
}

impl<T: fmt::Debug, R: Recycle<T>> fmt::Debug for Keyed<'_, T, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keyed")
            .field("key", &self.key)
            .field("object", &**self)
            .finish()
    }
}
