//! Blocks on their way between a thread's magazines and its depot, a batch at a time. All of it
//! inside `alone`, without holes, or during a harvest that found the owner elsewhere.
//!
//! A block that is set aside has a *mark* in its first word, which is taken away before anybody
//! gets the block. A block that is to be set aside and has its mark already was freed twice, unless
//! the program keeps what looks like one there: so the depot goes back to the spans and then the
//! blocks, and the bits know for certain. Under `ASan`, which sees uses of free blocks itself,
//! there are no marks. Nor are there in a hardened heap: what comes to its magazines had the state
//! of a block in use, of the class, and is to stay zero.

use core::{ptr, slice};

use super::{MAX_ENTRIES, Room, ThreadCache, claim};
use crate::depot::{self, BATCH};
use crate::size_class::block_size;
use crate::sync::{AtomicUsize, Ordering};
use crate::units::ClassIndex;

const _: () = assert!(2 * BATCH == MAX_ENTRIES);

/// What became of blocks that were to be set aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Aside {
    /// They are in the depot.
    Done,
    /// Nothing was done: the depot is not for them, or has no room. One of them may be no block of a
    /// span of the class: one of a lent run, which is never set aside, or none at all.
    Full,
    /// Nothing was done: one of them has its mark. It may be in the depot already.
    Marked,
}

/// Makes the mark of an address: no pointer, no small number, no text.
const MARK: usize = 0xb51c_0d9e_f3a7_8be2;

impl ThreadCache {
    /// Sets the older half of the full magazine of `class` aside.
    ///
    /// # Safety
    ///
    /// `is_known` says `true` only of addresses in granules of spans of `class`, of the heap that
    /// the cache belongs to.
    pub(crate) unsafe fn set_aside(
        &self,
        class: ClassIndex,
        room: Room<'_>,
        is_known: impl Fn(usize) -> bool,
    ) -> Aside {
        if !self.may_set_aside(class, room) {
            return Aside::Full;
        }
        // SAFETY: the magazine has two batches of entries, which nobody else touches (T3).
        let blocks = unsafe { slice::from_raw_parts(self.base(class), BATCH) };
        // SAFETY: by contract.
        let marked = unsafe { mark_all(class, blocks, is_known) };
        if marked != Aside::Done {
            return marked;
        }
        if !self.move_aside(class) {
            // SAFETY: they were marked just now.
            unsafe { unmark_all(blocks) };
            return Aside::Full;
        }
        Aside::Done
    }

    /// [`Self::set_aside`] in a hardened heap; `false` when the depot is not for them, or full.
    pub(crate) fn set_aside_unmarked(&self, class: ClassIndex, room: Room<'_>) -> bool {
        self.may_set_aside(class, room) && self.move_aside(class)
    }

    /// Whether the magazine of `class` is full and the depot, which is given room for it, for its
    /// older half.
    fn may_set_aside(&self, class: ClassIndex, room: Room<'_>) -> bool {
        self.len(class) == MAX_ENTRIES
            && depot::is_wanted(class)
            && self.depot.has_credit(class)
            && !self.depot.is_full()
            && self.widen_depot(depot::batch_bytes(class), room)
    }

    /// Moves the older half of the full magazine of `class` into a batch; `false` if there is none.
    fn move_aside(&self, class: ClassIndex) -> bool {
        let Some(slots) = self.depot.add(class).map(|batch| self.batch_slots(batch)) else {
            return false;
        };
        let base = self.base(class);
        // SAFETY: a vacant batch has its slots to itself (D1). The magazine has two batches of
        // entries, which nobody else touches, and its newer half moves down in it (T1, T3).
        unsafe {
            ptr::copy_nonoverlapping(base, slots, BATCH);
            ptr::copy_nonoverlapping(base.add(BATCH), base, BATCH);
            self.set_top(class, base.add(BATCH));
        }
        true
    }

    /// Fills the empty magazine of `class` with the batch that was set aside last, but for one
    /// block, which it returns; null if there is none, or the magazine may not hold it. `marks`
    /// says whether it has marks.
    pub(crate) fn take_back(&self, class: ClassIndex, marks: bool) -> *mut u8 {
        if self.allowance(class) + 1 < BATCH {
            return ptr::null_mut();
        }
        let Some(batch) = self.depot.take(class) else {
            return ptr::null_mut();
        };
        let (base, slots) = (self.base(class), self.batch_slots(batch));
        self.depot.note_fetched(class, BATCH);
        // SAFETY: the batch's slots hold as many blocks of the class (D2), which are the
        // magazine's from now on; it is empty and has room for one less (T1, T3).
        unsafe {
            if marks {
                unmark_all(slice::from_raw_parts(slots, BATCH));
            }
            ptr::copy_nonoverlapping(slots, base, BATCH - 1);
            self.set_top(class, base.add(BATCH - 1));
            slots.add(BATCH - 1).read()
        }
    }

    /// Takes a batch of `class` out of the depot; `false` if there is none. `marks` says whether it
    /// has marks.
    pub(crate) fn take_aside(
        &self,
        class: ClassIndex,
        out: &mut [*mut u8; BATCH],
        marks: bool,
    ) -> bool {
        let Some(batch) = self.depot.take(class) else {
            return false;
        };
        // SAFETY: the batch's slots hold as many blocks, which are the caller's from now on (D2).
        unsafe {
            ptr::copy_nonoverlapping(self.batch_slots(batch), out.as_mut_ptr(), BATCH);
            if marks {
                unmark_all(out);
            }
        }
        true
    }

