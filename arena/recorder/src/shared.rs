//! What threads share: claims, and a list of things that are never given back.
//!
//! | field of a [`Node`] | who |
//! |---|---|
//! | `next` | written before the node is in a list, and by nobody later |
//! | `owned` | claimed by who wants the node for itself |
//! | `owner` | 0, or the thread that owns the node: written by it, or by who inherits the node from it |
//! | `lock` | claimed by who reads or writes `contents` |
//! | `contents` | who has the lock |
//!
//! Owner and lock are apart because a thread's node is also read when the process ends, by
//! another one. `tests/loom_shared.rs` has the models.

use core::ptr;

use crate::sync::{AtomicBool, AtomicPtr, AtomicU32, Ordering, UnsafeCell};

/// What one at a time has. Nobody waits here.
#[repr(transparent)]
pub(crate) struct Claim(AtomicBool);

/// A thing of a list. All zero bytes is one that nobody owns, if that is so for `T`.
#[repr(C)]
pub(crate) struct Node<T: 'static> {
    next: AtomicPtr<Self>,
    owned: Claim,
    owner: AtomicU32,
    lock: Claim,
    contents: UnsafeCell<T>,
}

/// A node whose lock is held.
pub(crate) struct Locked<T: 'static> {
    node: &'static Node<T>,
}

/// Nodes, the newest first.
pub(crate) struct List<T: 'static> {
    newest: AtomicPtr<Node<T>>,
}

// SAFETY: `contents` is reached through `Locked` only, which one at a time has; that hands
// it from thread to thread, for which it is `Send`. The rest is atomic.
unsafe impl<T: Send> Sync for Node<T> {}

impl Claim {
    #[cfg(not(loom))]
    pub(crate) const fn new() -> Self {
        Self(AtomicBool::new(false))
    }

    /// Whether it is the caller's now.
    pub(crate) fn take(&self) -> bool {
        // Acquire: pairs with the Release in `leave`. Relaxed on failure: nothing is read then.
        self.0
            .compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed)
            .is_ok()
    }

    /// Gives up what the caller has.
    pub(crate) fn leave(&self) {
        // Release: publishes what was done under the claim to the Acquire in `take`.
        self.leave_with(Ordering::Release);
    }

    /// The ordering is for the models.
    pub(crate) fn leave_with(&self, ordering: Ordering) {
        self.0.store(false, ordering);
    }
}

impl<T: Send> Node<T> {
    /// Makes the node that of the calling `thread`, unless it is somebody's.
    pub(crate) fn own(&self, thread: u32) -> bool {
        let owned = self.owned.take();
        if owned {
            // Relaxed: a number; what the owner before did comes with the lock.
            self.owner.store(thread, Ordering::Relaxed);
        }
        owned
    }

    /// Makes the node that of the calling `thread`, if its owner has ended without giving it up.
    ///
    /// Numbers of threads come again: an owner may be taken for one that lives, and is found later. That two
    /// inherit from one takes a number that comes again in between; they would share a node, one at a
    /// time.
    pub(crate) fn inherit(&self, thread: u32, has_ended: impl FnOnce(u32) -> bool) -> bool {
        // Relaxed, all: as in `own`.
        let owner = self.owner.load(Ordering::Relaxed);
        owner != 0
            && has_ended(owner)
            && self
                .owner
                .compare_exchange(owner, thread, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
    }

    /// Gives up a node that the caller owns.
    #[cfg(not(loom))]
    pub(crate) fn disown(&self) {
        // Relaxed: as in `own`.
        self.owner.store(0, Ordering::Relaxed);
        self.owned.leave();
    }

    /// Locks the node unless it is locked: by a signal handler's victim, or by who writes
    /// all of them at the end.
    pub(crate) fn lock(&'static self) -> Option<Locked<T>> {
        self.lock.take().then_some(Locked { node: self })
    }
}

impl<T: Send> Locked<T> {
    /// Lends the contents.
    pub(crate) fn with<R>(&mut self, f: impl FnOnce(&mut T) -> R) -> R {
        // SAFETY: the lock is held and `self` is borrowed, so nobody else has the contents.
        self.node
            .contents
            .with_mut(|contents| f(unsafe { &mut *contents }))
    }
}

impl<T> Drop for Locked<T> {
    fn drop(&mut self) {
        self.node.lock.leave();
    }
}

impl<T: Send> List<T> {
    #[cfg(not(loom))]
    pub(crate) const fn new() -> Self {
        Self {
            newest: AtomicPtr::new(ptr::null_mut()),
        }
    }

