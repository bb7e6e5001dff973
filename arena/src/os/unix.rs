//! Linux (x86-64, aarch64).

use core::ffi::c_void;
use core::mem::MaybeUninit;
use core::ptr::{self, NonNull};

/// Bytes in an OS page.
pub(crate) fn page_size() -> usize {
    // SAFETY: sysconf has no preconditions.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    // The call cannot fail for this name; a nonsense answer must not become a mask.
    usize::try_from(size)
        .ok()
        .filter(|size| size.is_power_of_two())
        .unwrap_or(4096)
}

/// Maps `len` bytes of zeroed memory.
pub(crate) fn map(len: usize) -> Option<NonNull<u8>> {
    map_flags(0, len, 0)
}

/// Maps `len` bytes of zeroed memory at `addr`, if nothing is mapped there.
pub(crate) fn map_at(addr: usize, len: usize) -> Option<NonNull<u8>> {
    let got = map_flags(addr, len, libc::MAP_FIXED_NOREPLACE)?;
    if got.as_ptr().addr() == addr {
        return Some(got);
    }
    // A kernel before 4.17 takes the flag for a hint and may map elsewhere.
    // SAFETY: the mapping was made just above and nobody else knows it.
    unsafe { unmap(got.as_ptr().addr(), len) };
    None
}

fn map_flags(addr: usize, len: usize, flags: i32) -> Option<NonNull<u8>> {
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | flags;
    let hint = ptr::without_provenance_mut::<c_void>(addr);
    // SAFETY: an anonymous mapping without MAP_FIXED replaces no memory in use.
    let got = keep_errno(|| unsafe { libc::mmap(hint, len, protection, flags, -1, 0) });
    if got == libc::MAP_FAILED {
        None
    } else {
        NonNull::new(got.cast())
    }
}

/// Forgets the pages of `addr .. addr + len`.
///
/// # Safety
///
/// The range was mapped by this module and nothing refers to it any more.
pub(crate) unsafe fn unmap(addr: usize, len: usize) -> bool {
    // SAFETY: by contract the range is ours and unused.
    keep_errno(|| unsafe { libc::munmap(ptr::with_exposed_provenance_mut(addr), len) == 0 })
}

/// Gives the memory of `addr .. addr + len` back; it reads as zero afterwards.
///
/// # Safety
///
/// The range was mapped by this module, both ends are multiples of the OS page size,
/// and its contents are dead.
pub(crate) unsafe fn purge(addr: usize, len: usize) -> bool {
    // SAFETY: by contract the range is ours and its contents are not needed.
    // MADV_DONTNEED and not MADV_FREE, so that the resident size tells the truth.
    unsafe { advise(addr, len, libc::MADV_DONTNEED) }
}

/// What a program may do with memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Neither read nor write it.
    None,
    /// Read it.
    Read,
    /// Both.
    Full,
}

/// Sets what may be done with `addr .. addr + len`.
///
/// # Safety
///
/// The range was mapped by this module, or is of a static of ours; both ends are multiples of the OS
/// page size, and nothing uses it beyond what is allowed from now on.
pub(crate) unsafe fn protect(addr: usize, len: usize, access: Access) -> bool {
    let protection = match access {
        Access::None => libc::PROT_NONE,
        Access::Read => libc::PROT_READ,
        Access::Full => libc::PROT_READ | libc::PROT_WRITE,
    };
    let at = ptr::with_exposed_provenance_mut(addr);
    // SAFETY: by contract the range is ours.
    keep_errno(|| unsafe { libc::mprotect(at, len, protection) == 0 })
}

/// Marks in the page tables, since Linux 6.13 (libc does not name them yet): no mapping is split.
const MADV_GUARD_INSTALL: i32 = 102;
const MADV_GUARD_REMOVE: i32 = 103;

/// Gives the memory of `addr .. addr + len` back; each access to it is a fault afterwards.
///
/// # Safety
///
/// As for [`purge`]; nothing accesses the range until [`unfence`].
pub(crate) unsafe fn fence(addr: usize, len: usize) -> bool {
    // SAFETY: by contract.
    unsafe { advise(addr, len, MADV_GUARD_INSTALL) }
}

