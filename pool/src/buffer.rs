//! Byte buffers by size class.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;
use core::ops::{Deref, DerefMut};

use crate::collection::Cleared;
use crate::guard::PooledOwned;
use crate::metrics::Metrics;
use crate::pool::{Builder, Pool};

/// Smallest size class.
const SMALLEST_BYTES: usize = 512;
/// Largest size class, unless said otherwise.
const LARGEST_BYTES: usize = 1 << 20;

/// A pool of byte buffers in size classes of powers of two, after .NET's `ArrayPool`.
///
/// A buffer comes with at least the room that was asked for, empty; what is asked for beyond
/// the largest class is allocated and freed as without a pool. A buffer that has outgrown
/// its class, or whose memory was taken out, is dropped when it comes back.
///
/// | class | a buffer of it holds | is kept if its capacity is at least that, and at most |
/// |---|---|---|
/// | `n` | `512 << n` bytes | twice that, less one |
///
/// # Examples
///
/// ```
/// use brickyard_pool::BufferPool;
///
/// let buffers = BufferPool::new();
/// let mut buffer = buffers.get(3000);
/// assert!(buffer.is_empty() && buffer.capacity() >= 3000);
/// buffer.extend_from_slice(b"brick");
/// ```
pub struct BufferPool {
    classes: Box<[Pool<Vec<u8>, Cleared>]>,
}

/// A buffer in use: a `Vec<u8>` that goes back to its pool when it is dropped.
#[must_use = "dropping the buffer returns it at once"]
pub struct Buffer(Inner);

enum Inner {
    Pooled(PooledOwned<Vec<u8>, Cleared>),
    /// Larger than the largest class.
    Plain(Vec<u8>),
}

/// Class for a request of `bytes`.
fn class_of(bytes: usize) -> usize {
    let shift = bytes.max(SMALLEST_BYTES).div_ceil(SMALLEST_BYTES);
    shift.next_power_of_two().trailing_zeros() as usize
}

impl BufferPool {
    /// Classes up to 1 MiB, without decay.
    pub fn new() -> Self {
        Self::with(LARGEST_BYTES, &Builder::new())
    }

    /// Classes up to `largest` bytes (rounded up to a power of two, at most 2³⁰), each a
    /// pool with these options.
    ///
    /// The capacity of the builder bounds the buffers of one class that are kept idle or
    /// pooled in use; beyond it, buffers are plain.
    pub fn with(largest: usize, options: &Builder) -> Self {
        let classes = class_of(largest.min(1 << 30)) + 1;
        let classes = (0..classes)
            .map(|class| {
                let bytes = SMALLEST_BYTES << class;
                let recycler = Cleared::new()
                    .room(bytes)
                    .retain_from(bytes)
                    .retain_up_to(2 * bytes - 1);
                let Ok(pool) = options.clone().weight(bytes).build_with(recycler);
                pool
            })
            .collect();
        Self { classes }
    }

    /// An empty buffer with room for `bytes`.
    ///
    /// # Complexity
    ///
    /// That of [`Pool::try_get`].
    pub fn get(&self, bytes: usize) -> Buffer {
        let pooled = self
            .classes
            .get(class_of(bytes.min(isize::MAX.unsigned_abs())))
            .and_then(|class| class.try_get().ok());
        Buffer(match pooled {
            Some(buffer) => Inner::Pooled(buffer.into_owned()),
            None => Inner::Plain(Vec::with_capacity(bytes)),
        })
    }

    /// Drops every idle buffer. Returns how many.
    pub fn trim(&self) -> usize {
        self.classes.iter().map(Pool::trim).sum()
    }

    /// Room of a new buffer in bytes, and metrics, of each class.
    pub fn metrics(&self) -> impl Iterator<Item = (usize, Metrics)> + '_ {
        let classes = self.classes.iter().enumerate();
        classes.map(|(class, pool)| {
            let bytes = SMALLEST_BYTES << class;
            let mut metrics = pool.metrics();
            metrics.class = Some(bytes);
            (bytes, metrics)
        })
    }
}

impl Default for BufferPool {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for BufferPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.classes.iter()).finish()
    }
}

impl Buffer {
    /// The buffer for good; its place in the pool becomes free.
    pub fn detach(self) -> Vec<u8> {
        match self.0 {
            Inner::Pooled(buffer) => buffer.detach(),
            Inner::Plain(buffer) => buffer,
        }
    }
}

#[cfg(feature = "bytes")]
impl Buffer {
    /// The bytes, shared and not to be changed any more; the buffer goes back to its pool with
    /// the last of them.
    ///
    /// # Complexity
    ///
    /// One small allocation, for the count of those who share.
    pub fn freeze(self) -> bytes::Bytes {
        bytes::Bytes::from_owner(self)
    }
}

#[cfg(feature = "bytes")]
impl From<Buffer> for bytes::Bytes {
    fn from(buffer: Buffer) -> Self {
        buffer.freeze()
    }
}

impl Deref for Buffer {
    type Target = Vec<u8>;

    #[inline]
    fn deref(&self) -> &Vec<u8> {
        match &self.0 {
            Inner::Pooled(buffer) => buffer,
            Inner::Plain(buffer) => buffer,
        }
    }
}

impl DerefMut for Buffer {
    #[inline]
    fn deref_mut(&mut self) -> &mut Vec<u8> {
        match &mut self.0 {
            Inner::Pooled(buffer) => buffer,
            Inner::Plain(buffer) => buffer,
        }
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl AsMut<[u8]> for Buffer {
    fn as_mut(&mut self) -> &mut [u8] {
        self
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::DropReason;

    /// A class too low gives a buffer that must grow at once; one too high wastes half.
    #[test]
    fn the_class_is_the_tightest_that_holds_the_request() {
        for bytes in 0..100_000 {
            let class = class_of(bytes);
            assert!(SMALLEST_BYTES << class >= bytes);
            assert!(class == 0 || SMALLEST_BYTES << (class - 1) < bytes);
        }
    }

    #[test]
    fn a_buffer_that_outgrew_its_class_does_not_come_back() {
        let buffers = BufferPool::new();
        let mut grown = buffers.get(512);
        grown.reserve(100_000);
        drop(grown);
        let (_, metrics) = buffers.metrics().next().expect("the first class");
        assert_eq!(metrics.dropped.by(DropReason::TooBig), 1);
        assert!(buffers.get(512).capacity() < 1024);
    }

    #[test]
    fn beyond_the_largest_class_a_buffer_is_plain() {
        let buffers = BufferPool::with(4096, &Builder::new());
        let big = buffers.get(4097);
        assert!(big.capacity() >= 4097);
        drop(big);
        assert_eq!(buffers.trim(), 0, "nothing was pooled");
    }
}
