//! The heap profile: from `BRICKYARD_PROFILE=path` to a file written at exit.
//!
//! Programs that have no profile must not pay for it. Each function that allocates compares
//! the size with a limit anyway; with a profile that limit is 0 instead of the greatest size that
//! takes the short way, so that every allocation takes the way of larger ones, where a
//! short way of its own counts the thread's bytes down to the next sample. (An allocation of no bytes does not; it would never be a sample.)
//!
//! In the path, `%p` stands for the process: programs that start others need it, or each
//! would overwrite the file of the one before. A process that ends by `_exit` or a signal leaves
//! no file.

use core::ffi::c_int;
use core::fmt::{self, Write};
use core::sync::atomic::{AtomicU8, AtomicUsize, Ordering};

use brickyard_arena::Arena;

use crate::{errno, report};

/// Greatest size that takes the short way: [`Arena::SHORT_BYTES`], or 0 while there is a profile.
// Relaxed everywhere: a plain number, written before `main` runs.
static SHORT_WAY: AtomicUsize = AtomicUsize::new(Arena::SHORT_BYTES);

/// Most bytes of a path.
const PATH_BYTES: usize = 1024;

/// The path at load; the program may change its environment later.
// Relaxed everywhere: written before `main` runs.
static PATH: [AtomicU8; PATH_BYTES] = [const { AtomicU8::new(0) }; PATH_BYTES];

/// Greatest size that takes the short way; at most [`Arena::SHORT_BYTES`].
#[inline(always)]
pub(crate) fn short_way() -> usize {
    SHORT_WAY.load(Ordering::Relaxed)
}

/// Begins the profile that is written to the path in `bytes`; `false` when that is too
/// long.
pub(crate) fn begin(bytes: &[u8]) -> bool {
    if bytes.len() >= PATH_BYTES / 2 {
        return false;
    }
    for (slot, byte) in PATH.iter().zip(bytes) {
        slot.store(*byte, Ordering::Relaxed);
    }
    SHORT_WAY.store(0, Ordering::Relaxed);
    true
}

/// Whether there is a profile.
pub(crate) fn is_on() -> bool {
    short_way() == 0
}

/// Writes the profile, if there is one.
pub(crate) fn write_at_exit() {
    if !is_on() {
        return;
    }
    let mut path = Path {
        bytes: [0; PATH_BYTES],
        len: 0,
    };
    path.expand();
    let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_TRUNC | libc::O_CLOEXEC;
    // SAFETY: the path is a C string: its last byte is zero (`Path`).
    let fd = unsafe { libc::open(path.bytes.as_ptr().cast(), flags, 0o644) };
    let mut file = File {
        fd,
        buffer: [0; 4096],
        len: 0,
        failed: fd < 0,
    };
    let written = Arena::write_profile(&mut file).is_ok() && file.flush();
    if !written {
        let code = errno::current();
        report::say(format_args!(
            "brickyard: BRICKYARD_PROFILE: the file cannot be written (error {code})\n"
        ));
    }
    if fd >= 0 {
        // SAFETY: opened above, and used no more.
        unsafe { libc::close(fd) };
    }
}

/// The path of this process's file.
struct Path {
    /// The last byte stays zero.
    bytes: [u8; PATH_BYTES],
    len: usize,
}

impl Path {
    /// The path at load with the process in place of `%p`.
    fn expand(&mut self) {
        let mut bytes = PATH.iter().map(|slot| slot.load(Ordering::Relaxed));
        let mut pending = None;
        while let Some(byte) = pending.take().or_else(|| bytes.next()) {
            if byte == 0 {
                return;
            }
            if byte == b'%' {
                match bytes.next() {
                    Some(b'p') => {
                        // SAFETY: getpid takes nothing and cannot fail.
                        let pid = unsafe { libc::getpid() };
                        // A path that is too long was refused at load.
                        let _ = write!(self, "{pid}");
                        continue;
                    }
                    next => pending = next,
                }
            }
            self.push(byte);
        }
    }

    fn push(&mut self, byte: u8) {
        if self.len + 1 < PATH_BYTES {
            if let Some(slot) = self.bytes.get_mut(self.len) {
                *slot = byte;
                self.len += 1;
            }
        }
    }
}

impl Write for Path {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.bytes().for_each(|byte| self.push(byte));
        Ok(())
    }
}

/// A file with a buffer on the stack.
struct File {
    fd: c_int,
    buffer: [u8; 4096],
    len: usize,
    failed: bool,
}

impl File {
    fn flush(&mut self) -> bool {
        let bytes = self.buffer.get(..self.len).unwrap_or_default();
        self.failed = self.failed || !report::write_all(self.fd, bytes);
        self.len = 0;
        !self.failed
    }
}

impl Write for File {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut rest = text.as_bytes();
        while !rest.is_empty() {
            if self.len == self.buffer.len() && !self.flush() {
                return Err(fmt::Error);
            }
            let room = self.buffer.get_mut(self.len..).unwrap_or_default();
            let (now, later) = rest.split_at(rest.len().min(room.len()));
            for (slot, byte) in room.iter_mut().zip(now) {
                *slot = *byte;
            }
            self.len += now.len();
            rest = later;
        }
        Ok(())
    }
}
