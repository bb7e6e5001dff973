//! Bytes of a store, changed along `docs/format.md` and not along the library: damaged by
//! accident, or forged by somebody who knows the format, with every checksum right.

use std::collections::BTreeSet;

/// Bytes of a page.
const PAGE: usize = 4096;
/// A page number that no file has.
const NO_FILE: u32 = 1 << 31;
/// What a slot starts with.
const MARK: &[u8; 8] = b"BrickSt\x1a";
/// Bytes of a slot.
const SLOT: usize = 80;

/// Offsets of a slot's fields.
mod field {
    pub(super) const GENERATION: usize = 16;
    pub(super) const TXN: usize = 24;
    pub(super) const SALT: usize = 32;
    pub(super) const RING_START: usize = 40;
    pub(super) const ROOT: usize = 48;
    pub(super) const ROOT_CRC: usize = 52;
    pub(super) const PAGES: usize = 56;
    pub(super) const MAP: usize = 60;
    pub(super) const MAP_PAGES: usize = 64;
    pub(super) const MAP_CRC: usize = 68;
    pub(super) const RING_BYTES: usize = 72;
}

/// The two files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Image {
    /// Pages.
    pub tree: Vec<u8>,
    /// Records.
    pub ring: Vec<u8>,
}

impl Image {
    /// Changes some bytes of the tree, or in one of five cases of the ring. What is written
    /// there are fills of few different bytes: nobody makes a checksum of them.
    pub fn damage(&mut self, ring_too: bool, choose: &mut dyn FnMut(usize) -> usize) {
        for _ in 0..1 + choose(8) {
            let file = if ring_too && choose(5) == 0 {
                &mut self.ring
            } else {
                &mut self.tree
            };
            if file.is_empty() {
                continue;
            }
            let at = choose(file.len());
            let len = [1, 1, 2, 16, 600][choose(5)].min(file.len() - at);
            let byte = [0, 1, 0x7f, 0xff][choose(4)];
            file[at..at + len].fill(byte);
        }
    }

    /// Cuts one of the files.
    pub fn cut(&mut self, choose: &mut dyn FnMut(usize) -> usize) {
        let file = [&mut self.tree, &mut self.ring];
        let [tree, ring] = file;
        let file = if choose(4) == 0 { ring } else { tree };
        let len = choose(file.len() + 1);
        file.truncate(if choose(2) == 0 {
            len
        } else {
            len / PAGE * PAGE
        });
    }
}

/// A store that is being forged: its files, the newest slot, and what that reaches.
#[derive(Clone, Debug)]
pub struct Forgery {
    /// The files.
    pub image: Image,
    /// The newest slot, to be written into both.
    slot: Vec<u8>,
    nodes: Vec<u32>,
    leaves_of_tables: Vec<u32>,
}

fn at(page: u32, offset: usize) -> usize {
    page as usize * PAGE + offset
}

impl Forgery {
    /// Starts from the files of a sound store.
    ///
    /// # Panics
    ///
    /// Panics if neither slot has the mark.
    #[must_use]
    pub fn new(image: Image) -> Self {
        let slots = image.tree.chunks(PAGE).take(2);
        let slots = slots.filter(|slot| slot.starts_with(MARK));
        let newest = slots.max_by_key(|slot| {
            slot[field::GENERATION..][..8]
                .iter()
                .rev()
                .copied()
                .collect::<Vec<u8>>()
        });
        let slot = newest.expect("a sound store has a slot")[..SLOT].to_vec();
        let mut new = Self {
            image,
            slot,
            nodes: Vec::new(),
            leaves_of_tables: Vec::new(),
        };
        new.seal();
        new
    }

    /// Pages that hold nodes.
    #[must_use]
    pub fn nodes(&self) -> &[u32] {
        &self.nodes
    }

    fn short(&self, page: u32, offset: usize) -> usize {
        let bytes = self.image.tree.get(at(page, offset)..at(page, offset) + 2);
        bytes.map_or(0, |bytes| {
            usize::from(u16::from_le_bytes([bytes[0], bytes[1]]))
        })
    }

    fn word(&self, page: u32, offset: usize) -> u32 {
        let bytes = self.image.tree.get(at(page, offset)..at(page, offset) + 4);
        bytes.map_or(0, le)
    }

    fn put(&mut self, page: u32, offset: usize, bytes: &[u8]) {
        let place = at(page, offset);
        if let Some(to) = self.image.tree.get_mut(place..place + bytes.len()) {
            to.copy_from_slice(bytes);
        }
    }

    fn slot_word(&self, field: usize) -> u32 {
        le(&self.slot[field..field + 4])
    }

    fn slot_long(&self, field: usize) -> u64 {
        u64::from(self.slot_word(field)) | u64::from(self.slot_word(field + 4)) << 32
    }

    fn set_slot(&mut self, field: usize, bytes: &[u8]) {
        self.slot[field..field + bytes.len()].copy_from_slice(bytes);
    }

