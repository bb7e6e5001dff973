//! Opening: the newest valid slot, then the ring.
//!
//! Replaying executes the records as transactions of their own, on pages that the slot
//! says are free; dying meanwhile changes nothing that the next open looks at. A
//! checkpoint with a new salt ends it: what lies in the ring from before can never be
//! taken for a record of what follows.

use core::hash::BuildHasher;
use std::collections::hash_map::RandomState;
use std::sync::{Arc, Weak};
use std::time::Instant;

use crate::backing::Backing;
use crate::check::{self, Depth};
use crate::checkpoint::NO_MAP;
use crate::error::{CommitError, Flaw, OpenError};
use crate::format::meta::{FORMAT, Meta, SlotError};
use crate::format::ring::{self, ALIGN_BYTES, Change, Found, HEADER_BYTES, MOST_RING_BYTES};
use crate::format::table::decode_schema;
use crate::group::Group;
use crate::ids::{DIRTY_BIT, Extent, FIRST_PAGE, MOST_COUNT, PAGE_BYTES, PAGE_BYTES_U64};
use crate::pages::Pages;
use crate::shared::{Durability, Durable, EMPTY, Head, Shared, SweepPlace};
use crate::space::Space;
use crate::sync::Mutex;
use crate::txn::write::WriteTxn;
use crate::versions::{Version, Versions};
use crate::worker::{Bell, Worker};

/// A file that may be what a creation left that was cut short is at most this long.
const NEW_PAGES: u32 = 4096;

/// What opening found.
enum State {
    New,
    Slot(Meta),
}

/// How to open.
#[derive(Clone, Copy, Debug)]
pub(crate) struct How {
    pub(crate) read_only: bool,
    /// An empty backing may become a store.
    pub(crate) create: bool,
    pub(crate) durability: Durability,
    pub(crate) checkpoint_thread: bool,
    pub(crate) checkpoint_budget: u32,
    pub(crate) trace_readers: bool,
    /// Walk everything before anything is trusted, not only what writing relies on.
    pub(crate) check: bool,
    #[cfg(test)]
    pub(crate) sabotage: crate::shared::Sabotage,
}

/// Opens the store that `backing` keeps.
pub(crate) fn open(backing: Arc<dyn Backing>, how: How) -> Result<Shared, OpenError> {
    let io = |action| {
        move |source| OpenError::Io {
            action,
            path: "the store's files".into(),
            source,
        }
    };
    let found = backing.pages().map_err(io("measure"))?;
    let ring = backing.read_ring(MOST_RING_BYTES).map_err(io("read"))?;
    let (meta, is_new) = match choose(&*backing, found)? {
        State::Slot(meta) => (meta, false),
        State::New if how.create && !how.read_only => (blank(found, ring.len() as u64), true),
        State::New if found < FIRST_PAGE => {
            return Err(OpenError::Truncated {
                file: "tree",
                found: u64::from(found),
                expected: u64::from(FIRST_PAGE),
            });
        }
        State::New => return Err(OpenError::Foreign),
    };
    let whole = usize::try_from(meta.ring_bytes).unwrap_or(usize::MAX);
    let ring = ring.get(..whole).ok_or(OpenError::Truncated {
        file: "ring",
        found: pages_of(ring.len()),
        expected: meta.ring_bytes / PAGE_BYTES_U64,
    })?;
    if meta.pages > found {
        return Err(OpenError::Truncated {
            file: "tree",
            found: u64::from(found),
            expected: u64::from(meta.pages),
        });
    }
    let shared = assemble(backing, &meta, how)?;
    #[cfg(test)]
    let walks = !how.read_only && !how.sabotage.believe_files;
    #[cfg(not(test))]
    let walks = !how.read_only;
    if !is_new && (how.check || walks) {
        let depth = if how.check { Depth::All } else { Depth::Nodes };
        let report = check::check(&shared, depth);
        if let Some(first) = report.problems.first() {
            return Err(OpenError::Unsound {
                problems: report.problems.len(),
                first: first.clone(),
            });
        }
    }
    let replayed = shared.replay(ring, &meta, how.read_only)?;
    if how.read_only {
        return if replayed {
            Err(OpenError::NeedsRecovery)
        } else {
            Ok(shared)
        };
    }
    shared.start(&meta, is_new.then_some(found))?;
    Ok(shared)
}

