//! Defects that other pools have had, and edges that users meet.
//!
//! What could go wrong: a reset that panics loses its slot; exiting threads leave objects or
//! caches behind; a pool that closes while guards come back on other threads drops an object
//! twice or never; a big object passes over the stack; a type that must not change threads
//! does; a burst is kept for ever. Objects count themselves.

#![cfg(not(loom))]

use core::panic::AssertUnwindSafe;
use core::pin::pin;
use core::sync::atomic::{AtomicUsize, Ordering};
use core::task::{Context, Waker};
use core::time::Duration;
use std::panic::{catch_unwind, resume_unwind};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Instant;

use brickyard_pool::{CreateReset, DropReason, Place, Placed, Pool, Recycle};

/// The whole number in release builds, which CI runs; a tenth of it elsewhere.
const fn whole_or_tenth(count: usize) -> usize {
    if cfg!(debug_assertions) {
        count / 10
    } else {
        count
    }
}

#[derive(Clone, Default)]
struct Census(Arc<AtomicUsize>);

struct Counted(Census);

impl Census {
    fn create(&self) -> Counted {
        self.0.fetch_add(1, Ordering::SeqCst);
        Counted(self.clone())
    }

    fn live(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[test]
fn a_million_panicking_resets_lose_no_slot() {
    const PANICS: usize = whole_or_tenth(1_000_000);
    let census = Census::default();
    let resets = AtomicUsize::new(0);
    let recycler = CreateReset::new(
        || census.create(),
        |_: &mut Counted| {
            let number = resets.fetch_add(1, Ordering::SeqCst);
            if number < 2 * PANICS && number.is_multiple_of(2) {
                // Past the panic hook, which would print it.
                resume_unwind(Box::new("every other reset panics"));
            }
        },
    );
    let Ok(pool) = Pool::builder().capacity(8).build_with(recycler);
    for _ in 0..2 * PANICS {
        let one = pool.try_get().map_err(|_| ()).expect("no slot is lost");
        let _ = catch_unwind(AssertUnwindSafe(|| drop(one)));
    }
    let panicked = pool.metrics().dropped.by(DropReason::Panicked);
    assert_eq!(panicked, PANICS as u64);
    let all: Vec<_> = (0..8).map(|_| pool.try_get()).collect();
    assert!(all.iter().all(Result::is_ok), "a slot is lost");
    drop(all);
    assert_eq!((pool.trim(), census.live()), (8, 0));
}

#[test]
fn a_hundred_thousand_short_threads_leave_one_cache_and_two_objects() {
    let census = Census::default();
    let pool = Pool::new(|| census.create());
    for _ in 0..whole_or_tenth(100_000) {
        thread::scope(|scope| {
            let short = scope.spawn(|| {
                let Ok(_one) = pool.get();
                let Ok(_two) = pool.get();
            });
            // Unlike the end of the scope, waits for the thread's destructors.
            short.join().expect("no panic");
        });
    }
    assert_eq!((census.live(), pool.metrics().caches), (2, 1));
}

#[test]
fn five_thousand_live_threads_share_a_pool_and_leave_nothing() {
    const THREADS: usize = 5_000;
    let census = Census::default();
    let pool = Pool::new(|| census.create());
    let all = Barrier::new(THREADS);
    thread::scope(|scope| {
        for _ in 0..THREADS {
            let body = || {
                let Ok(one) = pool.get();
                all.wait();
                drop(one);
            };
            thread::Builder::new()
                .stack_size(64 * 1024)
                .spawn_scoped(scope, body)
                .expect("the system has threads");
        }
    });
    assert!(census.live() >= THREADS);
    pool.trim();
    assert_eq!((census.live(), pool.metrics().slot_bytes), (0, 0));
}

#[test]
fn a_pool_that_closes_while_guards_come_back_drops_each_object_once() {
    let census = Census::default();
    for round in 0..2_000 {
        let capacity = if round % 2 == 0 { 4 } else { usize::MAX };
        let creates = census.clone();
        let pool = Pool::builder()
            .capacity(capacity)
            .build(move || creates.create());
        let mut guards: Vec<_> = (0..4)
            .map(|_| pool.try_get().map_err(|_| ()).expect("four").into_owned())
            .collect();
        let half = guards.split_off(2);
        thread::scope(|scope| {
            scope.spawn(move || drop(half));
            scope.spawn(move || drop(pool));
            drop(guards);
        });
        assert_eq!(census.live(), 0, "round {round}");
    }
}

#[test]
fn more_pools_than_the_hot_table_has_places_come_and_go() {
    let census = Census::default();
    for _ in 0..20 {
        let pools: Vec<_> = (0..200).map(|_| Pool::new(|| census.create())).collect();
        for _ in 0..3 {
            for pool in &pools {
                let Ok(_one) = pool.get();
            }
        }
        assert_eq!(census.live(), 200, "each thread has one cache of each pool");
        drop(pools);
        assert_eq!(census.live(), 0);
    }
}

#[test]
fn a_burst_is_gone_after_two_epochs_of_use() {
    let census = Census::default();
    let pool = Pool::builder()
        .idle_decay(Duration::from_millis(2))
        .build(|| census.create());
    let burst: Vec<_> = (0..5_000).map(|_| pool.get()).collect();
    drop(burst);
    assert_eq!(census.live(), 5_000);
    let limit = Instant::now() + Duration::from_secs(20);
    // One is used; it lies in a magazine of 64, which the cache takes as one.
    while census.live() > 64 && Instant::now() < limit {
        let Ok(_one) = pool.get();
    }
    assert!(census.live() <= 64, "{} are kept", census.live());
    assert!(pool.metrics().dropped.by(DropReason::Idle) >= 5_000 - 64);
}

#[test]
fn what_is_beyond_the_retention_limit_is_dropped_at_return() {
    let census = Census::default();
    let pool = Pool::builder().retain(64).build(|| census.create());
    drop((0..5_000).map(|_| pool.get()).collect::<Vec<_>>());
    assert!(census.live() <= 64 + 64 + 128, "{} are kept", census.live());
    assert!(pool.metrics().dropped.by(DropReason::Surplus) > 4_000);
}

#[test]
fn decay_drops_a_few_at_a_time() {
    let census = Census::default();
    let pool = Pool::builder()
        .idle_decay(Duration::from_millis(5))
        .build(|| census.create());
    drop((0..20_000).map(|_| pool.get()).collect::<Vec<_>>());
    let limit = Instant::now() + Duration::from_secs(20);
    let (mut before, mut most) = (census.live(), 0);
    while census.live() > 10_000 && Instant::now() < limit {
        let Ok(_one) = pool.get();
        most = most.max(before - census.live());
        before = census.live();
    }
    assert!(census.live() <= 10_000, "{} are kept", census.live());
    assert!(most <= 64, "one get dropped {most} objects");
}

#[test]
fn what_exiting_threads_leave_beyond_the_retention_limit_goes() {
    const THREADS: usize = 20;
    let pool = Pool::builder().retain(10).build(|| 0_u64);
    let all = Barrier::new(THREADS);
    thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|_| {
                scope.spawn(|| {
                    let held: Vec<_> = (0..100).map(|_| pool.get()).collect();
                    all.wait();
                    drop(held);
                })
            })
            .collect();
        // Joined, for a scope does not wait for what runs as a thread exits.
        let joined = threads.into_iter().map(thread::ScopedJoinHandle::join);
        joined.for_each(|thread| thread.expect("no panic"));
    });
    // A get in 64 comes by the slow path now, and drops up to 64.
    for _ in 0..64 * 64 {
        let Ok(_one) = pool.get();
    }
    let idle = pool.metrics().idle;
    assert!(idle <= 10 + 128, "{idle} are idle");
}

