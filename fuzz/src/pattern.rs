//! Content by which a block is known again.
//!
//! Every byte that is written is a function of the block's number and of its
//! offset, so that a block which was given out twice, moved without its bytes
//! or cleared behind the program's back shows it. Small blocks are written
//! whole; of larger ones the first bytes, the last bytes and some bytes of each
//! following OS page are, which keeps a program of some hundred blocks of
//! several MiB in the range of milliseconds and still touches each OS page:
//!
//! ```text
//!   0        WHOLE            4096·k             size - TAIL    size
//!   |########|...........|####|.............|####|.........|####|
//!                         STRIPE             STRIPE         TAIL
//! ```

/// Bytes at the start of a block that are all written.
const WHOLE: usize = 2048;

/// Distance of the stripes behind [`WHOLE`]; not more than an OS page has, so
/// that no OS page stays untouched.
const STRIDE: usize = 4096;

/// Bytes of a stripe.
const STRIPE: usize = 16;

/// Bytes at the end of a block that are all written.
const TAIL: usize = 64;

/// Compared against when zeroed memory was asked for.
static ZEROES: [u8; 4096] = [0; 4096];

/// A byte that is not what was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mismatch {
    /// Where in the block.
    pub offset: usize,
    /// What was written there.
    pub expected: u8,
    /// What was found.
    pub found: u8,
}

/// The byte that block `id` has at `offset`.
fn byte_at(id: u64, offset: usize) -> u8 {
    let word = (offset as u64 / 8)
        .wrapping_add(id.wrapping_mul(0x9E37_79B9_7F4A_7C15))
        .wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let word = word ^ (word >> 29);
    word.to_le_bytes()[offset % 8]
}

/// The parts of a block of `size` bytes that carry the pattern, disjoint and in
/// order.
fn parts(size: usize) -> impl Iterator<Item = core::ops::Range<usize>> {
    let head = size.min(WHOLE);
    let tail = size.saturating_sub(TAIL).max(head);
    let stripes = (1..=tail / STRIDE)
        .map(|page| page * STRIDE)
        .map(move |start| start..(start + STRIPE).min(tail))
        .filter(move |stripe| stripe.start >= head && !stripe.is_empty());
    core::iter::once(0..head)
        .chain(stripes)
        .chain(core::iter::once(tail..size))
}

/// Writes the pattern of block `id` over a block.
///
/// # Safety
///
/// `ptr` is valid for writes of `size` bytes, and nobody else uses them.
pub unsafe fn fill(ptr: *mut u8, size: usize, id: u64) {
    for part in parts(size) {
        // SAFETY: the part lies within `size`, of which the caller says that it
        // is ours to write; bytes have no alignment and no invalid value, and
        // writing through `u8` needs no initialised content because every byte
        // is stored, none is read, before the slice is gone.
        let bytes = unsafe { core::slice::from_raw_parts_mut(ptr.add(part.start), part.len()) };
        for (index, byte) in bytes.iter_mut().enumerate() {
            *byte = byte_at(id, part.start + index);
        }
    }
}

/// Compares the first `kept` bytes of a block with what [`fill`] wrote when the
/// block had `size` bytes.
///
/// # Errors
///
/// The first byte that differs.
///
/// # Safety
///
/// - `ptr` is valid for reads of `kept` bytes, `kept <= size`.
/// - `fill(_, size, id)` wrote them, or copies of them lie there.
pub unsafe fn check(ptr: *const u8, size: usize, kept: usize, id: u64) -> Result<(), Mismatch> {
    for part in parts(size) {
        let end = part.end.min(kept);
        if end <= part.start {
            continue;
        }
        // SAFETY: `part.start..end` lies within `kept`, valid by contract, and
        // was written by `fill`.
        let bytes = unsafe { core::slice::from_raw_parts(ptr.add(part.start), end - part.start) };
        for (index, &found) in bytes.iter().enumerate() {
            let offset = part.start + index;
            let expected = byte_at(id, offset);
            if found != expected {
                return Err(Mismatch {
                    offset,
                    expected,
                    found,
                });
            }
        }
    }
    Ok(())
}

/// Checks that each of `size` bytes is zero.
///
/// # Errors
///
/// The first byte that is not.
///
/// # Safety
///
/// `ptr` is valid for reads of `size` initialised bytes.
pub unsafe fn check_zero(ptr: *const u8, size: usize) -> Result<(), Mismatch> {
    // SAFETY: exactly the caller's promise.
    let bytes = unsafe { core::slice::from_raw_parts(ptr, size) };
    for (chunk, piece) in bytes.chunks(ZEROES.len()).enumerate() {
        if *piece == ZEROES[..piece.len()] {
            continue;
        }
        for (index, &found) in piece.iter().enumerate() {
            if found != 0 {
                let offset = chunk * ZEROES.len() + index;
                return Err(Mismatch {
                    offset,
                    expected: 0,
                    found,
                });
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A stripe left out, or written twice with two meanings, would let a
    /// damaged OS page pass.
    #[test]
    fn parts_are_disjoint_and_touch_every_os_page() {
        for size in (0..3 * STRIDE + 100).chain([1 << 20, (1 << 20) + 1]) {
            let mut end = 0;
            let mut touched = std::collections::BTreeSet::new();
            for part in parts(size) {
                assert!(
                    part.start >= end && part.end >= part.start,
                    "size {size}: {part:?}"
                );
                end = part.end;
                if !part.is_empty() {
                    touched.insert(part.start / STRIDE);
                    touched.insert((part.end - 1) / STRIDE);
                }
            }
            assert_eq!(end, size);
            assert_eq!(touched.len(), size.div_ceil(STRIDE), "size {size}");
        }
    }

    #[test]
    fn one_changed_byte_is_found_at_its_place() {
        let mut block = vec![0_u8; 10_000];
        for at in [0, 1, 2047, 4096, 4111, 9_936, 9_999] {
            // SAFETY: the vector has 10,000 bytes, ours alone.
            unsafe { fill(block.as_mut_ptr(), block.len(), 7) };
            block[at] ^= 1;
            // SAFETY: `fill` wrote the whole block above.
            let found = unsafe { check(block.as_ptr(), block.len(), block.len(), 7) };
            assert_eq!(found.map_err(|m| m.offset), Err(at));
            // SAFETY: as above, but for the bytes before the change.
            assert_eq!(unsafe { check(block.as_ptr(), block.len(), at, 7) }, Ok(()));
        }
    }

    #[test]
    fn a_byte_that_is_not_zero_is_found_at_its_place() {
        for at in [0, 4095, 4096, 9_999] {
            let mut block = vec![0_u8; 10_000];
            // SAFETY: the vector has 10,000 initialised bytes.
            assert_eq!(unsafe { check_zero(block.as_ptr(), block.len()) }, Ok(()));
            block[at] = 3;
            // SAFETY: as above.
            let found = unsafe { check_zero(block.as_ptr(), block.len()) };
            assert_eq!(found.map_err(|m| m.offset), Err(at));
        }
    }
}
