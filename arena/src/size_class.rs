//! Size classes: which block serves which request. Pure tables, built at compile time.
//!
//! Blocks are 8 bytes, then every multiple of 16 up to 128, then four classes a doubling, but
//! eight from 1 KiB to 16 KiB (decision 015):
//!
//! ```text
//! 8 | 16 32 48 64 80 96 112 128 | 160 192 224 256 | 320 384 448 512 | 640 768 896 1024 |
//! 1152 1280 1408 … 1920 2048 | … | 9216 10240 … 15360 16384 | 20480 24576 28672 32768
//! ```
//!
//! At most 64 are possible: a set of classes is a word, and the state of a hardened block has
//! six bits for its class.
//!
//! **Worst-case internal waste** (block − request, over every request):
//!
//! | request, bytes | block is at most | waste at most |
//! |---|---|---|
//! | 1 – 8 | 8 | 7 bytes |
//! | 9 – 128 | request + 15 | 15 bytes |
//! | 129 – 1024 | 1.25 × request | 25 % of the request, 20 % of the block |
//! | 1025 – 16384 | 1.125 × request | 12.5 % of the request, 11.1 % of the block |
//! | 16385 – 32768 | 1.25 × request | 25 % of the request, 20 % of the block |
//! | 32769 – 1 MiB | request + 4095 | one granule less a byte (12.5 % of the request) |
//!
//! Up to 512 KiB a run that the thread had kept may be an eighth longer (`run_cache`).
//! Above 1 MiB a block is a mapping of its own; one that was kept may be reused for a
//! request of half its size, and for a block that grows to a quarter (`big`).
//!
//! `waste_is_within_the_documented_bounds` proves the first five rows over all sizes.

use crate::units::{CLASS_COUNT, ClassIndex, GRANULE_BYTES, MagazineIndex};

/// Largest request that a size class serves; above it memory comes in granules.
pub(crate) const MAX_SMALL_BYTES: usize = 32 * 1024;
/// Largest alignment that a size class serves: spans of the classes whose blocks are
/// multiples of more than a granule start on 64 KiB ([`span_align`]).
pub(crate) const MAX_SMALL_ALIGN: usize = MAX_SMALL_BYTES;
/// Requests up to here find their class in a byte table.
pub(crate) const TABLE_BYTES: usize = 1024;
/// Blocks from here on, and up to [`LAST_FINE`], are an eighth of a doubling apart: others above
/// 128 bytes a quarter.
const FIRST_FINE: u32 = 1024;
const LAST_FINE: u32 = 16 * 1024;
/// Index of the first class above [`TABLE_BYTES`].
const FIRST_COMPUTED: usize = 21;
/// Index of the first class above [`LAST_FINE`].
const FIRST_COARSE: usize = FIRST_COMPUTED + 4 * 8;

/// Block size of each class, in bytes.
// These tables are constants behind references, so that what is inlined into other crates folds
// them where the layout is known; a static of this crate would be read.
pub(crate) const BLOCK_BYTES: &[u32; CLASS_COUNT] = &block_bytes();
/// The same, with zeroes for all other bytes: an index that is one needs no check.
const BLOCK_BYTES_OF_BYTE: &[u32; 256] = &block_bytes_of_byte();
/// `ceil(2^32 / block size)`: turns a division by the block size into a multiplication.
static RECIPROCAL: [u64; CLASS_COUNT] = reciprocals();
/// Class of a request whose last byte is in the eight at `8 * index`.
const CLASS_OF_EIGHTS: &[u8; TABLE_BYTES / 8] = &class_table();
/// Magazine of a request of `16 * index` bytes at alignment 16.
pub(crate) const MAGAZINE_OF_SIXTEENTHS: &[u8; TABLE_BYTES / 16 + 1] = &magazine_table();

