//! What the library writes is what the program did.
//!
//! What could go wrong: the order of threads is not that in which blocks changed hands, an
//! event of a thread that ended or still sleeps is missing, two processes write one file, a
//! program that ends by `_exit` or a signal leaves nothing, a recording is written over. Most programs are this test
//! executable once more, with the library preloaded.

use core::hint::black_box;
use core::time::Duration;
use std::collections::HashMap;
use std::env;
use std::fs;
use std::os::fd::AsRawFd as _;
use std::os::unix::process::CommandExt as _;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{OnceLock, mpsc};
use std::thread;
use std::time::SystemTime;

use brickyard_recording::{Block, END_BYTES, Event, HEADER_BYTES, Piece, Recording, end, header};

/// Set in the processes that are recorded.
const SUBJECT: &str = "BRICKYARD_TEST_SUBJECT";

/// Sizes in bytes that nothing but the programs of this test asks for.
const ODD_SIZES: core::ops::Range<usize> = 70_001..70_401;

/// The release library, built when it is out of date.
fn library() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let output = Command::new(env!("CARGO"))
            .args(["build", "--release", "--package", "brickyard-recorder"])
            .args(["--message-format", "json-render-diagnostics"])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .output()
            .expect("cargo runs");
        let messages = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            output.status.success(),
            "the library does not build: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        let name = "libbrickyard_recorder.so\"";
        let end = messages.find(name).expect("cargo names the library");
        let start = messages[..end].rfind('"').expect("the path is quoted") + 1;
        PathBuf::from(messages[start..end + name.len()].trim_end_matches('"'))
    })
}

/// Runs a command that is recorded into `file`.
fn recorded(command: &mut Command, file: &Path) -> Output {
    command
        .env("LD_PRELOAD", library())
        .env("BRICKYARD_RECORD", file)
        .output()
        .expect("the command runs")
}

/// Runs the test called `name` of this executable, as a subject.
fn subject(name: &str, file: &Path) -> Output {
    let mut command = Command::new(env::current_exe().expect("the test has a path"));
    command
        .args(["--exact", name, "--nocapture", "--test-threads=1"])
        .env(SUBJECT, "1");
    recorded(&mut command, file)
}

fn is_subject() -> bool {
    env::var_os(SUBJECT).is_some()
}

/// A recording in the order of its events.
struct Read {
    process: u32,
    events: Vec<(u32, Event)>,
    ended: bool,
}

fn read(file: &Path) -> Read {
    let bytes = fs::read(file).expect("the recording is written");
    let recording = Recording::open(&bytes).expect("it is one");
    let (mut events, mut numbers, mut ended) = (Vec::new(), None, false);
    for piece in recording.pieces() {
        match piece.expect("all pieces are whole") {
            Piece::Chunk(chunk) => {
                let named = |event: Result<(u64, Event), _>| {
                    let (number, event) = event.expect("events are sound");
                    (number, chunk.thread(), event)
                };
                events.extend(chunk.events().map(named));
            }
            Piece::End(end) => {
                assert_eq!(end.lost, 0, "no event was lost");
                (numbers, ended) = (Some(end.numbers), true);
            }
        }
    }
    events.sort_by_key(|(number, ..)| *number);
    if let Some(numbers) = numbers {
        let found: Vec<u64> = events.iter().map(|(number, ..)| *number).collect();
        assert_eq!(found, (0..numbers).collect::<Vec<_>>(), "each number once");
    }
    Read {
        process: recording.process(),
        events: events
            .into_iter()
            .map(|(_, thread, event)| (thread, event))
            .collect(),
        ended,
    }
}