    /// Puts in a node that is in no list.
    #[cfg(not(loom))]
    pub(crate) fn push(&self, node: &'static Node<T>) {
        // Release: publishes `next` and what else the caller has written to the Acquire in `all`.
        self.push_with(node, Ordering::Release);
    }

    /// The ordering is for the models.
    pub(crate) fn push_with(&self, node: &'static Node<T>, ordering: Ordering) {
        // Relaxed: only put into `next`.
        let mut newest = self.newest.load(Ordering::Relaxed);
        loop {
            // Relaxed: published by the exchange below.
            node.next.store(newest, Ordering::Relaxed);
            // Relaxed on failure: `newest` is only put into `next`.
            match self.newest.compare_exchange_weak(
                newest,
                ptr::from_ref(node).cast_mut(),
                ordering,
                Ordering::Relaxed,
            ) {
                Ok(_) => return,
                Err(other) => newest = other,
            }
        }
    }

    /// All nodes, the newest first.
    pub(crate) fn all(&self) -> impl Iterator<Item = &'static Node<T>> {
        // Acquire: pairs with the Release in `push`. One is enough: an exchange that put a newer
        // node on top continues the release sequence of those below it.
        let mut next = self.newest.load(Ordering::Acquire);
        core::iter::from_fn(move || {
            // SAFETY: null, or a node that `push` was given by a reference without an end.
            let node = unsafe { next.as_ref() }?;
            // Relaxed: written before the node was published, and never later.
            next = node.next.load(Ordering::Relaxed);
            Some(node)
        })
    }
}

#[cfg(all(test, loom))]
mod models {
    use std::boxed::Box;

    use loom::sync::Arc;
    use loom::thread;

    use super::*;

    /// A thread's events: what it has kept, and what was written of it.
    #[derive(Default)]
    struct Events {
        kept: u32,
        written: u32,
    }

    fn list() -> Arc<List<Events>> {
        Arc::new(List {
            newest: AtomicPtr::new(ptr::null_mut()),
        })
    }

