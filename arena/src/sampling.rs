//! Sampling for the heap profile: which allocations are sampled, where their blocks come
//! from, how their frees are seen, and the report.
//!
//! An allocation that counts for the profile first *spends* its bytes of the thread's
//! countdown. Where the next sample lies in them it takes the stack, and its block is a
//! run of whole granules, however small it is. That makes the free of a sample cheap to
//! see, and that of any other block cheaper still:
//!
//! | freed | a sample is told by |
//! |---|---|
//! | without a layout | the look-up that every such free makes: it finds a run, not a span |
//! | with a layout, by a name that profiles | an address that is a multiple of the granule, then `sample_filter` |
//! | with a layout, by another name | the span look-up, when the block leaves the magazine: late |
//! | above 32 KiB | `sample_filter` |
//!
//! (The idea is jemalloc's, which promotes sampled blocks to large ones for the same reason.)
//!
//! The estimate has no bias: every byte asked for has the same chance (`poisson`). What a
//! block gains by growing in place is spent like a new allocation's; what it gains within its size
//! class, or loses by shrinking in place, is not looked at.

use core::fmt;
use core::ptr;

use crate::config::Builder;
use crate::os;
use crate::process::{CORE, free_large, own_cache, with_cache};
use crate::profile::{Frames, PROFILE, Sum};
use crate::size_class::{block_size, class_of};
use crate::thread_cache::ThreadCache;
use crate::tls;
use crate::units::{Contents, GRANULE_BYTES};

/// Spends `bytes` of the calling thread's countdown; `false` when one of the functions below
/// has to decide.
#[inline(always)]
pub(crate) fn spend(bytes: usize) -> bool {
    tls::magazines().countdown.spend(bytes)
}

/// After [`spend`] refused: the block of an allocation if it is a sample, else null.
#[cold]
#[inline(never)]
pub(crate) fn sample(
    options: Option<&Builder>,
    size: usize,
    align: usize,
    contents: Contents,
) -> *mut u8 {
    let Some((cache, frames)) = stack_if_crossed(options, size) else {
        return ptr::null_mut();
    };
    let bytes = class_of(size, align).map_or(size, block_size);
    let block = CORE.alloc_large_with(cache, bytes, align, contents);
    if block.is_null() {
        return block;
    }
    if PROFILE.record(block.addr(), size, &frames) {
        CORE.after_slow_path(Some(cache));
        return block;
    }
    // SAFETY: allocated above, and nobody knows it.
    unsafe { CORE.free_large_with(cache, block) };
    ptr::null_mut()
}

/// The stack of an allocation of `bytes` in which the calling thread's next sample lies, and
/// the thread's cache. A thread that has none, at its very end, takes no samples.
fn stack_if_crossed(
    options: Option<&Builder>,
    bytes: usize,
) -> Option<(&'static ThreadCache, Frames)> {
    if own_cache().is_none() {
        with_cache(options, |_, _| ());
    }
    let (core, cache) = own_cache()?;
    if core.hardened {
        // A sample is a run of its own, which would take it out of what hardening checks.
        return None;
    }
    // Who refused may have been nobody's countdown: the thread had no cache yet, or a harvest was
    // under way. A cache that another thread had before goes on with its countdown.
    let countdown = &cache.magazines.countdown;
    if countdown.spend(bytes) || !countdown.crossed(bytes, PROFILE.mean()) {
        return None;
    }
    let frames = cache.magazines.countdown.once(|| {
        let mut frames = Frames::EMPTY;
        frames.depth = os::backtrace(&mut frames.addresses);
        frames
    })?;
    Some((cache, frames))
}

/// The block at `block` was resized without a copy: what it gained may hold a sample.
pub(crate) fn note_growth(block: *mut u8, old: usize, new: usize) {
    let grown = new.saturating_sub(old);
    if grown == 0 || class_of(new, 1).is_some() || spend(grown) {
        return;
    }
    if let Some((_, frames)) = stack_if_crossed(None, grown) {
        if !PROFILE.holds(block.addr()) {
            PROFILE.record(block.addr(), new, &frames);
        }
    }
}

