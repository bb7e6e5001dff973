//! What a driver may do to a pool.
//!
//! As in [`crate::op`], an operation names nothing absolutely: it says "the newest guard" or
//! "the third future", and the driver resolves that against what there is. So every sequence
//! is a legal program.

use arbitrary::Arbitrary;

use crate::op::Pick;

/// Threads that a driver keeps; real ones, which take steps by turns.
pub const THREADS: usize = 4;

/// Number of a thread, taken modulo [`THREADS`].
#[derive(Clone, Copy, Debug, Arbitrary)]
pub struct On(pub u8);

impl On {
    /// The thread's place in an array of [`THREADS`].
    #[must_use]
    pub fn index(self) -> usize {
        usize::from(self.0) % THREADS
    }
}

/// How a pool is built.
#[derive(Clone, Copy, Debug, Arbitrary)]
pub struct Setup {
    /// The bound.
    pub bound: Bound,
    /// Objects that may lie idle in the shared part, if limited.
    pub retain: Option<u8>,
    /// Objects from the start.
    pub prewarm: u8,
    /// Whether epochs of a microsecond drop what is idle.
    pub decays: bool,
    /// Whether holders are tracked, which closes all caches.
    pub tracks: bool,
    /// Whether a destructor panics as the pool is dropped.
    pub panics_at_close: bool,
}

/// The bound of a pool.
#[derive(Clone, Copy, Debug, Arbitrary)]
pub enum Bound {
    /// None.
    None,
    /// One to eight objects.
    Few(u8),
    /// Up to 256 objects: several magazines.
    Many(u8),
}

impl Bound {
    /// Most objects that may exist.
    #[must_use]
    pub fn capacity(self) -> usize {
        match self {
            Self::None => usize::MAX,
            Self::Few(objects) => 1 + usize::from(objects) % 8,
            Self::Many(objects) => 1 + usize::from(objects),
        }
    }
}

/// What goes wrong when an object is created, if one is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Arbitrary)]
pub enum CreateFault {
    /// Nothing.
    None,
    /// Nothing, either: faults are to be the exception.
    NoneAgain,
    /// The creator says that it cannot.
    Error,
    /// The creator panics.
    Panic,
    /// The creator panics when the object is in its slot already.
    PanicAfterwards,
}

/// What happens when an object is returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Arbitrary)]
pub enum PutFault {
    /// It is kept.
    None,
    /// It is kept.
    NoneAgain,
    /// `reset` panics.
    ResetPanics,
    /// `keep` panics.
    KeepPanics,
    /// `keep` says no.
    NotKept,
    /// `keep` says no, and the destructor panics.
    NotKeptAndDropPanics,
}

/// How one object is got.
#[derive(Clone, Copy, Debug, Arbitrary)]
pub enum How {
    /// `try_get`.
    Try,
    /// `get_timeout` that does not wait.
    NoTime,
    /// `get`, where it need not wait.
    Blocking,
}

/// One step of a program for a pool.
#[derive(Clone, Debug, Arbitrary)]
#[expect(missing_docs, reason = "which thread, which guard, what goes wrong")]
pub enum Op {
    /// Gets one object.
    Get {
        on: On,
        how: How,
        fault: CreateFault,
    },
    /// Gets many objects or none; through a batch, or each with its guard.
    GetMany { on: On, count: u8, batch: bool },
    /// Returns one object.
    Put { on: On, pick: Pick, fault: PutFault },
    /// Returns the newest objects; through a batch, or guard by guard.
    PutMany { on: On, count: u8, batch: bool },
    /// Drops an object instead of returning it.
    Discard { on: On, pick: Pick, panics: bool },
    /// Takes an object out for good.
    Detach { on: On, pick: Pick },
    /// Puts an object in that was made elsewhere.
    Attach { on: On },
    /// Makes a guard independent of the pool.
    IntoOwned { pick: Pick },
    /// Forgets a guard.
    Forget { pick: Pick },
    /// Drops what is idle.
    Trim { on: On, panics: bool },
    /// Creates objects ahead.
    Prewarm {
        on: On,
        objects: u8,
        fault: CreateFault,
    },
    /// Starts an asynchronous get and polls it once.
    StartWait { on: On, fault: CreateFault },
    /// Polls a future.
    PollWait {
        on: On,
        pick: Pick,
        fault: CreateFault,
    },
    /// Drops a future.
    DropWait { on: On, pick: Pick },
    /// A thread exits, another starts.
    Restart { on: On },
    /// Puts an object that was made elsewhere under a key.
    Insert { on: On },
    /// Puts a held object under a key.
    Publish { on: On, pick: Pick },
    /// Looks a key up and keeps the reference.
    Lookup { on: On, pick: Pick },
    /// Gives up a reference.
    Leave { on: On, pick: Pick, fault: PutFault },
    /// Removes a key.
    Remove { on: On, pick: Pick, fault: PutFault },
    /// Looks a stale key up, and removes it again.
    Stale { on: On, pick: Pick },
    /// Lists what is under keys.
    ListKeys { on: On },
}
