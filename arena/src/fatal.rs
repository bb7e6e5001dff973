//! The end of the line: one message on standard error, written without allocating.

use crate::os;

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
}

impl Misuse {
    const fn text(self) -> &'static [u8] {
        match self {
            Self::DoubleFree => b"double free of ",
            Self::Foreign => b"free of a pointer that this heap did not give out: ",
            Self::Interior => b"free of a pointer into the middle of a block: ",
            Self::WrongLayout => b"free with a layout that is not the block's: ",
        }
    }
}

/// Writes `brickyard: <what> 0x<addr>` and aborts.
#[cold]
#[inline(never)]
pub(crate) fn die(what: Misuse, addr: usize) -> ! {
    let mut line = [0u8; 128];
    let pieces: [&[u8]; 4] = [b"brickyard: ", what.text(), &hex(addr), b"\n"];
    let mut len = 0;
    for (slot, byte) in line.iter_mut().zip(pieces.iter().copied().flatten()) {
        *slot = *byte;
        len += 1;
    }
    os::write_stderr(line.get(..len).unwrap_or(&line));
    os::abort()
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