fn pages_of(bytes: usize) -> u64 {
    bytes as u64 / PAGE_BYTES_U64
}

/// The state before the first checkpoint.
fn blank(pages: u32, ring_bytes: u64) -> Meta {
    Meta {
        generation: 0,
        txn: EMPTY.txn,
        // Another one for each store, so that none takes another's records for its own.
        salt: RandomState::new().hash_one("salt"),
        ring_start: 0,
        root: EMPTY.root,
        pages,
        map: NO_MAP,
        map_crc: 0,
        ring_bytes,
    }
}

fn choose(backing: &dyn Backing, found: u32) -> Result<State, OpenError> {
    if found < FIRST_PAGE {
        return Ok(State::New);
    }
    // SAFETY: (1) the file has both pages, by the check; (2) nobody writes yet: this
    // handle holds the lock and has started nothing.
    let slots = unsafe { backing.map().slice(0, FIRST_PAGE as usize) };
    let (one, two) = slots.split_at(PAGE_BYTES);
    match (Meta::decode(one), Meta::decode(two)) {
        (Ok(one), Ok(two)) if one.generation > two.generation => Ok(State::Slot(one)),
        (Ok(_), Ok(two)) | (Err(_), Ok(two)) => Ok(State::Slot(two)),
        (Ok(one), Err(_)) => Ok(State::Slot(one)),
        (Err(SlotError::Version(found)), _) | (_, Err(SlotError::Version(found))) => {
            Err(OpenError::Version {
                found,
                known: FORMAT,
            })
        }
        (Err(SlotError::Damaged(flaw)), _) | (_, Err(SlotError::Damaged(flaw))) => {
            Err(OpenError::Meta { flaw })
        }
        // A creation that was cut short has written no slot.
        (Err(SlotError::Foreign), Err(SlotError::Foreign)) => {
            let untouched = found <= NEW_PAGES && slots.iter().all(|&byte| byte == 0);
            if untouched {
                Ok(State::New)
            } else {
                Err(OpenError::Foreign)
            }
        }
    }
}

fn assemble(backing: Arc<dyn Backing>, meta: &Meta, how: How) -> Result<Shared, OpenError> {
    let capacity = backing.map().capacity();
    let ring_fits = (PAGE_BYTES_U64..=MOST_RING_BYTES).contains(&meta.ring_bytes)
        && meta.ring_bytes.is_multiple_of(PAGE_BYTES_U64)
        && meta.ring_start.is_multiple_of(ALIGN_BYTES);
    let tree_fits = meta.pages < DIRTY_BIT
        && meta.pages as usize <= capacity
        && (meta.pages >= FIRST_PAGE || meta.generation == 0);
    let counts_fit = [meta.generation, meta.txn, meta.ring_start]
        .iter()
        .all(|&count| count < MOST_COUNT);
    let named = meta.txn > 0 && meta.root.dirty_index().is_none();
    if !ring_fits || !tree_fits || !counts_fit || !named {
        return Err(OpenError::Meta { flaw: Flaw::Header });
    }
    let pages = Pages::new(backing, meta.pages);
    #[cfg(test)]
    let pages = pages.believing(how.sabotage.believe_pages);
    let space = Space::from_map(pages.free_map(meta.map, meta.map_crc)?, meta.pages);
    let version = Version {
        txn: meta.txn,
        root: meta.root,
    };
    Ok(Shared {
        versions: Versions::new(version),
        group: Arc::new(Group::new(meta.txn)),
        me: Weak::new(),
        syncer: Worker::new(),
        cleaner: Worker::new(),
        bell: Bell::new(),
        head: Mutex::new(Head {
            version,
            len: meta.pages,
            space,
            dirty: Vec::new(),
            ring: meta.ring_start,
            salt: meta.salt,
            generation: meta.generation,
            durable: Durable {
                txn: meta.txn,
                ring_start: meta.ring_start,
                map: meta.map,
                pages: meta.pages,
            },
            pinned: None,
            early: Vec::new(),
            sweep: SweepPlace::START,
            spare: Vec::new(),
        }),
        checkpointing: Mutex::new(()),
        done: Mutex::new(None),
        pages,
        ring_bytes: meta.ring_bytes,
        read_only: how.read_only,
        checkpoint_budget: how.checkpoint_budget,
        opened: how.trace_readers.then(Instant::now),
        durability: how.durability,
        checkpoint_thread: how.checkpoint_thread,
        #[cfg(test)]
        sabotage: how.sabotage,
    })
}

