//! Where slots live: storage that grows, and slots that never move while they hold an
//! object.
//!
//! ```text
//!   links     [ next depth key slot ][ next … slot ] …       24 bytes a slot, never freed
//!                            |                               before the pool is
//!                            v
//!   chunk     | index | object || index | object || …        released when all its slots
//!                     ^                                      are vacant and trim asks
//!                     slot
//! ```
//!
//! A slot is named by the address of its object; the four bytes in front say its index.
//!
//! What the lock-free stacks read of a slot that somebody else may have taken meanwhile
//! is its link, and links stay where they are. So no link word overlaps an object, and a
//! chunk can be given back without asking who still looks at it.
//!
//! # Invariants
//!
//! - S1: a slot's index is below `next_index`, its link exists, and the four bytes in front of its object say it.
//! - S2: a link's `slot` is not null while the slot is not in a dormant chunk.
//! - S3: every slot is in exactly one place: the vacant stack, a dormant chunk, or the
//!   hands (and stacks and caches) of the pool.
//! - S4: `dormant` lists each chunk without memory once.

use alloc::alloc::{alloc, dealloc, handle_alloc_error};
use alloc::vec::Vec;
use core::alloc::Layout;
use core::ptr::NonNull;

use crate::key::{Key, KeyState};
use crate::segments::Segments;
use crate::stack::{IndexStack, Link};
use crate::sync::{AtomicPtr, Mutex, Ordering};

/// A slot, named by the address of its object. The type is never instantiated: the pool
/// knows the object's, this file its size only.
#[derive(Debug)]
pub(crate) struct Object(());

/// Lies right in front of each object: which slot this is.
type Index = u32;

/// A slot's words that outlive its chunk.
#[derive(Debug, Default)]
pub(crate) struct SlotLink {
    link: Link,
    key: KeyState,
    slot: AtomicPtr<Object>,
}

impl AsRef<Link> for SlotLink {
    fn as_ref(&self) -> &Link {
        &self.link
    }
}

/// Memory for `len` slots from index `first` on; `memory` is `None` while dormant.
#[derive(Debug)]
struct Chunk {
    first: u32,
    len: u32,
    memory: Option<NonNull<u8>>,
}

/// What the growth lock protects.
#[derive(Debug, Default)]
struct Chunks {
    all: Vec<Chunk>,
    /// Places in `all` of the dormant ones, so that growth need not look for one.
    dormant: Vec<usize>,
    next_index: u32,
}

/// No more slots: the bound on slots is reached, or the index space is used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NoSlot;

/// See the module.
#[derive(Debug)]
pub(crate) struct Storage {
    /// Layout of one slot: index and object, padded to a multiple of the alignment.
    slot: Layout,
    /// Where the object starts in its slot.
    object_offset: usize,
    slots_per_chunk: u32,
    most_slots: u32,
    links: Segments<SlotLink>,
    vacant: IndexStack,
    chunks: Mutex<Chunks>,
}

// SAFETY: chunks are raw memory that this struct owns; the pointers to them are reached
// under the lock or through atomics.
unsafe impl Send for Storage {}
// SAFETY: as for `Send`; what lies behind a slot's pointer is its holder's affair.
unsafe impl Sync for Storage {}

/// No pool has more: what an index can name, less the one that means "none".
pub(crate) const MOST_OBJECTS: usize = (u32::MAX - 1) as usize;

/// A chunk has about this many bytes, and at least one slot.
const CHUNK_BYTES: usize = 64 * 1024;
const MOST_SLOTS_PER_CHUNK: usize = if cfg!(loom) { 2 } else { 1024 };

impl Storage {
    /// Storage for at most `most_slots` objects of `object`.
    ///
    /// # Panics
    ///
    /// If a slot does not fit into the address space.
    pub(crate) fn new(object: Layout, most_slots: usize) -> Self {
        let align = object.align().max(align_of::<Index>());
        let object_offset = align;
        let slot = object_offset
            .checked_add(object.size())
            .and_then(|size| Layout::from_size_align(size, align).ok())
            .expect("an object of this size does not fit into the address space")
            .pad_to_align();
        let most_slots = u32::try_from(most_slots.min(MOST_OBJECTS)).unwrap_or(u32::MAX - 1);
        let per_chunk = (CHUNK_BYTES / slot.size())
            .clamp(1, MOST_SLOTS_PER_CHUNK)
            .min(most_slots as usize)
            .max(1);
        Self {
            slot,
            object_offset,
            slots_per_chunk: u32::try_from(per_chunk).unwrap_or(1),
            most_slots,
            links: Segments::new(),
            vacant: IndexStack::new(),
            chunks: Mutex::new(Chunks::default()),
        }
    }

