//! Metrics and the list of holders say what happened.
//!
//! What could go wrong: a wait is counted in the wrong class of times, twice or not at all; an
//! emptying of caches goes unseen; the place of a get that is reported is one inside the pool.

#![cfg(not(loom))]

use core::time::Duration;
use std::thread;

use brickyard_pool::{DropReason, Pool, WaitHistogram};

fn counts(times: WaitHistogram) -> Vec<u64> {
    times.buckets().map(|(_, count)| count).collect()
}

#[test]
fn a_wait_is_counted_once_in_the_bucket_of_its_time() {
    let pool = Pool::builder().capacity(1).build(|| 0_u8);
    let Ok(one) = pool.get();
    for millis in [0, 30, 30] {
        assert!(pool.get_timeout(Duration::from_millis(millis)).is_err());
    }
    let metrics = pool.metrics();
    let all = counts(metrics.wait_times);
    assert_eq!((metrics.waits, all.iter().sum::<u64>()), (3, 3));
    let at_least_30 = metrics
        .wait_times
        .buckets()
        .filter(|&(limit, _)| limit >= Duration::from_millis(30))
        .map(|(_, count)| count)
        .sum::<u64>();
    assert!(at_least_30 >= 2, "{all:?}");
    drop(one);
    drop(pool.get());
    assert_eq!(pool.metrics().waits, 3, "nobody waited");
}

#[test]
fn the_limits_of_the_buckets_rise() {
    assert!(WaitHistogram::LIMITS.is_sorted_by(|lower, upper| lower < upper));
    assert_eq!(WaitHistogram::LIMITS.last(), Some(&Duration::MAX));
}

#[test]
fn hits_misses_and_steals_are_counted() {
    let pool = Pool::builder().capacity(8).build(|| 0_u8);
    thread::scope(|scope| {
        let owner = scope.spawn(|| {
            let all: Vec<_> = (0..8).map(|_| pool.try_get()).collect();
            all.into_iter().for_each(drop);
            for _ in 0..1_000 {
                drop(pool.try_get());
            }
            let before = pool.metrics();
            assert_eq!((before.created, before.idle, before.in_use), (8, 8, 0));
            assert_eq!(before.steals, 0);
            // On another thread, while this one lives.
            let found = thread::scope(|scope| {
                let other = scope.spawn(|| {
                    let all: Vec<_> = (0..8).map(|_| pool.try_get()).collect();
                    all.iter().all(Result::is_ok)
                });
                other.join().expect("no panic")
            });
            assert!(found);
        });
        owner.join().expect("no panic");
    });
    let after = pool.metrics();
    assert!(after.steals >= 1, "{after:?}");
    let gets = 8 + 1_000 + 8;
    assert!(after.misses >= 8 && after.hits + after.misses <= gets);
    assert!(after.hits >= 900, "counted at the visit: {after:?}");
}

#[test]
fn drops_are_counted_by_the_reason_that_was_given() {
    let pool = Pool::new(|| 0_u8);
    for reason in DropReason::ALL {
        let Ok(one) = pool.get();
        one.discard(reason);
    }
    let dropped = pool.metrics().dropped;
    assert!(
        DropReason::ALL
            .iter()
            .all(|&reason| dropped.by(reason) == 1)
    );
    assert_eq!(dropped.total(), DropReason::ALL.len() as u64);
}

#[test]
fn a_holder_is_known_by_the_line_of_its_get() {
    let pool = Pool::builder()
        .capacity(20)
        .track_holders(true)
        .build(|| 0_u8);
    let mut lines = Vec::new();
    let (mut some, mut more) = (Vec::new(), pool.batch());
    let one = (pool.get(), lines.push(line!())).0;
    let two = (pool.try_get(), lines.push(line!())).0;
    let three = (pool.get_timeout(Duration::ZERO), lines.push(line!())).0;
    let four = (pool.attach(7), lines.push(line!())).0;
    let five = (pool.try_get_many(1, &mut some), lines.push(line!())).0;
    let six = (pool.get_many(1, &mut some), lines.push(line!())).0;
    let seven = (more.try_get(1), lines.push(line!())).0;
    let eight = (more.get(1), lines.push(line!())).0;
    let future = (pool.get_async(), lines.push(line!())).0;
    let nine = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime")
        .block_on(future);
    assert!(one.is_ok() && two.is_ok() && three.is_ok() && four.is_ok() && five.is_ok());
    assert!(six.is_ok() && seven.is_ok() && eight.is_ok() && nine.is_ok());
    let holders = pool.holders().expect("tracked");
    assert!(holders.iter().all(|one| one.location.file() == file!()));
    let mut found: Vec<u32> = holders.iter().map(|one| one.location.line()).collect();
    found.sort_unstable();
    assert_eq!(found, lines);
    drop((one, two, three, four, some, more, nine));
    assert_eq!(pool.holders().expect("tracked").len(), 0);
}
