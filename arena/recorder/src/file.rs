//! The file: opened once, written chunk by chunk, given up at the first error.

use core::ffi::{CStr, c_char, c_int};
use core::mem::MaybeUninit;

use brickyard_recording::{END_BYTES, HEADER_BYTES, header, is_end, process_of};

use crate::shared::Claim;
use crate::sync::{AtomicBool, AtomicI32, AtomicU64, Ordering};

/// Lowest number for the descriptor: above those that programs and shells hand out by
/// hand, below the usual limit of 1024 open files.
const LOWEST_FD: c_int = 512;

/// Most bytes of a path, the zero at its end included.
const PATH_BYTES: usize = 1024;

// Relaxed everywhere: written by `open`, before the session is on.
static FD: AtomicI32 = AtomicI32::new(-1);
static DEVICE: AtomicU64 = AtomicU64::new(0);
static INODE: AtomicU64 = AtomicU64::new(0);

/// Held while a chunk is written, so that chunks stay whole.
static WRITING: Claim = Claim::new();

/// How often a write lets others run before it gives up, once the process ends.
const PATIENCE: u32 = 10_000;

/// The process ends: its last words wait for nobody without a bound.
static ENDING: AtomicBool = AtomicBool::new(false);

/// Opens the file that `template` names and writes its header. `false` when this process is
/// not to be recorded, or cannot: the reason is on stderr then.
pub(crate) fn open(template: &[u8]) -> bool {
    let mut path = [0; PATH_BYTES];
    let Some(own) = expand(template, &mut path) else {
        complain(c"brickyard: BRICKYARD_RECORD: the path is too long\n");
        return false;
    };
    let Ok(path) = CStr::from_bytes_until_nul(&path) else {
        return false;
    };
    let opened = match open_with(path, libc::O_CREAT | libc::O_EXCL) {
        Err(libc::EEXIST) => match open_with(path, 0) {
            // Another user's, say; without a `%p` most processes find a file of another.
            Err(_) if !own => return false,
            result => result,
        },
        result => result,
    };
    let Ok(fd) = opened else {
        complain(c"brickyard: BRICKYARD_RECORD: the file cannot be opened\n");
        return false;
    };
    // First, for closing the other descriptor would give up the lock.
    let fd = moved_up(fd);
    let found = look_at(fd);
    if found == Found::Former || (found == Found::Another && own) {
        complain(c"brickyard: BRICKYARD_RECORD: the file is there already: it is left alone\n");
    }
    // SAFETY: the call takes a descriptor and a number.
    if found != Found::Ours || unsafe { libc::ftruncate(fd, 0) } != 0 {
        // SAFETY: opened above, and used no more.
        unsafe { libc::close(fd) };
        return false;
    }
    let Some((device, inode)) = identity(fd) else {
        return false;
    };
    FD.store(fd, Ordering::Relaxed);
    DEVICE.store(device, Ordering::Relaxed);
    INODE.store(inode, Ordering::Relaxed);
    write(&header(process()))
}

/// From now on a write gives up when another takes too long. That other may be one of this
/// very thread, which a signal handler that calls `_exit` has interrupted.
pub(crate) fn hurry() {
    // Relaxed: asked by the same thread; others may see it late.
    ENDING.store(true, Ordering::Relaxed);
}

/// Writes one piece. `false` when nothing more can be written, with the reason on stderr, or
/// when the process ends and another write is not done in time.
pub(crate) fn write(piece: &[u8]) -> bool {
    let mut patience = PATIENCE;
    while !WRITING.take() {
        // Relaxed: see `hurry`.
        if ENDING.load(Ordering::Relaxed) {
            patience -= 1;
            if patience == 0 {
                return false;
            }
        }
        yield_now();
    }
    let fd = FD.load(Ordering::Relaxed);
    let ours = (
        DEVICE.load(Ordering::Relaxed),
        INODE.load(Ordering::Relaxed),
    );
    // A program that closes descriptors it did not open may have opened another file under
    // the number.
    let result = if identity(fd) == Some(ours) {
        write_all(fd, piece)
    } else {
        Err(c"brickyard: the recording ends here: the program closed its file\n")
    };
    WRITING.leave();
    if let Err(complaint) = result {
        complain(complaint);
    }
    result.is_ok()
}

/// Lets another thread run.
pub(crate) fn yield_now() {
    // SAFETY: the call takes nothing and touches no memory.
    unsafe { libc::sched_yield() };
}

/// The number of this process.
pub(crate) fn process() -> u32 {
    // SAFETY: getpid takes nothing and cannot fail.
    u32::try_from(unsafe { libc::getpid() }).unwrap_or(0)
}

/// The number of the calling thread, which is not 0.
pub(crate) fn thread() -> u32 {
    // SAFETY: gettid takes nothing and cannot fail.
    let thread = unsafe { libc::syscall(libc::SYS_gettid) };
    u32::try_from(thread).unwrap_or(u32::MAX)
}

