//! Who reads which version.
//!
//! A thread gets a number when it begins its first transaction, and its name goes into a
//! list that it leaves when it ends. What a reader writes beside its version is there for
//! this report only: nothing depends on it.

use core::cell::Cell;
use core::panic::Location;
use core::time::Duration;
use std::collections::BTreeMap;

use crate::shared::Shared;
use crate::sync::{AtomicU64, Mutex, Ordering};
use crate::versions::Trace;

/// Names of the threads that have a number and a name.
static NAMES: Mutex<BTreeMap<u64, String>> = Mutex::new(BTreeMap::new());

thread_local! {
    static NUMBER: Cell<u64> = const { Cell::new(0) };
    static NAMED: Cell<Option<Named>> = const { Cell::new(None) };
}

/// An entry in `NAMES`, which ends with its thread.
struct Named(u64);

impl Drop for Named {
    fn drop(&mut self) {
        NAMES.lock().remove(&self.0);
    }
}

/// A number of this thread, from 1.
#[inline]
pub(crate) fn thread_number() -> u64 {
    NUMBER.with(|number| {
        if number.get() == 0 {
            number.set(new_number());
        }
        number.get()
    })
}

#[cold]
fn new_number() -> u64 {
    static THREADS: AtomicU64 = AtomicU64::new(1);
    // Relaxed: a counter that nothing is read through.
    let number = THREADS.fetch_add(1, Ordering::Relaxed);
    let current = std::thread::current();
    if let Some(name) = current.name() {
        // A thread that is ending has no place for it any more, and no name then.
        let kept = NAMED.try_with(|named| named.set(Some(Named(number))));
        if kept.is_ok() {
            NAMES.lock().insert(number, name.to_owned());
        }
    }
    number
}

/// One read transaction, as [`Store::readers`](crate::Store::readers) reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Reader {
    /// The last transaction that it sees.
    pub txn: u64,
    /// Transactions that were published since.
    pub behind: u64,
    /// A number of the thread that began it, counted from 1 in this process.
    pub thread: u64,
    /// The name of that thread, if it has one and still runs.
    pub thread_name: Option<String>,
    /// How long ago it began, with
    /// [`Options::trace_readers`](crate::Options::trace_readers).
    pub age: Option<Duration>,
    /// Where it began, with [`Options::trace_readers`](crate::Options::trace_readers).
    pub location: Option<&'static Location<'static>>,
    /// Pages that are kept for its version. A page that several versions see is counted
    /// with the newest of them. `None` while somebody writes.
    pub held_pages: Option<u64>,
}

impl Shared {
    /// What a reader that begins now leaves in its slot.
    #[inline]
    pub(crate) fn trace(&self, location: &'static Location<'static>) -> Trace {
        let thread = thread_number();
        match self.opened {
            None => Trace {
                thread,
                since_ms: 0,
                location: None,
            },
            Some(opened) => Trace {
                thread,
                since_ms: u64::try_from(opened.elapsed().as_millis()).unwrap_or(u64::MAX),
                location: Some(location),
            },
        }
    }

    /// The readers there are, the oldest version first.
    pub(crate) fn readers(&self) -> Vec<Reader> {
        let mut found = self.versions.readers();
        found.sort_unstable_by_key(|&(txn, trace)| (txn, trace.thread));
        let published = self.versions.last().txn;
        let held = self.head.try_lock().map(|mut head| {
            self.reclaim(&mut head);
            head.space.held_by_snapshot()
        });
        let names = NAMES.lock();
        let age = |trace: &Trace| {
            let now = self.opened?.elapsed();
            Some(now.saturating_sub(Duration::from_millis(trace.since_ms)))
        };
        let reader = |(txn, trace): (u64, Trace)| Reader {
            txn,
            behind: published.saturating_sub(txn),
            thread: trace.thread,
            thread_name: names.get(&trace.thread).cloned(),
            age: age(&trace),
            location: trace.location,
            held_pages: held
                .as_ref()
                .map(|held| held.get(&txn).copied().unwrap_or(0)),
        };
        found.into_iter().map(reader).collect()
    }
}