    /// Offset of each entry of a node, as far as it has any.
    fn entries(&self, page: u32) -> Vec<usize> {
        let count = self.short(page, 2).min(600);
        let slots = 24 + self.short(page, 4).next_multiple_of(4) + 4 * count;
        let offsets = (0..count).map(|index| slots + 2 * index);
        let offsets = offsets.filter(|&offset| offset + 2 <= PAGE);
        let entries = offsets.map(|offset| self.short(page, offset));
        entries.filter(|&entry| entry + 32 <= PAGE).collect()
    }

    /// Where a leaf's value starts.
    fn value_at(&self, page: u32, entry: usize) -> usize {
        entry + 4 + self.short(page, entry).saturating_sub(4)
    }

    /// Makes every checksum anew.
    pub fn seal(&mut self) {
        let (mut seen, root) = (BTreeSet::new(), self.slot_word(field::ROOT));
        self.leaves_of_tables.clear();
        let crc = self.seal_node(root, true, &mut seen);
        self.set_slot(field::ROOT_CRC, &crc.to_le_bytes());
        self.nodes = seen.into_iter().collect();
        let map = at(self.slot_word(field::MAP), 0);
        let map_end = map.saturating_add(self.slot_word(field::MAP_PAGES) as usize * PAGE);
        let map = crc32c::crc32c(self.image.tree.get(map..map_end).unwrap_or(&[]));
        self.set_slot(field::MAP_CRC, &map.to_le_bytes());
        let crc = crc32c::crc32c(&self.slot[16..]);
        self.set_slot(12, &crc.to_le_bytes());
        let slot = self.slot.clone();
        self.put(0, 0, &slot);
        self.put(1, 0, &slot);
    }

    fn crc(&self, page: u32) -> u32 {
        let bytes = self.image.tree.get(at(page, 0)..at(page, PAGE));
        bytes.map_or(0, crc32c::crc32c)
    }

    fn seal_node(&mut self, page: u32, of_tables: bool, seen: &mut BTreeSet<u32>) -> u32 {
        let inside = page >= 2 && at(page, PAGE) <= self.image.tree.len();
        if !inside || !seen.insert(page) {
            return self.crc(page);
        }
        let level = self.image.tree[at(page, 1)];
        for entry in self.entries(page) {
            if level > 0 {
                let crc = self.seal_node(self.word(page, entry + 2), of_tables, seen);
                self.put(page, entry + 6, &crc.to_le_bytes());
                continue;
            }
            let value = self.value_at(page, entry);
            if value + 16 > PAGE {
                continue;
            }
            if of_tables {
                let crc = self.seal_node(self.word(page, value), false, seen);
                self.put(page, value + 4, &crc.to_le_bytes());
            } else if self.short(page, entry + 2) & 0x8000 != 0 {
                let start = at(self.word(page, value), 0);
                let len = self.word(page, value + 8) as usize;
                let bytes = self.image.tree.get(start..start.saturating_add(len));
                let crc = bytes.map_or(0, crc32c::crc32c);
                self.put(page, value + 4, &crc.to_le_bytes());
            }
        }
        if of_tables && level == 0 {
            self.leaves_of_tables.push(page);
        }
        self.crc(page)
    }

    /// A page number that hurts.
    fn page(&self, choose: &mut dyn FnMut(usize) -> usize) -> u32 {
        let len = self.slot_word(field::PAGES);
        let any = u32::try_from(choose(len.min(1 << 16) as usize + 2)).unwrap_or(0);
        let all = [
            0,
            1,
            2,
            len.wrapping_sub(1),
            len,
            NO_FILE,
            NO_FILE | 1,
            u32::MAX,
            any,
        ];
        if choose(3) > 0 {
            return pick(&self.nodes, choose).unwrap_or(any);
        }
        all[choose(all.len())]
    }

    /// A number that hurts.
    fn number(choose: &mut dyn FnMut(usize) -> usize) -> u64 {
        let small = choose(5000) as u64;
        let all = [
            0,
            1,
            2,
            small,
            small * 4096,
            u64::MAX,
            u64::MAX - 8,
            1 << 63,
            (1 << 62) - 1,
            1 << 31,
        ];
        all[choose(all.len())]
    }

    /// Sets one field to something that was never written there.
    pub fn forge(&mut self, choose: &mut dyn FnMut(usize) -> usize) {
        let node = pick(&self.nodes, choose).unwrap_or(2);
        let entry = pick(&self.entries(node), choose).unwrap_or(24);
        let short = Self::number(choose).to_le_bytes();
        let page = self.page(choose).to_le_bytes();
        match choose(13) {
            // A child, or in a leaf the lengths and the start of the key.
            0 | 1 => self.put(node, entry + 2, &page),
            2 => self.put(node, self.value_at(node, entry), &page),
            3 => {
                let len = Self::number(choose).to_le_bytes();
                self.put(node, self.value_at(node, entry) + 8, &len);
            }
            4 => self.put(node, entry + 2 * choose(2), &short[..2]),
            5 => self.put(node, [2, 4, 6, 16][choose(4)], &short[..2]),
            6 => self.put(node, choose(2), &[[0, 1, 2, 40, 41, 255][choose(6)]]),
            7 => self.put(node, 8, &Self::number(choose).to_le_bytes()),
            8 => {
                let bytes = [choose(256).to_le_bytes()[0]; 4];
                self.put(node, 24 + choose(600), &bytes[..1 + choose(4)]);
            }
            9 => self.forge_table(choose, page),
            10 | 11 => self.forge_map(choose, node),
            _ => self.forge_slot(choose),
        }
    }

