//! Use from thread-local destructors.
//!
//! What could go wrong: such a destructor runs before or after those of the pool's own
//! thread-locals; the last handle or guard of a pool goes there; a call waits there.

#![cfg(not(loom))]

use core::cell::RefCell;
use core::sync::atomic::{AtomicUsize, Ordering};
use core::time::Duration;
use std::sync::Arc;
use std::thread;

use brickyard_pool::{Pool, PooledOwned};

type Bytes = Pool<u64, fn() -> u64>;

/// Runs something as the thread exits.
struct AtExit(Option<Box<dyn FnOnce()>>);
impl Drop for AtExit {
    fn drop(&mut self) {
        if let Some(work) = self.0.take() {
            work();
        }
    }
}

thread_local! {
    static FIRST: RefCell<AtExit> = const { RefCell::new(AtExit(None)) };
    static LAST: RefCell<AtExit> = const { RefCell::new(AtExit(None)) };
}

/// Runs `work` in destructors before and after those of the pool's own thread-locals.
fn at_exit(pool: &Arc<Bytes>, work: fn(&Bytes)) {
    let thread_pool = Arc::clone(pool);
    thread::spawn(move || {
        let (a, b) = (Arc::clone(&thread_pool), Arc::clone(&thread_pool));
        FIRST.with(|f| f.borrow_mut().0 = Some(Box::new(move || work(&a))));
        let Ok(one) = thread_pool.get();
        drop(one);
        LAST.with(|l| l.borrow_mut().0 = Some(Box::new(move || work(&b))));
    })
    .join()
    .expect("no panic");
}

#[test]
fn a_pool_may_be_used_in_thread_local_destructors() {
    static RAN: AtomicUsize = AtomicUsize::new(0);
    for (capacity, track) in [(1, false), (100, false), (usize::MAX, false), (1, true)] {
        RAN.store(0, Ordering::SeqCst);
        let make: fn() -> u64 = || 0;
        let pool = Arc::new(
            Pool::builder()
                .capacity(capacity)
                .track_holders(track)
                .build(make),
        );
        at_exit(&pool, |pool| {
            for _ in 0..300 {
                let Ok(one) = pool.get();
                drop(one.into_owned());
                let Ok(one) = pool.get();
                pool.put_many([one]);
            }
            let mut some = Vec::new();
            if pool.get_many(40, &mut some).is_ok() {
                pool.put_many(some);
            }
            let one = pool.try_get().map_err(|_| ()).expect("all were returned");
            if pool.metrics().capacity == Some(1) {
                // Waits, in a destructor.
                assert!(pool.get_timeout(Duration::from_millis(2)).is_err());
            }
            drop(one);
            RAN.fetch_add(1, Ordering::SeqCst);
        });
        assert_eq!(RAN.load(Ordering::SeqCst), 2);
        assert_eq!(pool.metrics().in_use, 0);
        if capacity == 1 {
            assert!(pool.try_get().is_ok());
        }
    }
}

#[test]
fn the_last_handle_and_guards_may_go_in_thread_local_destructors() {
    struct Counted(Arc<AtomicUsize>);
    impl Drop for Counted {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
    fn guard<C: Fn() -> Counted>(pool: &Pool<Counted, C>) -> PooledOwned<Counted, C> {
        let Ok(one) = pool.get();
        one.into_owned()
    }
    let drops = Arc::new(AtomicUsize::new(0));
    for round in 0..200 {
        let counts = Arc::clone(&drops);
        thread::spawn(move || {
            let pool = Pool::new(move || Counted(Arc::clone(&counts)));
            let (a, b) = (guard(&pool), guard(&pool));
            drop(guard(&pool));
            if round % 2 == 0 {
                FIRST.with(|f| f.borrow_mut().0 = Some(Box::new(move || drop((pool, a)))));
                LAST.with(|l| l.borrow_mut().0 = Some(Box::new(move || drop(b))));
            } else {
                FIRST.with(|f| f.borrow_mut().0 = Some(Box::new(move || drop(b))));
                LAST.with(|l| l.borrow_mut().0 = Some(Box::new(move || drop((a, pool)))));
            }
        })
        .join()
        .expect("no panic");
    }
    assert_eq!(drops.load(Ordering::SeqCst), 600);
}
