//! The objects of a pool under test, which count themselves, and their recycler, which fails
//! on demand.

use core::pin::Pin;
use core::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::panic::resume_unwind;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use brickyard_pool::{DropReason, Keep, Place, Placed, Recycle};

use crate::pool_lies::{Lie, Plant};
use crate::pool_op::{CreateFault, PutFault};

/// The payload of every panic that is planted.
#[derive(Debug)]
pub struct Planted;

fn panic_quietly() -> ! {
    // Past the panic hook: a run plants thousands.
    resume_unwind(Box::new(Planted))
}

/// Which fault the next callback meets; see [`Ledger::arm_create`] and the others.
mod fault {
    pub(super) const NONE: u8 = 0;
    pub(super) const CREATE_ERROR: u8 = 1;
    pub(super) const CREATE_PANIC: u8 = 2;
    pub(super) const CREATE_PANIC_AFTERWARDS: u8 = 3;
    pub(super) const RESET_PANIC: u8 = 4;
    pub(super) const KEEP_PANIC: u8 = 5;
    pub(super) const NOT_KEPT: u8 = 6;
    pub(super) const NOT_KEPT_DROP_PANIC: u8 = 7;
    pub(super) const DROP_PANIC: u8 = 8;
}

/// What all objects of one pool have in common. Exact whenever no thread is in a call.
#[derive(Debug)]
pub struct Ledger {
    capacity: usize,
    /// Objects that exist.
    pub live: AtomicUsize,
    /// Objects that the recycler has created.
    pub created: AtomicU64,
    /// Objects that are gone.
    pub dropped: AtomicU64,
    /// Objects that their creator dropped again, of which the pool knows nothing.
    pub unborn: AtomicU64,
    /// Calls of `reset`.
    pub resets: AtomicU64,
    /// Calls of `reset` for objects that their user never saw: a get of many that gave up.
    pub resets_unused: AtomicU64,
    armed: AtomicU8,
    /// The first promise that an object saw broken. Not a panic: objects are dropped while
    /// others unwind.
    violation: Mutex<Option<String>>,
    pub(crate) plant: Plant,
    /// The object created last, for [`Lie::TwoOwners`].
    newest: Mutex<Weak<Body>>,
}

impl Ledger {
    /// For a pool with this bound that tells this lie.
    #[must_use]
    pub fn new(capacity: usize, lie: Lie) -> Arc<Self> {
        Arc::new(Self {
            capacity,
            live: AtomicUsize::new(0),
            created: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            unborn: AtomicU64::new(0),
            resets: AtomicU64::new(0),
            resets_unused: AtomicU64::new(0),
            armed: AtomicU8::new(fault::NONE),
            violation: Mutex::new(None),
            plant: Plant::new(lie),
            newest: Mutex::new(Weak::new()),
        })
    }

    fn violate(&self, what: String) {
        let mut violation = self
            .violation
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        violation.get_or_insert(what);
    }

    /// The first promise that an object saw broken.
    pub fn violation(&self) -> Option<String> {
        let violation = self
            .violation
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        violation.clone()
    }

    /// Lets the next creation fail.
    pub fn arm_create(&self, how: CreateFault) {
        let code = match how {
            CreateFault::None | CreateFault::NoneAgain => fault::NONE,
            CreateFault::Error => fault::CREATE_ERROR,
            CreateFault::Panic => fault::CREATE_PANIC,
            CreateFault::PanicAfterwards => fault::CREATE_PANIC_AFTERWARDS,
        };
        self.armed.store(code, SeqCst);
    }

    /// Lets the next return end otherwise.
    pub fn arm_put(&self, how: PutFault) {
        let code = match how {
            PutFault::None | PutFault::NoneAgain => fault::NONE,
            PutFault::ResetPanics => fault::RESET_PANIC,
            PutFault::KeepPanics => fault::KEEP_PANIC,
            PutFault::NotKept => fault::NOT_KEPT,
            PutFault::NotKeptAndDropPanics => fault::NOT_KEPT_DROP_PANIC,
        };
        self.armed.store(code, SeqCst);
    }

    /// Lets the next destructor panic.
    pub fn arm_drop(&self, panics: bool) {
        let code = if panics {
            fault::DROP_PANIC
        } else {
            fault::NONE
        };
        self.armed.store(code, SeqCst);
    }

    /// Whether a fault is still armed; disarms it.
    pub fn disarm(&self) -> bool {
        self.armed.swap(fault::NONE, SeqCst) != fault::NONE
    }

    /// Takes a fault of this kind, if it is the one that is armed. A second panic on one
    /// thread would end the process.
    fn strikes(&self, code: u8) -> bool {
        let exchange = || {
            self.armed
                .compare_exchange(code, fault::NONE, SeqCst, SeqCst)
        };
        !std::thread::panicking() && exchange().is_ok()
    }
}

const IDLE: u64 = 0x1d1e_1d1e_1d1e_1d1e;
const IN_USE: u64 = 0x0123_4567_89ab_cdef;
const GONE: u64 = 0xdead_dead_dead_dead;

