//! The handler of SIGSEGV: an access to a guarded block is explained, and then whoever was
//! asked before gets the signal, as for every other access.

use core::ffi::{c_int, c_void};

use crate::guard::explain;
use crate::os::{self, EarlierHandler, Fault};
use crate::sync::{AtomicBool, Lock, Ordering, RawLock};

/// The handler before ours. Held for a moment by the thread that installs ours; the handler
/// waits for it.
static EARLIER: Lock<Option<EarlierHandler>> = Lock::new(None);

/// Whether somebody has seen to it.
static INSTALLED: AtomicBool = AtomicBool::new(false);

/// Installs the handler, once a process. With the first guarded block and not before: then
/// most programs have set theirs, and Rust's for overflowing stacks is there.
pub(crate) fn install() {
    // Relaxed, here and below: says that the rest was done; nothing is read through it.
    if !INSTALLED.load(Ordering::Relaxed) {
        EARLIER.with(|earlier| {
            // Under the lock, for which a fork waits: a child has both or neither.
            if !INSTALLED.swap(true, Ordering::Relaxed) {
                *earlier = os::set_fault_handler(on_fault);
            }
        });
    }
}

extern "C" fn on_fault(signal: c_int, fault: *mut Fault, context: *mut c_void) {
    // SAFETY: the system called us for a SIGSEGV.
    explain(unsafe { os::fault_address(fault) });
    if let Some(earlier) = EARLIER.with(|earlier| *earlier) {
        // SAFETY: our own arguments, and we return after it.
        unsafe { os::pass_fault_on(&earlier, signal, fault, context) };
    }
}

/// The lock, for the fork handlers.
pub(crate) fn raw_lock() -> &'static RawLock {
    EARLIER.raw()
}