/// Allows access to `addr .. addr + len` again; it reads as zero.
///
/// # Safety
///
/// The range is part of one that was given to [`fence`].
pub(crate) unsafe fn unfence(addr: usize, len: usize) -> bool {
    // SAFETY: by contract.
    unsafe { advise(addr, len, MADV_GUARD_REMOVE) }
}

/// # Safety
///
/// The advice may be taken of this range.
unsafe fn advise(addr: usize, len: usize, advice: i32) -> bool {
    let at = ptr::with_exposed_provenance_mut(addr);
    // SAFETY: by contract.
    keep_errno(|| unsafe { libc::madvise(at, len, advice) == 0 })
}

/// 64 bits that a program cannot guess, or the time where the system has none.
pub(crate) fn random() -> u64 {
    let mut bytes = [0; 8];
    // SAFETY: the buffer is valid for writes of its length.
    let got = keep_errno(|| unsafe {
        libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), libc::GRND_NONBLOCK)
    });
    if got == 8 {
        u64::from_le_bytes(bytes)
    } else {
        now_ms().wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }
}

/// The system's number of the calling thread.
pub(crate) fn thread_id() -> usize {
    // SAFETY: the call takes nothing and cannot fail.
    let id = unsafe { libc::syscall(libc::SYS_gettid) };
    usize::try_from(id).unwrap_or(0)
}

/// Grows the mapping `addr .. addr + old` to `new` bytes without moving it.
///
/// # Safety
///
/// The range is one whole mapping made by this module.
pub(crate) unsafe fn extend(addr: usize, old: usize, new: usize) -> bool {
    let at = ptr::with_exposed_provenance_mut(addr);
    // SAFETY: by contract the mapping is ours; without MREMAP_MAYMOVE it stays in place.
    keep_errno(|| unsafe { libc::mremap(at, old, new, 0) != libc::MAP_FAILED })
}

/// Moves the pages of `from .. from + old` to `to`, where `new` bytes are mapped after.
///
/// # Safety
///
/// Both ranges are mappings made by this module (`to` one of `new` bytes), they do not
/// overlap, and nothing refers to either.
pub(crate) unsafe fn relocate(from: usize, old: usize, to: usize, new: usize) -> bool {
    let source = ptr::with_exposed_provenance_mut(from);
    let target = ptr::with_exposed_provenance_mut::<c_void>(to);
    let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
    // SAFETY: by contract both ranges are ours, so replacing the target harms nobody.
    keep_errno(|| unsafe { libc::mremap(source, old, new, flags, target) != libc::MAP_FAILED })
}

/// Milliseconds of the monotonic clock, with the resolution of the kernel's tick.
pub(crate) fn now_ms() -> u64 {
    let mut time = MaybeUninit::<libc::timespec>::zeroed();
    // SAFETY: `time` is valid for writes of a timespec.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC_COARSE, time.as_mut_ptr()) };
    // SAFETY: all zeros is a valid timespec, and the call above wrote one if it wrote.
    let time = unsafe { time.assume_init() };
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    seconds * 1000 + u64::try_from(time.tv_nsec).unwrap_or(0) / 1_000_000
}

/// Sleeps while `*word` is `value`.
///
/// # Safety
///
/// `word` points to a live 32-bit atomic.
pub(crate) unsafe fn wait(word: *const u32, value: u32) {
    let operation = libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG;
    let for_ever = ptr::null::<libc::timespec>();
    // SAFETY: by contract the word is live; the other arguments fit FUTEX_WAIT.
    keep_errno(|| unsafe { libc::syscall(libc::SYS_futex, word, operation, value, for_ever) });
}

/// Sleeps while `*word` is `value`, for `ms` milliseconds at most.
///
/// # Safety
///
/// `word` points to a live 32-bit atomic.
pub(crate) unsafe fn wait_for(word: *const u32, value: u32, ms: u64) {
    let operation = libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG;
    let time = libc::timespec {
        tv_sec: i64::try_from(ms / 1000).unwrap_or(i64::MAX),
        tv_nsec: i64::try_from(ms % 1000).unwrap_or(0) * 1_000_000,
    };
    // SAFETY: by contract the word is live; `time` is a relative timeout that outlives
    // the call; the other arguments fit FUTEX_WAIT.
    keep_errno(|| unsafe {
        libc::syscall(libc::SYS_futex, word, operation, value, &raw const time)
    });
}