pub(crate) const fn block_bytes() -> [u32; CLASS_COUNT] {
    let mut sizes = [0; CLASS_COUNT];
    sizes[0] = 8;
    let mut class = 1;
    let mut size: u32 = 16;
    while class < CLASS_COUNT {
        sizes[class] = size;
        // Above 128 bytes the step is a part of the power of two below.
        let step = if size < 128 {
            16
        } else if size >= FIRST_FINE && size < LAST_FINE {
            (1 << (31 - size.leading_zeros())) / 8
        } else {
            (1 << (31 - size.leading_zeros())) / 4
        };
        size += step;
        class += 1;
    }
    sizes
}

const fn block_bytes_of_byte() -> [u32; 256] {
    let sizes = block_bytes();
    let mut out = [0; 256];
    let mut class = 0;
    while class < CLASS_COUNT {
        out[class] = sizes[class];
        class += 1;
    }
    out
}

const fn reciprocals() -> [u64; CLASS_COUNT] {
    let sizes = block_bytes();
    let mut out = [0; CLASS_COUNT];
    let mut class = 0;
    while class < CLASS_COUNT {
        out[class] = (1u64 << 32).div_ceil(sizes[class] as u64);
        class += 1;
    }
    out
}

const fn class_table() -> [u8; TABLE_BYTES / 8] {
    let sizes = block_bytes();
    let mut table = [0; TABLE_BYTES / 8];
    let mut eighth = 0;
    let mut class = 0;
    while eighth < TABLE_BYTES / 8 {
        if (eighth + 1) * 8 > sizes[class as usize] as usize {
            class += 1;
        }
        table[eighth] = class;
        eighth += 1;
    }
    table
}

const fn magazine_table() -> [u8; TABLE_BYTES / 16 + 1] {
    let classes = class_table();
    let mut table = [0; TABLE_BYTES / 16 + 1];
    let mut sixteenths = 0;
    while sixteenths <= TABLE_BYTES / 16 {
        // Nothing takes 16 bytes, too.
        let eighth = if sixteenths == 0 {
            1
        } else {
            2 * sixteenths - 1
        };
        table[sixteenths] = MagazineIndex::of(ClassIndex::new(classes[eighth] as usize)).byte();
        sixteenths += 1;
    }
    table
}

const _: () = {
    let sizes = block_bytes();
    assert!(sizes[CLASS_COUNT - 1] as usize == MAX_SMALL_BYTES);
    assert!(sizes[FIRST_COMPUTED - 1] as usize == TABLE_BYTES);
    assert!(sizes[FIRST_COARSE - 1] == LAST_FINE);
};

/// The class whose blocks hold `size` bytes at alignment `align`, or `None` when the
/// request is served in granules.
///
/// `align` is a power of two. Complexity: constant.
#[inline]
pub(crate) fn class_of(size: usize, align: usize) -> Option<ClassIndex> {
    class_of_common(size, align).or_else(|| class_of_slow(size, align))
}

/// [`class_of`] for the requests that nearly all are; `None` for the others, whatever
/// their class. Fast paths use it so that they hold no call but tail calls.
#[inline(always)]
pub(crate) fn class_of_common(size: usize, align: usize) -> Option<ClassIndex> {
    // Offset of the last byte of the request rounded up to its alignment, which finds a class of
    // that alignment (see `class_of_slow`). Of size 0 it is the greatest number.
    let last = size.wrapping_sub(1) | align.wrapping_sub(1);
    if last >= TABLE_BYTES {
        return None;
    }
    Some(class_of_table(last))
}

/// The table look-up of [`class_of`] for requests whose last byte is at `last`, below 1024.
#[inline(always)]
fn class_of_table(last: usize) -> ClassIndex {
    debug_assert!(last < TABLE_BYTES);
    // `min` cannot bind for the offsets in the contract; it lets the compiler see
    // that the index is in bounds.
    ClassIndex::new(CLASS_OF_EIGHTS[(last >> 3).min(TABLE_BYTES / 8 - 1)] as usize)
}

