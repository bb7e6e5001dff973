//! Faults in mappings whose file lost bytes, as errors.
//!
//! A page of a mapping that lies beyond the end of its file, or that the disk cannot read,
//! ends the process with SIGBUS. With [`Options::guard_sigbus`](crate::Options::guard_sigbus)
//! a handler looks whether the address is in a guarded mapping ([`crate::guarded`]). If so it
//! notes that bytes were lost, lays zeros over the place and returns: the read
//! goes on, and whoever asked for it finds the note afterwards (`Pages::intact`).
//!
//! ```text
//!   start            end of the file                          end
//!   +--------+--------+----------------------------------------+
//!   | pages, of which | address space: a fault here lays zeros |
//!   | a fault mends 1 | from its page to the end, at once      |
//!   +--------+--------+----------------------------------------+
//! ```
//!
//! Each piece of zeros is a mapping of its own, and the system lets a process have some
//! 65,000. Where a file was cut one is enough. Where a disk cannot read a page, what
//! follows may be lent and readable, so it is a mapping a page: a process that goes on to read tens
//! of thousands of such pages is ended as it would be without the guard.
//!
//! The handler does nothing but atomic loads and stores and the system calls `fstat`, `mmap`
//! and `sigaction`, which it may ([signal-safety(7)] and, for those by `rustix`, bare system
//! calls). It stays for the life of the process; what is not ours goes to the handler that
//! was there before. That one may put the default in our place, as the standard library's
//! does with a signal that somebody sent: then ours comes back, and the next signal that is
//! not ours meets the default.
//!
//! [signal-safety(7)]: https://man7.org/linux/man-pages/man7/signal-safety.7.html

use core::ffi::{c_int, c_void};
use core::mem::MaybeUninit;
use core::ptr;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::sync::OnceLock;

use memmap2::MmapRaw;
use rustix::mm::{MapFlags, ProtFlags};

use crate::guarded::{Guarded, Mapping, PlaceIndex};
use crate::sync::{AtomicU32, Mutex, Ordering};

static GUARDED: Guarded = Guarded::new();

/// Set before the handler is installed, and never changed.
static INSTALLED: OnceLock<Installed> = OnceLock::new();

/// Whether the handler that was there before gave way to the default.
static GAVE_WAY: AtomicU32 = AtomicU32::new(0);

struct Installed {
    previous: libc::sigaction,
    os_page: usize,
}

/// A mapping that is guarded until this is dropped, which comes before the mapping ends.
#[derive(Debug)]
pub(crate) struct Guard {
    place: PlaceIndex,
    /// A descriptor that stays open while the place is taken.
    _file: File,
}

impl Guard {
    /// Guards a mapping of this file, from its beginning on; `None` if too many are.
    pub(crate) fn over(raw: &MmapRaw, file: &File) -> io::Result<Option<Self>> {
        install()?;
        let file = file.try_clone()?;
        let start = raw.as_ptr() as u64;
        let place = GUARDED.add(Mapping {
            start,
            end: start + raw.len() as u64,
            file: file.as_raw_fd().cast_unsigned(),
        });
        Ok(place.map(|place| Self { place, _file: file }))
    }

    /// Whether bytes of it were lost.
    #[inline]
    pub(crate) fn is_lost(&self) -> bool {
        GUARDED.is_lost(self.place)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        GUARDED.remove(self.place);
    }
}

/// Installs the handler, once.
fn install() -> io::Result<()> {
    static DONE: Mutex<bool> = Mutex::new(false);
    let mut done = DONE.lock();
    if *done {
        return Ok(());
    }
    let mut previous = MaybeUninit::uninit();
    // SAFETY: a null pointer asks for the present action, which is written to `previous`.
    let asked = unsafe { libc::sigaction(libc::SIGBUS, ptr::null(), previous.as_mut_ptr()) };
    if asked != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call succeeded and filled it.
    let previous: libc::sigaction = unsafe { previous.assume_init() };
    let os_page = rustix::param::page_size();
    // Before the handler, which reads it. An attempt that failed set the same.
    let _ = INSTALLED.set(Installed { previous, os_page });
    if !set_handler() {
        return Err(io::Error::last_os_error());
    }
    *done = true;
    Ok(())
}

