//! Buffers by size class.
//!
//! What could go wrong: a buffer comes back with less room than its class says, and the next
//! user gets it; requests beyond all classes overflow; caches are bounded by the size of a
//! vector's header instead of its memory.

#![cfg(not(loom))]

use std::panic::catch_unwind;

use brickyard_pool::{BufferPool, Builder, DropReason};

#[test]
fn a_buffer_whose_memory_was_taken_or_shrunk_does_not_come_back() {
    let buffers = BufferPool::new();
    let mut one = buffers.get(3000);
    let taken = core::mem::take(&mut *one);
    drop((one, taken));
    let mut one = buffers.get(3000);
    assert!(one.capacity() >= 3000);
    one.shrink_to_fit();
    drop(one);
    assert!(buffers.get(3000).capacity() >= 3000);
    let too_small: u64 = buffers
        .metrics()
        .map(|(_, metrics)| metrics.dropped.by(DropReason::TooSmall))
        .sum();
    assert_eq!(too_small, 2);
}

#[test]
fn requests_at_the_edges_are_served() {
    let buffers = BufferPool::with(0, &Builder::new());
    assert!(buffers.get(0).is_empty());
    let buffers = BufferPool::with(usize::MAX, &Builder::new().capacity(0));
    assert!(buffers.get(100_000).capacity() >= 100_000);
    let beyond_memory = catch_unwind(|| BufferPool::new().get(usize::MAX));
    assert!(beyond_memory.is_err(), "as Vec::with_capacity");
}

#[test]
fn a_threads_cache_is_bounded_by_the_memory_of_buffers() {
    let buffers = BufferPool::with(1 << 20, &Builder::new().retain(0));
    drop((0..100).map(|_| buffers.get(1 << 20)).collect::<Vec<_>>());
    let bytes: usize = buffers
        .metrics()
        .map(|(room, metrics)| room * metrics.idle)
        .sum();
    assert!(bytes <= 2 << 20, "{} MiB are kept", bytes >> 20);
}

#[cfg(feature = "bytes")]
#[test]
fn frozen_bytes_go_back_to_their_pool_with_the_last_who_shares_them() {
    let buffers = BufferPool::new();
    let mut one = buffers.get(1_000);
    one.extend_from_slice(b"brickyard");
    let all = one.freeze();
    let part = all.slice(5..);
    drop(all);
    let in_use =
        |pool: &BufferPool| -> usize { pool.metrics().map(|(_, metrics)| metrics.in_use).sum() };
    assert_eq!((&part[..], in_use(&buffers)), (&b"yard"[..], 1));
    std::thread::scope(|scope| scope.spawn(move || drop(part)).join().expect("no panic"));
    assert_eq!(in_use(&buffers), 0);
    assert!(buffers.get(1_000).is_empty(), "it was reset");
    let created: u64 = buffers.metrics().map(|(_, metrics)| metrics.created).sum();
    assert_eq!(created, 1);
}
