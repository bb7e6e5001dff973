//! The bound is exact in both directions.
//!
//! What could go wrong: more objects exist than the bound says; two users hold one object;
//! a get says "empty" while an object lies idle in the cache of another thread; a waiter
//! sleeps although an object came back. Every object carries a mark that says whether it is
//! in use, and counts itself at creation and drop.

#![cfg(not(loom))]

use core::hint::black_box;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use core::time::Duration;
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use brickyard_pool::{DropReason, GetTimeoutError, Pool, TryGetError};

/// Objects alive, and the most there ever were.
#[derive(Default)]
struct Census {
    live: AtomicUsize,
    most: AtomicUsize,
}

struct Marked {
    in_use: AtomicBool,
    census: Arc<Census>,
}

impl Marked {
    fn new(census: &Arc<Census>) -> Self {
        let live = census.live.fetch_add(1, Ordering::SeqCst) + 1;
        census.most.fetch_max(live, Ordering::SeqCst);
        Self {
            in_use: AtomicBool::new(false),
            census: Arc::clone(census),
        }
    }

    fn with_use(&self, work: impl FnOnce()) {
        assert!(
            !self.in_use.swap(true, Ordering::SeqCst),
            "two users hold one object"
        );
        work();
        self.in_use.store(false, Ordering::SeqCst);
    }
}

impl Drop for Marked {
    fn drop(&mut self) {
        self.census.live.fetch_sub(1, Ordering::SeqCst);
    }
}

fn spin(rounds: u64) {
    for round in 0..rounds {
        black_box(round);
    }
}

#[test]
fn no_false_empty_while_everybody_holds_at_most_one() {
    const THREADS: usize = 8;
    let census = Arc::new(Census::default());
    let pool = Pool::builder()
        .capacity(THREADS)
        .build(|| Marked::new(&census));
    thread::scope(|scope| {
        for thread in 0..THREADS as u64 {
            let pool = &pool;
            scope.spawn(move || {
                for round in 0..20_000 {
                    let one = pool.try_get().expect("as many objects as threads");
                    one.with_use(|| spin((round ^ thread) % 50));
                }
            });
        }
    });
    assert!(census.most.load(Ordering::SeqCst) <= THREADS);
    drop(pool);
    assert_eq!(census.live.load(Ordering::SeqCst), 0, "objects leaked");
}

#[test]
fn waiters_share_fewer_objects_than_threads() {
    const THREADS: u64 = 6;
    const OBJECTS: usize = 2;
    let census = Arc::new(Census::default());
    let pool = Pool::builder()
        .capacity(OBJECTS)
        .build(|| Marked::new(&census));
    let uses = AtomicUsize::new(0);
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let (pool, uses) = (&pool, &uses);
            scope.spawn(move || {
                for round in 0..3_000 {
                    let Ok(one) = pool.get();
                    one.with_use(|| spin((round ^ thread) % 50));
                    uses.fetch_add(1, Ordering::SeqCst);
                    if round % 64 == 0 {
                        one.discard(DropReason::Expired);
                    }
                }
            });
        }
    });
    assert_eq!(uses.load(Ordering::SeqCst), 6 * 3_000);
    assert!(census.most.load(Ordering::SeqCst) <= OBJECTS);
    drop(pool);
    assert_eq!(census.live.load(Ordering::SeqCst), 0, "objects leaked");
}

#[test]
fn an_object_in_another_threads_cache_is_found() {
    let pool = Pool::builder().capacity(4).build(|| 0_u8);
    thread::scope(|scope| {
        let all: Vec<_> = (0..4).map(|_| pool.try_get().expect("four")).collect();
        let (told, hear) = std::sync::mpsc::channel();
        let (stop, stopped) = std::sync::mpsc::channel::<()>();
        scope.spawn(move || {
            drop(all);
            told.send(()).expect("the other side waits");
            // Keeps its cache, and the four objects in it, until told.
            let _ = stopped.recv();
        });
        hear.recv().expect("the other side tells");
        let again: Vec<_> = (0..4).map(|_| pool.try_get()).collect();
        assert!(again.iter().all(Result::is_ok), "{again:?}");
        assert!(matches!(pool.try_get(), Err(TryGetError::Empty)));
        drop(stop);
    });
}

#[test]
fn a_timeout_is_kept_and_a_return_ends_a_wait() {
    let pool = Pool::builder().capacity(1).build(|| 7_u8);
    let Ok(one) = pool.get();
    let begun = Instant::now();
    let late = pool.get_timeout(Duration::from_millis(20));
    assert!(matches!(late, Err(GetTimeoutError::Timeout)));
    assert!(begun.elapsed() >= Duration::from_millis(20));
    thread::scope(|scope| {
        let waits = scope.spawn(|| pool.get_timeout(Duration::from_secs(60)).map(|one| *one));
        // Long enough to begin to wait; on a machine too busy for that the test proves less.
        thread::sleep(Duration::from_millis(60));
        drop(one);
        assert!(matches!(waits.join().expect("no panic"), Ok(7)));
    });
    assert!((1..=2).contains(&pool.metrics().waits));
}

#[test]
fn owned_guards_outlive_the_pool() {
    let census = Arc::new(Census::default());
    for late in 0..64 {
        let kept = Arc::clone(&census);
        let pool = Pool::builder()
            .capacity(64)
            .build(move || Marked::new(&kept));
        let mut owned: Vec<_> = (0..64)
            .map(|_| pool.try_get().expect("within the bound").into_owned())
            .collect();
        let out = owned.split_off(late);
        drop(owned);
        let other = thread::spawn(move || drop(out));
        drop(pool);
        other.join().expect("no panic");
        assert_eq!(census.live.load(Ordering::SeqCst), 0, "objects leaked");
    }
}
