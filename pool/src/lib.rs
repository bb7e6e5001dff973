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
#![cfg_attr(not(any(test, loom, feature = "std")), no_std)]
#![deny(unsafe_code)]

extern crate alloc;
#[cfg(feature = "std")]
extern crate std;

mod buffer;
#[expect(unsafe_code, reason = "the owner's words; indices without checks")]
mod cache;
#[expect(unsafe_code, reason = "raw memory of slots")]
mod chunk;
mod collection;
#[cfg(feature = "std")]
mod decay;
mod depot;
mod error;
#[expect(unsafe_code, reason = "guards own slots through raw pointers")]
mod guard;
mod holders;
#[expect(unsafe_code, reason = "objects in slots; the pool's life by count")]
mod inner;
mod key;
#[expect(unsafe_code, reason = "shared references to objects in slots")]
mod keyed;
mod metrics;
#[expect(unsafe_code, reason = "get and return hand slots over")]
mod pool;
#[expect(unsafe_code, reason = "objects are created in place")]
mod recycle;
#[expect(unsafe_code, reason = "arrays that grow without moving")]
mod segments;
#[expect(unsafe_code, reason = "thread exit meets a pool that may be gone")]
mod shared;
mod stack;
mod sync;
#[cfg(all(feature = "std", not(loom)))]
#[expect(unsafe_code, reason = "the table of a thread's caches")]
mod thread;
#[expect(unsafe_code, reason = "a slot changes threads")]
mod wait;

pub use buffer::{Buffer, BufferPool};
pub use collection::{Cleared, Collection};
#[cfg(feature = "std")]
pub use error::GetTimeoutError;
pub use error::TryGetError;
pub use guard::{Pooled, PooledOwned};
pub use holders::Holder;
pub use key::Key;
pub use keyed::Keyed;
pub use metrics::{Dropped, Metrics, WaitHistogram};
pub use pool::{Builder, Get, Pool};
pub use recycle::{CreateReset, DropReason, Keep, Place, Placed, Recycle, TryCreate};