/// Whether no thread of this process has that number. Changes `errno`.
pub(crate) fn has_ended(thread: u32) -> bool {
    // SAFETY: signal 0 is none; the call only looks for the thread.
    let failed = unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), thread, 0) } != 0;
    failed && errno() == libc::ESRCH
}

/// Writes the path into `path`, the process in place of `%p`; tells whether there was
/// one. `None` when it is too long.
fn expand(template: &[u8], path: &mut [u8; PATH_BYTES]) -> Option<bool> {
    // The last byte stays zero.
    let mut room = path.iter_mut().take(PATH_BYTES - 1);
    let mut rest = template;
    let mut own = false;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        let after_mark = (byte == b'%').then(|| after.strip_prefix(b"p")).flatten();
        let Some(after_mark) = after_mark else {
            *room.next()? = byte;
            continue;
        };
        rest = after_mark;
        own = true;
        let process = process();
        let mut power = 1_000_000_000;
        while power > 0 {
            let digits = process / power;
            if digits > 0 || power == 1 {
                *room.next()? = b'0' + u8::try_from(digits % 10).unwrap_or(0);
            }
            power /= 10;
        }
    }
    Some(own)
}

/// Opens the file; the error is `errno`.
fn open_with(path: &CStr, flags: c_int) -> Result<c_int, c_int> {
    let flags = libc::O_RDWR | libc::O_APPEND | libc::O_CLOEXEC | flags;
    // SAFETY: the path is a C string; the mode is an integer, as O_CREAT needs.
    let fd = unsafe { libc::open(path.as_ptr(), flags, 0o644) };
    if fd < 0 { Err(errno()) } else { Ok(fd) }
}

/// Whose a file is that was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    /// Empty, or what this very process recorded before it called `exec`.
    Ours,
    /// The recording of a process that had this one's number, whole or not.
    Former,
    /// Some other file, or one that another process writes.
    Another,
}

/// Locks the file for as long as the process runs this program, and tells whose it is.
///
/// Numbers of processes come again, and in containers they are few: a header with the own
/// number says little. A process that is recorded holds the lock, and one that has ended
/// left an end, which `exec` does not.
fn look_at(fd: c_int) -> Found {
    // The lock first: who had it until now may have written.
    let (true, Some(stat)) = (lock(fd), stat(fd)) else {
        return Found::Another;
    };
    if stat.st_mode & libc::S_IFMT != libc::S_IFREG {
        return Found::Another;
    }
    if stat.st_size == 0 {
        return Found::Ours;
    }
    let number = read_at::<HEADER_BYTES>(fd, 0).and_then(|bytes| process_of(&bytes));
    if number != Some(process()) {
        return Found::Another;
    }
    let last = i64::try_from(END_BYTES).map_or(0, |len| stat.st_size - len);
    match read_at(fd, last) {
        Some(bytes) if is_end(&bytes) => Found::Former,
        _ if is_older(&stat) => Found::Former,
        _ => Found::Ours,
    }
}

/// Takes the lock of the file, which `exec` and the end of the process give up, and children
/// do not inherit; `false` when another process has it.
fn lock(fd: c_int) -> bool {
    #[expect(clippy::cast_possible_truncation, reason = "the constants are small")]
    let (kind, from) = (
        libc::F_WRLCK as libc::c_short,
        libc::SEEK_SET as libc::c_short,
    );
    let whole = libc::flock {
        l_type: kind,
        l_whence: from,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    // SAFETY: fcntl with F_SETLK takes a descriptor and reads the structure.
    let failed = unsafe { libc::fcntl(fd, libc::F_SETLK, &raw const whole) } != 0;
    // A file system without locks is no reason not to record.
    !failed || !matches!(errno(), libc::EACCES | libc::EAGAIN)
}

/// Nanoseconds by which the time of a file and that of a process may differ: files have the time of
/// the last tick of the kernel, and the start of a process is told in hundredths of a second.
const COARSE_NS: i128 = 20_000_000;

/// Whether the file was last written before this process began; `false` where the system does not
/// say. (`exec` does not change when a process began.)
fn is_older(stat: &libc::stat) -> bool {
    let written = nanoseconds(stat.st_mtime, stat.st_mtime_nsec);
    began().is_some_and(|began| written < began - COARSE_NS)
}

/// When this process began, on the clock that files have.
fn began() -> Option<i128> {
    // SAFETY: the path is a C string.
    let fd = unsafe {
        libc::open(
            c"/proc/self/stat".as_ptr(),
            libc::O_RDONLY | libc::O_CLOEXEC,
        )
    };
    if fd < 0 {
        return None;
    }
    let mut bytes = [0_u8; 512];
    // SAFETY: the buffer is valid for writing that many bytes.
    let count = unsafe { libc::read(fd, bytes.as_mut_ptr().cast(), bytes.len()) };
    // SAFETY: opened above, and used no more.
    unsafe { libc::close(fd) };
    let text = bytes.get(..usize::try_from(count).ok()?)?;
    // SAFETY: sysconf only reads; the name is valid.
    let per_second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    let ticks = i128::from(start_in_ticks(text)?);
    let since_boot = ticks * 1_000_000_000 / i128::from(per_second.max(1));
    Some(now(libc::CLOCK_REALTIME)? - now(libc::CLOCK_BOOTTIME)? + since_boot)
}

/// Field 22 of `/proc/self/stat`: field 2 is the program's name in brackets, which may have
/// blanks and brackets in it.
fn start_in_ticks(text: &[u8]) -> Option<u64> {
    let behind_name = text.rsplit(|byte| *byte == b')').next()?;
    let mut fields = behind_name.split(|byte| *byte == b' ');
    // The first is what lies between the bracket and field 3.
    let field = fields.nth(20)?;
    let digit = |byte: &u8| byte.is_ascii_digit().then(|| u64::from(byte - b'0'));
    let add = |number: u64, byte| number.checked_mul(10)?.checked_add(digit(byte)?);
    (!field.is_empty()).then(|| field.iter().try_fold(0, add))?
}

fn now(clock: libc::clockid_t) -> Option<i128> {
    let mut time = MaybeUninit::<libc::timespec>::uninit();
    // SAFETY: `time` is valid for writing one.
    if unsafe { libc::clock_gettime(clock, time.as_mut_ptr()) } != 0 {
        return None;
    }
    // SAFETY: the call has succeeded, so it has written the structure.
    let time = unsafe { time.assume_init() };
    Some(nanoseconds(time.tv_sec, time.tv_nsec))
}

fn nanoseconds(seconds: i64, rest: i64) -> i128 {
    i128::from(seconds) * 1_000_000_000 + i128::from(rest)
}

/// That many bytes of the file; `None` where there are fewer.
fn read_at<const N: usize>(fd: c_int, at: i64) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    // SAFETY: the buffer is valid for writing that many bytes.
    let count = unsafe { libc::pread(fd, bytes.as_mut_ptr().cast(), N, at) };
    (usize::try_from(count) == Ok(N)).then_some(bytes)
}