    /// Makes room in the depot for `added` bytes more than it holds; `false` when there is none.
    fn widen_depot(&self, added: usize, room: Room<'_>) -> bool {
        let wanted = self.depot.bytes() + added;
        let more = wanted.saturating_sub(self.depot.room());
        // Relaxed: as in `grow`.
        let sum = self.allowed.load(Ordering::Relaxed) + more;
        if wanted > room.depot || !claim(room, more) {
            return false;
        }
        self.allowed.store(sum, Ordering::Relaxed);
        self.depot.set_room(wanted.max(self.depot.room()));
        true
    }

    /// Gives up the room of the depot that is not used.
    pub(crate) fn give_up_depot_room(&self, taken: &AtomicUsize) {
        let less = self.depot.room() - self.depot.bytes();
        if less > 0 {
            // Relaxed: as in `grow`.
            let sum = self.allowed.load(Ordering::Relaxed) - less;
            self.allowed.store(sum, Ordering::Relaxed);
            taken.fetch_sub(less, Ordering::Relaxed);
            self.depot.set_room(self.depot.bytes());
        }
    }

    /// The slots of a batch.
    fn batch_slots(&self, batch: usize) -> *mut *mut u8 {
        // SAFETY: batches are below `MAX_BATCHES`, so inside of `aside`.
        self.aside
            .with_mut(|slots| unsafe { slots.cast::<*mut u8>().add(batch * BATCH) })
    }
}

/// The mark of `block`.
fn mark_of(block: *mut u8) -> usize {
    block.addr() ^ MARK
}

/// Marks `blocks` of `class`; unless it is [`Aside::Done`], no mark is left.
///
/// # Safety
///
/// As for [`ThreadCache::set_aside`], and the blocks are the caller's, as far as they are blocks.
unsafe fn mark_all(
    class: ClassIndex,
    blocks: &[*mut u8],
    is_known: impl Fn(usize) -> bool,
) -> Aside {
    // Spans start on granules, so blocks are as aligned as their size is.
    let misaligned = (block_size(class) & block_size(class).wrapping_neg()) - 1;
    let is_good = |block: *mut u8| is_known(block.addr()) && block.addr() & misaligned == 0;
    for (at, &block) in blocks.iter().enumerate() {
        let here = is_good(block);
        // SAFETY: in a granule of the class, so mapped, and a multiple of 8: the word lies in that
        // granule; a free block is the caller's to write to.
        if here && unsafe { !lost_mark(block) } {
            // SAFETY: as above.
            unsafe { put_mark(block) };
            continue;
        }
        let (before, rest) = blocks.split_at(at);
        // SAFETY: those before it were marked.
        unsafe { unmark_all(before) };
        let mut others = rest.iter().filter(|&&other| is_good(other));
        // SAFETY: as above.
        return if here || others.any(|&other| unsafe { lost_mark(other) }) {
            Aside::Marked
        } else {
            Aside::Full
        };
    }
    Aside::Done
}

/// Marks `block`.
///
/// # Safety
///
/// Its first word is the caller's to write.
#[inline(always)]
unsafe fn put_mark(block: *mut u8) {
    if cfg!(not(brickyard_asan)) {
        // SAFETY: by contract.
        unsafe { block.cast::<usize>().write(mark_of(block)) };
    }
}

/// Whether `block` had its mark, which it has no more: what looks like one and is none is found
/// once.
///
/// # Safety
///
/// Its first word is the caller's to read and to write.
#[inline(always)]
unsafe fn lost_mark(block: *mut u8) -> bool {
    let word = block.cast::<usize>();
    // SAFETY: by contract.
    unsafe {
        let had_it = cfg!(not(brickyard_asan)) && word.read() == mark_of(block);
        if had_it {
            word.write(0);
        }
        had_it
    }
}

/// Takes the marks of `blocks` away.
///
/// # Safety
///
/// They have some: [`mark_all`] has looked at them.
unsafe fn unmark_all(blocks: &[*mut u8]) {
    for &block in blocks.iter().filter(|_| cfg!(not(brickyard_asan))) {
        // SAFETY: by contract a block that is the caller's.
        unsafe { block.cast::<usize>().write(0) };
    }
}

#[cfg(all(test, not(loom), not(brickyard_asan)))]
mod tests {
    use super::*;
    use crate::size_class::class_of;

    /// What `mark_all` says of blocks of 16 bytes in `memory`, of which it knows all but one.
    fn marked(memory: &mut [[usize; 2]], unknown: usize) -> Aside {
        let blocks: Vec<*mut u8> = memory
            .iter_mut()
            .map(|block| ptr::from_mut(block).cast())
            .collect();
        let unknown = blocks.get(unknown).map(|block| block.addr());
        // SAFETY: the blocks are ours.
        unsafe {
            mark_all(class_of(16, 8).unwrap(), &blocks, |addr| {
                Some(addr) != unknown
            })
        }
    }

    #[test]
    fn a_block_of_elsewhere_hides_no_mark() {
        let mut memory = [[0; 2]; 8];
        assert_eq!(marked(&mut memory, 3), Aside::Full);
        assert_eq!(memory, [[0; 2]; 8], "marks are left");
        memory[6][0] = mark_of(ptr::from_mut(&mut memory[6]).cast());
        assert_eq!(marked(&mut memory, 3), Aside::Marked);
        assert_eq!(memory, [[0; 2]; 8]);
        memory[6][0] = mark_of(ptr::from_mut(&mut memory[6]).cast());
        assert_eq!(marked(&mut memory, 8), Aside::Marked);
        assert_eq!(memory, [[0; 2]; 8], "it is found once");
        assert_eq!(marked(&mut memory, 8), Aside::Done);
        assert!(memory.iter().all(|block| block[0] != 0));
    }
}
