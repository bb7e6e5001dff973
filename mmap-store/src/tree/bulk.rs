//! Building a tree from its leaves up, out of entries that ascend.
//!
//! ```text
//!   level 1   [ sep ─ child │ sep ─ child │ … ]  open: takes what level 0 finishes
//!                   │             │
//!   level 0   [ full leaf ] [ full leaf ] [ … ]  open: takes the entries
//! ```
//!
//! On each level one node is open. An entry that does not fit into it finishes it: it is
//! laid out, goes to the [`Output`], which says where it is, and is never looked at
//! again; its parent's level gets an entry for it. So all nodes but the last of a level
//! are full, and what is in memory is one node a level, whatever is loaded.

use crate::error::ReadError;
use crate::format::table::LargeRef;
use crate::ids::{Alignment, Child, PAGE_BYTES, PageBuf};
use crate::tree::edit::{Item, Shape, child_bytes};
use crate::tree::mutate;
use crate::tree::pack::{common_prefix, fill, heap_with, node_bytes_of, separator};
use crate::tree::work::Work;

/// Where finished nodes go.
pub(crate) trait Output {
    /// Why one could not.
    type Error;

    /// Takes a node; says what its parent calls it.
    fn node(&mut self, page: &mut PageBuf) -> Result<Child, Self::Error>;

    /// Takes a value that is too long for a leaf.
    fn value(&mut self, value: &[u8]) -> Result<LargeRef, Self::Error>;
}

/// Where in `Open::bytes` an entry's key and value lie.
#[derive(Clone, Copy, Debug)]
struct Place {
    key: usize,
    value: usize,
    end: usize,
    large: bool,
}

/// The open node of a level.
///
/// Invariant: all keys that count (not the first of an inner node) share exactly `prefix`
/// bytes, and laid out its entries take `heap` bytes of the heap.
#[derive(Debug, Default)]
struct Open {
    /// Keys and values, one after another.
    bytes: Vec<u8>,
    places: Vec<Place>,
    prefix: usize,
    heap: usize,
    /// The first key that belongs under the node: what its parent files it under.
    low: Vec<u8>,
}

