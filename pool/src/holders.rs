//! Who holds what since when: the opt-in tracking of users.
//!
//! While it is on, caches stay closed, so that every get and return passes the slow path,
//! where this table is kept: a pool that does not track pays nothing.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::fmt;
use core::panic::Location;
use core::ptr::NonNull;

use crate::chunk::Object;
use crate::sync::Mutex;

/// One object in use, from [`Pool::holders`](crate::Pool::holders).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Holder {
    /// Where the object was got.
    pub location: &'static Location<'static>,
    /// How long ago.
    #[cfg(feature = "std")]
    pub held_for: core::time::Duration,
    /// The thread that got it.
    #[cfg(feature = "std")]
    pub thread: std::thread::ThreadId,
}

impl fmt::Display for Holder {
    /// One line of a leak report: `src/main.rs:12:5, for 3.2 s, by ThreadId(2)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.location)?;
        #[cfg(feature = "std")]
        write!(f, ", for {:.1?}, by {:?}", self.held_for, self.thread)?;
        Ok(())
    }
}

#[derive(Debug)]
struct Entry {
    location: &'static Location<'static>,
    #[cfg(feature = "std")]
    since: std::time::Instant,
    #[cfg(feature = "std")]
    thread: std::thread::ThreadId,
}

/// The table, by address of the slot.
#[derive(Debug)]
pub(crate) struct Holders(Mutex<BTreeMap<usize, Entry>>);

impl Holders {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(BTreeMap::new()))
    }

    pub(crate) fn note(&self, slot: NonNull<Object>, location: &'static Location<'static>) {
        let entry = Entry {
            location,
            #[cfg(feature = "std")]
            since: std::time::Instant::now(),
            #[cfg(feature = "std")]
            thread: std::thread::current().id(),
        };
        self.0.lock().insert(slot.addr().get(), entry);
    }

    pub(crate) fn forget(&self, slot: NonNull<Object>) {
        self.0.lock().remove(&slot.addr().get());
    }

    /// Everybody who holds an object, longest first.
    pub(crate) fn list(&self) -> Vec<Holder> {
        let table = self.0.lock();
        #[cfg_attr(
            not(feature = "std"),
            expect(unused_mut, reason = "nothing to sort by")
        )]
        let mut holders: Vec<Holder> = table
            .values()
            .map(|entry| Holder {
                location: entry.location,
                #[cfg(feature = "std")]
                held_for: entry.since.elapsed(),
                #[cfg(feature = "std")]
                thread: entry.thread,
            })
            .collect();
        #[cfg(feature = "std")]
        holders.sort_by_key(|holder| core::cmp::Reverse(holder.held_for));
        holders
    }
}
