//! The objects of a pool under test, which count themselves, and their recycler, which fails
//! on demand.

use core::pin::Pin;
use core::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::panic::resume_unwind;
use std::sync::Arc;

use brickyard_pool::{DropReason, Keep, Place, Placed, Recycle};

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

/// What all objects of one pool have in common. The driver takes steps one at a time, so all
/// of it is exact between steps.
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
    armed: AtomicU8,
}

impl Ledger {
    /// For a pool with this bound.
    #[must_use]
    pub fn new(capacity: usize) -> Arc<Self> {
        Arc::new(Self {
            capacity,
            live: AtomicUsize::new(0),
            created: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            unborn: AtomicU64::new(0),
            resets: AtomicU64::new(0),
            armed: AtomicU8::new(fault::NONE),
        })
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

    /// Takes a fault of this kind, if it is the one that is armed.
    fn strikes(&self, code: u8) -> bool {
        self.armed
            .compare_exchange(code, fault::NONE, SeqCst, SeqCst)
            .is_ok()
    }
}

const IDLE: u64 = 0x1d1e_1d1e_1d1e_1d1e;
const IN_USE: u64 = 0x0123_4567_89ab_cdef;
const GONE: u64 = 0xdead_dead_dead_dead;

/// An object: says who has it, and counts itself.
#[derive(Debug)]
pub struct Tracked {
    state: AtomicU64,
    ledger: Arc<Ledger>,
}

impl Tracked {
    /// A new object in nobody's hands.
    #[must_use]
    pub fn new(ledger: &Arc<Ledger>) -> Self {
        let live = ledger.live.fetch_add(1, SeqCst) + 1;
        assert!(live <= ledger.capacity, "{live} objects exist");
        Self {
            state: AtomicU64::new(IDLE),
            ledger: Arc::clone(ledger),
        }
    }

    /// The object has a user now, and had none before.
    pub fn begin_use(&self) {
        let before = self.state.swap(IN_USE, SeqCst);
        assert_eq!(before, IDLE, "somebody else has the object: {before:x}");
    }
}

impl Drop for Tracked {
    fn drop(&mut self) {
        let before = self.state.swap(GONE, SeqCst);
        assert!(
            before == IDLE || before == IN_USE,
            "dropped twice: {before:x}"
        );
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
        self.0.resets.fetch_add(1, SeqCst);
        let before = object.state.swap(IDLE, SeqCst);
        assert_eq!(before, IN_USE, "reset of what nobody used: {before:x}");
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