/// What is alive at the end: sizes by block. Fails where a block is given out twice.
fn left(events: &[(u32, Event)]) -> HashMap<Block, u64> {
    let mut live = HashMap::new();
    let mut moving: HashMap<u32, (Block, Option<u64>)> = HashMap::new();
    for (thread, event) in events {
        match *event {
            Event::Allocate { block, size }
            | Event::AllocateZeroed { block, size }
            | Event::AllocateAligned { block, size, .. } => {
                assert_eq!(live.insert(block, size), None, "{event:?} twice");
            }
            Event::Free { block } => {
                live.remove(&block);
            }
            Event::ReallocBegin { block } => {
                moving.insert(*thread, (block, live.remove(&block)));
            }
            Event::ReallocEnd { block, size } => {
                assert!(
                    moving.remove(thread).is_some(),
                    "an end without a beginning"
                );
                assert_eq!(live.insert(block, size), None, "{event:?} twice");
            }
            Event::ReallocFailed => {
                let (block, size) = moving.remove(thread).expect("a beginning");
                live.extend(size.map(|size| (block, size)));
            }
        }
    }
    live
}

/// The odd sizes of what is alive, sorted.
fn odd_left(events: &[(u32, Event)]) -> Vec<usize> {
    let sizes = left(events)
        .into_values()
        .filter_map(|size| usize::try_from(size).ok());
    let mut odd: Vec<usize> = sizes.filter(|size| ODD_SIZES.contains(size)).collect();
    odd.sort_unstable();
    odd
}

/// A page-aligned type, for which Rust calls `posix_memalign`.
#[repr(align(4096))]
struct Aligned([u8; 4096]);

/// Also the subject of the test below: every second block of an odd size stays.
#[test]
fn a_program_with_threads_that_free_each_others_blocks() {
    if !is_subject() {
        return;
    }
    let (sender, receiver) = mpsc::channel::<Vec<u8>>();
    let makers: Vec<_> = (0..4)
        .map(|maker| {
            let sender = sender.clone();
            thread::spawn(move || {
                for size in ODD_SIZES.skip(maker).step_by(4) {
                    // Grown by realloc to its size, and beside blocks that come and go.
                    let mut block: Vec<u8> = Vec::with_capacity(size / 2);
                    block.resize(size / 3, 1);
                    drop(black_box(vec![0_u8; size % 777 + 1]));
                    block.reserve_exact(size - block.len());
                    assert_eq!(block.capacity(), size);
                    sender.send(block).expect("the main thread listens");
                }
            })
        })
        .collect();
    drop(sender);
    for block in receiver {
        if block.capacity() % 2 == 0 {
            core::mem::forget(block);
        }
    }
    for maker in makers {
        maker.join().expect("the thread ends");
    }
    let aligned = black_box(Box::new(Aligned([7; 4096])));
    assert_eq!(aligned.0[1], 7);
    core::mem::forget(aligned);
}

#[test]
fn what_is_alive_at_the_end_is_what_the_program_left() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("recording");
    let output = subject("a_program_with_threads_that_free_each_others_blocks", &file);
    assert!(output.status.success(), "{output:?}");
    let read = read(&file);
    assert!(read.ended);
    let expected: Vec<usize> = ODD_SIZES.filter(|size| size % 2 == 0).collect();
    assert_eq!(odd_left(&read.events), expected);
    let aligned = |event: &&(u32, Event)| {
        matches!(
            event.1,
            Event::AllocateAligned {
                align_log2: 12,
                size: 4096,
                ..
            }
        )
    };
    assert_eq!(read.events.iter().filter(aligned).count(), 1);
    let threads: std::collections::HashSet<u32> =
        read.events.iter().map(|(thread, _)| *thread).collect();
    assert!(threads.len() >= 5, "{threads:?}");
}

/// Also the subject of the test below.
#[test]
fn a_program_with_two_thousand_short_threads() {
    if is_subject() {
        for _ in 0..2000 {
            let work = || core::mem::forget(black_box(vec![1_u8; ODD_SIZES.start]));
            thread::spawn(work).join().expect("the thread ends");
        }
    }
}