/// Who has an object.
#[derive(Debug)]
struct Body {
    state: AtomicU64,
}

/// An object: says who has it, and counts itself.
#[derive(Debug)]
pub struct Tracked {
    body: Arc<Body>,
    ledger: Arc<Ledger>,
    /// Whether the pool is to have it; else the bound does not allow it.
    counts: bool,
}

impl Tracked {
    /// A new object in nobody's hands.
    #[must_use]
    pub fn new(ledger: &Arc<Ledger>) -> Self {
        let live = ledger.live.fetch_add(1, SeqCst) + 1;
        if live > ledger.capacity {
            ledger.violate(format!("more than the bound: {live} objects exist"));
        }
        let mut newest = ledger.newest.lock().unwrap_or_else(PoisonError::into_inner);
        let body = match newest.upgrade() {
            Some(body) if ledger.plant.tells(Lie::TwoOwners) => body,
            _ => Arc::new(Body {
                state: AtomicU64::new(IDLE),
            }),
        };
        *newest = Arc::downgrade(&body);
        Self {
            body,
            ledger: Arc::clone(ledger),
            counts: true,
        }
    }

    /// An object that the pool is to refuse.
    #[must_use]
    pub fn surplus(ledger: &Arc<Ledger>) -> Self {
        let state = AtomicU64::new(IDLE);
        Self {
            body: Arc::new(Body { state }),
            ledger: Arc::clone(ledger),
            counts: false,
        }
    }

    /// The object has a user now, and had none before.
    pub fn begin_use(&self) {
        let before = self.body.state.swap(IN_USE, SeqCst);
        if before != IDLE {
            let what = format!("somebody else has the object: {before:x}");
            self.ledger.violate(what);
        }
    }

    /// Whether the object is in use, as its user left it.
    #[must_use]
    pub fn is_in_use(&self) -> bool {
        self.body.state.load(SeqCst) == IN_USE
    }

    /// Names the object among those that live.
    #[must_use]
    pub fn id(&self) -> usize {
        Arc::as_ptr(&self.body).addr()
    }

    fn end(&self) {
        let before = self.body.state.swap(GONE, SeqCst);
        if before != IDLE && before != IN_USE {
            self.ledger.violate(format!("dropped twice: {before:x}"));
        }
    }
}

impl Drop for Tracked {
    fn drop(&mut self) {
        if !self.counts {
            return;
        }
        self.end();
        if self.ledger.plant.tells(Lie::TwoDrops) {
            self.end();
        }
        self.ledger.dropped.fetch_add(1, SeqCst);
        self.ledger.live.fetch_sub(1, SeqCst);
        if self.ledger.strikes(fault::DROP_PANIC) {
            panic_quietly();
        }
    }
}

/// Creates and resets [`Tracked`].
#[derive(Debug)]
pub struct Recycler(pub Arc<Ledger>);

/// The creator's planted error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotNow;

impl Recycle<Tracked> for Recycler {
    type Error = NotNow;

    fn create<'p>(&self, place: Place<'p, Tracked>) -> Result<Placed<'p, Tracked>, NotNow> {
        if self.0.strikes(fault::CREATE_ERROR) {
            return Err(NotNow);
        }
        if self.0.strikes(fault::CREATE_PANIC) {
            panic_quietly();
        }
        self.0.created.fetch_add(1, SeqCst);
        let placed = place.write(Tracked::new(&self.0));
        if self.0.strikes(fault::CREATE_PANIC_AFTERWARDS) {
            self.0.unborn.fetch_add(1, SeqCst);
            panic_quietly();
        }
        Ok(placed)
    }

    fn reset(&self, object: Pin<&mut Tracked>) {
        if self.0.plant.tells(Lie::NoReset) {
            object.body.state.store(IDLE, SeqCst);
            return;
        }
        self.note_reset(&object);
        if self.0.plant.tells(Lie::TwoResets) {
            self.note_reset(&object);
        }
        if self.0.strikes(fault::RESET_PANIC) {
            panic_quietly();
        }
    }

    fn keep(&self, _: &Tracked) -> Keep {
        if self.0.strikes(fault::KEEP_PANIC) {
            panic_quietly();
        }
        if self.0.strikes(fault::NOT_KEPT) {
            return Keep::Drop(DropReason::Broken);
        }
        if self.0.strikes(fault::NOT_KEPT_DROP_PANIC) {
            self.0.armed.store(fault::DROP_PANIC, SeqCst);
            return Keep::Drop(DropReason::Expired);
        }
        Keep::Keep
    }
}

impl Recycler {
    fn note_reset(&self, object: &Tracked) {
        let ledger = &self.0;
        ledger.resets.fetch_add(1, SeqCst);
        if object.body.state.swap(IDLE, SeqCst) != IN_USE {
            ledger.resets_unused.fetch_add(1, SeqCst);
        }
    }
}
