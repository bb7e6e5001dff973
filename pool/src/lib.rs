//! A lock-free object pool for hot loops: get, use, return, reuse.
//!
//! ```
//! use brickyard_pool::Pool;
//!
//! let pool = Pool::new(|| Vec::<u8>::with_capacity(4096));
//! let Ok(mut buffer) = pool.get();
//! buffer.clear();
//! buffer.extend_from_slice(b"brick");
//! drop(buffer); // back in the pool
//! ```
//!
//! A get and return that hit take 29 instructions on every thread (44 for pools that it uses
//! beside another), without an atomic read-modify-write, whatever the object's size. The bound,
//! where there is one, is exact: never one object more, and never "empty" while an object lies
//! idle on another thread.
//!
//! # Which get
//!
//! | call | when nothing is idle | when the bound is reached |
//! |---|---|---|
//! | [`Pool::try_get`] | creates | [`TryGetError::Empty`] |
//! | [`Pool::get`] | creates | waits, first come first served |
//! | [`Pool::get_timeout`] | creates | waits that long |
//! | [`Pool::get_async`] | creates | a future that waits, on any executor |
//! | [`Pool::try_get_many`] | creates | all or none: [`TryGetError::Empty`] |
//! | [`Pool::get_many`] | creates | waits until it has all |
//! | [`Batch::try_get`], [`Batch::get`] | creates | as the two above; cheaper, for objects that stay together |
//!
//! With a creator that cannot fail, `let Ok(object) = pool.get();` is all there is to it.
//!
//! # Which guard
//!
//! | guard | from | lives as long as |
//! |---|---|---|
//! | [`Pooled`] | every get | the borrow of the pool |
//! | [`PooledOwned`] | [`Pooled::into_owned`], for free | you like; also beyond the pool |
//! | [`Batch`] | [`Pool::batch`] | the borrow of the pool; one guard for many objects |
//! | [`Keyed`] | [`Pool::lookup`] of a [`Key`] | the borrow of the pool; shared |
//! | none | [`Pooled::detach`] | the object is yours |
//!
//! # Which bound, which memory
//!
//! | option | says |
//! |---|---|
//! | [`Builder::capacity`] | how many objects may exist: exact |
//! | [`Builder::prewarm`] | how many exist from the start |
//! | [`Builder::retain`] | how many may lie idle in the shared part |
//! | [`Builder::idle_decay`] | surplus goes after two epochs of this length |
//! | [`Pool::trim`] | all that is idle goes now |
//! | [`Builder::weight`] | what an object owns beside itself: bounds the threads' caches |
//! | [`Cleared::retain_up_to`] | collections that grew beyond this do not come back |
//!
//! # What happens to objects
//!
//! [`Recycle`] creates them (in place: [`Place`]), resets them as they come back, and says
//! which are kept. A closure is a recycler that only creates; [`CreateReset`] adds a reset,
//! [`TryCreate`] may fail, [`InPlace`] makes what is too big for the stack, [`Cleared`] does all
//! of it for collections. Objects do not move while they are in the pool, so they may be
//! `!Unpin` ([`Pooled::as_pin_mut`]). A panic in any of it loses no slot.
//!
//! # When not to use it
//!
//! - For objects that are cheap to make: an allocator's thread cache takes 20 to 40
//!   instructions too.
//! - With thousands of threads and few, big objects: each thread's cache may hold up to 128
//!   objects and about 1 MiB (at least two objects, whatever their size; what they own counts
//!   if [`Builder::weight`] says it). Set a capacity, or [`Builder::idle_decay`].
//! - With more than 64 pools: of those that share one of 64 places, a thread has one at hand,
//!   and takes the slow path for the others.
//! - In a global allocator: slow paths take locks and allocate.
//! - Where atomics of 64 bits are missing.
//! - In a child of `fork` made while other threads used the pool.
//!
//! # Features
//!
//! - `std` (default): thread caches, waiting, decay by time. Without it the crate is
//!   `no_std` + `alloc` and every get and return goes to the shared stack, lock-free but
//!   for returns of [`PooledOwned`] and for gets that find the stack empty.
//! - `prometheus` (default): [`Metrics`] renders itself as Prometheus text, `MetricsPage` those
//!   of many pools. No dependency.
//! - `bytes`: `BytesMut` as a [`Collection`], `Buffer::freeze`.
//! - `tracing`: events at level trace on the slow paths; a warning for each object that is
//!   still held when a pool that tracks its holders is dropped.
//!
//! How it all works: [`design`].
#![cfg_attr(not(any(test, loom, feature = "std")), no_std)]
#![deny(unsafe_code)]
#![cfg_attr(
    any(loom, not(feature = "std")),
    expect(
        dead_code,
        reason = "caches, decay and timed waits need threads; models drive parts"
    )
)]