/// Else the function of an allocator that the program is linked with would get the C library's blocks.
#[test]
fn a_program_that_asks_how_long_its_blocks_are() {
    if !is_subject() {
        return;
    }
    // SAFETY: `malloc` takes any number; the block is live until it is freed, once.
    unsafe {
        let block = libc::malloc(100);
        assert!((100..200).contains(&libc::malloc_usable_size(block)));
        assert_eq!(libc::malloc_usable_size(core::ptr::null_mut()), 0);
        libc::free(block);
        let function = libc::malloc_usable_size as *const core::ffi::c_void;
        let mut found = core::mem::zeroed::<libc::Dl_info>();
        assert_ne!(libc::dladdr(function, &raw mut found), 0);
        let library = core::ffi::CStr::from_ptr(found.dli_fname).to_string_lossy();
        assert!(library.contains("brickyard_recorder"), "{library}");
    }
}

#[test]
fn the_length_of_a_block_is_the_c_library_s_answer() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("recording");
    let output = subject("a_program_that_asks_how_long_its_blocks_are", &file);
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn threads_that_ended_are_not_missing() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("recording");
    let output = subject("a_program_with_two_thousand_short_threads", &file);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(odd_left(&read(&file).events).len(), 2000);
}

/// Also the subject of the test below: it is killed while it works.
#[test]
fn a_program_that_kills_itself() {
    if !is_subject() {
        return;
    }
    for _ in 0..200_000 {
        drop(black_box(vec![1_u8; ODD_SIZES.start]));
    }
    std::process::abort();
}

#[test]
fn a_killed_program_leaves_whole_chunks() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("recording");
    let output = subject("a_program_that_kills_itself", &file);
    assert!(!output.status.success());
    let read = read(&file);
    assert!(!read.ended);
    assert!(read.events.len() > 300_000, "{}", read.events.len());
    left(&read.events);
}

#[test]
fn a_shell_that_ends_by_underscore_exit_is_whole_and_its_children_are_not_in_it() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("recording");
    let script = "echo $$; (x=$(echo y); : $x); ls / >/dev/null; true";
    let output = recorded(Command::new("sh").args(["-c", script]), &file);
    assert!(output.status.success(), "{output:?}");
    let read = read(&file);
    assert!(read.ended);
    let shell = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    assert_eq!(read.process.to_string(), shell);
    left(&read.events);
}

/// Also the subject of the test below: its child allocates enough for many chunks.
#[test]
fn a_program_with_a_child_by_a_bare_clone() {
    if !is_subject() {
        return;
    }
    let flags = libc::c_long::from(libc::SIGCHLD);
    // SAFETY: without flags that share anything this is a fork; the subject has no other threads
    // that could hold a lock of the C library's, and the child ends by `_exit`.
    let child = unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) };
    for _ in 0..20_000 {
        drop(black_box(vec![1_u8; ODD_SIZES.start]));
    }
    core::mem::forget(black_box(vec![1_u8; ODD_SIZES.start]));
    if child == 0 {
        // SAFETY: ends this process, of which nothing is needed any more.
        unsafe { libc::_exit(0) };
    }
    let mut status = 0;
    let child = libc::pid_t::try_from(child).expect("a child was made");
    // SAFETY: `status` is valid for writing.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    assert_eq!(status, 0);
}

#[test]
fn a_child_that_the_c_library_does_not_know_of_is_not_in_the_recording() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("recording");
    let output = subject("a_program_with_a_child_by_a_bare_clone", &file);
    assert!(output.status.success(), "{output:?}");
    // Numbers and pieces are looked at there: the child would have its parent's once more.
    let read = read(&file);
    assert!(read.ended);
    assert_eq!(odd_left(&read.events), [ODD_SIZES.start]);
}

/// Threads of the C library, each of which makes its first call in the last destructor of its
/// data, after the recorder's own.
mod late {
    use core::ffi::c_void;
    use core::ptr;
    use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

    static KEY: AtomicU32 = AtomicU32::new(0);
    static NEXT: AtomicUsize = AtomicUsize::new(0);