fn class_of_slow(size: usize, align: usize) -> Option<ClassIndex> {
    if align > MAX_SMALL_ALIGN || size > MAX_SMALL_BYTES {
        return None;
    }
    // A multiple of `align` finds a class whose block size is a multiple of `align`:
    // within a doubling the classes are a quarter or an eighth apart, so either `align` divides
    // the step, or the multiple is itself a class (test `blocks_are_aligned`).
    let rounded = (size.max(1) + align - 1) & !(align - 1);
    if rounded > MAX_SMALL_BYTES {
        return None;
    }
    if rounded <= TABLE_BYTES {
        return Some(class_of_table(rounded - 1));
    }
    let last = rounded - 1;
    let log = usize::BITS - 1 - last.leading_zeros();
    Some(ClassIndex::new(if rounded <= LAST_FINE as usize {
        let eighth = (last >> (log - 3)) & 7;
        FIRST_COMPUTED + (log as usize - 10) * 8 + eighth
    } else {
        // From 16 KiB to 32 KiB, the last doubling.
        FIRST_COARSE + ((last >> (log - 2)) & 3)
    }))
}

/// Bytes in a block of `class`.
#[inline]
pub(crate) fn block_size(class: ClassIndex) -> usize {
    BLOCK_BYTES_OF_BYTE[class.get()] as usize
}

/// Bytes in a block of each magazine, 0 for none.
const BLOCK_BYTES_OF_MAGAZINE: &[u32; (CLASS_COUNT + 1).next_power_of_two()] =
    &block_bytes_of_magazine();

const fn block_bytes_of_magazine() -> [u32; (CLASS_COUNT + 1).next_power_of_two()] {
    let sizes = block_bytes();
    let mut out = [0; (CLASS_COUNT + 1).next_power_of_two()];
    let mut class = 0;
    while class < CLASS_COUNT {
        out[MagazineIndex::of(ClassIndex::new(class)).get()] = sizes[class];
        class += 1;
    }
    out
}

/// Bytes in a block that goes to `magazine`; 0 for none.
#[inline]
pub(crate) fn block_size_of(magazine: MagazineIndex) -> usize {
    BLOCK_BYTES_OF_MAGAZINE[magazine.get() & (BLOCK_BYTES_OF_MAGAZINE.len() - 1)] as usize
}

/// Blocks in a span of each class.
static SPAN_BLOCKS: [u16; CLASS_COUNT] = span_block_counts();

const fn span_block_counts() -> [u16; CLASS_COUNT] {
    let sizes = block_bytes();
    let mut out = [0; CLASS_COUNT];
    let mut class = 0;
    while class < CLASS_COUNT {
        let bytes = granules_of(sizes[class] as usize) * GRANULE_BYTES;
        #[expect(clippy::cast_possible_truncation, reason = "at most 64 KiB / 8")]
        let blocks = (bytes / sizes[class] as usize) as u16;
        out[class] = blocks;
        class += 1;
    }
    out
}

/// Granules in a span of `class`: 64 KiB, or 128 KiB where fewer than eight blocks
/// would fit and the tail would be wide.
pub(crate) fn span_granules(class: ClassIndex) -> usize {
    granules_of(block_size(class))
}

pub(crate) const fn granules_of(block_bytes: usize) -> usize {
    if block_bytes <= 8192 { 16 } else { 32 }
}

/// Granules of which the start of a span of `class` must be a multiple, so that blocks
/// whose size is a multiple of an alignment have that alignment.
pub(crate) fn span_align(class: ClassIndex) -> usize {
    if block_size(class) % (2 * GRANULE_BYTES) == 0 {
        16
    } else {
        1
    }
}

/// Blocks in a span of `class`.
#[inline]
pub(crate) fn span_blocks(class: ClassIndex) -> usize {
    usize::from(SPAN_BLOCKS[class.get()])
}

