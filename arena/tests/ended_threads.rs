//! What threads leave behind when they end.
//!
//! What could go wrong: the memory of threads that ended stays for as long as the one that is left
//! sleeps; memory goes back while others still work, or each time of many that threads end in
//! quick succession, so that it is faulted in again and again; what the one that is left has free goes
//! back, though it goes on with it; a heap that is to keep its memory does not.
//!
//! Without the harness, whose own threads would be others that are left.

#[cfg(not(loom))]
mod checks {
    use core::time::Duration;
    use std::sync::{Arc, Barrier};
    use std::thread;
    use std::time::Instant;

    use brickyard_arena::Arena;

    #[global_allocator]
    static GLOBAL: Arena = Arena::new();

    const MIB: usize = 1 << 20;
    const THREADS: usize = 4;

    /// Small blocks of mixed sizes, of which a tenth outlives the rest, and two mappings.
    fn work() {
        let mut kept = Vec::new();
        {
            let small: Vec<Vec<u8>> = (0..40_000).map(|index| vec![1; 16 + index % 400]).collect();
            let large = [vec![1_u8; 2 * MIB], vec![2_u8; 3 * MIB]];
            kept.extend(small.iter().step_by(100).cloned());
            drop((small, large));
        }
        core::hint::black_box(kept);
    }

    /// Runs [`work`] in four threads that end together, and waits for their ends.
    fn phase() {
        let all_done = Arc::new(Barrier::new(THREADS));
        let start = |()| {
            let all_done = Arc::clone(&all_done);
            thread::spawn(move || {
                work();
                all_done.wait();
            })
        };
        // A scope would only wait for what they run.
        let threads = [(); THREADS].map(start);
        for thread in threads {
            thread.join().expect("no panic");
        }
    }

    /// Bytes that the heap has beyond what the program and caches hold.
    fn left_behind() -> usize {
        let stats = Arena::stats();
        stats.committed - stats.live - stats.cached
    }

    pub(crate) fn a_thread_that_leaves_nothing_gives_back_nothing() {
        // Half of the blocks are free, in runs of two OS pages, between others that are not.
        let mut blocks: Vec<Option<Box<[u8; 256]>>> =
            (0..MIB / 4).map(|_| Some(Box::new([1; 256]))).collect();
        for (index, block) in blocks.iter_mut().enumerate() {
            if index / 32 % 2 == 1 {
                *block = None;
            }
        }
        let before = Arena::stats().purged;
        thread::spawn(|| core::hint::black_box(vec![1_u8; 100]))
            .join()
            .expect("no panic");
        let purged = Arena::stats().purged - before;
        core::hint::black_box(blocks);
        assert!(purged <= 2 * MIB, "{purged}");
    }

    pub(crate) fn the_last_of_several_gives_back_what_they_left() {
        phase();
        let left = left_behind();
        assert!(left <= 6 * MIB, "{left}");
    }

    pub(crate) fn phases_in_quick_succession_give_back_little() {
        const PHASES: usize = 20;
        let start = Instant::now();
        let before = Arena::stats().purged;
        for _ in 0..PHASES {
            phase();
        }
        let purged = Arena::stats().purged - before;
        let elapsed_ms = usize::try_from(start.elapsed().as_millis()).expect("seconds");
        // Without a limit each phase gives back some 50 MiB. The limit is 40 KiB a millisecond; what is
        // swept before the heap grows and what decays comes to some MiB a phase.
        let most = elapsed_ms * (40 << 10) + PHASES * 10 * MIB;
        assert!(purged <= most, "{purged} bytes in {elapsed_ms} ms");
    }

    pub(crate) fn a_heap_that_keeps_its_memory_keeps_that() {
        Arena::builder().decay(Duration::MAX).apply();
        thread::sleep(Duration::from_secs(1));
        phase();
        let left = left_behind();
        Arena::builder().apply();
        assert!(left >= 20 * MIB, "{left}");
    }
}

fn main() {
    #[cfg(not(loom))]
    {
        checks::a_thread_that_leaves_nothing_gives_back_nothing();
        checks::the_last_of_several_gives_back_what_they_left();
        checks::phases_in_quick_succession_give_back_little();
        checks::a_heap_that_keeps_its_memory_keeps_that();
    }
}
