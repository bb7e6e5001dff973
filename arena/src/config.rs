//! The options of a heap: the builder that a program writes them with, and the form in
//! which slow paths read them while another thread may set them.

use core::time::Duration;

use crate::sync::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Lock, Ordering};
use crate::units::GRANULE_SHIFT;

/// What the heap tells the operating system about huge pages for its memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HugePages {
    /// Nothing: what the system does by default.
    #[default]
    System,
    /// No huge pages: a heap that shrinks page by page (`MADV_NOHUGEPAGE`).
    Never,
    /// Huge pages wherever the system has them: faster in big heaps, and more resident
    /// memory in small ones (`MADV_HUGEPAGE`). The system then also fills up again what was
    /// given back beside blocks in use, by the rules of its `khugepaged`.
    Always,
}

/// Options of a heap, in the form of a builder: see
/// [`Arena::builder`](crate::Arena::builder).
///
/// | option | default | changes |
/// |---|---|---|
/// | [`purge_thread`](Self::purge_thread) | off | memory goes back while every thread sleeps |
/// | [`decay`](Self::decay) | 250 ms | how fast free memory goes back |
/// | [`idle_after`](Self::idle_after) | 500 ms | when the purge thread empties the cache of a thread |
/// | [`memory_limit`](Self::memory_limit) | none | the heap answers null |
/// | [`soft_limit`](Self::soft_limit) | none | the heap gives back, then calls the program |
/// | [`huge_pages`](Self::huge_pages) | the system's | huge pages wanted or refused |
/// | [`thread_cache`](Self::thread_cache) | 1 MiB | free blocks that one thread may keep |
/// | [`profile`](Self::profile) | off | samples what the program allocates, and where |
/// | [`hardened`](Self::hardened) | off | misuse is stopped at once, at a price |
/// | [`guard_every`](Self::guard_every) | 4096 | share of a hardened heap's blocks with guard pages |
///
/// # Examples
///
/// ```
/// use brickyard_arena::Arena;
/// use std::time::Duration;
///
/// #[global_allocator]
/// static GLOBAL: Arena = Arena::builder()
///     .purge_thread(true)
///     .decay(Duration::from_millis(100))
///     .memory_limit(1 << 30)
///     .build();
/// # fn main() { assert_eq!(vec![7; 1000].len(), 1000); }
/// ```
#[derive(Clone, Copy, Debug)]
#[must_use = "options do nothing before `build`, `apply` or `heap`"]
pub struct Builder {
    pub(crate) purge_thread: bool,
    pub(crate) decay_ms: u64,
    pub(crate) idle_ms: u64,
    pub(crate) memory_limit: usize,
    pub(crate) soft_limit: usize,
    pub(crate) on_soft_limit: fn(usize),
    pub(crate) huge_pages: HugePages,
    pub(crate) thread_cache: usize,
    pub(crate) profile: usize,
    pub(crate) hardened: bool,
    pub(crate) guard_every: usize,
}

impl Builder {
    pub(crate) const fn new() -> Self {
        Self {
            purge_thread: false,
            decay_ms: 250,
            idle_ms: 500,
            memory_limit: usize::MAX,
            soft_limit: usize::MAX,
            on_soft_limit: |_| {},
            huge_pages: HugePages::System,
            thread_cache: 1 << 20,
            profile: 0,
            hardened: false,
            guard_every: 4096,
        }
    }

    /// Whether a thread of the heap's own gives memory back while the program's threads
    /// sleep. Default: off.
    ///
    /// It is started when the heap first holds 4 MiB, sleeps while there is nothing to
    /// give back, takes no signals, and ends when the last thread does that ever
    /// allocated. A child of `fork` starts one of its own when it needs to. It serves the
    /// heap of the process; a [`Heap`](crate::Heap) has none.
    ///
    /// Leave it off in a library that is unloaded (`dlclose`), in a program that counts
    /// on having one thread (`unshare`, `setns`, Python's warning about `fork`) or ends
    /// threads by the bare system call, and where idle memory does not matter.
    pub const fn purge_thread(mut self, on: bool) -> Self {
        self.purge_thread = on;
        self
    }