/// The descriptor under a number that programs leave alone, where that can be had.
fn moved_up(fd: c_int) -> c_int {
    // SAFETY: fcntl with F_DUPFD_CLOEXEC takes a descriptor and an int and touches no memory
    // of ours.
    let copy = unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, LOWEST_FD) };
    if copy < 0 {
        return fd;
    }
    // SAFETY: the caller's descriptor, in whose place the copy is used from here on.
    unsafe { libc::close(fd) };
    copy
}

/// Which file the descriptor stands for.
fn identity(fd: c_int) -> Option<(u64, u64)> {
    stat(fd).map(|stat| (stat.st_dev, stat.st_ino))
}

/// What the system says about the file.
fn stat(fd: c_int) -> Option<libc::stat> {
    let mut stat = MaybeUninit::<libc::stat>::uninit();
    // SAFETY: `stat` is valid for writing one.
    if unsafe { libc::fstat(fd, stat.as_mut_ptr()) } != 0 {
        return None;
    }
    // SAFETY: the call has succeeded, so it has written the structure.
    Some(unsafe { stat.assume_init() })
}

/// Writes all bytes. By `syscall`, because `write` is a cancellation point: a thread could
/// end there, inside of `malloc` and with locks held.
fn write_all(fd: c_int, bytes: &[u8]) -> Result<(), &'static CStr> {
    let mut rest = bytes;
    while !rest.is_empty() {
        // SAFETY: `rest` is an initialised buffer of the stated length.
        let written = unsafe { libc::syscall(libc::SYS_write, fd, rest.as_ptr(), rest.len()) };
        match usize::try_from(written) {
            Ok(count) if count > 0 => rest = rest.get(count..).unwrap_or_default(),
            Err(_) if errno() == libc::EINTR => {}
            _ => return Err(c"brickyard: the recording ends here: the file cannot be written\n"),
        }
    }
    Ok(())
}

/// Says a line on stderr.
fn complain(line: &CStr) {
    // Nobody is left to be told of an error.
    let _ = write_all(libc::STDERR_FILENO, line.to_bytes());
}

fn errno() -> c_int {
    // SAFETY: the C library returns a pointer to the calling thread's errno, valid, aligned and
    // initialised for the thread's whole life.
    unsafe { *libc::__errno_location() }
}

/// Runs `work`, which may change the calling thread's `errno`, and puts that back.
pub(crate) fn keeping_errno<R>(work: impl FnOnce() -> R) -> R {
    let saved = errno();
    let result = work();
    // SAFETY: as in `errno`; no other thread uses it.
    unsafe { *libc::__errno_location() = saved };
    result
}

/// The value of an environment variable.
pub(crate) fn variable<'a>(name: &CStr) -> Option<&'a [u8]> {
    // SAFETY: the name is a C string. The session asks before the program has other threads.
    let value: *const c_char = unsafe { libc::getenv(name.as_ptr()) };
    if value.is_null() {
        return None;
    }
    // SAFETY: not null, so a C string of the environment; the session is done with it before
    // the program goes on and could change it.
    Some(unsafe { CStr::from_ptr(value) }.to_bytes())
}
