//! The entries of a tree between two bounds, from either end.

use core::cmp::Ordering;
use core::ops::Bound;

use crate::error::{Flaw, ReadError, damaged};
use crate::ids::Child;
use crate::tree::cursor::{Cursor, Window};
use crate::tree::work::Source;

/// A key that lasts until the range's next one, and a value where it lies.
pub(crate) type Entry<'k, 's> = (&'k [u8], &'s [u8]);

/// Room for most keys, so that their memory is asked for once.
const USUAL_KEY_BYTES: usize = 64;

/// See the module. Keys are put together in the range's own memory.
#[derive(Debug)]
pub(crate) struct TreeRange<'s, S: Source + ?Sized> {
    source: &'s S,
    front: Cursor,
    back: Cursor,
    /// Entries that may still come: a forged tree that reaches its leaves over and over
    /// ends in an error instead of never.
    left: u64,
    root: Child,
    /// The leaf that `front` is in, while entries come from there: then this knows how
    /// far it is, and `front` is where it came in.
    window: Option<Window<'s>>,
    key: Vec<u8>,
}

impl<'s, S: Source + ?Sized> TreeRange<'s, S> {
    /// `len` is how many entries the whole tree has.
    pub(crate) fn new(
        source: &'s S,
        root: Child,
        len: u64,
        (start, end): (Bound<&[u8]>, Bound<&[u8]>),
    ) -> Result<Self, ReadError> {
        let front = match start {
            Bound::Included(key) => Cursor::seek(source, root, key, false),
            Bound::Excluded(key) => Cursor::seek(source, root, key, true),
            Bound::Unbounded => Cursor::seek(source, root, &[], false),
        }?;
        let back = match end {
            Bound::Included(key) => Cursor::seek(source, root, key, true)?,
            Bound::Excluded(key) => Cursor::seek(source, root, key, false)?,
            Bound::Unbounded => Cursor::end(root),
        };
        Ok(Self {
            source,
            front,
            back,
            left: len,
            root,
            window: None,
            key: Vec::new(),
        })
    }

    /// What it reads.
    pub(crate) fn source(&self) -> &'s S {
        self.source
    }

    fn is_done(&self) -> bool {
        self.front.order(&self.back) != Ordering::Less
    }

    fn count(&mut self) -> Result<(), ReadError> {
        let left = self.left.checked_sub(1);
        self.left = left.ok_or(damaged(self.root.page, Flaw::Record))?;
        Ok(())
    }

    /// The error for an entry that does not mean what it should.
    pub(crate) fn bad_entry(&self) -> ReadError {
        damaged(self.root.page, Flaw::Record)
    }

    /// The next entry from the front.
    pub(crate) fn next(&mut self) -> Result<Option<Entry<'_, 's>>, ReadError> {
        loop {
            if let Some(window) = &mut self.window
                && let Some(value) = window.next(self.source, &mut self.key)?
            {
                self.count()?;
                return Ok(Some((self.key.as_slice(), value)));
            }
            self.leave_window()?;
            let Some(window) = self.front.window(self.source, &self.back)? else {
                return Ok(None);
            };
            self.key.clear();
            self.key.reserve(USUAL_KEY_BYTES);
            self.key.extend_from_slice(window.prefix());
            self.window = Some(window);
        }
    }

    /// Puts `front` where the window has come to.
    fn leave_window(&mut self) -> Result<(), ReadError> {
        match self.window.take() {
            Some(window) => self.front.leave(self.source, window.index()),
            None => Ok(()),
        }
    }

    /// The next entry from the back.
    pub(crate) fn next_back(&mut self) -> Result<Option<Entry<'_, 's>>, ReadError> {
        self.leave_window()?;
        if self.is_done() || !self.back.back(self.source)? {
            return Ok(None);
        }
        self.count()?;
        let value = self.back.entry(self.source, &mut self.key)?;
        Ok(value.map(|value| (self.key.as_slice(), value)))
    }
}

/// Bounds as slices.
pub(crate) fn as_slices<'a, K: AsRef<[u8]> + ?Sized + 'a>(
    bounds: &'a impl core::ops::RangeBounds<K>,
) -> (Bound<&'a [u8]>, Bound<&'a [u8]>) {
    let slice = |bound: Bound<&'a K>| bound.map(K::as_ref);
    (slice(bounds.start_bound()), slice(bounds.end_bound()))
}
