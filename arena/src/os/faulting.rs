//! The handler of SIGSEGV and the one that was there before.

use core::ffi::{c_int, c_void};
use core::mem::MaybeUninit;
use core::ptr;

/// How the program took the signal before.
#[derive(Clone, Copy)]
pub(crate) struct EarlierHandler(libc::sigaction);

impl core::fmt::Debug for EarlierHandler {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_tuple("EarlierHandler")
            .field(&self.0.sa_sigaction)
            .finish()
    }
}

/// What the system calls.
pub(crate) type FaultHandler = extern "C" fn(c_int, *mut Fault, *mut c_void);

/// What the system says of a signal.
pub(crate) type Fault = libc::siginfo_t;

/// Has `handler` called on SIGSEGV, on the alternative stack if the thread has one; returns
/// the handler before it, or `None` when the system refuses.
pub(crate) fn set_fault_handler(handler: FaultHandler) -> Option<EarlierHandler> {
    let mut action = MaybeUninit::<libc::sigaction>::zeroed();
    let mut earlier = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: all zeroes is a `sigaction` with an empty mask; the pointers are valid, and
    // the handler has the signature that SA_SIGINFO asks for.
    unsafe {
        let action = action.assume_init_mut();
        action.sa_sigaction = handler as libc::sighandler_t;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_NODEFER;
        if libc::sigaction(libc::SIGSEGV, action, earlier.as_mut_ptr()) != 0 {
            return None;
        }
        Some(EarlierHandler(earlier.assume_init()))
    }
}

/// Address of the access that `fault` tells of.
///
/// # Safety
///
/// `fault` is what the system gave to a [`FaultHandler`].
pub(crate) unsafe fn fault_address(fault: *mut Fault) -> usize {
    // SAFETY: by contract it is that of a SIGSEGV, which has an address.
    unsafe { (*fault).si_addr().addr() }
}

/// Lets the earlier handler have the signal: calls it, or puts the system's default in force
/// again, which ends the process as soon as the access is repeated.
///
/// # Safety
///
/// The arguments are those of a [`FaultHandler`] that returns right after.
pub(crate) unsafe fn pass_fault_on(
    earlier: &EarlierHandler,
    signal: c_int,
    fault: *mut Fault,
    context: *mut c_void,
) {
    let handler = earlier.0.sa_sigaction;
    if handler == libc::SIG_DFL || handler == libc::SIG_IGN {
        // SAFETY: the action came from the system; `fault` is its own by contract.
        unsafe {
            libc::sigaction(signal, &raw const earlier.0, ptr::null_mut());
            // Sent and not caused: nothing repeats it.
            if (*fault).si_code <= 0 {
                libc::raise(signal);
            }
        }
    } else if earlier.0.sa_flags & libc::SA_SIGINFO != 0 {
        // SAFETY: with SA_SIGINFO the word is a function of three arguments, which are
        // the system's own.
        unsafe {
            let handler: FaultHandler = core::mem::transmute(handler);
            handler(signal, fault, context);
        }
    } else {
        // SAFETY: without SA_SIGINFO it is a function of one argument.
        unsafe {
            let handler: extern "C" fn(c_int) = core::mem::transmute(handler);
            handler(signal);
        }
    }
}
