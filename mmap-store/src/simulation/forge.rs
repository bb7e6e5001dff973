//! Forged files: what somebody wrote who knows the format, with every checksum right.
//!
//! What could go wrong: a page number, a length, a level or a bit of the free map is
//! believed, and opening, reading or writing panics, never ends, reads outside of the
//! file, or writes to a page that a reader is looking at. How it is seen: fields of a
//! sound disk are set to what hurts most, all checksums are made anew from the leaves to
//! the slots, and the disk is opened for reading and for writing, read and written to,
//! while slices that a reader holds are compared with their copies.
//!
//! The twin opens forged maps of free pages without the walk, and must see a slice change.

use core::panic::AssertUnwindSafe;
use std::collections::BTreeSet;
use std::sync::Arc;

use crate::backing::memory::{MemoryBacking, Wreck};
use crate::check::{Depth, check};
use crate::error::OpenError;
use crate::format::meta::Meta;
use crate::format::ring;
use crate::ids::{DIRTY_BIT, PAGE_BYTES};
use crate::shared::Durability;
use crate::simulation::crash::{MAP_BYTES, RING_BYTES, TABLES};
use crate::simulation::oracle::{Op, Oracle, Random};
use crate::store::{Options, Store};

/// More steps than that and a walk has no end.
const MOST_STEPS: usize = 1 << 22;

/// A disk, its newest slot decoded, and the nodes that it reaches.
struct Forgery {
    disk: Wreck,
    meta: Meta,
    nodes: Vec<u32>,
    leaves_of_tables: Vec<u32>,
}

fn at(page: u32, offset: usize) -> usize {
    page as usize * PAGE_BYTES + offset
}

impl Forgery {
    fn new(disk: Wreck) -> Self {
        let slots = [
            &disk.tree[..PAGE_BYTES],
            &disk.tree[PAGE_BYTES..2 * PAGE_BYTES],
        ];
        let slots = slots.iter().filter_map(|slot| Meta::decode(slot).ok());
        let meta = slots
            .max_by_key(|meta| meta.generation)
            .expect("a sound disk");
        let mut new = Self {
            disk,
            meta,
            nodes: Vec::new(),
            leaves_of_tables: Vec::new(),
        };
        new.seal();
        new
    }

    fn u16(&self, page: u32, offset: usize) -> usize {
        let bytes = &self.disk.tree[at(page, offset)..][..2];
        usize::from(u16::from_le_bytes([bytes[0], bytes[1]]))
    }

    fn put(&mut self, page: u32, offset: usize, bytes: &[u8]) {
        let place = at(page, offset);
        if let Some(to) = self.disk.tree.get_mut(place..place + bytes.len()) {
            to.copy_from_slice(bytes);
        }
    }

    fn u32(&self, page: u32, offset: usize) -> u32 {
        let bytes = self.disk.tree.get(at(page, offset)..at(page, offset) + 4);
        bytes.map_or(0, |bytes| {
            u32::from_le_bytes(bytes.try_into().expect("four"))
        })
    }

    /// Offset of each entry of a node, as far as it has any.
    fn entries(&self, page: u32) -> Vec<usize> {
        let count = self.u16(page, 2).min(600);
        let slots = 24 + self.u16(page, 4).next_multiple_of(4) + 4 * count;
        let offsets = (0..count).map(|index| slots + 2 * index);
        let offsets = offsets.filter(|&offset| offset + 2 <= PAGE_BYTES);
        let entries = offsets.map(|offset| self.u16(page, offset));
        entries.filter(|&entry| entry + 32 <= PAGE_BYTES).collect()
    }

    /// Where a leaf's value starts.
    fn value_at(&self, page: u32, entry: usize) -> usize {
        entry + 4 + self.u16(page, entry).saturating_sub(4)
    }

    /// Makes every checksum anew.
    fn seal(&mut self) {
        let (mut seen, root) = (BTreeSet::new(), self.meta.root.page);
        self.leaves_of_tables.clear();
        self.meta.root.crc = self.seal_node(root, true, &mut seen);
        self.nodes = seen.into_iter().collect();
        let map = at(self.meta.map.first, 0);
        let map_end = map.saturating_add(self.meta.map.pages as usize * PAGE_BYTES);
        let map = self.disk.tree.get(map..map_end).unwrap_or(&[]);
        self.meta.map_crc = crc32c::crc32c(map);
        let page = self.meta.encode();
        self.put(0, 0, &page[..]);
        self.put(1, 0, &page[..]);
    }

