//! Keys name one object each, and go stale with it.
//!
//! What could go wrong: a stale key finds the next object in the slot; of two that remove a
//! key both are told that they did; an object is returned while somebody reads it, or never;
//! the pool forgets objects under keys when it is dropped. Objects say by their value which
//! one they are, and count themselves.

#![cfg(not(loom))]

use core::sync::atomic::{AtomicUsize, Ordering};
use std::collections::HashSet;
use std::thread;

use brickyard_pool::{CreateReset, Key, Pool};

#[test]
fn a_stale_key_finds_nothing_although_its_slot_is_used_again() {
    let pool = Pool::builder().capacity(1).build(|| 0_u32);
    let mut stale = HashSet::new();
    for value in 0..1000 {
        let key = pool.insert(value).expect("the only place is free");
        assert_eq!(pool.lookup(key).as_deref(), Some(&value));
        assert!(stale.iter().all(|&old: &Key| pool.lookup(old).is_none()));
        assert!(pool.remove(key));
        assert!(!pool.remove(key), "removed twice");
        // The object is idle now; out with it, to make room.
        assert_eq!(pool.trim(), 1);
        assert!(stale.insert(key), "a key came twice");
    }
}

#[test]
fn a_removed_object_stays_for_its_reader_and_is_reset_once_after_it() {
    let resets = AtomicUsize::new(0);
    let Ok(pool) =
        Pool::builder().build_with(CreateReset::new(String::new, |text: &mut String| {
            resets.fetch_add(1, Ordering::SeqCst);
            text.clear();
        }));
    let key = pool.insert("brick".to_owned()).expect("no bound");
    let first = pool.lookup(key).expect("it is there");
    let second = pool.lookup(key).expect("it is there");
    assert!(pool.remove(key));
    assert!(pool.lookup(key).is_none());
    drop(first);
    assert_eq!(
        (second.as_str(), resets.load(Ordering::SeqCst)),
        ("brick", 0)
    );
    drop(second);
    assert_eq!(resets.load(Ordering::SeqCst), 1);
    assert_eq!(pool.metrics().idle, 1);
}

#[test]
fn foreign_numbers_find_nothing() {
    let pool = Pool::new(|| 0_u8);
    let key = pool.insert(1).expect("no bound");
    for bits in (0..64)
        .map(|bit| key.to_bits() ^ (1 << bit))
        .chain([u64::MAX, 1 << 63])
    {
        assert!(pool.lookup(Key::from_bits(bits)).is_none(), "{bits:x}");
        assert!(!pool.remove(Key::from_bits(bits)), "{bits:x}");
    }
    assert_eq!(pool.keyed().map(|one| one.key()).collect::<Vec<_>>(), [key]);
}

#[test]
fn of_many_that_remove_a_key_one_is_told_so() {
    let pool = Pool::new(|| 0_usize);
    let keys: Vec<Key> = (0..500)
        .map(|value| pool.insert(value).expect("no bound"))
        .collect();
    let removed = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for (value, &key) in keys.iter().enumerate() {
                    if let Some(found) = pool.lookup(key) {
                        assert_eq!(*found, value);
                    }
                    removed.fetch_add(usize::from(pool.remove(key)), Ordering::SeqCst);
                }
            });
        }
    });
    assert_eq!(removed.load(Ordering::SeqCst), keys.len());
    assert_eq!(pool.keyed().count(), 0);
    assert_eq!((pool.metrics().in_use, pool.metrics().idle), (0, 500));
}

#[test]
fn a_dropped_pool_drops_what_is_under_keys() {
    struct Counted<'c>(&'c AtomicUsize);
    impl Drop for Counted<'_> {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
    let drops = AtomicUsize::new(0);
    let pool = Pool::new(|| Counted(&drops));
    for _ in 0..10 {
        assert!(pool.insert(Counted(&drops)).is_ok());
    }
    drop(pool);
    assert_eq!(drops.load(Ordering::SeqCst), 10);
}