/// Makes `on_fault` the handler of SIGBUS; false if the system refuses.
fn set_handler() -> bool {
    // SAFETY: all zeros is an action: the default one, with no flags and an empty mask.
    let mut action: libc::sigaction = unsafe { core::mem::zeroed() };
    let handler: extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void) = on_fault;
    action.sa_sigaction = handler as usize;
    action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_RESTART;
    // SAFETY: (1) `action` names a function of the form that SA_SIGINFO asks for, which
    // lives as long as the process; (2) it does only what a handler may (see the module).
    unsafe { libc::sigaction(libc::SIGBUS, &raw const action, ptr::null_mut()) == 0 }
}

/// Takes the place of the default again, if the handler that was there before put it there.
fn come_back() {
    let mut now = MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: a null pointer asks for the present action, which is written to `now`.
    let asked = unsafe { libc::sigaction(libc::SIGBUS, ptr::null(), now.as_mut_ptr()) };
    // SAFETY: if the call succeeded, it filled it.
    if asked == 0 && unsafe { now.assume_init() }.sa_sigaction == libc::SIG_DFL {
        // Relaxed: a flag of its own, nothing is read through it.
        GAVE_WAY.store(1, Ordering::Relaxed);
        // A failure leaves the default, as it would be without us.
        set_handler();
    }
}

extern "C" fn on_fault(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    let Some(installed) = INSTALLED.get() else {
        return;
    };
    // SAFETY: the system hands a handler with SA_SIGINFO a valid `siginfo_t`.
    let code = unsafe { (*info).si_code };
    // Positive codes are the system's own: a signal that somebody sent has no address.
    let is_fault = code > 0;
    // Other faults are not about bytes that vanished, or not of who reads them.
    if code == libc::BUS_ADRERR || code == libc::BUS_MCEERR_AR {
        // SAFETY: as above; a fault's signal has an address.
        let address = unsafe { (*info).si_addr() } as u64;
        if mend(address, installed.os_page) {
            return;
        }
    }
    pass_on(&installed.previous, is_fault, signal, info, context);
}

/// Lays zeros over what cannot be read at `address`, if that lies in a guarded mapping.
fn mend(address: u64, os_page: usize) -> bool {
    let Some((place, mapping)) = GUARDED.find(address) else {
        return false;
    };
    // Before the look at the file: what is lent after this is not believed.
    GUARDED.lose(place);
    let page = address & !(os_page as u64 - 1);
    let is_cut = file_bytes(&mapping).is_some_and(|bytes| page - mapping.start >= bytes);
    let len = if is_cut {
        usize::try_from(mapping.end - page).unwrap_or(os_page)
    } else {
        os_page
    };
    let flags = MapFlags::PRIVATE | MapFlags::FIXED | MapFlags::NORESERVE;
    // SAFETY: (1) the range starts on an OS page and lies in a mapping of this crate, which
    // is registered while it is mapped and not removed while somebody reads it, as who
    // faulted here does: nothing else is replaced; (2) nobody could have read the bytes that
    // were there, since they are not: one page faulted, and more lay beyond the end of the file
    // after the note above, so that what was lent before is gone, and what is written there
    // later is not lent; (3) references to them go on to point at readable memory.
    let mended = |len| unsafe {
        rustix::mm::mmap_anonymous(page as *mut c_void, len, ProtFlags::READ, flags).is_ok()
    };
    // A limit on locked memory (`mlockall` with MCL_FUTURE) may leave room for a page only.
    mended(len) || mended(os_page)
}

/// The length of a mapping's file; `None` if it cannot be had.
fn file_bytes(mapping: &Mapping) -> Option<u64> {
    let file: RawFd = mapping.file.cast_signed();
    // SAFETY: the guard keeps the descriptor open while the place is registered, which it is
    // as long as somebody reads there.
    let file = unsafe { BorrowedFd::borrow_raw(file) };
    rustix::fs::fstat(file).ok()?.st_size.try_into().ok()
}