#[test]
fn an_object_that_somebody_waits_for_is_not_surplus() {
    let census = Census::default();
    let pool = Pool::builder()
        .capacity(1)
        .retain(0)
        .build(|| census.create());
    let one = pool.try_get().map_err(|_| ()).expect("one");
    let mut context = Context::from_waker(Waker::noop());
    let mut waiting = pin!(pool.get_async());
    // From now on it is in the queue.
    assert!(waiting.as_mut().poll(&mut context).is_pending());
    drop(one);
    assert!(waiting.poll(&mut context).is_ready());
    assert_eq!(pool.metrics().created, 1);
}

/// A destructor that panics once, of the recycler itself.
struct Bad(Arc<AtomicUsize>);

impl Recycle<u8> for Bad {
    type Error = core::convert::Infallible;

    fn create<'p>(&self, place: Place<'p, u8>) -> Result<Placed<'p, u8>, Self::Error> {
        Ok(place.write(1))
    }
}

impl Drop for Bad {
    fn drop(&mut self) {
        if self.0.fetch_add(1, Ordering::SeqCst) == 0 {
            resume_unwind(Box::new("a bad recycler"));
        }
    }
}

#[test]
fn a_recycler_whose_destructor_panics_is_dropped_once() {
    let drops = Arc::new(AtomicUsize::new(0));
    let pool = Pool::with(Bad(Arc::clone(&drops)));
    drop(pool.get());
    let closed = catch_unwind(AssertUnwindSafe(|| drop(pool)));
    assert!(closed.is_err());
    assert_eq!(drops.load(Ordering::SeqCst), 1);
}