impl Shared {
    /// The checkpoint that ends opening for writing. `created` is the length of the file
    /// if there was no store in it.
    fn start(&self, meta: &Meta, created: Option<u32>) -> Result<(), OpenError> {
        let mut head = self.head.lock();
        let io = |action| {
            move |source| OpenError::Io {
                action,
                path: "the store's files".into(),
                source,
            }
        };
        let backing = self.pages.backing();
        if let Some(found) = created {
            // Room for the slots, before the first checkpoint writes one.
            backing.grow(FIRST_PAGE).map_err(io("grow"))?;
            head.len = found.max(FIRST_PAGE);
            self.pages.set_len(head.len);
            // A creation that was cut short may have left a longer file.
            let rest = Extent {
                first: FIRST_PAGE,
                pages: head.len - FIRST_PAGE,
            };
            head.space.insert(rest);
        }
        head.salt = meta.salt.wrapping_add(1);
        let result = self.checkpoint_holding(&mut head);
        let txn = result.map_err(OpenError::Recovery)?;
        drop(head);
        self.group.note_durable(txn);
        backing.created().map_err(io("finish"))
    }

    /// Does again what the ring records after the slot. True if there was anything; a
    /// read-only open only looks.
    fn replay(&self, bytes: &[u8], meta: &Meta, read_only: bool) -> Result<bool, OpenError> {
        let size = bytes.len() as u64;
        #[cfg(test)]
        let check = !self.sabotage.believe_records;
        #[cfg(not(test))]
        let check = true;
        // Relative to the slot's position: no position from the file can overflow.
        let (mut done, mut seq) = (0_u64, meta.txn.saturating_add(1));
        while done < size {
            let place = (meta.ring_start % size + done) % size;
            let left = size - place;
            if left < HEADER_BYTES as u64 {
                done += left;
                continue;
            }
            match ring::read(bytes, place, meta.salt, seq, check) {
                Found::End => break,
                Found::Wrap => done += left,
                Found::Record { operations, bytes } => {
                    if read_only {
                        return Ok(true);
                    }
                    self.redo(operations, seq)?;
                    done += bytes;
                    seq += 1;
                }
            }
        }
        Ok(seq > meta.txn.saturating_add(1))
    }

    /// Does one record again.
    fn redo(&self, operations: &[u8], seq: u64) -> Result<(), OpenError> {
        let bad = OpenError::Ring { seq };
        let mut txn = WriteTxn::begin(self, self.head.lock());
        for change in ring::changes(operations) {
            let Some(change) = change else {
                return Err(bad);
            };
            let Ok(name) = core::str::from_utf8(change.table()) else {
                return Err(bad);
            };
            let result = match change {
                Change::Put { key, value, .. } => {
                    let table = txn.raw_table(name);
                    table.and_then(|mut table| table.put(key, value))
                }
                Change::Delete { key, .. } => {
                    let table = txn.raw_table(name);
                    table.and_then(|mut table| table.delete(key))
                }
                Change::Define { schema, .. } => match decode_schema(schema) {
                    Some(options) => txn.raw_table_with(name, &options).map(|_| true),
                    None => return Err(bad),
                },
                Change::Drop { .. } => txn.delete_table(name),
            };
            if let Err(error) = result {
                return Err(match error {
                    crate::error::WriteError::Read(error) => error.into(),
                    _ => bad,
                });
            }
        }
        match txn.commit_unrecorded() {
            Ok(()) => Ok(()),
            Err(CommitError::Read(error)) => Err(error.into()),
            Err(error) => Err(OpenError::Recovery(error)),
        }
    }
}