    /// The time in which free memory that nobody wanted halves, and for which a freed big
    /// mapping is kept. Default: 250 ms.
    ///
    /// Zero gives memory back as soon as the heap looks (every 50 ms on slow paths);
    /// [`Duration::MAX`] keeps it until [`Arena::purge`](crate::Arena::purge). With any other, what threads
    /// leave when all but one have ended goes back at once, as long as that takes at most a fiftieth of the time.
    pub const fn decay(mut self, half_life: Duration) -> Self {
        self.decay_ms = saturated_ms(half_life);
        self
    }

    /// How long a thread must not have used its cache before the purge thread empties it.
    /// Default: 500 ms. Without a purge thread it does nothing.
    pub const fn idle_after(mut self, time: Duration) -> Self {
        self.idle_ms = saturated_ms(time);
        self
    }

    /// The most bytes that the heap's blocks and free memory may take
    /// ([`Stats::committed`](crate::Stats::committed)). Default: none.
    ///
    /// An allocation that would pass it finds everything free given back first, and is
    /// null when that is not enough. Metadata comes on top: 1.6 % of the address space
    /// in segments, and a thread cache a thread.
    pub const fn memory_limit(mut self, bytes: usize) -> Self {
        self.memory_limit = bytes;
        self
    }

    /// Bytes of committed memory above which the heap gives back what is free, and then,
    /// if that is not enough, calls `then` with what it holds. Default: none.
    ///
    /// `then` runs on the thread whose allocation or free found the limit passed, inside that
    /// call but outside every lock of the heap, so it may allocate and free. It must not panic,
    /// nor wait for a lock that an allocating thread may hold: set a flag, or drop a
    /// cache of your own with a lock that you only try.
    ///
    /// It runs again when the heap has fallen an eighth below the limit and passed it again; the
    /// heap, or what is in use of it, since what the program frees stays committed for a while. So a
    /// program that drops its cache each time is told each time the cache is full, and one that
    /// cannot free an eighth of the limit, once, however much it grows.
    pub const fn soft_limit(mut self, bytes: usize, then: fn(usize)) -> Self {
        self.soft_limit = bytes;
        self.on_soft_limit = then;
        self
    }

    /// Whether to ask for huge pages. Default: what the system does. Applies to memory
    /// that is mapped after it was set.
    pub const fn huge_pages(mut self, policy: HugePages) -> Self {
        self.huge_pages = policy;
        self
    }

    /// The most bytes of free blocks that one thread may keep for its next allocations. Default: 1 MiB.
    /// About 3 KiB of small blocks come on top, and what it sets aside, which goes back before the
    /// heap grows: up to four times as much where there is one thread, half of that each for two, and as
    /// much for each of four and more.
    ///
    /// All threads together keep at most 32 MiB, or an eighth of the committed memory
    /// where that is more, whatever this says.
    pub const fn thread_cache(mut self, bytes: usize) -> Self {
        self.thread_cache = bytes;
        self
    }

    /// Samples allocations for [`Arena::write_profile`](crate::Arena::write_profile): one
    /// in `bytes` bytes that the program asks for, at random, with its stack. Default: 0,
    /// no samples, which costs nothing. [`PROFILE_BYTES`](Self::PROFILE_BYTES) is a good
    /// value.
    ///
    /// Takes effect with [`build`](Self::build) in a `static`, where the compiler sees
    /// whether there is a profile: another name for the heap, made without this option, takes no
    /// samples. It serves the heap of the process; a [`Heap`](crate::Heap) has none, and a
    /// [hardened](Self::hardened) process neither.
    ///
    /// A sampled block takes whole pages of 4 KiB. Stacks come from the tables by which
    /// panics unwind, so they need no frame pointers; with another C library than glibc
    /// they are empty.
    pub const fn profile(mut self, bytes: usize) -> Self {
        self.profile = bytes;
        self
    }

    /// Bytes between two samples for most programs: 2 MiB. The cost is mostly that of unwinding
    /// a stack a sample: 0.3 to 0.9 % of the instructions of the four programs
    /// measured (`docs/decisions/009-heap-profile.md`). With less, small heaps are seen in more
    /// detail, and who allocates much pays more.
    pub const PROFILE_BYTES: usize = 2 << 20;