    /// A slot without an object.
    pub(crate) fn take_vacant(&self) -> Result<NonNull<Object>, NoSlot> {
        loop {
            if let Some(index) = self.vacant.pop(&self.links) {
                return Ok(self.slot(index));
            }
            self.grow()?;
        }
    }

    /// Takes back a slot whose object is gone.
    pub(crate) fn put_vacant(&self, slot: NonNull<Object>) {
        self.vacant.push(&self.links, Self::index(slot), 1);
    }

    /// Pushes the slot on a stack that links through this storage.
    pub(crate) fn push(&self, stack: &IndexStack, slot: NonNull<Object>) {
        stack.push(&self.links, Self::index(slot), 1);
    }

    /// Pops a slot from a stack that links through this storage.
    pub(crate) fn pop(&self, stack: &IndexStack) -> Option<NonNull<Object>> {
        stack.pop(&self.links).map(|index| self.slot(index))
    }

    /// Slots on the stack; exact if nobody moves.
    pub(crate) fn depth(&self, stack: &IndexStack) -> usize {
        stack.depth(&self.links)
    }

    pub(crate) fn index(slot: NonNull<Object>) -> u32 {
        // SAFETY: a slot pointer comes from `slot`, so its chunk is live (S3: the caller
        // holds it); the index lies right in front of the object, aligned because the
        // object's offset is a multiple of its alignment, and is never written again (S1).
        unsafe { slot.cast::<Index>().sub(1).read() }
    }

    fn slot(&self, index: u32) -> NonNull<Object> {
        // Acquire: pairs with the Release in `open`. The stack's own Acquire covers it
        // too; this one makes the load right on its own.
        let slot = self.links.get(index).slot.load(Ordering::Acquire);
        NonNull::new(slot).expect("a slot that was handed out has memory (S2)")
    }

    /// Adds a chunk of vacant slots, or revives a dormant one.
    #[cold]
    fn grow(&self) -> Result<(), NoSlot> {
        let mut chunks = self.chunks.lock();
        if self.vacant.depth(&self.links) > 0 {
            // Somebody grew it, or trim put slots back, while we waited for the lock.
            return Ok(());
        }
        let place = match chunks.dormant.last() {
            Some(&place) => place,
            None => {
                let first = chunks.next_index;
                let len = self.slots_per_chunk.min(self.most_slots - first);
                if len == 0 {
                    return Err(NoSlot);
                }
                let place = chunks.all.len();
                chunks.all.push(Chunk {
                    first,
                    len,
                    memory: None,
                });
                chunks.next_index = first + len;
                chunks.dormant.push(place);
                place
            }
        };
        self.open(&mut chunks.all[place]);
        chunks.dormant.pop();
        Ok(())
    }

    /// Gives a dormant chunk memory and makes its slots vacant.
    fn open(&self, chunk: &mut Chunk) {
        let layout = self.chunk_layout(chunk.len);
        // SAFETY: the layout has at least the index's size.
        let memory = unsafe { alloc(layout) };
        let Some(memory) = NonNull::new(memory) else {
            handle_alloc_error(layout);
        };
        chunk.memory = Some(memory);
        for position in 0..chunk.len {
            let index = chunk.first + position;
            // SAFETY: `position < len`, so the slot lies within the allocation, which is
            // exclusively ours; the index fits in front of the object and is aligned:
            // `object_offset` is a multiple of its alignment, and not 0.
            let slot = unsafe {
                let object = memory.add(position as usize * self.slot.size() + self.object_offset);
                object.cast::<Index>().sub(1).write(index);
                object.cast::<Object>()
            };
            // Release: pairs with the Acquire in `slot`.
            self.links
                .ensure(index)
                .slot
                .store(slot.as_ptr(), Ordering::Release);
        }
        // Highest first, so that slots are used from the lowest address on.
        for position in (0..chunk.len).rev() {
            self.vacant.push(&self.links, chunk.first + position, 1);
        }
    }

