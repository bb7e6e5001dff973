//! Nothing is lost when a thread is stopped in the middle of a call.
//!
//! What could go wrong: a thread is stopped within a get or a return on its own cache;
//! another thread empties all caches, sees a slot on its way and leaves it; the interrupted
//! call goes on and looks everywhere but in its own cache. Then the object lies where nobody
//! finds it: nothing is in use, and yet the pool says "empty", or a waiter sleeps for ever.
//!
//! Chance stops a thread there once in many hours. Here a signal does, whose handler holds
//! the thread at whatever instruction it has reached until the other thread is done (or for
//! [`LONGEST_STOP`], for it may hold a lock).

#![cfg(all(not(loom), target_os = "linux"))]

use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Instant;

use brickyard_pool::{Pool, PooledOwned};

type Bytes = Pool<u8, fn() -> u8>;

const LONGEST_STOP: Duration = Duration::from_millis(2);
const LONGEST_TEST: Duration = Duration::from_secs(2);

static STOPPED: AtomicBool = AtomicBool::new(false);
static GO_ON: AtomicBool = AtomicBool::new(false);
/// The handler's flags serve one test at a time.
static ONE_TEST: Mutex<()> = Mutex::new(());

extern "C" fn hold_here(_: libc::c_int) {
    STOPPED.store(true, Ordering::SeqCst);
    let begun = Instant::now();
    while !GO_ON.load(Ordering::SeqCst) && begun.elapsed() < LONGEST_STOP {
        core::hint::spin_loop();
    }
}

fn install_handler() {
    let handler: extern "C" fn(libc::c_int) = hold_here;
    // SAFETY: the handler reads a clock and touches atomics, which is async-signal-safe.
    unsafe { libc::signal(libc::SIGUSR1, handler as libc::sighandler_t) };
}

/// Stops the thread, runs `meanwhile`, and lets it go on.
fn while_stopped(victim: libc::pthread_t, meanwhile: impl FnOnce()) {
    GO_ON.store(false, Ordering::SeqCst);
    STOPPED.store(false, Ordering::SeqCst);
    // SAFETY: the thread lives: it waits for the end of its round.
    assert_eq!(unsafe { libc::pthread_kill(victim, libc::SIGUSR1) }, 0);
    while !STOPPED.load(Ordering::SeqCst) {
        core::hint::spin_loop();
    }
    meanwhile();
    GO_ON.store(true, Ordering::SeqCst);
}

/// `work` runs again and again on one thread, which is stopped somewhere in it; the other
/// thread looks for an object meanwhile. Afterwards, with nothing in use, all objects must
/// be found.
fn stop_within(objects: usize, rounds: usize, work: fn(&Bytes)) {
    let _one = ONE_TEST.lock();
    install_handler();
    let (to_victim, jobs) = mpsc::channel::<Arc<Bytes>>();
    let (tell, told) = mpsc::channel();
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let over = &over;
        scope.spawn(move || {
            // SAFETY: no conditions.
            let this = unsafe { libc::pthread_self() };
            for pool in jobs {
                work(&pool);
                tell.send(this).expect("somebody listens");
                while !over.load(Ordering::SeqCst) {
                    work(&pool);
                }
                drop(pool);
                tell.send(this).expect("somebody listens");
            }
        });
        let begun = Instant::now();
        for round in (0..rounds).take_while(|_| begun.elapsed() < LONGEST_TEST) {
            let make: fn() -> u8 = || 7;
            let pool = Arc::new(
                Pool::builder()
                    .capacity(objects)
                    .prewarm(objects)
                    .build(make),
            );
            over.store(false, Ordering::SeqCst);
            to_victim.send(Arc::clone(&pool)).expect("it listens");
            let victim = told.recv().expect("it works");
            while_stopped(victim, || drop(pool.try_get()));
            over.store(true, Ordering::SeqCst);
            told.recv().expect("it ends its round");
            let found: Vec<_> = (0..objects).map(|_| pool.try_get()).collect();
            assert!(
                found.iter().all(Result::is_ok),
                "round {round} of {rounds}: nothing was in use, but {} of {objects} are found",
                found.iter().flatten().count()
            );
        }
        drop(to_victim);
    });
}