    fn crc(&self, page: u32) -> u32 {
        let bytes = self.disk.tree.get(at(page, 0)..at(page, PAGE_BYTES));
        bytes.map_or(0, crc32c::crc32c)
    }

    fn seal_node(&mut self, page: u32, of_tables: bool, seen: &mut BTreeSet<u32>) -> u32 {
        let inside = page >= 2 && at(page, PAGE_BYTES) <= self.disk.tree.len();
        if !inside || !seen.insert(page) {
            return self.crc(page);
        }
        let level = self.disk.tree[at(page, 1)];
        for entry in self.entries(page) {
            if level > 0 {
                let crc = self.seal_node(self.u32(page, entry + 2), of_tables, seen);
                self.put(page, entry + 6, &crc.to_le_bytes());
                continue;
            }
            let value = self.value_at(page, entry);
            if value + 16 > PAGE_BYTES {
                continue;
            }
            if of_tables {
                let crc = self.seal_node(self.u32(page, value), false, seen);
                self.put(page, value + 4, &crc.to_le_bytes());
            } else if self.u16(page, entry + 2) & 0x8000 != 0 {
                let start = at(self.u32(page, value), 0);
                let len = self.u32(page, value + 8) as usize;
                let bytes = self.disk.tree.get(start..start.saturating_add(len));
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
    fn page(&self, random: &mut Random) -> u32 {
        let node = self.nodes[random.below(self.nodes.len())];
        let len = self.meta.pages;
        let any = u32::try_from(random.below(len as usize + 2)).expect("small");
        let all = [
            0,
            1,
            2,
            len - 1,
            len,
            DIRTY_BIT,
            DIRTY_BIT | 1,
            u32::MAX,
            any,
        ];
        if random.below(3) > 0 {
            return node;
        }
        all[random.below(all.len())]
    }

    /// A number that hurts.
    fn number(random: &mut Random) -> u64 {
        let small = random.below(5000) as u64;
        [
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
        ][random.below(10)]
    }

    /// Sets one field to something that was never written there.
    fn forge(&mut self, random: &mut Random) {
        let node = self.nodes[random.below(self.nodes.len())];
        let entries = self.entries(node);
        let entry = if entries.is_empty() {
            24
        } else {
            entries[random.below(entries.len())]
        };
        let short = u16::try_from(Self::number(random) & 0xffff).expect("masked");
        let page = self.page(random).to_le_bytes();
        match random.below(13) {
            // A child, or in a leaf the lengths and the start of the key.
            0 | 1 => self.put(node, entry + 2, &page),
            2 => self.put(node, self.value_at(node, entry), &page),
            3 => {
                let len = Self::number(random).to_le_bytes();
                self.put(node, self.value_at(node, entry) + 8, &len);
            }
            4 => self.put(node, entry + 2 * random.below(2), &short.to_le_bytes()),
            5 => self.put(node, [2, 4, 6, 16][random.below(4)], &short.to_le_bytes()),
            6 => self.put(
                node,
                random.below(2),
                &[[0, 1, 2, 40, 41, 255][random.below(6)]],
            ),
            7 => self.put(node, 8, &Self::number(random).to_le_bytes()),
            8 => {
                let bytes = [random.below(256).to_le_bytes()[0]; 4];
                self.put(node, 24 + random.below(600), &bytes[..1 + random.below(4)]);
            }
            9 => self.forge_table(random, page),
            10 | 11 => self.forge_map(random, node),
            _ => self.forge_slot(random),
        }
    }

    /// A table with another's root, or with another length.
    fn forge_table(&mut self, random: &mut Random, page: [u8; 4]) {
        let leaf = self.leaves_of_tables[random.below(self.leaves_of_tables.len())];
        let entries = self.entries(leaf);
        let Some(&entry) = entries.get(random.below(entries.len().max(1))) else {
            return;
        };
        let value = self.value_at(leaf, entry);
        match random.below(3) {
            0 => self.put(leaf, value, &page),
            1 => {
                let other = self.value_at(leaf, entries[random.below(entries.len())]);
                let root = self.u32(leaf, other).to_le_bytes();
                self.put(leaf, value, &root);
            }
            _ => self.put(leaf, value + 8, &Self::number(random).to_le_bytes()),
        }
    }

    /// Live pages that the map calls free.
    fn forge_map(&mut self, random: &mut Random, node: u32) {
        let map = self.meta.map.first;
        let Some(&old) = self.disk.tree.get(at(map, node as usize / 8)) else {
            return;
        };
        match random.below(4) {
            0 => self.put(map, 0, &[0xff; 512]),
            1 => self.put(map, random.below(64), &[0xff; 4]),
            _ => {
                self.put(map, node as usize / 8, &[old | 1 << (node % 8)]);
            }
        }
    }

    fn forge_slot(&mut self, random: &mut Random) {
        let (number, page) = (Self::number(random), self.page(random));
        match random.below(9) {
            0 => self.meta.generation = number,
            1 => self.meta.txn = number,
            2 => self.meta.ring_start = number,
            3 => self.meta.root.page = page,
            4 => self.meta.pages = page,
            5 => self.meta.map.first = page,
            6 => self.meta.map.pages = page,
            7 => self.meta.ring_bytes = number,
            _ => self.forge_record(random),
        }
    }

    /// A record that is replayed, with operations of any form.
    fn forge_record(&mut self, random: &mut Random) {
        let mut record = vec![0; ring::HEADER_BYTES];
        for _ in 0..1 + random.below(4) {
            record.push([1, 2, 3][random.below(3)]);
            for _ in 0..3 {
                let len = [0, 1, 7, 2049, u32::MAX][random.below(5)];
                record.extend_from_slice(&len.to_le_bytes());
                record.resize(
                    record.len() + len.min(3000) as usize,
                    b"t\xff"[random.below(2)],
                );
            }
        }
        let seq = self.meta.txn.wrapping_add(1);
        ring::seal(&mut record, self.meta.salt, seq);
        let place = usize::try_from(self.meta.ring_start % RING_BYTES).expect("small");
        let len = record.len().min(self.disk.ring.len() - place);
        self.disk.ring[place..place + len].copy_from_slice(&record[..len]);
    }
}

fn sound(random: &mut Random) -> Forgery {
    let backing = Arc::new(MemoryBacking::new(MAP_BYTES, RING_BYTES).expect("address space"));
    let store = Options::new().open_backing(Arc::clone(&backing) as _, true);
    let store = store.expect("a new store");
    let mut ops: Vec<Op> = (0..400).map(|_| random.op()).collect();
    ops.push(Op::Commit(Durability::Durable));
    Oracle::new().drive(&store, &ops).expect("a sound disk");
    store.close().expect("a sound disk");
    Forgery::new(backing.wreck())
}

fn open(disk: &Wreck, options: &Options) -> Result<Store, OpenError> {
    let backing = MemoryBacking::with_content(MAP_BYTES, disk);
    options.open_backing(Arc::new(backing), true)
}

/// Reads whatever can be read, both ways; the number of errors.
fn read_all(store: &Store, random: &mut Random) -> usize {
    let (read, mut errors, mut steps) = (store.read(), 0, 0);
    for table in 0..TABLES {
        let Ok(Some(table)) = read.table(&format!("table {table}")) else {
            errors += 1;
            continue;
        };
        for backwards in [false, true] {
            let Ok(mut range) = table.range::<[u8]>(..) else {
                errors += 1;
                continue;
            };
            loop {
                let step = if backwards {
                    range.next_back()
                } else {
                    range.next()
                };
                steps += 1;
                assert!(steps < MOST_STEPS, "the walk ends");
                match step {
                    Ok(Some(_)) => {}
                    Ok(None) => break,
                    Err(_) => {
                        errors += 1;
                        break;
                    }
                }
            }
        }
        for _ in 0..10 {
            let key = random.key();
            errors += usize::from(table.get(&key).is_err());
            errors += usize::from(table.get_many(&[&key, &[]]).is_err());
        }
    }
    errors
}

/// Changes tables here and there and commits, several times, beside a reader. False if a
/// slice that the reader holds has changed.
fn write_beside_reader(store: &Store, random: &mut Random) -> bool {
    let read = store.read();
    let mut held: Vec<(&[u8], Vec<u8>)> = Vec::new();
    let tables: Vec<_> = (0..TABLES)
        .filter_map(|table| read.table(&format!("table {table}")).ok().flatten())
        .collect();
    for table in &tables {
        let Ok(mut range) = table.range::<[u8]>(..) else {
            continue;
        };
        while let Ok(Some((_, value))) = range.next()
            && held.len() < 2000
        {
            held.push((value, value.to_vec()));
        }
    }
    for round in 0..4 {
        let Ok(mut txn) = store.write() else {
            break;
        };
        for table in 0..TABLES {
            let Ok(mut table) = txn.table(&format!("table {table}")) else {
                continue;
            };
            for number in 0..12 {
                let key = random.key();
                let _ = table.delete(&key);
                let _ = table.put(&random.key(), &vec![number; 40 + random.below(4) * 900]);
            }
        }
        let _ = txn.commit();
        if round == 2 {
            let _ = store.checkpoint();
        }
    }
    held.iter().all(|(slice, copy)| *slice == copy.as_slice())
}

/// What became of forged disks.
#[derive(Debug, Default)]
struct Outcome {
    refused: usize,
    written: usize,
    errors: usize,
    changed: usize,
}

fn forgeries(count: usize, seed: u64) -> Outcome {
    let (mut random, options) = (Random::new(seed), Options::new());
    let mut outcome = Outcome::default();
    let mut whole = sound(&mut random);
    for number in 0..count {
        if number % 250 == 249 {
            whole = sound(&mut random);
        }
        let mut forged = Forgery {
            disk: whole.disk.clone(),
            meta: whole.meta,
            nodes: whole.nodes.clone(),
            leaves_of_tables: whole.leaves_of_tables.clone(),
        };
        for _ in 0..1 + random.below(3) {
            forged.forge(&mut random);
        }
        forged.seal();
        match open(&forged.disk, &options.clone().read_only(true)) {
            Ok(store) => {
                outcome.errors += read_all(&store, &mut random);
                outcome.errors += store.check().problems.len();
            }
            Err(_) => outcome.refused += 1,
        }
        let Ok(store) = open(&forged.disk, &options) else {
            outcome.refused += 1;
            continue;
        };
        outcome.written += 1;
        outcome.changed += usize::from(!write_beside_reader(&store, &mut random));
        outcome.errors += read_all(&store, &mut random);
        let nodes = check(store.shared(), Depth::Nodes);
        assert_eq!(
            nodes.problems,
            [],
            "what was opened for writing stays sound"
        );
    }
    outcome
}

#[test]
fn forged_files_give_errors_and_change_under_nobody() {
    let outcome = forgeries(3_000, 11);
    assert!(
        outcome.refused > 1000 && outcome.written > 100 && outcome.errors > 1000,
        "{outcome:?}"
    );
    assert_eq!(outcome.changed, 0, "{outcome:?}");
}

/// Without the walk, a map that calls live pages free changes slices under their reader,
/// if no assertion stumbles over it before.
#[test]
fn a_missing_walk_is_caught() {
    let mut random = Random::new(12);
    let mut whole = sound(&mut random);
    let mut options = Options::new();
    options.sabotage.believe_files = true;
    let disk = whole.disk.clone();
    let mut changed = || {
        whole.disk = disk.clone();
        let node = whole.nodes[random.below(whole.nodes.len())];
        whole.forge_map(&mut random, node);
        whole.seal();
        let store = open(&whole.disk, &options).expect("nothing looks at it");
        let write = AssertUnwindSafe(|| write_beside_reader(&store, &mut random));
        std::panic::catch_unwind(write).is_ok_and(|whole| !whole)
    };
    assert!((0..100).any(|_| changed()), "no slice changed");
}