    /// A table with another's root, or with another length, or another schema.
    fn forge_table(&mut self, choose: &mut dyn FnMut(usize) -> usize, page: [u8; 4]) {
        let leaf = pick(&self.leaves_of_tables, choose).unwrap_or(2);
        let entries = self.entries(leaf);
        let Some(entry) = pick(&entries, choose) else {
            return;
        };
        let value = self.value_at(leaf, entry);
        match choose(4) {
            0 => self.put(leaf, value, &page),
            1 => {
                let other = pick(&entries, choose).unwrap_or(entry);
                let root = self.word(leaf, self.value_at(leaf, other)).to_le_bytes();
                self.put(leaf, value, &root);
            }
            2 => {
                let byte = [0, 1, 2, 12, 13, 255][choose(6)];
                self.put(leaf, value + 16 + choose(16), &[byte]);
            }
            _ => self.put(leaf, value + 8, &Self::number(choose).to_le_bytes()),
        }
    }

    /// Live pages that the map calls free.
    pub fn forge_map(&mut self, choose: &mut dyn FnMut(usize) -> usize, node: u32) {
        let map = self.slot_word(field::MAP);
        let Some(&old) = self.image.tree.get(at(map, node as usize / 8)) else {
            return;
        };
        match choose(4) {
            0 => self.put(map, 0, &[0xff; 512]),
            1 => self.put(map, choose(64), &[0xff; 4]),
            _ => {
                self.put(map, node as usize / 8, &[old | 1 << (node % 8)]);
            }
        }
    }

    fn forge_slot(&mut self, choose: &mut dyn FnMut(usize) -> usize) {
        let (number, page) = (Self::number(choose), self.page(choose));
        let (number, page) = (number.to_le_bytes(), page.to_le_bytes());
        match choose(9) {
            0 => self.set_slot(field::GENERATION, &number),
            1 => self.set_slot(field::TXN, &number),
            2 => self.set_slot(field::RING_START, &number),
            3 => self.set_slot(field::ROOT, &page),
            4 => self.set_slot(field::PAGES, &page),
            5 => self.set_slot(field::MAP, &page),
            6 => self.set_slot(field::MAP_PAGES, &page),
            7 => self.set_slot(field::RING_BYTES, &number),
            _ => self.forge_record(choose),
        }
    }

    /// A record that is replayed, with operations of any form.
    fn forge_record(&mut self, choose: &mut dyn FnMut(usize) -> usize) {
        let mut body = Vec::new();
        for _ in 0..1 + choose(4) {
            body.push([1, 2, 3, 4][choose(4)]);
            for _ in 0..3 {
                let len = [0, 1, 7, 2049, u32::MAX][choose(5)];
                body.extend_from_slice(&len.to_le_bytes());
                body.resize(body.len() + len.min(3000) as usize, b"t\xff"[choose(2)]);
            }
        }
        self.append(&body);
    }

    /// Puts a record of these operations, with its checksum, where recovery starts.
    fn append(&mut self, operations: &[u8]) {
        let seq = self.slot_long(field::TXN).wrapping_add(1);
        let salt = self.slot_long(field::SALT);
        let mut record = vec![0; 4];
        record.extend_from_slice(&u32::try_from(operations.len()).unwrap_or(0).to_le_bytes());
        record.extend_from_slice(&salt.to_le_bytes());
        record.extend_from_slice(&seq.to_le_bytes());
        record.extend_from_slice(operations);
        let crc = crc32c::crc32c(&record[4..]);
        record[..4].copy_from_slice(&crc.to_le_bytes());
        let bytes = self.image.ring.len() as u64;
        if bytes == 0 {
            return;
        }
        let place = usize::try_from(self.slot_long(field::RING_START) % bytes).unwrap_or(0);
        let len = record.len().min(self.image.ring.len() - place);
        self.image.ring[place..place + len].copy_from_slice(&record[..len]);
    }
}

fn le(bytes: &[u8]) -> u32 {
    bytes
        .iter()
        .rev()
        .fold(0, |word, &byte| word << 8 | u32::from(byte))
}

fn pick<T: Copy>(from: &[T], choose: &mut dyn FnMut(usize) -> usize) -> Option<T> {
    (!from.is_empty()).then(|| from[choose(from.len())])
}
