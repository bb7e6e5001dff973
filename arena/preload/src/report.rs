//! The statistics as text: at exit when `BRICKYARD_STATS=1`, or on request by
//! `malloc_stats`.
//!
//! The text is formatted line by line into a buffer on the stack and written
//! with `write(2)`, so that the report neither allocates nor changes what it
//! reports.
//!
//! ```text
//! brickyard: pid 7312: live 5368 requested 5120 cached 2048 committed 81920 metadata 8192 purged 0 bytes, 6.5 % in use
//! brickyard: class 48: 12 live, 20 cached, 1333 free blocks in 1 spans
//! ```

use core::ffi::{CStr, c_int};
use core::fmt::{self, Write};
use core::sync::atomic::{AtomicI32, Ordering};

use brickyard_arena::Arena;

use crate::errno;

/// Greatest length of one line in bytes; seven 20-digit figures and the words fit.
const LINE_BYTES: usize = 256;

/// Lowest number for the copy of stderr: above those that programs and shells
/// hand out by hand, below the usual limit of 1024 open files.
const LOWEST_COPY_FD: c_int = 512;

/// Value of [`REPORT_FD`] when no report was asked for.
const NO_REPORT: c_int = -1;

/// Where the report at exit goes, or [`NO_REPORT`].
// Relaxed everywhere: a plain number, written before `main` runs.
static REPORT_FD: AtomicI32 = AtomicI32::new(NO_REPORT);

/// Run by the dynamic linker when the library is loaded.
#[used]
#[unsafe(link_section = ".init_array")]
static ON_LOAD: extern "C" fn() = on_load;

/// Run by the dynamic linker when the program exits.
#[used]
#[unsafe(link_section = ".fini_array")]
static ON_EXIT: extern "C" fn() = on_exit;

/// Reads the environment before the program can change it.
extern "C" fn on_load() {
    if !crate::options::are_any() {
        return;
    }
    crate::options::apply();
    // SAFETY: the name is a C string. The environment is read while the loader
    // runs constructors, before the program has threads that could change it.
    let value = unsafe { libc::getenv(c"BRICKYARD_STATS".as_ptr()) };
    if value.is_null() {
        return;
    }
    // SAFETY: not null, so `getenv` returned a C string of the environment,
    // which nobody changes until this function returns (see above).
    let value = unsafe { CStr::from_ptr(value) };
    if !value.is_empty() && value != c"0" {
        REPORT_FD.store(copy_of_stderr(), Ordering::Relaxed);
    }
}

/// Duplicates stderr, because many programs close it before they exit (all of
/// the GNU core utilities do). The copy is not passed on by `exec`.
fn copy_of_stderr() -> c_int {
    let saved_errno = errno::current();
    // SAFETY: fcntl with F_DUPFD_CLOEXEC takes a descriptor and an int and
    // touches no memory of ours.
    let copy = unsafe { libc::fcntl(libc::STDERR_FILENO, libc::F_DUPFD_CLOEXEC, LOWEST_COPY_FD) };
    errno::set(saved_errno);
    if copy < 0 { libc::STDERR_FILENO } else { copy }
}

extern "C" fn on_exit() {
    crate::profile::write_at_exit();
    let fd = REPORT_FD.load(Ordering::Relaxed);
    if fd != NO_REPORT {
        print(fd);
    }
}

/// Prints the statistics to `fd`: one line in all and one for each size class
/// that was used. Errors of `write` are ignored: there is nobody to tell.
pub(crate) fn print(fd: c_int) {
    let stats = Arena::stats();
    let per_mille = stats.live.saturating_mul(1000) / stats.committed.max(1);
    // SAFETY: getpid takes nothing and cannot fail.
    let pid = unsafe { libc::getpid() };
    write_line(
        fd,
        format_args!(
            "brickyard: pid {}: live {} requested {} cached {} committed {} metadata {} purged {} bytes, {}.{} % in use\n",
            pid,
            stats.live,
            stats.requested,
            stats.cached,
            stats.committed,
            stats.metadata,
            stats.purged,
            per_mille / 10,
            per_mille % 10,
        ),
    );
    for class in stats.classes.iter() {
        if class.spans == 0 && class.live_blocks == 0 {
            continue;
        }
        write_line(
            fd,
            format_args!(
                "brickyard: class {}: {} live, {} cached, {} free blocks in {} spans\n",
                class.block_size,
                class.live_blocks,
                class.cached_blocks,
                class.free_blocks,
                class.spans,
            ),
        );
    }
}

/// Writes one line to stderr.
pub(crate) fn say(text: fmt::Arguments<'_>) {
    let saved_errno = errno::current();
    write_line(libc::STDERR_FILENO, text);
    errno::set(saved_errno);
}

/// Formats one line and writes it, cut off at [`LINE_BYTES`].
fn write_line(fd: c_int, text: fmt::Arguments<'_>) {
    let mut line = Line {
        bytes: [0; LINE_BYTES],
        len: 0,
    };
    // A line that is too long is written as far as it goes.
    let _ = line.write_fmt(text);
    write_all(fd, line.bytes.get(..line.len).unwrap_or_default());
}

/// Writes all bytes; `false` when an error keeps it from that.
pub(crate) fn write_all(fd: c_int, bytes: &[u8]) -> bool {
    let mut rest = bytes;
    while !rest.is_empty() {
        // SAFETY: `rest` is an initialised buffer of the stated length.
        let written = unsafe { libc::write(fd, rest.as_ptr().cast(), rest.len()) };
        match usize::try_from(written) {
            Ok(count) if count > 0 => rest = rest.get(count..).unwrap_or_default(),
            Err(_) if errno::current() == libc::EINTR => {}
            _ => return false,
        }
    }
    true
}

/// A line of text of bounded length, on the stack.
struct Line {
    bytes: [u8; LINE_BYTES],
    /// At most `LINE_BYTES`.
    len: usize,
}

impl Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for &byte in text.as_bytes() {
            let Some(slot) = self.bytes.get_mut(self.len) else {
                return Err(fmt::Error);
            };
            *slot = byte;
            self.len += 1;
        }
        Ok(())
    }
}