/// Frees the block of a class's layout if it is a sample; `false` if it is none.
///
/// # Safety
///
/// As for [`core::alloc::GlobalAlloc::dealloc`].
#[inline(always)]
pub(crate) unsafe fn free_small(block: *mut u8, size: usize, align: usize) -> bool {
    // SAFETY: by contract.
    block.addr() % GRANULE_BYTES == 0
        && PROFILE.may_hold(block.addr())
        && unsafe { free_small_slow(block, size, align) }
}

/// # Safety
///
/// As for [`free_small`].
#[cold]
#[inline(never)]
unsafe fn free_small_slow(block: *mut u8, size: usize, align: usize) -> bool {
    if class_of(size, align).is_none() || !PROFILE.holds(block.addr()) {
        return false;
    }
    // SAFETY: by contract; a sample of a class's layout is a run of its own.
    unsafe { free_large(&CORE, block) };
    true
}

/// Writes the profile in the text form of gperftools.
pub(crate) fn write(out: &mut impl fmt::Write) -> fmt::Result {
    let stacks = || (0..).map_while(|index| PROFILE.stack(index));
    let (mut live, mut allocated) = (Sum::default(), Sum::default());
    for stack in stacks() {
        live.add(stack.allocated.less(stack.freed));
        allocated.add(stack.allocated);
    }
    write!(out, "heap profile: ")?;
    write_sums(out, live, allocated)?;
    writeln!(out, " @ heap_v2/{}", PROFILE.mean())?;
    for stack in stacks().filter(|stack| stack.allocated.blocks > 0) {
        write_sums(out, stack.allocated.less(stack.freed), stack.allocated)?;
        write!(out, " @")?;
        for address in stack.frames.as_slice() {
            write_address(out, *address)?;
        }
        writeln!(out)?;
    }
    writeln!(out, "# lost: {}", PROFILE.lost())?;
    writeln!(out, "\nMAPPED_LIBRARIES:")?;
    let mut result = Ok(());
    os::read_file(c"/proc/self/maps", |piece| {
        if let (Ok(text), Ok(())) = (core::str::from_utf8(piece), result) {
            result = out.write_str(text);
            return;
        }
        for byte in piece {
            let shown = if byte.is_ascii() { *byte } else { b'?' };
            result = result.and_then(|()| out.write_char(char::from(shown)));
        }
    });
    result
}

/// Writes ` {address:#x}`: of stacks, that is most of what is written.
fn write_address(out: &mut impl fmt::Write, address: usize) -> fmt::Result {
    const DIGITS: [u8; 16] = *b"0123456789abcdef";
    const MOST_DIGITS: usize = usize::BITS as usize / 4;
    let mut text = [b'0'; " 0x".len() + MOST_DIGITS];
    let (mut rest, mut start) = (address, text.len());
    for (index, slot) in text.iter_mut().enumerate().skip(3).rev() {
        (*slot, start) = (DIGITS[rest & 15], index);
        rest >>= 4;
        if rest == 0 {
            break;
        }
    }
    for (slot, byte) in text.iter_mut().take(start).rev().zip(*b"x0 ") {
        *slot = byte;
        start -= 1;
    }
    let text = text.get(start..).unwrap_or_default();
    out.write_str(core::str::from_utf8(text).unwrap_or_default())
}

fn write_sums(out: &mut impl fmt::Write, live: Sum, allocated: Sum) -> fmt::Result {
    let Sum { blocks, bytes } = live;
    write!(out, "{blocks}: {bytes} ")?;
    let Sum { blocks, bytes } = allocated;
    write!(out, "[{blocks}: {bytes}]")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_written_as_the_standard_library_does() {
        for address in [0, 1, 15, 16, 0xabc, 0x7f12_3456_789a, usize::MAX] {
            let mut text = String::new();
            write_address(&mut text, address).expect("strings take all");
            assert_eq!(text, format!(" {address:#x}"));
        }
    }
}