extern crate alloc;
#[cfg(feature = "std")]
extern crate std;

#[doc = include_str!("design.md")]
pub mod design {}

#[cfg(not(loom))]
#[expect(unsafe_code, reason = "many slots behind one guard")]
mod batch;
#[cfg(not(loom))]
mod buffer;
#[expect(unsafe_code, reason = "the owner's words; indices without checks")]
mod cache;
#[expect(unsafe_code, reason = "raw memory of slots")]
mod chunk;
#[cfg(not(loom))]
mod collection;
#[cfg(all(feature = "std", not(loom)))]
mod decay;
mod depot;
#[cfg(not(loom))]
mod error;
#[cfg(not(loom))]
#[expect(unsafe_code, reason = "guards own slots through raw pointers")]
mod guard;
#[cfg(not(loom))]
mod holders;
#[cfg(not(loom))]
#[expect(unsafe_code, reason = "objects in slots; the pool's life by count")]
mod inner;
mod key;
#[cfg(not(loom))]
#[expect(unsafe_code, reason = "shared references to objects in slots")]
mod keyed;
mod live;
#[cfg(not(loom))]
#[expect(unsafe_code, reason = "slots and guards on their way in and out")]
mod many;
mod metrics;
#[cfg(all(test, loom))]
#[expect(unsafe_code, reason = "objects of models, which loom watches")]
mod models;
#[cfg(not(loom))]
#[expect(unsafe_code, reason = "get and return hand slots over")]
mod pool;
#[expect(unsafe_code, reason = "objects are created in place")]
mod recycle;
#[expect(unsafe_code, reason = "arrays that grow without moving")]
mod segments;
#[expect(unsafe_code, reason = "thread exit meets a pool that may be gone")]
mod shared;
mod stack;
#[cfg_attr(
    all(not(any(loom, miri)), feature = "std", target_os = "linux"),
    expect(unsafe_code, reason = "the system call behind the asymmetric fence")
)]
mod sync;
#[cfg(all(feature = "std", not(loom)))]
#[expect(unsafe_code, reason = "the table of a thread's caches")]
mod thread;
#[expect(unsafe_code, reason = "a slot changes threads")]
mod wait;

#[cfg(not(loom))]
pub use batch::Batch;
#[cfg(not(loom))]
pub use buffer::{Buffer, BufferPool};
#[cfg(not(loom))]
pub use collection::{Cleared, Collection};
#[cfg(all(feature = "std", not(loom)))]
pub use error::GetTimeoutError;
#[cfg(not(loom))]
pub use error::TryGetError;
#[cfg(not(loom))]
pub use guard::{Pooled, PooledOwned};
#[cfg(not(loom))]
pub use holders::Holder;
pub use key::Key;
#[cfg(not(loom))]
pub use keyed::Keyed;
#[cfg(feature = "prometheus")]
pub use metrics::MetricsPage;
pub use metrics::{Dropped, Metrics, WaitHistogram};
#[cfg(not(loom))]
pub use pool::{Builder, Get, Pool};
pub use recycle::{CreateReset, DropReason, InPlace, Keep, Place, Placed, Recycle, TryCreate};
