//! Numbers as bytes, both ways.

/// Most bytes of a [`Sink::varint`].
pub(crate) const MAX_VARINT_BYTES: usize = 10;

/// Writes into a slice. What does not fit is dropped and shows in [`Sink::fits`].
#[derive(Debug)]
pub(crate) struct Sink<'a> {
    bytes: &'a mut [u8],
    len: usize,
}

impl<'a> Sink<'a> {
    pub(crate) fn new(bytes: &'a mut [u8]) -> Self {
        Self { bytes, len: 0 }
    }

    /// How many bytes were put.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Whether all that was put has found room.
    pub(crate) fn fits(&self) -> bool {
        self.len <= self.bytes.len()
    }

    pub(crate) fn byte(&mut self, byte: u8) {
        if let Some(slot) = self.bytes.get_mut(self.len) {
            *slot = byte;
        }
        self.len = self.len.saturating_add(1);
    }

    pub(crate) fn all(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.byte(*byte));
    }

    /// Puts seven bits a byte, the lowest first; the top bit says that more follow.
    pub(crate) fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.byte(0x80 | low_byte(value));
            value >>= 7;
        }
        self.byte(low_byte(value));
    }
}

/// The lowest eight bits.
fn low_byte(value: u64) -> u8 {
    let [byte, ..] = value.to_le_bytes();
    byte
}

/// Takes a slice apart; `None` where it ends too early.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Source<'a> {
    bytes: &'a [u8],
}

impl<'a> Source<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub(crate) fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.bytes.split_first()?;
        self.bytes = rest;
        Some(*first)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (array, rest) = self.bytes.split_first_chunk()?;
        self.bytes = rest;
        Some(*array)
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    /// What [`Sink::varint`] wrote; `None` also for more than 64 bits.
    pub(crate) fn varint(&mut self) -> Option<u64> {
        let mut value = 0_u64;
        for index in 0..MAX_VARINT_BYTES {
            let byte = self.byte()?;
            let shift = u32::try_from(index).ok()?.checked_mul(7)?;
            let bits = u64::from(byte & 0x7F);
            let shifted = bits.checked_shl(shift)?;
            if shifted >> shift != bits {
                return None;
            }
            value |= shifted;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }
}

/// A difference with its sign in the lowest bit, so that small ones of both signs are short.
pub(crate) fn zigzag(from: u64, to: u64) -> u64 {
    let difference = to.wrapping_sub(from);
    let negative = difference >> 63;
    (difference << 1) ^ 0_u64.wrapping_sub(negative)
}

/// What lies [`zigzag`] away from `from`.
pub(crate) fn unzigzag(from: u64, difference: u64) -> u64 {
    let sign = 0_u64.wrapping_sub(difference & 1);
    from.wrapping_add((difference >> 1) ^ sign)
}
