//! A node of a tree, read from untrusted bytes: 4-byte key heads in an array of their
//! own, so that a search touches one to three cache lines.
//!
//! A page is validated in full once, and yet nothing here relies on that: each length is
//! compared before it is used, once and where the compiler sees what follows from it.
//! What that costs, and why it stays: `docs/decisions/011-reading-nodes.md`.
//!
//! ```text
//!  0    1     2     4      6    8    16      18    19  24
//!  +----+-----+-----+------+----+----+-------+-----+---+--------+-------+-------+------+----+
//!  |kind|level|count|prefix|heap|born|garbage|shift| 0 | prefix | heads | slots | free |heap|
//!  |    |     |     |len   |    |    |       |     |   | + pad  | 4 × n | 2 × n |      |    |
//!  +----+-----+-----+------+----+----+-------+-----+---+--------+-------+-------+------+----+
//!
//!  leaf entry:   key len u16 | value len u16 (bit 15: large) | key from byte 4 | value
//!  inner entry:  key len u16 | child page u32 | child crc u32 | key from byte 4
//! ```
//!
//! Keys are stored without the node's common prefix; their lengths too. A head is the
//! first four bytes of what is left, zero-filled, as a big-endian number with its top bit
//! flipped: comparing heads as signed numbers compares keys, and SSE2 has only that.
//! The first key of an inner node is below every key, and is not looked at.
//!
//! The values of a leaf start at multiples of two to the power of `shift`. The bytes that
//! this leaves between entries count as garbage.
//!
//! Invariants that [`Node::validate`] checks:
//! - I1: header, prefix, heads and slots end at or before `heap`, and `heap` ≤ 4096.
//! - I2: every entry lies in the heap.
//! - I3: keys ascend strictly.
//! - I4: `garbage` + the bytes of all entries = 4096 − `heap`.
//! - I5: keys and values have lengths that the library writes; heads of shorter keys end
//!   in zeros.
//! - I6: values are aligned as `shift` says, which is at most 6, and 0 in inner nodes.
#![forbid(unsafe_code)]
#![deny(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::arithmetic_side_effects
)]

use core::cmp::Ordering;

use crate::error::Flaw;
use crate::format::bytes::{order, same, u16_at, u64_at};
use crate::format::heads::{Head, bytes_of, count_below, head_of, value_of};
use crate::format::table::LargeRef;
use crate::ids::{
    Alignment, Child, DIRTY_BIT, ENTRY_BYTES, INLINE_BYTES, MAX_KEY_BYTES, PAGE_BYTES, PageBuf,
};

pub(crate) const LEAF: u8 = 1;
pub(crate) const INNER: u8 = 2;
pub(crate) const HEADER_BYTES: usize = 24;
/// Bytes of an inner node's entry before its key.
const INNER_BYTES: usize = 10;
/// Bit 15 of a value's length: the value is a reference to pages of its own.
pub(crate) const LARGE_FLAG: u16 = 1 << 15;
/// A tree of 2³¹ pages with two children a node is lower.
pub(crate) const MAX_LEVEL: u8 = 40;
/// No leaf has more entries: each takes four bytes, a head and a slot.
pub(crate) const MOST_ENTRIES: u64 = 4096 / 10;

/// A node whose header and arrays were found to lie inside the page.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Node<'a> {
    page: &'a PageBuf,
    prefix: &'a [u8],
    heads: &'a [Head],
    slots: &'a [[u8; 2]],
    level: u8,
}

/// One entry, without the prefix and the head of its key.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry<'a> {
    /// Length of the key without the prefix.
    pub(crate) key_len: usize,
    /// The key from byte 4 after the prefix.
    pub(crate) rest: &'a [u8],
    /// Value, reference to a large value, or the eight bytes of a child.
    pub(crate) value: &'a [u8],
    /// The value is a reference.
    pub(crate) large: bool,
}

/// Where a key is or would be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) index: usize,
    pub(crate) exact: bool,
}

/// Where a search that looked at heads only has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Aim {
    /// The first entry whose head is not below the key's.
    pub(crate) low: usize,
    /// Its head is the key's, and the key has the node's prefix: whole keys decide.
    tied: bool,
}