/// Index of the block of `class` that holds the byte at `offset` in its span.
#[inline]
pub(crate) fn block_at(class: ClassIndex, offset: usize) -> usize {
    debug_assert!(offset < 1 << 17);
    // Exact for offsets below 2^17 (test `division_by_multiplication_is_exact`).
    ((offset as u64 * RECIPROCAL[class.get()]) >> 32) as usize
}

/// Blocks of `class` that lie in one cache line of 64 bytes, where lines hold whole blocks;
/// 1 for all other classes.
pub(crate) fn blocks_per_line(class: ClassIndex) -> usize {
    match block_size(class) {
        size @ (8 | 16 | 32) => 64 / size,
        _ => 1,
    }
}

/// Most entries a magazine of each class may hold: 128, and no more than 128 KiB of blocks.
pub(crate) const MAGAZINE_CAPACITIES: [u8; CLASS_COUNT] = magazine_capacities();
/// The same for look-ups at run time.
static CAPACITIES: [u8; CLASS_COUNT] = MAGAZINE_CAPACITIES;

const fn magazine_capacities() -> [u8; CLASS_COUNT] {
    let sizes = block_bytes();
    let mut out = [0; CLASS_COUNT];
    let mut class = 0;
    while class < CLASS_COUNT {
        let by_bytes = (128 * 1024) / sizes[class];
        #[expect(clippy::cast_possible_truncation, reason = "at most 128")]
        let entries = if by_bytes < 128 { by_bytes } else { 128 } as u8;
        out[class] = entries;
        class += 1;
    }
    out
}

/// Most entries a magazine of `class` may hold.
#[inline]
pub(crate) fn magazine_capacity(class: ClassIndex) -> usize {
    usize::from(CAPACITIES[class.get()])
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn waste_is_within_the_documented_bounds() {
        for size in 1..=MAX_SMALL_BYTES {
            let block = block_size(class_of(size, 1).unwrap());
            assert!(block >= size, "a block of {block} for {size} bytes");
            let bound = match size {
                1..=8 => 8,
                9..=128 => size + 15,
                1025..=16384 => size + size / 8,
                _ => size + size / 4,
            };
            assert!(
                block <= bound,
                "{size} bytes take {block}, the docs promise {bound}"
            );
        }
        assert_eq!(block_size(class_of(48, 8).unwrap()), 48);
    }

    #[test]
    fn magazines_have_the_blocks_of_their_classes() {
        assert_eq!(block_size_of(MagazineIndex::NONE), 0);
        for class in ClassIndex::all() {
            assert_eq!(block_size_of(MagazineIndex::of(class)), block_size(class));
        }
    }

    #[test]
    fn the_class_is_the_smallest_that_fits() {
        for size in 1..=MAX_SMALL_BYTES {
            let class = class_of(size, 1).unwrap();
            assert!(class.get() == 0 || block_size(ClassIndex::new(class.get() - 1)) < size);
        }
        assert_eq!(class_of(MAX_SMALL_BYTES + 1, 1), None);
        assert_eq!(class_of(usize::MAX, 1), None);
        assert_eq!(class_of(usize::MAX, 4096), None);
        assert_eq!(class_of(1, 65536), None);
    }

    #[test]
    fn blocks_are_aligned() {
        for shift in 0..=15 {
            let align = 1usize << shift;
            for size in 0..=MAX_SMALL_BYTES {
                if let Some(class) = class_of(size, align) {
                    assert_eq!(block_size(class) % align, 0, "{size} bytes at {align}");
                    assert!(block_size(class) >= size);
                    assert!(align <= span_align(class) * GRANULE_BYTES);
                }
            }
        }
    }

    #[test]
    fn division_by_multiplication_is_exact() {
        for class in ClassIndex::all() {
            for offset in 0..span_granules(class) * 4096 {
                assert_eq!(block_at(class, offset), offset / block_size(class));
            }
        }
    }
}
