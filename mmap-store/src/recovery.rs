//! Opening: the newest valid slot, then the ring.
//!
//! Replaying executes the records as transactions of their own, on pages that the slot
//! says are free; dying meanwhile changes nothing that the next open looks at. A
//! checkpoint with a new salt ends it: what lies in the ring from before can never be
//! taken for a record of what follows.

use std::sync::Arc;

use crate::backing::Backing;
use crate::checkpoint::NO_MAP;
use crate::error::{CommitError, Flaw, OpenError};
use crate::format::meta::{FORMAT, Meta, SlotError};
use crate::format::ring::{self, Change, Found, HEADER_BYTES};
use crate::group::Group;
use crate::ids::{DIRTY_BIT, Extent, FIRST_PAGE, PAGE_BYTES};
use crate::pages::Pages;
use crate::shared::{Durable, EMPTY, Head, Shared};
use crate::space::Space;
use crate::sync::Mutex;
use crate::txn::write::WriteTxn;
use crate::versions::{Version, Versions};

/// A file that may be what a creation left that was cut short is at most this long.
const NEW_PAGES: u32 = 4096;

/// What opening found.
enum State {
    New,
    Slot(Meta),
}

/// Opens the store that `backing` keeps; `create` lets an empty one become a store.
pub(crate) fn open(
    backing: Arc<dyn Backing>,
    read_only: bool,
    create: bool,
    #[cfg(test)] sabotage: crate::shared::Sabotage,
) -> Result<Shared, OpenError> {
    let io = |action| {
        move |source| OpenError::Io {
            action,
            path: "the store's files".into(),
            source,
        }
    };
    let found = backing.pages().map_err(io("measure"))?;
    let ring_bytes = backing.read_ring().map_err(io("read"))?;
    if ring_bytes.len() < 4096 {
        return Err(OpenError::Truncated {
            found: ring_bytes.len() as u64 / PAGE_BYTES as u64,
            expected: 1,
        });
    }
    let (meta, is_new) = match choose(&*backing, found)? {
        State::Slot(meta) => (meta, false),
        State::New if create && !read_only => (blank(found), true),
        State::New => return Err(OpenError::Foreign),
    };
    if meta.pages > found {
        return Err(OpenError::Truncated {
            found: u64::from(found),
            expected: u64::from(meta.pages),
        });
    }
    let shared = assemble(
        backing,
        &meta,
        ring_bytes.len() as u64,
        read_only,
        #[cfg(test)]
        sabotage,
    )?;
    let replayed = shared.replay(&ring_bytes, &meta, read_only)?;
    if read_only && replayed {
        return Err(OpenError::NeedsRecovery);
    }
    if !read_only {
        let mut head = shared.head.lock();
        if is_new {
            // Room for the slots, before the first checkpoint writes one.
            let pages = shared.pages.backing();
            pages.grow(FIRST_PAGE).map_err(io("grow"))?;
            head.len = found.max(FIRST_PAGE);
            shared.pages.set_len(head.len);
            // A creation that was cut short may have left a longer file.
            let rest = Extent {
                first: FIRST_PAGE,
                pages: head.len - FIRST_PAGE,
            };
            head.space.insert(rest);
        }
        head.salt = meta.salt.wrapping_add(1);
        let result = shared.checkpoint_holding(&mut head);
        result.map_err(OpenError::Recovery)?;
    }
    Ok(shared)
}

/// The state before the first checkpoint.
fn blank(pages: u32) -> Meta {
    Meta {
        generation: 0,
        txn: EMPTY.txn,
        salt: 0,
        ring_start: 0,
        root: EMPTY.root,
        pages,
        map: NO_MAP,
        map_crc: 0,
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

fn assemble(
    backing: Arc<dyn Backing>,
    meta: &Meta,
    ring_bytes: u64,
    read_only: bool,
    #[cfg(test)] sabotage: crate::shared::Sabotage,
) -> Result<Shared, OpenError> {
    let capacity = backing.map().capacity();
    if meta.pages >= DIRTY_BIT || meta.pages as usize > capacity || meta.txn == 0 {
        return Err(OpenError::Meta { flaw: Flaw::Header });
    }
    let pages = Pages::new(backing, meta.pages);
    let space = Space::from_map(pages.free_map(meta.map, meta.map_crc)?, meta.pages);
    let version = Version {
        txn: meta.txn,
        root: meta.root,
    };
    Ok(Shared {
        versions: Versions::new(version),
        group: Group::new(meta.txn),
        head: Mutex::new(Head {
            version,
            len: meta.pages,
            space,
            ring: meta.ring_start,
            salt: meta.salt,
            generation: meta.generation,
            durable: Durable {
                txn: meta.txn,
                ring_start: meta.ring_start,
                map: meta.map,
            },
            pinned: None,
        }),
        checkpointing: Mutex::new(()),
        done: Mutex::new(None),
        pages,
        ring_bytes,
        read_only,
        #[cfg(test)]
        sabotage,
    })
}

impl Shared {
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
            let (Change::Put { table, .. } | Change::Delete { table, .. }) = change;
            let Ok(name) = core::str::from_utf8(table) else {
                return Err(bad);
            };
            let result = txn.table(name).and_then(|mut table| match change {
                Change::Put { key, value, .. } => table.put(key, value),
                Change::Delete { key, .. } => table.delete(key),
            });
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