/// The first entry of a leaf whose head is that of a key, to be looked at once it is there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hint<'a> {
    page: &'a PageBuf,
    index: usize,
    /// Where the entry begins.
    pub(crate) place: usize,
    prefix_len: usize,
}

impl<'a> Hint<'a> {
    /// The entry, if it is that of `key`, from which the hint was made. If not, one that
    /// follows may be: see [`Node::pick_behind`].
    #[inline(always)]
    pub(crate) fn entry(&self, key: &[u8]) -> Result<Option<Entry<'a>>, Flaw> {
        let suffix = key.get(self.prefix_len..).unwrap_or(&[]);
        let rest = suffix.get(4..).unwrap_or(&[]);
        let entry = leaf_entry(self.page, self.place).ok_or(Flaw::EntryBounds)?;
        let is_it = entry.key_len == suffix.len() && same(entry.rest, rest);
        Ok(is_it.then_some(entry))
    }
}

/// The entry that begins at `place` of a leaf.
#[inline]
fn leaf_entry(page: &PageBuf, place: usize) -> Option<Entry<'_>> {
    let (&[k0, k1, v0, v1], after) = page.get(place..)?.split_first_chunk()?;
    let key_len = usize::from(u16::from_le_bytes([k0, k1]));
    let (rest, tail) = after.split_at_checked(key_len.saturating_sub(4))?;
    let len = u16::from_le_bytes([v0, v1]);
    Some(Entry {
        key_len,
        rest,
        value: tail.get(..usize::from(len & !LARGE_FLAG))?,
        large: len & LARGE_FLAG != 0,
    })
}

impl<'a> Node<'a> {
    /// Reads the header; says what is wrong with it (I1).
    #[inline]
    pub(crate) fn parse(page: &'a PageBuf) -> Result<Self, Flaw> {
        Self::parse_page(page).ok_or(Flaw::Header)
    }

    #[inline]
    fn parse_page(page: &'a PageBuf) -> Option<Self> {
        // In an array the compiler knows all that is at a fixed place.
        let &[kind, level, c0, c1, p0, p1, h0, h1, ..] = page;
        let count = usize::from(u16::from_le_bytes([c0, c1]));
        let prefix_len = usize::from(u16::from_le_bytes([p0, p1]));
        let heap = usize::from(u16::from_le_bytes([h0, h1]));
        // The wrapping sums cannot wrap: each part is below 2^19.
        let heads = HEADER_BYTES.wrapping_add(prefix_len.wrapping_add(3) & !3);
        let slots = heads.wrapping_add(count.wrapping_mul(4));
        let end = slots.wrapping_add(count.wrapping_mul(2));
        let fits = match kind {
            LEAF => level == 0,
            INNER => level > 0 && level <= MAX_LEVEL && count > 0,
            _ => false,
        };
        if !fits || end > heap {
            return None;
        }
        page.get(..heap)?;
        Some(Self {
            page,
            prefix: page.get(HEADER_BYTES..)?.get(..prefix_len)?,
            heads: page.get(heads..slots)?.as_chunks().0,
            slots: page.get(slots..end)?.as_chunks().0,
            level,
        })
    }

    pub(crate) fn count(&self) -> usize {
        self.heads.len()
    }

    pub(crate) fn level(&self) -> u8 {
        self.level
    }

    pub(crate) fn is_leaf(&self) -> bool {
        self.level == 0
    }

    /// The transaction that wrote the page.
    pub(crate) fn born(&self) -> u64 {
        u64_at(self.page, 8).unwrap_or(0)
    }

    /// What the values of a leaf are aligned to; `None` if no leaf has that.
    pub(crate) fn alignment(&self) -> Option<Alignment> {
        let alignment = Alignment::from_shift(*self.page.get(18)?)?;
        let fits = self.is_leaf() || alignment == Alignment::NONE;
        (fits && !alignment.is_outside()).then_some(alignment)
    }

    /// Bytes in use: all but the free gap and the garbage that laying the node out anew
    /// would get back. What alignment leaves between values is garbage that it would not:
    /// half the alignment is taken for that, for each value.
    pub(crate) fn used_bytes(&self) -> usize {
        let between = self
            .alignment()
            .map_or(0, |alignment| alignment.bytes() >> 1);
        self.packed_bytes()
            .saturating_add(self.count().saturating_mul(between))
    }