    /// A node that is owned, as a mapped one is before it is in the list. It is leaked, as
    /// buffers are; loom has nothing against it, for they hold none of its counted things.
    fn node() -> &'static Node<Events> {
        Box::leak(Box::new(Node {
            next: AtomicPtr::new(ptr::null_mut()),
            owned: Claim(AtomicBool::new(true)),
            owner: AtomicU32::new(1),
            lock: Claim(AtomicBool::new(false)),
            contents: UnsafeCell::new(Events::default()),
        }))
    }

    /// The ordering of each Release of this file.
    #[derive(Clone, Copy)]
    struct Orderings {
        leave: Ordering,
        push: Ordering,
    }

    const AS_BUILT: Orderings = Orderings {
        leave: Ordering::Release,
        push: Ordering::Release,
    };

    /// As `session::keep`: an event that finds the node locked is lost; whether it was kept.
    fn keep(node: &'static Node<Events>, leave: Ordering) -> bool {
        if !node.lock.take() {
            return false;
        }
        // SAFETY: loom checks that nobody else is there.
        node.contents
            .with_mut(|events| unsafe { (*events).kept += 1 });
        node.lock.leave_with(leave);
        true
    }

    /// As `session::finish` without patience: writes what each of the nodes has.
    fn finish(list: &List<Events>) {
        for node in list.all() {
            if let Some(mut locked) = node.lock() {
                locked.with(|events| events.written = events.kept);
            }
        }
    }

    /// A thread keeps two events while another writes what is there.
    fn a_thread_is_read_while_it_keeps(with: Orderings) {
        loom::model(move || {
            let (list, node) = (list(), node());
            list.push_with(node, with.push);
            let keeper = thread::spawn(move || {
                u32::from(keep(node, with.leave)) + u32::from(keep(node, with.leave))
            });
            finish(&list);
            let kept = keeper.join().unwrap();
            finish(&list);
            let mut locked = node.lock().expect("all are done");
            locked.with(|events| assert_eq!((events.kept, events.written), (kept, kept)));
        });
    }

    #[test]
    fn loom_a_thread_is_read_while_it_keeps() {
        a_thread_is_read_while_it_keeps(AS_BUILT);
    }

    #[test]
    #[should_panic(expected = "Causality violation")]
    fn loom_twin_a_lock_that_publishes_nothing() {
        a_thread_is_read_while_it_keeps(Orderings {
            leave: Ordering::Relaxed,
            ..AS_BUILT
        });
    }

    /// A thread leaves its node to the next, which finds it in the list and keeps its own
    /// events there. It does so without the lock, so that the claim alone is on trial.
    fn the_next_owner_goes_on(with: Orderings) {
        loom::model(move || {
            let (list, node) = (list(), node());
            list.push_with(node, with.push);
            let add = |node: &'static Node<Events>| {
                // SAFETY: loom checks that nobody else is there.
                node.contents
                    .with_mut(|events| unsafe { (*events).kept += 1 });
            };
            let first = thread::spawn(move || {
                add(node);
                node.owned.leave_with(with.leave);
            });
            let next = list.all().find(|node| node.own(2));
            if let Some(node) = next {
                add(node);
            }
            first.join().unwrap();
            let expected = 1 + u32::from(next.is_some());
            let mut locked = node.lock().expect("nobody locks it");
            locked.with(|events| assert_eq!(events.kept, expected));
        });
    }

    #[test]
    fn loom_the_next_owner_goes_on() {
        the_next_owner_goes_on(AS_BUILT);
    }

    #[test]
    #[should_panic(expected = "Causality violation")]
    fn loom_twin_an_owner_that_publishes_nothing() {
        the_next_owner_goes_on(Orderings {
            leave: Ordering::Relaxed,
            ..AS_BUILT
        });
    }

    /// A thread has ended without giving its node up; two others look for one at the same time. One
    /// of them goes on in it, where the first has stopped.
    fn one_inherits(inherit: fn(&Node<Events>, u32) -> bool) {
        loom::model(move || {
            let (list, node) = (list(), node());
            list.push_with(node, Ordering::Release);
            keep(node, Ordering::Release);
            let heir = move |thread| {
                let inherits = inherit(node, thread);
                if inherits {
                    assert!(keep(node, Ordering::Release), "another heir is there");
                }
                u32::from(inherits)
            };
            let other = thread::spawn(move || heir(2));
            let heirs = heir(3) + other.join().unwrap();
            assert_eq!(heirs, 1, "not one heir");
            let mut locked = node.lock().expect("all are done");
            locked.with(|events| assert_eq!(events.kept, 2));
        });
    }

    /// Of the threads of these models the first has ended.
    fn has_ended(thread: u32) -> bool {
        thread == 1
    }

    #[test]
    fn loom_one_inherits() {
        one_inherits(|node, thread| node.inherit(thread, has_ended));
    }

    /// The same with an heir that looks and then writes.
    #[test]
    #[should_panic(expected = "heir")]
    fn loom_twin_an_heir_that_does_not_exchange() {
        one_inherits(|node, thread| {
            // Relaxed, both: as in `inherit`.
            let inherits = has_ended(node.owner.load(Ordering::Relaxed));
            if inherits {
                node.owner.store(thread, Ordering::Relaxed);
            }
            inherits
        });
    }

    /// Two threads put nodes in, while a third goes through the list: who finds a node finds
    /// those below it, with what was written before they were put in.
    fn who_finds_a_node_finds_those_below(with: Orderings) {
        loom::model(move || {
            let list = list();
            let put = {
                let list = Arc::clone(&list);
                move || {
                    let node = node();
                    // SAFETY: nobody else knows the node.
                    node.contents
                        .with_mut(|events| unsafe { (*events).kept = 7 });
                    list.push_with(node, with.push);
                }
            };
            let pusher = thread::spawn(put.clone());
            let reader = {
                let list = Arc::clone(&list);
                thread::spawn(move || {
                    for node in list.all() {
                        let mut locked = node.lock().expect("nobody else locks");
                        locked.with(|events| assert_eq!(events.kept, 7));
                    }
                })
            };
            put();
            pusher.join().unwrap();
            reader.join().unwrap();
            assert_eq!(list.all().count(), 2, "a node is lost");
        });
    }

    #[test]
    fn loom_who_finds_a_node_finds_those_below() {
        who_finds_a_node_finds_those_below(AS_BUILT);
    }

    #[test]
    #[should_panic(expected = "Causality violation")]
    fn loom_twin_a_list_that_publishes_nothing() {
        who_finds_a_node_finds_those_below(Orderings {
            push: Ordering::Relaxed,
            ..AS_BUILT
        });
    }
}