    fn chunk_layout(&self, len: u32) -> Layout {
        Layout::from_size_align(self.slot.size() * len as usize, self.slot.align())
            .expect("chunks hold about 64 KiB or one object")
    }

    /// Gives the memory of wholly vacant chunks back. Returns bytes.
    ///
    /// Who wants a vacant slot meanwhile waits for the lock in `grow`.
    pub(crate) fn release_vacant_chunks(&self) -> usize {
        let mut chunks = self.chunks.lock();
        let Chunks { all, dormant, .. } = &mut *chunks;
        let mut vacant = Vec::new();
        while let Some(index) = self.vacant.pop(&self.links) {
            vacant.push(index);
        }
        vacant.sort_unstable();
        let mut released = 0;
        let mut kept = Vec::new();
        let mut rest = vacant.as_slice();
        for (place, chunk) in all.iter_mut().enumerate() {
            let end = rest.partition_point(|&index| index < chunk.first + chunk.len);
            let (here, later) = rest.split_at(end);
            rest = later;
            if here.len() == chunk.len as usize && chunk.memory.is_some() {
                released += self.close(chunk);
                dormant.push(place);
            } else {
                kept.extend_from_slice(here);
            }
        }
        for &index in kept.iter().rev() {
            self.vacant.push(&self.links, index, 1);
        }
        released
    }

    /// Frees the memory of a chunk of which nobody holds a slot. Returns bytes.
    fn close(&self, chunk: &mut Chunk) -> usize {
        let Some(memory) = chunk.memory.take() else {
            return 0;
        };
        for position in 0..chunk.len {
            // Relaxed: nobody reads it before `open` stores it anew (S3).
            self.links
                .get(chunk.first + position)
                .slot
                .store(core::ptr::null_mut(), Ordering::Relaxed);
        }
        let layout = self.chunk_layout(chunk.len);
        // SAFETY: allocated in `open` with this layout, taken out of the chunk, and every
        // slot in it is vacant and in our hands.
        unsafe { dealloc(memory.as_ptr(), layout) };
        layout.size()
    }

    /// How many slots there ever were.
    pub(crate) fn slots(&self) -> u32 {
        self.chunks.lock().next_index
    }

    /// Puts the caller's slot under a key.
    pub(crate) fn publish(&self, slot: NonNull<Object>) -> Key {
        let index = Self::index(slot);
        self.links.get(index).key.publish(index)
    }

    /// The slot under a key, with a reference taken; `None` if the key is stale.
    pub(crate) fn enter(&self, key: Key) -> Option<NonNull<Object>> {
        let link = self.links.try_get(key.index())?;
        link.key.enter(key).then(|| self.slot(key.index()))
    }

    /// Gives up a reference; whether the slot is the caller's now.
    pub(crate) fn leave(&self, key: Key) -> bool {
        self.links.get(key.index()).key.leave()
    }

    /// Makes a key stale: `None` if it was. If nobody uses the object, its slot is the
    /// caller's now.
    pub(crate) fn remove(&self, key: Key) -> Option<Option<NonNull<Object>>> {
        let ours = self.links.try_get(key.index())?.key.remove(key)?;
        Some(ours.then(|| self.slot(key.index())))
    }

    /// The key of the slot at `index`, if it has one.
    pub(crate) fn key_at(&self, index: u32) -> Option<Key> {
        self.links.try_get(index)?.key.key(index)
    }

    /// Bytes held for slots now.
    pub(crate) fn bytes(&self) -> usize {
        let chunks = self.chunks.lock();
        chunks
            .all
            .iter()
            .filter(|chunk| chunk.memory.is_some())
            .map(|chunk| self.chunk_layout(chunk.len).size())
            .sum()
    }
}

impl Drop for Storage {
    /// Frees the memory of all chunks; objects in them are the pool's affair.
    fn drop(&mut self) {
        let mut chunks = core::mem::take(&mut *self.chunks.lock());
        for chunk in &mut chunks.all {
            self.close(chunk);
        }
    }
}
