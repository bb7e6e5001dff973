//! Commits that are waited for without a thread.
//!
//! What could go wrong: a future never resolves, or resolves before its transaction
//! lasts; one that is dropped takes others along; the thread outlives its store. How it
//! is seen: an executor of a few lines polls by hand and notes who was woken, tokio runs
//! some hundred at once, and copies of the files are opened when a future resolves.
#![cfg(not(loom))]

use core::pin::Pin;
use core::sync::atomic::{AtomicUsize, Ordering};
use core::task::{Context, Poll, Waker};
use core::time::Duration;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::task::Wake;
use std::time::Instant;

use brickyard_store::{CommitError, CommitFuture, Options, Store};

/// Counts how often it was woken.
#[derive(Default)]
struct Bell(AtomicUsize);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

fn poll(future: &mut CommitFuture, waker: &Waker) -> Poll<Result<(), CommitError>> {
    Pin::new(future).poll(&mut Context::from_waker(waker))
}

/// Polls whenever it was woken, and never else.
fn block_on(mut future: CommitFuture) -> Result<(), CommitError> {
    let bell = Arc::new(Bell::default());
    let waker = Waker::from(Arc::clone(&bell));
    let mut heard = 0;
    let begin = Instant::now();
    loop {
        if let Poll::Ready(result) = poll(&mut future, &waker) {
            return result;
        }
        while bell.0.load(Ordering::SeqCst) == heard {
            assert!(begin.elapsed() < Duration::from_secs(60), "nobody wakes it");
            std::thread::yield_now();
        }
        heard = bell.0.load(Ordering::SeqCst);
    }
}

fn commit(store: &Store, n: u32) -> CommitFuture {
    let mut txn = store.write().expect("nothing failed yet");
    let mut table = txn.table("t").expect("sound");
    table.put(&n.to_be_bytes(), &[1; 100]).expect("sound");
    txn.commit_async().expect("room")
}

fn len(store: &Store) -> u64 {
    let read = store.read();
    let table = read.table("t").expect("sound");
    table.map_or(0, |table| table.len())
}

fn len_after_crash(dir: &Path) -> u64 {
    let copy = tempfile::tempdir().expect("a temporary folder");
    for name in ["tree", "ring", "lock"] {
        fs::copy(dir.join(name), copy.path().join(name)).expect("room for a copy");
    }
    len(&Store::open(copy.path()).expect("it opens"))
}

#[test]
fn a_future_resolves_when_the_transaction_lasts() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let store = Store::open(dir.path()).expect("a new store");
    for n in 0..20 {
        block_on(commit(&store, n)).expect("the disk works");
        assert_eq!(len(&store), u64::from(n) + 1, "readers see it");
        assert_eq!(len_after_crash(dir.path()), u64::from(n) + 1);
    }
}

#[test]
fn futures_may_be_dropped_moved_and_polled_by_others() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let store = Store::open(dir.path()).expect("a new store");
    let bells: Vec<_> = (0..3).map(|_| Arc::new(Bell::default())).collect();
    let mut kept = Vec::new();
    for n in 0..200 {
        let mut future = commit(&store, n);
        // Polled with one waker, then with another.
        let _ = poll(
            &mut future,
            &Waker::from(Arc::clone(&bells[n as usize % 3])),
        );
        let _ = poll(&mut future, Waker::noop());
        if n % 2 == 0 {
            kept.push(future);
        }
    }
    let waiter = std::thread::spawn(move || {
        for future in kept {
            block_on(future).expect("the disk works");
        }
    });
    waiter.join().expect("it resolves");
    block_on(commit(&store, 200)).expect("the disk works");
    assert_eq!(len(&store), 201, "also those that nobody waited for");
}

#[test]
fn a_closed_store_has_kept_its_promises() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let store = Store::open(dir.path()).expect("a new store");
    let futures: Vec<_> = (0..50).map(|n| commit(&store, n)).collect();
    store.close().expect("the disk works");
    for mut future in futures {
        let polled = poll(&mut future, Waker::noop());
        assert!(matches!(polled, Poll::Ready(Ok(()))), "{polled:?}");
    }
    // The thread is gone, and the lock with it.
    let store = Store::open(dir.path()).expect("it opens again");
    assert_eq!(len(&store), 50);
}

#[test]
fn what_changes_nothing_and_what_is_too_long_resolves_too() {
    let options = Options::new().ring_bytes(8 << 10);
    let store = options.open_in_memory().expect("address space");
    let txn = store.write().expect("nothing failed yet");
    block_on(txn.commit_async().expect("nothing to do")).expect("memory");
    let mut txn = store.write().expect("nothing failed yet");
    let mut table = txn.table("t").expect("sound");
    table.put(b"long", &[1; 100_000]).expect("sound");
    block_on(txn.commit_async().expect("memory")).expect("memory");
    // More of them than the ring takes at once: checkpoints come in between.
    for n in 0..500 {
        drop(commit(&store, n));
    }
    block_on(commit(&store, 500)).expect("memory");
    assert_eq!(len(&store), 502);
    assert_eq!(store.check().problems, []);
}

#[test]
fn a_runtime_drives_many_at_once() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .build()
        .expect("a runtime");
    let dir = tempfile::tempdir().expect("a temporary folder");
    let store = Arc::new(Store::open(dir.path()).expect("a new store"));
    runtime.block_on(async {
        let tasks: Vec<_> = (0..300)
            .map(|n| {
                let store = Arc::clone(&store);
                tokio::spawn(async move {
                    let future = commit(&store, n);
                    // The store is not borrowed any more, so that this may be awaited.
                    future.await
                })
            })
            .collect();
        for task in tasks {
            task.await.expect("no panic").expect("the disk works");
        }
    });
    assert_eq!(len_after_crash(dir.path()), 300);
}