#[test]
fn attached_objects_are_counted_as_created() {
    let pool = Pool::new(|| 0_u8);
    let one = pool.attach(7).expect("no bound");
    assert_eq!(pool.metrics().created, 1);
    one.discard(DropReason::Broken);
    assert_eq!(pool.metrics().dropped.by(DropReason::Broken), 1);
}

#[test]
fn who_returned_its_object_is_no_holder() {
    for _ in 0..100 {
        let pool = Pool::builder()
            .track_holders(true)
            .idle_decay(Duration::from_micros(1))
            .build(|| 0_u8);
        thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    for _ in 0..100 {
                        drop((0..4).map(|_| pool.get()).collect::<Vec<_>>());
                    }
                });
            }
        });
        let holders = pool.holders().expect("tracked");
        assert!(holders.is_empty(), "{holders:?}");
    }
}

#[repr(align(4096))]
struct Page([u8; 4096]);

#[test]
fn objects_of_any_size_and_alignment_have_places_of_their_own() {
    let pages = Pool::new(|| Page([1; 4096]));
    let held: Vec<_> = (0..40).map(|_| pages.get()).collect();
    for page in &held {
        let page = page.as_ref().expect("creation cannot fail");
        assert_eq!(core::ptr::from_ref(&**page).addr() % 4096, 0);
        assert!(page.0.iter().all(|&byte| byte == 1));
    }
    let nothing = Pool::builder().capacity(3).build(|| ());
    let held: Vec<_> = (0..3).map(|_| nothing.try_get().is_ok()).collect();
    assert_eq!(held, [true; 3]);
    let big = Pool::new(|| [7_u8; 64 * 1024]);
    // On a stack that has no room for the object.
    let small = thread::Builder::new().stack_size(48 * 1024);
    thread::scope(|scope| {
        let Ok(one) = big.get();
        let one = one.into_owned();
        let user = small.spawn_scoped(scope, move || one.iter().map(|&b| u64::from(b)).sum());
        let sum: u64 = user.expect("a thread").join().expect("no overflow");
        assert_eq!(sum, 7 * 64 * 1024);
    });
}

#[test]
fn a_future_that_is_dropped_gives_its_object_to_the_next() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_time()
        .build()
        .expect("a runtime");
    let pool = Arc::new(Pool::builder().capacity(2).build(|| 0_u64));
    runtime.block_on(async {
        let mut tasks = tokio::task::JoinSet::new();
        for task in 0..2_000_u64 {
            let pool = Arc::clone(&pool);
            tasks.spawn(async move {
                let patience = Duration::from_micros(task % 7 * 40);
                match tokio::time::timeout(patience, pool.get_async()).await {
                    Ok(Ok(_one)) => tokio::task::yield_now().await,
                    Err(_) => {}
                }
            });
        }
        while let Some(task) = tasks.join_next().await {
            task.expect("no panic");
        }
        let Ok(_one) = pool.get_async().await;
        let Ok(_two) = pool.get_async().await;
    });
    assert_eq!((pool.metrics().live, pool.metrics().idle), (2, 2));
}
