//! The end of the line: messages on standard error, written without allocating.

use crate::os;

/// Greatest length of a line in bytes; what is longer is cut.
const LINE_BYTES: usize = 256;

/// What a program did to the heap that it must not do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Misuse {
    /// A block was freed that is free already.
    DoubleFree,
    /// The pointer is not one that this heap gave out.
    Foreign,
    /// The pointer lies inside a block, not at its start.
    Interior,
    /// The block exists, but its size does not fit the layout it was freed with.
    WrongLayout,
    /// A free block is not as it was left.
    WrittenAfterFree,
    /// Bytes beside a guarded block are not as they were left.
    WrittenOutside,
}

impl Misuse {
    const fn text(self) -> &'static [u8] {
        match self {
            Self::DoubleFree => b"double free of ",
            Self::Foreign => b"free of a pointer that this heap did not give out: ",
            Self::Interior => b"free of a pointer into the middle of a block: ",
            Self::WrongLayout => b"free with a layout that is not the block's: ",
            Self::WrittenAfterFree => b"write after free to ",
            Self::WrittenOutside => b"write beside the block at ",
        }
    }
}

/// Writes `brickyard: <what> 0x<addr>` and aborts.
#[cold]
#[inline(never)]
pub(crate) fn die(what: Misuse, addr: usize) -> ! {
    Line::new().text(what.text()).address(addr).write();
    os::abort()
}

/// A line of a message, on the stack.
#[derive(Debug)]
pub(crate) struct Line {
    bytes: [u8; LINE_BYTES],
    len: usize,
}

impl Line {
    /// `brickyard: `
    pub(crate) fn new() -> Self {
        let empty = Self {
            bytes: [0; LINE_BYTES],
            len: 0,
        };
        empty.text(b"brickyard: ")
    }

    #[must_use]
    pub(crate) fn text(mut self, text: &[u8]) -> Self {
        // A place is kept for the end of the line.
        let room = self.bytes.iter_mut().take(LINE_BYTES - 1).skip(self.len);
        for (slot, &byte) in room.zip(text) {
            *slot = byte;
            self.len += 1;
        }
        self
    }

    /// An address with all its digits.
    #[must_use]
    pub(crate) fn address(self, addr: usize) -> Self {
        self.text(&hex(addr))
    }

    /// A number in decimal digits.
    #[must_use]
    pub(crate) fn number(self, number: usize) -> Self {
        let mut digits = [b'0'; 20];
        let mut rest = number;
        let mut first = digits.len();
        for (at, slot) in digits.iter_mut().enumerate().rev() {
            #[expect(clippy::cast_possible_truncation, reason = "a digit is below 10")]
            let digit = (rest % 10) as u8;
            *slot = b'0' + digit;
            rest /= 10;
            first = at;
            if rest == 0 {
                break;
            }
        }
        self.text(digits.get(first..).unwrap_or_default())
    }

    /// Ends the line and writes it.
    pub(crate) fn write(mut self) {
        if let Some(slot) = self.bytes.get_mut(self.len) {
            *slot = b'\n';
        }
        os::write_stderr(self.bytes.get(..=self.len).unwrap_or_default());
    }
}

/// `addr` as `0x` and sixteen hexadecimal digits.
fn hex(addr: usize) -> [u8; 18] {
    let mut out = *b"0x0000000000000000";
    let mut rest = addr;
    for slot in out.iter_mut().skip(2).rev() {
        #[expect(clippy::cast_possible_truncation, reason = "a digit is below 16")]
        let digit = (rest & 15) as u8;
        *slot = if digit < 10 {
            b'0' + digit
        } else {
            b'a' + digit - 10
        };
        rest >>= 4;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_written_in_hexadecimal() {
        assert_eq!(&hex(0), b"0x0000000000000000");
        assert_eq!(&hex(0x7fff_1234_abcd_0010), b"0x7fff1234abcd0010");
    }
}
