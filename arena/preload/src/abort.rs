//! What `std` would have given: what to do on a panic, and the name of the
//! routine that unwinds.

use core::panic::PanicInfo;

use brickyard_arena::Arena;

/// The arena has types that own boxes, so the `alloc` crate is linked and asks
/// for an allocator. Nothing here makes a box.
#[global_allocator]
static GLOBAL: Arena = Arena::new();

/// Ends the process. No path of this crate or the arena panics on purpose.
#[panic_handler]
fn on_panic(_info: &PanicInfo<'_>) -> ! {
    // SAFETY: abort takes no arguments and does not return.
    unsafe { libc::abort() }
}

// The unwind tables of `core` name this routine; `core` is compiled with
// unwinding, although nothing here unwinds. A trap stands in for it. Hidden: a
// Rust program that unwinds must find the routine of its own `std`.
core::arch::global_asm!(
    ".pushsection .text.rust_eh_personality,\"ax\",@progbits",
    ".globl rust_eh_personality",
    ".hidden rust_eh_personality",
    ".type rust_eh_personality,@function",
    "rust_eh_personality:",
    "ud2",
    ".size rust_eh_personality, . - rust_eh_personality",
    ".popsection",
);