/// Does with a signal that is not ours what was done with it before.
fn pass_on(
    previous: &libc::sigaction,
    is_fault: bool,
    signal: c_int,
    info: *mut libc::siginfo_t,
    context: *mut c_void,
) {
    type Plain = extern "C" fn(c_int);
    type WithInfo = extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void);
    // Relaxed: as in `come_back`.
    let gave_way = GAVE_WAY.load(Ordering::Relaxed) != 0;
    let previous_handler = if gave_way {
        libc::SIG_DFL
    } else {
        previous.sa_sigaction
    };
    match previous_handler {
        // As the system does where nobody handles a fault.
        libc::SIG_IGN if !is_fault => {}
        libc::SIG_DFL | libc::SIG_IGN => {
            // SAFETY: all zeros is an action: the default one.
            let default: libc::sigaction = unsafe { core::mem::zeroed() };
            // SAFETY: a valid action for a valid signal. What faulted does so again after
            // the return, and what was sent is sent again, now without a handler.
            unsafe {
                libc::sigaction(signal, &raw const default, ptr::null_mut());
                if !is_fault {
                    libc::raise(signal);
                }
            }
        }
        handler if previous.sa_flags & libc::SA_SIGINFO != 0 => {
            // SAFETY: the process installed this address as a handler of this form.
            let handler = unsafe { core::mem::transmute::<usize, WithInfo>(handler) };
            handler(signal, info, context);
            if !is_fault {
                come_back();
            }
        }
        handler => {
            // SAFETY: as above, without SA_SIGINFO.
            let handler = unsafe { core::mem::transmute::<usize, Plain>(handler) };
            handler(signal);
        }
    }
}

#[cfg(test)]
mod tests {
    //! What could go wrong: more is laid over than cannot be read, or so little that a
    //! process meets the limit of mappings. How it is seen: files are mapped, guarded and
    //! cut, and a page that fails as one on a bad disk does is made by mapping one beyond the
    //! end of another file in its place: the system says the same of both (`BUS_ADRERR`).

    use super::*;
    use memmap2::MmapOptions;
    use std::io::Write;

    fn os_page() -> usize {
        rustix::param::page_size()
    }

    /// A file of so many pages of ones, in a guarded mapping that is as long as asked.
    fn guarded(pages: usize, mapped: usize) -> (File, MmapRaw, Guard) {
        let mut file = tempfile::tempfile().expect("a temporary folder");
        file.write_all(&vec![1; pages * os_page()]).expect("room");
        let mut options = MmapOptions::new();
        let raw = options.len(mapped * os_page()).map_raw_read_only(&file);
        let raw = raw.expect("address space");
        let guard = Guard::over(&raw, &file).expect("a handler");
        (file, raw, guard.expect("a place"))
    }

    fn first_byte(raw: &MmapRaw, page: usize) -> u8 {
        assert!(page * os_page() < raw.len());
        // SAFETY: in the mapping; what faults is mended.
        unsafe { raw.as_ptr().add(page * os_page()).read_volatile() }
    }

    #[test]
    fn a_page_that_the_disk_cannot_read_is_lost_alone() {
        let (file, raw, guard) = guarded(9, 20);
        assert_eq!(first_byte(&raw, 4), 1);
        let empty = tempfile::tempfile().expect("a temporary folder");
        let bad = raw.as_ptr().wrapping_add(5 * os_page());
        // SAFETY: the page lies in the mapping above, and nobody has a reference to it.
        let replaced = unsafe {
            let flags = MapFlags::SHARED | MapFlags::FIXED;
            rustix::mm::mmap(
                bad as *mut c_void,
                os_page(),
                ProtFlags::READ,
                flags,
                &empty,
                0,
            )
        };
        replaced.expect("address space");
        assert!(!guard.is_lost());
        assert_eq!(first_byte(&raw, 5), 0);
        assert!(guard.is_lost());
        assert_eq!(file.metadata().expect("ours").len(), 9 * os_page() as u64);
        let bytes: Vec<u8> = (0..9).map(|page| first_byte(&raw, page)).collect();
        assert_eq!(bytes, [1, 1, 1, 1, 1, 0, 1, 1, 1]);
    }

    /// More pages than a process can have mappings, with a gap between any two.
    #[test]
    fn all_of_a_file_that_was_cut_can_be_touched() {
        const MAPPED: usize = 150_000;
        let (file, raw, guard) = guarded(9, MAPPED);
        file.set_len(3 * os_page() as u64).expect("ours");
        assert!(!guard.is_lost());
        assert_eq!(first_byte(&raw, 7), 0);
        assert!(guard.is_lost());
        for page in (3..MAPPED).step_by(2).rev() {
            assert_eq!(first_byte(&raw, page), 0, "page {page}");
        }
        let bytes: Vec<u8> = (0..4).map(|page| first_byte(&raw, page)).collect();
        assert_eq!(bytes, [1, 1, 1, 0]);
        // What comes into the file later is not seen.
        file.set_len(9 * os_page() as u64).expect("ours");
        assert_eq!(first_byte(&raw, 8), 0);
    }
}