    /// Without what alignment leaves between values.
    fn packed_bytes(&self) -> usize {
        let heap = usize::from(u16_at(self.page, 6).unwrap_or(0));
        let garbage = usize::from(u16_at(self.page, 16).unwrap_or(0));
        let front = HEADER_BYTES
            .wrapping_add(self.prefix.len().next_multiple_of(4))
            .wrapping_add(self.count().wrapping_mul(6));
        PAGE_BYTES
            .saturating_sub(heap)
            .saturating_sub(garbage)
            .saturating_add(front)
    }

    /// Bytes of an entry before its key.
    fn entry_header(&self) -> usize {
        if self.is_leaf() { 4 } else { INNER_BYTES }
    }

    /// The entry at `index`, checked to lie in the page.
    #[inline]
    pub(crate) fn entry(&self, index: usize) -> Result<Entry<'a>, Flaw> {
        self.entry_at(index).ok_or(Flaw::EntryBounds)
    }

    #[inline]
    fn entry_at(&self, index: usize) -> Option<Entry<'a>> {
        let place = self.place(index)?;
        if self.is_leaf() {
            return leaf_entry(self.page, place);
        }
        let (header, after) = self.page.get(place..)?.split_first_chunk::<INNER_BYTES>()?;
        let &[k0, k1, ..] = header;
        let key_len = usize::from(u16::from_le_bytes([k0, k1]));
        Some(Entry {
            key_len,
            rest: after.get(..key_len.saturating_sub(4))?,
            value: header.get(2..)?,
            large: false,
        })
    }

    /// The key of the entry at `index`: its length, and what follows its head.
    #[inline]
    fn key_at(&self, index: usize) -> Option<(usize, &'a [u8])> {
        let entry = self.page.get(self.place(index)?..)?;
        let key_len = usize::from(u16::from_le_bytes(*entry.first_chunk()?));
        let rest = entry.get(self.entry_header()..)?;
        Some((key_len, rest.get(..key_len.saturating_sub(4))?))
    }

    /// The child at `index` of an inner node.
    #[inline]
    pub(crate) fn child(&self, index: usize) -> Result<Child, Flaw> {
        if self.is_leaf() {
            return Err(Flaw::Level);
        }
        self.child_at(index).ok_or(Flaw::EntryBounds)
    }

    #[inline]
    fn child_at(&self, index: usize) -> Option<Child> {
        let entry = self.page.get(self.place(index)?..)?;
        let &[_, _, p0, p1, p2, p3, c0, c1, c2, c3] = entry.first_chunk::<INNER_BYTES>()?;
        Some(Child {
            page: u32::from_le_bytes([p0, p1, p2, p3]),
            crc: u32::from_le_bytes([c0, c1, c2, c3]),
        })
    }

    /// What all keys of the node begin with.
    #[inline]
    pub(crate) fn prefix(&self) -> &'a [u8] {
        self.prefix
    }

    /// The first four bytes that the key at `index` has after the prefix, filled up with
    /// zeros.
    pub(crate) fn head(&self, index: usize) -> Option<[u8; 4]> {
        self.heads.get(index).map(|&head| bytes_of(head))
    }

    /// Replaces `out` by the whole key at `index`.
    pub(crate) fn key_into(&self, index: usize, out: &mut Vec<u8>) -> Result<(), Flaw> {
        out.clear();
        if index == 0 && !self.is_leaf() {
            return Ok(());
        }
        let entry = self.entry(index)?;
        out.extend_from_slice(self.prefix);
        self.suffix_onto(index, &entry, out)
    }

    /// Appends what the key of `entry`, which is the one at `index`, has after the prefix.
    #[inline]
    pub(crate) fn suffix_onto(
        &self,
        index: usize,
        entry: &Entry<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), Flaw> {
        let head = self.head(index).ok_or(Flaw::EntryBounds)?;
        match head.get(..entry.key_len) {
            Some(short) => out.extend_from_slice(short),
            None => out.extend_from_slice(&head),
        }
        out.extend_from_slice(entry.rest);
        Ok(())
    }

    /// Finds `key` in a leaf, or the first separator not below it in an inner node.
    #[inline]
    pub(crate) fn search(&self, key: &[u8]) -> Result<Found, Flaw> {
        self.hit(key, self.aim(key))
    }

    /// The first half of a search, which touches the front of the page only.
    #[inline(always)]
    pub(crate) fn aim(&self, key: &[u8]) -> Aim {
        let first = usize::from(!self.is_leaf());
        let Some(suffix) = self.suffix_of(key) else {
            let below = key < self.prefix;
            let low = if below { first } else { self.count() };
            return Aim { low, tied: false };
        };
        let head = head_of(suffix);
        let heads = self.heads.get(first..).unwrap_or(&[]);
        let low = count_below(heads, head).wrapping_add(first);
        let tied = self.has_head(low, head);
        Aim { low, tied }
    }

    /// What `key` has after the prefix, if it has that.
    #[inline(always)]
    fn suffix_of<'k>(&self, key: &'k [u8]) -> Option<&'k [u8]> {
        let (front, suffix) = key.split_at_checked(self.prefix.len())?;
        same(front, self.prefix).then_some(suffix)
    }

    /// The second half, which looks at whole keys where heads do not decide.
    #[inline(always)]
    pub(crate) fn hit(&self, key: &[u8], aim: Aim) -> Result<Found, Flaw> {
        let low = aim.low;
        if !aim.tied {
            return Ok(Found {
                index: low,
                exact: false,
            });
        }
        let suffix = key.get(self.prefix.len()..).unwrap_or(&[]);
        self.search_ties(suffix, low, self.ties_end(low, head_of(suffix)))
    }

    /// The first half of a look-up in a leaf: the first entry that may have the key. `None`
    /// if none has.
    #[inline(always)]
    pub(crate) fn hint(&self, key: &[u8]) -> Option<Hint<'a>> {
        let aim = self.aim(key);
        if !aim.tied {
            return None;
        }
        Some(Hint {
            page: self.page,
            index: aim.low,
            place: self.place(aim.low)?,
            prefix_len: self.prefix.len(),
        })
    }

    /// The second half, where the hint's entry has another key: the entry of `key`, if one
    /// that follows is.
    #[inline(never)]
    pub(crate) fn pick_behind(
        &self,
        key: &[u8],
        hint: &Hint<'_>,
    ) -> Result<Option<Entry<'a>>, Flaw> {
        let suffix = key.get(self.prefix.len()..).unwrap_or(&[]);
        let (head, low) = (head_of(suffix), hint.index.wrapping_add(1));
        if !self.has_head(low, head) {
            return Ok(None);
        }
        let found = self.search_ties(suffix, low, self.ties_end(low, head))?;
        found.exact.then(|| self.entry(found.index)).transpose()
    }

    #[inline]
    fn has_head(&self, at: usize, head: i32) -> bool {
        self.heads
            .get(at)
            .is_some_and(|&each| value_of(each) == head)
    }

    /// Where the heads that equal `head`, as that at `low` does, end.
    #[inline]
    fn ties_end(&self, low: usize, head: i32) -> usize {
        // Most runs of equal heads are short; only long ones are worth a second search.
        let after = low.wrapping_add(1);
        if !self.has_head(after, head) {
            return after;
        }
        let heads = self.heads.get(after..).unwrap_or(&[]);
        head.checked_add(1).map_or(self.count(), |next| {
            count_below(heads, next).wrapping_add(after)
        })
    }

    /// Where in the page the entry at `index` says it begins.
    #[inline]
    pub(crate) fn place(&self, index: usize) -> Option<usize> {
        let slot = self.slots.get(index)?;
        Some(usize::from(u16::from_le_bytes(*slot)))
    }

    /// Binary search among the entries `low..high`, whose heads equal the key's.
    fn search_ties(&self, suffix: &[u8], mut low: usize, mut high: usize) -> Result<Found, Flaw> {
        let rest = suffix.get(4..).unwrap_or(&[]);
        while low < high {
            // Neither sum nor difference leaves the page's entries.
            let middle = low.wrapping_add(high.wrapping_sub(low) >> 1);
            let (key_len, other) = self.key_at(middle).ok_or(Flaw::EntryBounds)?;
            match order(other, rest).then(key_len.cmp(&suffix.len())) {
                Ordering::Less => low = middle.wrapping_add(1),
                Ordering::Greater => high = middle,
                Ordering::Equal => {
                    return Ok(Found {
                        index: middle,
                        exact: true,
                    });
                }
            }
        }
        Ok(Found {
            index: low,
            exact: false,
        })
    }

    /// Index of the child under which `key` lies.
    #[inline(always)]
    pub(crate) fn child_index(&self, key: &[u8]) -> Result<usize, Flaw> {
        let found = self.search(key)?;
        Ok(if found.exact {
            found.index
        } else {
            found.index.saturating_sub(1)
        })
    }

    /// Checks that children and large values lie in the file: a node that was read from
    /// one must not name what a transaction has in memory.
    pub(crate) fn names_file_pages(&self) -> Result<(), Flaw> {
        for index in 0..self.count() {
            let page = if self.is_leaf() {
                let entry = self.entry(index)?;
                if !entry.large {
                    continue;
                }
                LargeRef::decode(entry.value).ok_or(Flaw::Record)?.page
            } else {
                self.child(index)?.page
            };
            if page & DIRTY_BIT != 0 {
                return Err(Flaw::OutOfFile);
            }
        }
        Ok(())
    }

    /// Checks I5: what the editor counts on when it lays an entry out anew.
    fn validate_lengths(&self, entry: &Entry<'_>, head: [u8; 4]) -> Result<(), Flaw> {
        let key = self.prefix.len().wrapping_add(entry.key_len);
        let held = key.wrapping_add(entry.value.len());
        let long = self.is_leaf() && !entry.large;
        if key > MAX_KEY_BYTES || (long && (entry.value.len() > INLINE_BYTES || held > ENTRY_BYTES))
        {
            return Err(Flaw::EntryBounds);
        }
        // What the head has beyond the key would order it otherwise than the key does.
        if bytes_of(head)
            .iter()
            .skip(entry.key_len)
            .any(|&byte| byte != 0)
        {
            return Err(Flaw::KeyOrder);
        }
        Ok(())
    }

    /// Checks I2 to I5 (I1 is checked by `parse`).
    pub(crate) fn validate(&self) -> Result<(), Flaw> {
        let heap = usize::from(u16_at(self.page, 6).ok_or(Flaw::Header)?);
        let mut held = usize::from(u16_at(self.page, 16).ok_or(Flaw::Header)?);
        let first = usize::from(!self.is_leaf());
        let alignment = self.alignment().ok_or(Flaw::Header)?;
        let mut before: Option<(i32, &[u8], usize)> = None;
        for index in 0..self.count() {
            let entry = self.entry(index)?;
            let slot = self.place(index).ok_or(Flaw::Header)?;
            if slot < heap || (entry.large && entry.value.len() != 16) {
                return Err(Flaw::EntryBounds);
            }
            let start = slot.saturating_add(entry.rest.len());
            let start = start.saturating_add(self.entry_header());
            if self.is_leaf() && !entry.large && !start.is_multiple_of(alignment.bytes()) {
                return Err(Flaw::Alignment);
            }
            let value = if self.is_leaf() { entry.value.len() } else { 0 };
            held = held
                .wrapping_add(self.entry_header())
                .wrapping_add(entry.rest.len())
                .wrapping_add(value);
            if index < first {
                continue;
            }
            let head = self.heads.get(index).ok_or(Flaw::Header)?;
            self.validate_lengths(&entry, *head)?;
            let key = (value_of(*head), entry.rest, entry.key_len);
            if before.is_some_and(|before| before >= key) {
                return Err(Flaw::KeyOrder);
            }
            before = Some(key);
        }
        // The wrapping sums cannot lie: 600 entries of less than 64 KiB each.
        if held != PAGE_BYTES.saturating_sub(heap) {
            return Err(Flaw::EntryBounds);
        }
        Ok(())
    }
}