/// Asks the system for huge pages on a mapping, or for none.
///
/// # Safety
///
/// The range was mapped by this module, both ends are multiples of the OS page size.
pub(crate) unsafe fn advise_huge(addr: usize, len: usize, wanted: bool) {
    let advice = if wanted {
        libc::MADV_HUGEPAGE
    } else {
        libc::MADV_NOHUGEPAGE
    };
    // SAFETY: by contract the range is ours; the advice does not change contents. A
    // kernel without huge pages refuses, which leaves things as they are.
    keep_errno(|| unsafe { libc::madvise(ptr::with_exposed_provenance_mut(addr), len, advice) });
}

const MEMBARRIER_PRIVATE_EXPEDITED: i32 = 1 << 3;
const MEMBARRIER_REGISTER_PRIVATE_EXPEDITED: i32 = 1 << 4;

/// Announces that this process will call [`barrier_everywhere`]; `false` if it cannot.
pub(crate) fn can_barrier() -> bool {
    membarrier(MEMBARRIER_REGISTER_PRIVATE_EXPEDITED)
}

/// Has every thread of the process pass a full memory barrier before this returns.
pub(crate) fn barrier_everywhere() -> bool {
    membarrier(MEMBARRIER_PRIVATE_EXPEDITED)
}

fn membarrier(command: i32) -> bool {
    // SAFETY: the call takes no pointers.
    keep_errno(|| unsafe { libc::syscall(libc::SYS_membarrier, command, 0, 0) == 0 })
}

/// Stack of a thread that [`spawn`] starts: the purge thread's frames are small, and the
/// program's thread-locals share it.
const SPAWN_STACK_BYTES: usize = 256 << 10;

/// Starts `main` as a detached thread that takes no signals; `false` when the system
/// refuses. May allocate: call it outside every lock.
pub(crate) fn spawn(main: extern "C" fn(*mut c_void) -> *mut c_void) -> bool {
    keep_errno(|| {
        let mut all = MaybeUninit::<libc::sigset_t>::zeroed();
        let mut old = MaybeUninit::<libc::sigset_t>::zeroed();
        // SAFETY: both sets are valid for writes; a filled set is a valid mask.
        unsafe {
            libc::sigfillset(all.as_mut_ptr());
            libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), old.as_mut_ptr());
        }
        let started = spawn_detached(main, SPAWN_STACK_BYTES) || spawn_detached(main, 0);
        // SAFETY: `old` was written by the call above (or is zeroed, which is a mask).
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, old.as_ptr(), ptr::null_mut()) };
        started
    })
}

/// `stack` bytes of stack, or the system's default for 0.
fn spawn_detached(main: extern "C" fn(*mut c_void) -> *mut c_void, stack: usize) -> bool {
    let mut attributes = MaybeUninit::<libc::pthread_attr_t>::zeroed();
    let attributes = attributes.as_mut_ptr();
    let mut thread = MaybeUninit::<libc::pthread_t>::zeroed();
    // SAFETY: the attributes are initialised before they are used and destroyed once;
    // `thread` is valid for writes; `main` is a function for the whole program.
    unsafe {
        if libc::pthread_attr_init(attributes) != 0 {
            return false;
        }
        libc::pthread_attr_setdetachstate(attributes, libc::PTHREAD_CREATE_DETACHED);
        if stack > 0 {
            libc::pthread_attr_setstacksize(attributes, stack);
        }
        let failed = libc::pthread_create(thread.as_mut_ptr(), attributes, main, ptr::null_mut());
        libc::pthread_attr_destroy(attributes);
        failed == 0
    }
}

/// Names the calling thread, for tools that list threads.
pub(crate) fn name_thread(name: &core::ffi::CStr) {
    // SAFETY: the name is a C string that outlives the call.
    unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr()) };
}

/// Wakes one thread that sleeps in [`wait`] on `word`.
pub(crate) fn wake_one(word: *const u32) {
    let operation = libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG;
    // SAFETY: FUTEX_WAKE does not read the word; a stale address wakes nobody.
    keep_errno(|| unsafe { libc::syscall(libc::SYS_futex, word, operation, 1) });
}

