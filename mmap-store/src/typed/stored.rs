//! What the store remembers of values that were found valid.

use core::any::TypeId;
use std::sync::OnceLock;

use crate::pages::Pages;
use crate::validated::Remembered;

/// Types that are told apart; values of others are validated each time.
const MOST_TYPES: usize = 256;

/// Types by their number, from 0 on without a gap: a process has few.
static TYPES: [OnceLock<TypeId>; MOST_TYPES] = [const { OnceLock::new() }; MOST_TYPES];

/// The number of a type, the same for the life of the process.
#[inline]
fn number_of(id: TypeId) -> Option<u8> {
    let is_it = |place: &OnceLock<TypeId>| *place.get_or_init(|| id) == id;
    TYPES.iter().position(is_it)?.try_into().ok()
}

/// The store whose bytes a value is read from, for [`Value::decode_stored`].
///
/// It remembers which bytes were found to be a value of which type since their page was
/// written, so that they need not be looked at again. There is nothing to do with it but
/// to hand it on, where a type of one's own is made of one of this crate's.
///
/// [`Value::decode_stored`]: crate::Value::decode_stored
#[derive(Clone, Copy, Debug)]
pub struct Stored<'s> {
    pages: &'s Pages,
}

impl<'s> Stored<'s> {
    pub(crate) fn new(pages: &'s Pages) -> Self {
        Self { pages }
    }

    /// The name under which `bytes` are remembered as what `T` stands for; `None` if they
    /// lie elsewhere, or are too many.
    #[inline]
    pub(super) fn place<T: ?Sized + 'static>(self, bytes: &[u8]) -> Option<Remembered> {
        let (page, offset) = self.pages.place_of(bytes)?;
        Remembered::new(page, offset, bytes.len(), number_of(TypeId::of::<T>())?)
    }

    /// Whether the bytes of this place were found valid, and are what they were.
    #[inline]
    pub(super) fn knows(self, place: Remembered) -> bool {
        self.pages.validated().knows(place)
    }

    /// Remembers that the bytes of this place are valid.
    ///
    /// # Safety
    ///
    /// - `place` is what [`Stored::place`] gave for bytes that are borrowed still, and
    ///   the type `T` that it was asked for.
    /// - Those bytes, at their address, are valid as what is read where
    ///   [`Stored::knows`] says so for `T`.
    #[cold]
    #[inline(never)]
    pub(super) unsafe fn remember(self, place: Remembered) {
        self.pages.validated().remember(place);
    }
}

#[cfg(test)]
mod tests {
    //! What could go wrong: two types have one number, or one has two.

    use super::*;

    #[test]
    fn each_type_has_a_number_of_its_own() {
        let numbers = || {
            let ids = [
                TypeId::of::<u8>(),
                TypeId::of::<[u8; 2]>(),
                TypeId::of::<str>(),
            ];
            ids.map(|id| number_of(id).expect("there are few"))
        };
        let threads: Vec<_> = (0..8).map(|_| std::thread::spawn(numbers)).collect();
        let mut seen: Vec<[u8; 3]> = threads
            .into_iter()
            .map(|thread| thread.join().expect("no panic"))
            .collect();
        seen.dedup();
        assert_eq!(seen.len(), 1, "{seen:?}");
        let [a, b, c] = seen[0];
        assert!(a != b && b != c && a != c);
    }
}
