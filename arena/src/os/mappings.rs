//! What a report of an access needs to know of the process: the words on the stack, and
//! which mappings hold code. Neither allocates nor takes a lock.

use core::arch::asm;
use core::ptr;

use super::unix::{keep_errno, page_size};

/// Shows the words on the calling thread's stack to `f`, the nearest first, until it returns
/// `false` or the stack's mapping ends.
pub(crate) fn for_each_stack_word(mut f: impl FnMut(usize) -> bool) {
    let mut at = stack_pointer() & !(size_of::<usize>() - 1);
    let page = page_size();
    let mut readable_to = (at | (page - 1)) + 1;
    loop {
        if at == readable_to {
            if !is_readable(at) {
                return;
            }
            readable_to += page;
        }
        // SAFETY: the page is readable: it holds our own frame, or was asked about just
        // above, and what lies beyond the frames of this thread is not unmapped under it.
        let word = unsafe { load(at) };
        if !f(word) {
            return;
        }
        at += size_of::<usize>();
    }
}

fn stack_pointer() -> usize {
    let at: usize;
    // SAFETY: copies a register.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        asm!("mov {}, rsp", out(reg) at, options(nomem, nostack, preserves_flags));
    }
    // SAFETY: copies a register.
    #[cfg(target_arch = "aarch64")]
    unsafe {
        asm!("mov {}, sp", out(reg) at, options(nomem, nostack, preserves_flags));
    }
    at
}

/// One word of memory that belongs to nobody here: other frames. An instruction and not a
/// Rust load, for which it would have to be an object.
///
/// # Safety
///
/// The word at `at` is readable and aligned.
unsafe fn load(at: usize) -> usize {
    let word: usize;
    // SAFETY: by contract.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        asm!("mov {}, qword ptr [{}]", out(reg) word, in(reg) at, options(readonly, nostack, preserves_flags));
    }
    // SAFETY: by contract.
    #[cfg(target_arch = "aarch64")]
    unsafe {
        asm!("ldr {}, [{}]", out(reg) word, in(reg) at, options(readonly, nostack, preserves_flags));
    }
    word
}

/// Whether the 8 bytes at `addr`, which is not 0, can be read. After Abseil: the system copies a signal mask
/// from there before it finds that it cannot use it.
fn is_readable(addr: usize) -> bool {
    const NO_SUCH_WAY: i32 = -1;
    const MASK_BYTES: usize = 8;
    let mask = ptr::without_provenance::<u64>(addr);
    let none = ptr::null_mut::<u64>();
    keep_errno(|| {
        // SAFETY: the system checks the pointer; the way to set the mask is none, so
        // nothing is set.
        unsafe {
            libc::syscall(
                libc::SYS_rt_sigprocmask,
                NO_SUCH_WAY,
                mask,
                none,
                MASK_BYTES,
            );
            *libc::__errno_location() != libc::EFAULT
        }
    })
}

/// A mapping that holds code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CodeMapping<'a> {
    pub(crate) start: usize,
    pub(crate) end: usize,
    /// Where its file would begin, were it mapped whole.
    pub(crate) base: usize,
    /// Path of the file, or what the system calls it.
    pub(crate) name: &'a [u8],
}

/// Longest line of the list that is understood; longer paths are cut.
const LINE_BYTES: usize = 512;

/// Shows every mapping with code to `f`, lowest first. For a signal handler.
pub(crate) fn for_each_code_mapping(mut f: impl FnMut(CodeMapping<'_>)) {
    let flags = libc::O_RDONLY | libc::O_CLOEXEC;
    // SAFETY: the path is a C string.
    let file = unsafe { libc::open(c"/proc/self/maps".as_ptr(), flags) };
    if file < 0 {
        return;
    }
    let mut line = [0; LINE_BYTES];
    let mut len = 0;
    let mut chunk = [0; LINE_BYTES];
    loop {
        // SAFETY: the buffer is valid for writes of its length.
        let got = unsafe { libc::read(file, chunk.as_mut_ptr().cast(), chunk.len()) };
        let Some(read) = usize::try_from(got).ok().filter(|&read| read > 0) else {
            break;
        };
        for &byte in chunk.iter().take(read) {
            if byte == b'\n' {
                if let Some(mapping) = parse(line.get(..len).unwrap_or_default()) {
                    f(mapping);
                }
                len = 0;
            } else if let Some(slot) = line.get_mut(len) {
                *slot = byte;
                len += 1;
            }
        }
    }
    // SAFETY: opened above, and closed once.
    unsafe { libc::close(file) };
}

/// `start-end perms offset device inode   name` with code, or `None`.
fn parse(line: &[u8]) -> Option<CodeMapping<'_>> {
    let mut words = line
        .split(|&byte| byte == b' ')
        .filter(|word| !word.is_empty());
    let mut range = words.next()?.split(|&byte| byte == b'-');
    let (start, end) = (hex(range.next()?)?, hex(range.next()?)?);
    let permissions = words.next()?;
    let offset = hex(words.next()?)?;
    let name = words.nth(2).unwrap_or(b"?");
    let is_code = permissions.first() == Some(&b'r') && permissions.get(2) == Some(&b'x');
    is_code.then(|| CodeMapping {
        start,
        end,
        base: start.wrapping_sub(offset),
        name,
    })
}

fn hex(digits: &[u8]) -> Option<usize> {
    digits.iter().try_fold(0usize, |sum, &digit| {
        let value = char::from(digit).to_digit(16)?;
        sum.checked_mul(16)?.checked_add(value as usize)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_mappings_are_understood() {
        let line = b"7f00a000-7f00b000 r-xp 00002000 fe:00 1234    /usr/lib/a.so";
        let expected = CodeMapping {
            start: 0x7f00_a000,
            end: 0x7f00_b000,
            base: 0x7f00_8000,
            name: b"/usr/lib/a.so",
        };
        assert_eq!(parse(line), Some(expected));
        assert_eq!(
            parse(b"7f00a000-7f00b000 rw-p 00002000 fe:00 1234 /a"),
            None
        );
        assert_eq!(parse(b"nonsense"), None);
    }

    #[test]
    fn this_function_lies_in_a_code_mapping() {
        let here = this_function_lies_in_a_code_mapping as fn() as usize;
        let mut found = 0;
        for_each_code_mapping(|mapping| {
            found += usize::from((mapping.start..mapping.end).contains(&here));
        });
        assert_eq!(found, 1);
    }

    #[test]
    fn the_stack_ends_somewhere() {
        let mut words = 0usize;
        for_each_stack_word(|_| {
            words += 1;
            true
        });
        assert!(words > 16, "{words}");
        assert!(!is_readable(8) && is_readable(ptr::from_ref(&words).addr()));
    }
}
