//! What the children of a hardened process hand out after a fork.
//!
//! What could go wrong: all have the random numbers that their parent had, so a client of a server that
//! forks for each learns from its own child what the next one's will do. Alone in its program: another
//! thread's blocks would make the children differ.

#![cfg(not(loom))]

use brickyard_arena::Arena;

#[global_allocator]
static GLOBAL: Arena = Arena::builder().hardened(true).build();

/// A number that says which blocks come, and in which order.
fn order_of_blocks() -> u64 {
    let mut order = 0_u64;
    let mut kept: Vec<Box<[u8; 64]>> = Vec::with_capacity(256);
    for step in 0..5000 {
        kept.push(Box::new([0; 64]));
        let last = kept.last().expect("pushed just now");
        order = order.rotate_left(5) ^ last.as_ptr().addr() as u64;
        if kept.len() > 200 {
            kept.swap_remove(step * 7 % 200);
        }
    }
    order
}

#[test]
fn a_child_tells_nothing_of_what_the_next_hands_out() {
    let orders = [(); 2].map(|()| {
        let mut ends = [0; 2];
        // SAFETY: room for two descriptors; the child writes to one and ends at once.
        unsafe {
            assert_eq!(libc::pipe(ends.as_mut_ptr()), 0);
            let child = libc::fork();
            if child == 0 {
                let order = order_of_blocks();
                libc::write(ends[1], (&raw const order).cast(), 8);
                libc::_exit(0);
            }
            let mut order = 0_u64;
            assert_eq!(libc::read(ends[0], (&raw mut order).cast(), 8), 8);
            assert_eq!(libc::waitpid(child, core::ptr::null_mut(), 0), child);
            libc::close(ends[0]);
            libc::close(ends[1]);
            order
        }
    });
    assert_ne!(orders[0], orders[1]);
}