    /// Makes `count` threads, one after the other.
    pub(super) fn threads(count: usize) {
        for _ in 0..count {
            let mut thread = 0;
            // SAFETY: the body is a function of this program, and the number is valid for writing.
            let failed = unsafe {
                libc::pthread_create(&raw mut thread, ptr::null(), body, ptr::null_mut())
            };
            assert_eq!(failed, 0);
            // SAFETY: created above, and joined once.
            assert_eq!(unsafe { libc::pthread_join(thread, ptr::null_mut()) }, 0);
        }
    }

    /// Before `threads`.
    pub(super) fn make_key() {
        let mut key = 0;
        // SAFETY: the key is valid for writing, and the destructor a function of this program.
        let failed = unsafe { libc::pthread_key_create(&raw mut key, Some(ends)) };
        assert_eq!(failed, 0);
        KEY.store(key, Ordering::Relaxed);
    }

    extern "C" fn body(_: *mut c_void) -> *mut c_void {
        set(1);
        ptr::null_mut()
    }

    fn set(round: usize) {
        let value = ptr::without_provenance(round);
        // SAFETY: the key was made and is never deleted.
        unsafe { libc::pthread_setspecific(KEY.load(Ordering::Relaxed), value) };
    }

    unsafe extern "C" fn ends(value: *mut c_void) {
        if value.addr() < 4 {
            set(value.addr() + 1);
            return;
        }
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the size is not 0.
        let block = unsafe { libc::malloc(super::ODD_SIZES.start + number) };
        assert!(!block.is_null());
        // SAFETY: allocated above, and used no more.
        unsafe { libc::free(block) };
    }
}

/// Also the subject of the test below.
#[test]
fn a_program_whose_threads_allocate_at_the_very_end() {
    if !is_subject() {
        return;
    }
    late::make_key();
    // The C library keeps stacks and arenas of the first.
    late::threads(50);
    let mapped = || {
        let statm = fs::read_to_string("/proc/self/statm").expect("there is a /proc");
        let pages = statm.split(' ').next().expect("a number");
        pages.parse::<usize>().expect("digits")
    };
    let before = mapped();
    late::threads(200);
    // With a buffer of its own for each thread it would be 1,800.
    let more = mapped().saturating_sub(before);
    assert!(more < 200, "{more} pages were mapped");
}

#[test]
fn threads_that_allocate_at_the_very_end_leave_their_buffers() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("recording");
    let output = subject("a_program_whose_threads_allocate_at_the_very_end", &file);
    assert!(output.status.success(), "{output:?}");
    let read = read(&file);
    assert!(read.ended);
    let allocated = read.events.iter().filter_map(|(_, event)| match *event {
        Event::Allocate { size, .. } => usize::try_from(size).ok(),
        _ => None,
    });
    let sizes: Vec<usize> = allocated.filter(|size| ODD_SIZES.contains(size)).collect();
    assert_eq!(sizes, ODD_SIZES.take(250).collect::<Vec<_>>());
}

#[test]
fn with_a_mark_for_the_process_each_program_has_its_file() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let script = "ls / >/dev/null; ls / >/dev/null; (:); exec true";
    let file = folder.path().join("%p.rec");
    let output = recorded(Command::new("sh").args(["-c", script]), &file);
    assert!(output.status.success(), "{output:?}");
    let files: Vec<_> = fs::read_dir(folder.path())
        .expect("a folder")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    // Two of `ls`; the shell has become `true`; the subshell is a fork only.
    assert_eq!(files.len(), 3, "{files:?}");
    for file in files {
        let name = file
            .file_stem()
            .expect("a name")
            .to_string_lossy()
            .into_owned();
        assert_eq!(read(&file).process.to_string(), name);
    }
}

#[test]
fn a_file_of_somebody_else_is_left_alone() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("precious");
    fs::write(&file, "not to be lost").expect("a writable folder");
    let output = recorded(Command::new("ls").arg("/"), &file);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(fs::read(&file).expect("still there"), b"not to be lost");
}