impl Open {
    fn item(&self, place: &Place) -> Item<'_> {
        Item {
            key: &self.bytes[place.key..place.value],
            value: &self.bytes[place.value..place.end],
            large: place.large,
        }
    }

    fn items(&self) -> Vec<Item<'_>> {
        self.places.iter().map(|place| self.item(place)).collect()
    }

    /// Prefix and heap if `item` came to the entries.
    fn with(&self, item: &Item<'_>, shape: Shape) -> (usize, usize) {
        // The first key of an inner node is not written, and none of its bytes count.
        let keyed = usize::from(shape.level > 0);
        let (prefix, heap) = match self.places.get(keyed) {
            None if self.places.len() < keyed => {
                let bare = Item { key: &[], ..*item };
                return (0, heap_with(0, &bare, 0, shape));
            }
            None => (item.key.len(), self.heap),
            Some(first) => {
                let shared = &self.item(first).key[..self.prefix];
                let prefix = common_prefix(shared, item.key);
                let heap = if prefix == self.prefix {
                    self.heap
                } else {
                    self.heap_without(prefix, shape)
                };
                (prefix, heap)
            }
        };
        (prefix, heap_with(heap, item, prefix, shape))
    }

    /// The heap of the entries if their keys lose `prefix` bytes.
    fn heap_without(&self, prefix: usize, shape: Shape) -> usize {
        let mut heap = 0;
        for (index, place) in self.places.iter().enumerate() {
            let mut item = self.item(place);
            if shape.level > 0 && index == 0 {
                item.key = &[];
            }
            heap = heap_with(heap, &item, prefix, shape);
        }
        heap
    }

    fn push(&mut self, item: &Item<'_>, (prefix, heap): (usize, usize)) {
        let key = self.bytes.len();
        self.bytes.extend_from_slice(item.key);
        let value = self.bytes.len();
        self.bytes.extend_from_slice(item.value);
        self.places.push(Place {
            key,
            value,
            end: self.bytes.len(),
            large: item.large,
        });
        (self.prefix, self.heap) = (prefix, heap);
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.places.clear();
        self.low.clear();
        (self.prefix, self.heap) = (0, 0);
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Builder {
    /// The open nodes, from the leaf up.
    open: Vec<Open>,
    page: Box<PageBuf>,
    /// Leaves finished so far.
    leaves: u64,
    /// Of the values.
    alignment: Alignment,
}

/// What was built.
#[derive(Debug)]
pub(crate) struct Built {
    /// The first key that belongs to it: above all keys that came before.
    pub(crate) low: Vec<u8>,
    pub(crate) root: Child,
    pub(crate) level: u8,
}

impl Builder {
    pub(crate) fn new(alignment: Alignment) -> Self {
        Self {
            open: vec![Open::default()],
            page: Box::new([0; PAGE_BYTES]),
            leaves: 0,
            alignment,
        }
    }

    /// Adds an entry. `before` is the last key before it, in this tree or of whatever it
    /// is going to be put behind; the key must be above it.
    pub(crate) fn push<O: Output>(
        &mut self,
        out: &mut O,
        before: Option<&[u8]>,
        key: &[u8],
        value: &[u8],
    ) -> Result<(), O::Error> {
        let large = mutate::is_large(self.alignment, key, value.len());
        let reference;
        let stored = if large {
            let large = match value {
                [] => LargeRef::EMPTY,
                value => out.value(value)?,
            };
            reference = large.encode();
            &reference[..]
        } else {
            value
        };
        let item = Item {
            key,
            value: stored,
            large,
        };
        let low = before.map_or(&[][..], |before| separator(before, key));
        self.add(out, 0, low, &item)
    }

    /// Adds `item` to the open node of a level, whose `low` is `low` if it is its first.
    fn add<O: Output>(
        &mut self,
        out: &mut O,
        level: u8,
        low: &[u8],
        item: &Item<'_>,
    ) -> Result<(), O::Error> {
        let at = usize::from(level);
        if at == self.open.len() {
            self.open.push(Open::default());
        }
        let shape = self.shape(level);
        let mut sizes @ (prefix, heap) = self.open[at].with(item, shape);
        let entries = self.open[at].places.len() + 1;
        if entries > 1 && node_bytes_of(prefix, entries, heap) > PAGE_BYTES {
            self.finish_node(out, level)?;
            sizes = self.open[at].with(item, shape);
        }
        let open = &mut self.open[at];
        if open.places.is_empty() {
            open.low.extend_from_slice(low);
        }
        open.push(item, sizes);
        Ok(())
    }

    fn shape(&self, level: u8) -> Shape {
        match level {
            0 => Shape::leaf(self.alignment),
            level => Shape::inner(level),
        }
    }

    /// Lays the open node of a level out, and files it under the level above.
    fn finish_node<O: Output>(&mut self, out: &mut O, level: u8) -> Result<(), O::Error> {
        let (low, child) = self.take_node(out, level)?;
        let value = child_bytes(child);
        let item = Item {
            key: &low,
            value: &value,
            large: false,
        };
        self.add(out, level + 1, &low, &item)
    }

    fn take_node<O: Output>(
        &mut self,
        out: &mut O,
        level: u8,
    ) -> Result<(Vec<u8>, Child), O::Error> {
        let shape = self.shape(level);
        let open = &mut self.open[usize::from(level)];
        fill(&mut self.page, &open.items(), shape);
        let child = out.node(&mut self.page)?;
        let low = core::mem::take(&mut open.low);
        open.clear();
        self.leaves += u64::from(level == 0);
        Ok((low, child))
    }

    /// The entries, if there are so few that no leaf is finished: whoever wants to can
    /// put them elsewhere.
    pub(crate) fn few(&self) -> Option<Vec<Item<'_>>> {
        (self.leaves == 0).then(|| self.open[0].items())
    }

    /// Finishes all that is open; `None` if there was nothing.
    pub(crate) fn finish<O: Output>(mut self, out: &mut O) -> Result<Option<Built>, O::Error> {
        if self.open[0].places.is_empty() {
            return Ok(None);
        }
        let mut level = 0;
        // Finishing a node may add a level above.
        while usize::from(level) + 1 < self.open.len() {
            self.finish_node(out, level)?;
            level += 1;
        }
        let (low, root) = self.take_node(out, level)?;
        Ok(Some(Built { low, root, level }))
    }
}

/// Puts a tree whose keys are all above those of `root` behind it.
pub(crate) fn graft(work: &mut Work<'_>, root: &mut Child, built: Built) -> Result<(), ReadError> {
    if root.is_none() {
        *root = built.root;
        return Ok(());
    }
    mutate::put_behind(work, root, &built.low, (built.root, built.level))
}