    /// Whether the heap stops misuse at once, and makes it hard to profit from what it
    /// does not stop. Default: off. `docs/hardening.md` in the repository has the table of
    /// what it stops and what it does not.
    ///
    /// - Each free looks whether the pointer is a block in use, and whether it fits the
    ///   layout: double, invalid and interior frees end the process there.
    /// - Freed blocks are zeroed. Those up to 256 bytes wait until the thread has freed more than
    ///   32 others of such sizes, 64 on average, in an order that cannot be told before; those
    ///   up to 1 KiB behind more than 8 others, up to 4 KiB behind 2, and up to 32 KiB behind
    ///   one. When they are handed out again, their first KiB has to be zero still. Those above
    ///   1 MiB are unmapped.
    /// - Blocks of a new span come in a random order.
    /// - One allocation in [`guard_every`](Self::guard_every) gets guard pages.
    ///
    /// It costs time and memory, and nothing where it is off. It is a property of a heap
    /// from its beginning: the heap of the process becomes hardened when no thread but the
    /// calling one has a cache, and stays so. Later it is not heeded, and
    /// [`Arena::is_hardened`](crate::Arena::is_hardened) says so.
    pub const fn hardened(mut self, on: bool) -> Self {
        self.hardened = on;
        self
    }

    /// Of how many allocations up to 28 KiB of a hardened heap one is guarded, on average:
    /// it lies at the end of pages of its own, so that an access behind it, or after its free,
    /// stops the program there, with a report of who allocated and who freed it. Default:
    /// 4096; 0 is none, and 1 all. Without [`hardened`](Self::hardened) it does nothing.
    ///
    /// At most 112 blocks of a heap are guarded at the same time; when they all are in use,
    /// none is until one is freed.
    pub const fn guard_every(mut self, allocations: usize) -> Self {
        self.guard_every = allocations;
        self
    }
}

const fn saturated_ms(time: Duration) -> u64 {
    let ms = time.as_millis();
    if ms > u64::MAX as u128 {
        return u64::MAX;
    }
    #[expect(clippy::cast_possible_truncation, reason = "compared above")]
    let ms = ms as u64;
    ms
}

/// Options in force. Any thread reads them; each is a number of its own, so `Relaxed` is
/// enough: nothing is read through them.
#[derive(Debug)]
pub(crate) struct Options {
    purge_thread: AtomicBool,
    decay_ms: AtomicU64,
    idle_ms: AtomicU64,
    /// Granules.
    memory_limit: AtomicUsize,
    /// Granules.
    soft_limit: AtomicUsize,
    on_soft_limit: Lock<fn(usize)>,
    huge_pages: AtomicU8,
    thread_cache: AtomicUsize,
    guard_every: AtomicUsize,
}

const HUGE_SYSTEM: u8 = 0;
const HUGE_NEVER: u8 = 1;
const HUGE_ALWAYS: u8 = 2;

impl Options {
    pub(crate) const fn new(builder: &Builder) -> Self {
        Self {
            purge_thread: AtomicBool::new(builder.purge_thread),
            decay_ms: AtomicU64::new(builder.decay_ms),
            idle_ms: AtomicU64::new(builder.idle_ms),
            memory_limit: AtomicUsize::new(builder.memory_limit >> GRANULE_SHIFT),
            soft_limit: AtomicUsize::new(builder.soft_limit >> GRANULE_SHIFT),
            on_soft_limit: Lock::new(builder.on_soft_limit),
            huge_pages: AtomicU8::new(pack(builder.huge_pages)),
            thread_cache: AtomicUsize::new(builder.thread_cache),
            guard_every: AtomicUsize::new(builder.guard_every),
        }
    }