#[test]
fn an_object_whose_get_was_stopped_is_found_again() {
    stop_within(1, 1_500, |pool| drop(pool.try_get()));
}

#[test]
fn objects_whose_batch_get_was_stopped_are_found_again() {
    stop_within(16, 1_500, |pool| {
        let mut some = Vec::with_capacity(12);
        let _ = pool.try_get_many(12, &mut some);
        pool.put_many(some);
    });
}

#[test]
fn objects_are_found_after_a_get_of_too_many_was_stopped() {
    // It gives up without the slow path: what it left in its cache nobody else would find.
    stop_within(16, 1_500, |pool| {
        let mut some = Vec::with_capacity(16);
        if pool.try_get_many(16, &mut some).is_ok() {
            drop(some);
            assert!(pool.get_many(17, &mut Vec::new()).is_err());
        }
    });
}

/// Without a bound, where a batch is pushed at once.
#[test]
fn objects_whose_batch_return_was_stopped_are_neither_lost_nor_doubled() {
    let _one = ONE_TEST.lock();
    install_handler();
    let make: fn() -> u8 = || 7;
    let pool: &Bytes = &Pool::with(make);
    let over = AtomicBool::new(false);
    let (tell, told) = mpsc::channel();
    thread::scope(|scope| {
        let over = &over;
        scope.spawn(move || {
            // SAFETY: no conditions.
            let this = unsafe { libc::pthread_self() };
            tell.send(this).expect("somebody listens");
            let mut some = Vec::with_capacity(24);
            while !over.load(Ordering::SeqCst) {
                assert!(pool.try_get_many(24, &mut some).is_ok());
                some.iter_mut().for_each(|one| {
                    assert_eq!(core::mem::replace(&mut **one, 8), 7, "two have it");
                });
                some.iter_mut().for_each(|one| **one = 7);
                pool.put_many(some.drain(..));
            }
        });
        let victim = told.recv().expect("it works");
        let begun = Instant::now();
        for _ in (0..1_500).take_while(|_| begun.elapsed() < LONGEST_TEST) {
            while_stopped(victim, || {
                pool.trim();
            });
        }
        over.store(true, Ordering::SeqCst);
    });
    let metrics = pool.metrics();
    assert_eq!((metrics.in_use, metrics.idle), (0, metrics.live));
    assert_eq!(pool.trim(), metrics.live);
}

/// One has the turn and waits for an object, which lies in the frozen cache of another, which
/// waits for the turn.
#[test]
fn who_waits_for_the_turn_leaves_nothing_in_its_cache() {
    let _one = ONE_TEST.lock();
    install_handler();
    let begun = Instant::now();
    while begun.elapsed() < LONGEST_TEST {
        let make: fn() -> u8 = || 7;
        let pool = Arc::new(Pool::builder().capacity(16).build(make));
        let (tell, told) = mpsc::channel();
        let over = Arc::new(AtomicBool::new(false));
        let (victims, its_pool, its_end) = (tell.clone(), Arc::clone(&pool), Arc::clone(&over));
        thread::spawn(move || {
            let mut some = Vec::new();
            // SAFETY: no conditions.
            let this = unsafe { libc::pthread_self() };
            victims.send(this).expect("somebody listens");
            while !its_end.load(Ordering::SeqCst) {
                assert!(its_pool.get_many(16, &mut some).is_ok());
                some.clear();
            }
            victims.send(this).expect("somebody listens");
        });
        let victim = told.recv().expect("it works");
        while_stopped(victim, || {
            let (pool, over) = (Arc::clone(&pool), Arc::clone(&over));
            thread::spawn(move || {
                assert!(pool.get_many(16, &mut Vec::new()).is_ok());
                over.store(true, Ordering::SeqCst);
                tell.send(0).expect("somebody listens");
            });
            // Time to take the turn and to wait.
            thread::sleep(Duration::from_micros(150));
        });
        for _ in 0..2 {
            let told = told.recv_timeout(Duration::from_secs(30));
            assert!(told.is_ok(), "they wait for each other: {pool:?}");
        }
    }
}

#[test]
fn an_object_whose_owned_return_was_stopped_is_found_again() {
    stop_within(4, 1_500, |pool| {
        drop(
            pool.try_get()
                .ok()
                .map(|one| -> PooledOwned<_, _> { one.into_owned() }),
        );
    });
}