/// Runs a system call that may fail on behalf of an operation that does not: `free` must
/// not change errno.
pub(super) fn keep_errno<R>(call: impl FnOnce() -> R) -> R {
    let errno = errno();
    let result = call();
    set_errno(errno);
    result
}

/// The calling thread's errno.
fn errno() -> i32 {
    // SAFETY: the location is valid for the calling thread as long as it lives.
    unsafe { *libc::__errno_location() }
}

/// Puts back what [`errno`] gave.
fn set_errno(value: i32) {
    // SAFETY: the location is valid for the calling thread as long as it lives.
    unsafe { *libc::__errno_location() = value };
}

/// Writes to standard error without a buffer.
pub(crate) fn write_stderr(bytes: &[u8]) {
    // SAFETY: the pointer and the length are those of a live slice.
    unsafe { libc::write(libc::STDERR_FILENO, bytes.as_ptr().cast(), bytes.len()) };
}

/// The calling thread's return addresses, innermost first; returns how many. By the tables
/// that exceptions unwind with, so that programs without frame pointers have stacks too.
///
/// May allocate the first time, when the C library loads its unwinder.
#[cfg(target_env = "gnu")]
pub(crate) fn backtrace(addresses: &mut [usize]) -> usize {
    let room = i32::try_from(addresses.len()).unwrap_or(i32::MAX);
    // SAFETY: `addresses` has room for so many pointers, which are as large as a `usize`.
    let depth = keep_errno(|| unsafe { libc::backtrace(addresses.as_mut_ptr().cast(), room) });
    usize::try_from(depth).unwrap_or(0)
}

/// Other C libraries have no such call: a stack is empty there.
#[cfg(not(target_env = "gnu"))]
pub(crate) fn backtrace(_: &mut [usize]) -> usize {
    0
}

/// Shows the contents of a file to `show`, piece by piece; what cannot be read is left out.
pub(crate) fn read_file(path: &core::ffi::CStr, mut show: impl FnMut(&[u8])) {
    // SAFETY: the path is a C string.
    let fd = keep_errno(|| unsafe { libc::open(path.as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC) });
    if fd < 0 {
        return;
    }
    let mut piece = [0u8; 1024];
    loop {
        // SAFETY: `piece` is valid for writes of its length.
        let got = unsafe { libc::read(fd, piece.as_mut_ptr().cast(), piece.len()) };
        match usize::try_from(got) {
            Ok(count) if count > 0 => show(piece.get(..count).unwrap_or_default()),
            _ => break,
        }
    }
    // SAFETY: the descriptor was opened above and is used no more.
    unsafe { libc::close(fd) };
}

/// Ends the process by SIGABRT.
pub(crate) fn abort() -> ! {
    // SAFETY: abort has no preconditions.
    unsafe { libc::abort() }
}

/// What [`on_thread_exit`] gives and [`arm_thread_exit`] takes.
pub(crate) type ExitKey = libc::pthread_key_t;

/// Makes a key whose destructor is `run`.
pub(crate) fn on_thread_exit(run: unsafe extern "C" fn(*mut c_void)) -> Option<ExitKey> {
    let mut key = 0;
    // SAFETY: `key` is valid for writes, and `run` is a function for the whole program.
    let failed = unsafe { libc::pthread_key_create(&raw mut key, Some(run)) };
    (failed == 0).then_some(key)
}

/// Has the destructor of `key` called with `value` (not null) when this thread ends.
pub(crate) fn arm_thread_exit(key: ExitKey, value: *mut c_void) -> bool {
    // SAFETY: the key was made by `on_thread_exit` and is never deleted.
    unsafe { libc::pthread_setspecific(key, value) == 0 }
}

/// Registers handlers around fork.
pub(crate) fn on_fork(
    before: unsafe extern "C" fn(),
    parent: unsafe extern "C" fn(),
    child: unsafe extern "C" fn(),
) {
    // SAFETY: the handlers are functions for the whole program.
    // Failure (no memory) leaves fork as it is without handlers; nothing better is left.
    unsafe { libc::pthread_atfork(Some(before), Some(parent), Some(child)) };
}