    /// Puts the options of `builder` in force.
    pub(crate) fn set(&self, builder: &Builder) {
        // Relaxed, all: see the type.
        self.purge_thread
            .store(builder.purge_thread, Ordering::Relaxed);
        self.decay_ms.store(builder.decay_ms, Ordering::Relaxed);
        self.idle_ms.store(builder.idle_ms, Ordering::Relaxed);
        self.memory_limit
            .store(builder.memory_limit >> GRANULE_SHIFT, Ordering::Relaxed);
        self.on_soft_limit
            .with(|then| *then = builder.on_soft_limit);
        self.soft_limit
            .store(builder.soft_limit >> GRANULE_SHIFT, Ordering::Relaxed);
        self.huge_pages
            .store(pack(builder.huge_pages), Ordering::Relaxed);
        self.thread_cache
            .store(builder.thread_cache, Ordering::Relaxed);
        self.guard_every
            .store(builder.guard_every, Ordering::Relaxed);
    }

    /// Whether the heap of the process may start its purge thread.
    pub(crate) fn purge_thread(&self) -> bool {
        // Relaxed: see the type.
        self.purge_thread.load(Ordering::Relaxed)
    }

    /// Half-life of free memory in milliseconds.
    pub(crate) fn decay_ms(&self) -> u64 {
        // Relaxed: see the type.
        self.decay_ms.load(Ordering::Relaxed)
    }

    /// Milliseconds after which an unused cache is idle.
    pub(crate) fn idle_ms(&self) -> u64 {
        // Relaxed: see the type.
        self.idle_ms.load(Ordering::Relaxed)
    }

    /// Most committed granules, if there is a limit.
    pub(crate) fn memory_limit(&self) -> Option<usize> {
        // Relaxed: see the type.
        let granules = self.memory_limit.load(Ordering::Relaxed);
        (granules != usize::MAX >> GRANULE_SHIFT).then_some(granules)
    }

    /// Committed granules above which the program is told.
    pub(crate) fn soft_limit(&self) -> usize {
        // Relaxed: see the type.
        self.soft_limit.load(Ordering::Relaxed)
    }

    /// What to call then.
    pub(crate) fn on_soft_limit(&self) -> fn(usize) {
        self.on_soft_limit.with(|then| *then)
    }

    /// What to tell the system about huge pages.
    pub(crate) fn huge_pages(&self) -> HugePages {
        // Relaxed: see the type.
        match self.huge_pages.load(Ordering::Relaxed) {
            HUGE_NEVER => HugePages::Never,
            HUGE_ALWAYS => HugePages::Always,
            _ => HugePages::System,
        }
    }

    /// Bytes of free blocks that one thread may keep.
    pub(crate) fn thread_cache(&self) -> usize {
        // Relaxed: see the type.
        self.thread_cache.load(Ordering::Relaxed)
    }

    /// Of how many allocations one is guarded; 0 for none.
    pub(crate) fn guard_every(&self) -> usize {
        // Relaxed: see the type.
        self.guard_every.load(Ordering::Relaxed)
    }

    /// The lock, for the fork handlers.
    pub(crate) fn raw_lock(&self) -> &crate::sync::RawLock {
        self.on_soft_limit.raw()
    }
}

const fn pack(policy: HugePages) -> u8 {
    match policy {
        HugePages::System => HUGE_SYSTEM,
        HugePages::Never => HUGE_NEVER,
        HugePages::Always => HUGE_ALWAYS,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_option_is_read_back_as_it_was_set() {
        fn callback(_: usize) {}
        let builder = Builder::new()
            .purge_thread(true)
            .decay(Duration::MAX)
            .idle_after(Duration::from_secs(3))
            .memory_limit(64 << 20)
            .soft_limit(32 << 20, callback)
            .huge_pages(HugePages::Never)
            .thread_cache(4096)
            .guard_every(7);
        let options = Options::new(&Builder::new());
        assert!(!options.purge_thread());
        assert_eq!(options.memory_limit(), None);
        assert_eq!(options.huge_pages(), HugePages::System);
        options.set(&builder);
        assert!(options.purge_thread());
        assert_eq!((options.decay_ms(), options.idle_ms()), (u64::MAX, 3000));
        assert_eq!(options.memory_limit(), Some(64 << 8));
        assert_eq!(options.soft_limit(), 32 << 8);
        assert_eq!(options.huge_pages(), HugePages::Never);
        assert_eq!(options.thread_cache(), 4096);
        assert_eq!(options.guard_every(), 7);
    }
}