/// Runs `true`, recorded, with this in the file: the header of its own number, and `rest`. In
/// containers numbers of processes come again soon.
fn recorded_over_its_own_number(file: &Path, rest: &'static [u8], age: Duration) -> Output {
    let mut command = Command::new("true");
    let path = file.to_owned();
    let write = move || {
        fs::write(&path, [&header(std::process::id()), rest].concat())?;
        let written = SystemTime::now() - age;
        fs::File::options()
            .append(true)
            .open(&path)?
            .set_modified(written)
    };
    // SAFETY: the C library lets a child of `fork` allocate, and the closure takes no lock.
    unsafe { command.pre_exec(write) };
    let output = recorded(&mut command, file);
    assert!(output.status.success(), "{output:?}");
    output
}

#[test]
fn a_finished_recording_of_a_process_of_the_same_number_is_left_alone() {
    static END: OnceLock<[u8; END_BYTES]> = OnceLock::new();
    let end = END.get_or_init(|| end(0, 0));
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("recording");
    let output = recorded_over_its_own_number(&file, end, Duration::ZERO);
    assert!(String::from_utf8_lossy(&output.stderr).contains("it is left alone"));
    let len = fs::metadata(&file).expect("still there").len();
    assert_eq!(len, (HEADER_BYTES + END_BYTES) as u64);
}

/// It has no end, as what a process leaves that goes on by `exec`: that one's is newer.
#[test]
fn what_a_killed_process_of_the_same_number_left_is_left_alone() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("recording");
    let output = recorded_over_its_own_number(&file, b"a chunk", Duration::from_secs(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("it is left alone"));
    let len = fs::metadata(&file).expect("still there").len();
    assert_eq!(len, (HEADER_BYTES + 7) as u64);
    // The process that goes on.
    recorded_over_its_own_number(&file, b"a chunk", Duration::ZERO);
    assert!(read(&file).ended);
}

#[test]
fn a_file_that_a_living_process_of_the_same_number_writes_is_left_alone() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("recording");
    // This process takes the part of the other.
    let held = fs::File::create(&file).expect("a writable folder");
    // SAFETY: zeros are a lock of the whole file.
    let mut lock: libc::flock = unsafe { core::mem::zeroed() };
    lock.l_type = libc::c_short::try_from(libc::F_WRLCK).expect("a small constant");
    // SAFETY: the descriptor is open, and the structure is initialised.
    let failed = unsafe { libc::fcntl(held.as_raw_fd(), libc::F_SETLK, &raw const lock) };
    assert_eq!(failed, 0);
    recorded_over_its_own_number(&file, b"", Duration::ZERO);
    let len = fs::metadata(&file).expect("still there").len();
    assert_eq!(len, HEADER_BYTES as u64);
}

#[test]
fn what_a_program_becomes_by_exec_goes_into_its_file_anew() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("recording");
    // The subshell has the shell's descriptors, and may hold no lock by them.
    let script = "echo $$; (sleep 1; :) & exec ls /";
    let output = recorded(Command::new("sh").args(["-c", script]), &file);
    assert!(output.status.success(), "{output:?}");
    let read = read(&file);
    assert!(read.ended);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let shell = text.lines().next().expect("the shell says its number");
    assert_eq!(read.process.to_string(), shell);
    left(&read.events);
}

#[test]
fn a_program_that_closes_the_file_goes_on_and_nothing_is_written_into_another() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("recording");
    let other = folder.path().join("other");
    // Bash takes the number that the library's file had.
    let script = format!(
        "exec 512>&-; exec 512>'{}'; for i in $(seq 20000); do a[i]=$i; done; echo done",
        other.display()
    );
    let output = recorded(Command::new("bash").args(["-c", &script]), &file);
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "done\n",
        "{output:?}"
    );
    assert_eq!(fs::read(&other).expect("bash made it"), b"");
    assert!(String::from_utf8_lossy(&output.stderr).contains("the program closed its file"));
}
