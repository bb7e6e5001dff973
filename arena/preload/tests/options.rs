//! The options from the environment are in force, and a bad value is said and harmless.
//!
//! What could go wrong: a variable is read and not used, a typing error silently gives a
//! program without a limit, or a value from outside crashes every program.

mod common;

use std::process::Command;

use common::{in_preloaded_child, library, preloaded_test, stderr_of};

/// Runs a shell command under the library with one variable set; its output and stderr.
fn shell(script: &str, name: &str, value: &str) -> (bool, String, String) {
    let output = Command::new("sh")
        .args(["-c", script])
        .env("LD_PRELOAD", library())
        .env(name, value)
        .output()
        .expect("sh runs");
    (
        output.status.success(),
        String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr_of(&output),
    )
}

/// Also the subject of tests below: takes memory until null, and says how much it got.
#[test]
fn a_program_that_takes_memory_until_null() {
    in_preloaded_child(this_test!(), || {
        let mut taken = 0;
        while taken < 256 << 20 {
            // SAFETY: malloc has no preconditions; the block is left to the process's end.
            if core::hint::black_box(unsafe { libc::malloc(1 << 20) }).is_null() {
                break;
            }
            taken += 1 << 20;
        }
        eprintln!("taken: {} MiB", taken >> 20);
    });
}

fn taken(name: &str, value: &str) -> (usize, String) {
    let output = preloaded_test("a_program_that_takes_memory_until_null")
        .env(name, value)
        .output()
        .expect("the test runs");
    let stderr = stderr_of(&output);
    let words = stderr.split("taken: ").nth(1).unwrap_or_default();
    let mib = words.split(' ').next().and_then(|word| word.parse().ok());
    (mib.unwrap_or_else(|| panic!("{stderr}")), stderr)
}

#[test]
fn the_memory_limit_holds() {
    let (mib, stderr) = taken("BRICKYARD_MEMORY_LIMIT", "64M");
    assert!((48..=64).contains(&mib), "{mib} MiB: {stderr}");
    assert_eq!(taken("BRICKYARD_MEMORY_LIMIT", "").0, 256);
}

#[test]
fn passing_the_soft_limit_is_said_once() {
    let (mib, stderr) = taken("BRICKYARD_SOFT_LIMIT", "65536K");
    assert_eq!(mib, 256);
    let said = stderr.matches("BRICKYARD_SOFT_LIMIT is passed: ").count();
    assert_eq!(said, 1, "{stderr}");
}

#[test]
fn a_bad_value_gives_one_line_and_the_default() {
    for (name, value, advice) in [
        ("BRICKYARD_PURGE_THREAD", "yes", "0 or 1"),
        ("BRICKYARD_DECAY_MS", "-1", "milliseconds"),
        (
            "BRICKYARD_DECAY_MS",
            "99999999999999999999999",
            "milliseconds",
        ),
        ("BRICKYARD_IDLE_MS", "1s", "milliseconds"),
        ("BRICKYARD_MEMORY_LIMIT", "M", "512K"),
        ("BRICKYARD_MEMORY_LIMIT", "99999999999G", "512K"),
        ("BRICKYARD_SOFT_LIMIT", "1 G", "512K"),
        ("BRICKYARD_HUGE_PAGES", "Always", "system, never or always"),
        ("BRICKYARD_THREAD_CACHE", "\u{1b}[31m", "512K"),
        ("BRICKYARD_HARDENED", "on", "0 or 1"),
        ("BRICKYARD_GUARD_EVERY", "1K", "a number of allocations"),
    ] {
        let (worked, stdout, stderr) = shell("exec echo bricks", name, value);
        assert!(worked, "{name}={value}: {stderr}");
        assert_eq!(stdout, "bricks\n");
        // The shell, and what it becomes, load the library once each.
        let lines: Vec<&str> = stderr.lines().collect();
        assert!((1..=2).contains(&lines.len()), "{name}={value}: {stderr}");
        for line in lines {
            assert!(
                line.starts_with(&format!("brickyard: {name}=")) && line.contains(advice),
                "{line}"
            );
            assert!(
                line.chars().all(|c| c == ' ' || c.is_ascii_graphic()),
                "{line:?}"
            );
        }
    }
}

#[test]
fn a_good_value_is_silent() {
    for (name, value) in [
        ("BRICKYARD_PURGE_THREAD", "1"),
        ("BRICKYARD_DECAY_MS", "0"),
        ("BRICKYARD_IDLE_MS", "never"),
        ("BRICKYARD_MEMORY_LIMIT", "1g"),
        ("BRICKYARD_SOFT_LIMIT", "1000000000"),
        ("BRICKYARD_HUGE_PAGES", "always"),
        ("BRICKYARD_THREAD_CACHE", "64k"),
        ("BRICKYARD_HARDENED", "1"),
        ("BRICKYARD_GUARD_EVERY", "0"),
    ] {
        let (worked, stdout, stderr) = shell("exec echo bricks", name, value);
        assert!(
            worked && stdout == "bricks\n" && stderr.is_empty(),
            "{stderr}"
        );
    }
}

/// Names of the threads of this process.
fn threads() -> Vec<String> {
    let tasks = std::fs::read_dir("/proc/self/task").expect("proc is mounted");
    tasks
        .flatten()
        .filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok())
        .map(|name| name.trim().to_owned())
        .collect()
}

/// Also the subject of the test below: frees much, sleeps, and says what is left.
#[test]
fn a_program_that_frees_and_sleeps() {
    in_preloaded_child(this_test!(), || {
        let blocks: Vec<Vec<u8>> = (0..100_000).map(|size| vec![1; size % 900]).collect();
        drop(blocks);
        std::thread::sleep(core::time::Duration::from_secs(2));
        let status = std::fs::read_to_string("/proc/self/status").expect("proc is mounted");
        let line = status.lines().find(|line| line.starts_with("VmRSS:"));
        let words = line.and_then(|line| line.split_whitespace().nth(1));
        eprintln!("left: {} KiB", words.expect("the kernel says VmRSS"));
        eprintln!("threads: {:?}", threads());
    });
}

#[test]
fn the_purge_thread_runs_where_it_is_asked_for() {
    let left = |value: &str| {
        let output = preloaded_test("a_program_that_frees_and_sleeps")
            .env("BRICKYARD_PURGE_THREAD", value)
            .output()
            .expect("the test runs");
        let stderr = stderr_of(&output);
        let words = stderr.split("left: ").nth(1).unwrap_or_default();
        let kib = words.split(' ').next().and_then(|word| word.parse().ok());
        let kib: usize = kib.unwrap_or_else(|| panic!("{stderr}"));
        (kib, stderr.contains("brickyard-purge"))
    };
    let (without, absent) = left("0");
    let (with, present) = left("1");
    assert!(!absent && present);
    assert!(
        with + (20 << 10) < without,
        "{without} KiB without, {with} with"
    );
}

/// What [`a_program_that_shows_its_options`] says.
#[derive(Debug)]
struct Shown {
    /// Bytes in thread caches after much was freed, and two seconds of sleep later.
    cached: [usize; 2],
    /// Bytes that the heap holds after big blocks were freed and some time.
    committed: usize,
    /// Flags of a mapping, as the kernel names them.
    flags: String,
}

/// Also the subject of the test below.
#[test]
fn a_program_that_shows_its_options() {
    in_preloaded_child(this_test!(), || {
        // SAFETY: the functions have no preconditions but that of `free`, whose blocks
        // come from `malloc` just before.
        unsafe {
            let mut blocks = [core::ptr::null_mut(); 12];
            blocks.fill_with(|| core::hint::black_box(libc::malloc(3 << 20)));
            let smaps = std::fs::read_to_string("/proc/self/smaps").expect("proc is mounted");
            let start = format!("{:x}-", blocks[0].addr());
            let flags = smaps
                .split(&start)
                .nth(1)
                .and_then(|rest| rest.split("VmFlags: ").nth(1))
                .and_then(|rest| rest.lines().next());
            eprintln!("flags: {} ;", flags.unwrap_or("unknown"));
            blocks.into_iter().for_each(|block| libc::free(block));
            for _ in 0..10 {
                std::thread::sleep(core::time::Duration::from_millis(60));
                libc::free(core::hint::black_box(libc::malloc(64 << 10)));
            }
            eprintln!("committed: {} ;", libc::mallinfo2().arena);
            for size in [64, 512, 2048, 8192] {
                let mut blocks = [core::ptr::null_mut(); 400];
                blocks.fill_with(|| core::hint::black_box(libc::malloc(size)));
                blocks.into_iter().for_each(|block| libc::free(block));
            }
            eprintln!("cached: {} ;", libc::mallinfo2().fsmblks);
            // A heap that is worth a purge thread.
            let mut blocks = [core::ptr::null_mut(); 50];
            blocks.fill_with(|| core::hint::black_box(libc::malloc(100_000)));
            blocks.into_iter().for_each(|block| libc::free(block));
            std::thread::sleep(core::time::Duration::from_secs(2));
            eprintln!("later: {} ;", libc::mallinfo2().fsmblks);
        }
    });
}

fn show(variables: &[(&str, &str)]) -> Shown {
    let output = preloaded_test("a_program_that_shows_its_options")
        .envs(variables.iter().copied())
        .output()
        .expect("the test runs");
    let stderr = stderr_of(&output);
    let value = |name: &str| -> String {
        let rest = stderr.split(&format!("{name}: ")).nth(1);
        let value = rest.and_then(|rest| rest.split(" ;").next());
        value.unwrap_or_else(|| panic!("{stderr}")).to_owned()
    };
    let bytes = |name: &str| value(name).parse().expect("a number");
    Shown {
        cached: [bytes("cached"), bytes("later")],
        committed: bytes("committed"),
        flags: format!(" {} ", value("flags")),
    }
}

#[test]
fn each_variable_reaches_its_option() {
    let default = show(&[("BRICKYARD_PURGE_THREAD", "1")]);
    assert!(default.cached[0] > 300_000, "{default:?}");
    // A block of each size stays, 213 KB at most.
    assert!(default.cached[1] < 220_000, "{default:?}");
    assert!(default.committed < 20 << 20, "{default:?}");
    assert!(!default.flags.contains(" nh "), "{default:?}");
    let other = show(&[
        ("BRICKYARD_PURGE_THREAD", "1"),
        ("BRICKYARD_IDLE_MS", "never"),
        ("BRICKYARD_DECAY_MS", "never"),
        ("BRICKYARD_HUGE_PAGES", "never"),
    ]);
    assert!(other.cached[1] > 300_000, "BRICKYARD_IDLE_MS: {other:?}");
    assert!(other.committed > 30 << 20, "BRICKYARD_DECAY_MS: {other:?}");
    let has_huge = std::path::Path::new("/sys/kernel/mm/transparent_hugepage").exists();
    assert!(
        other.flags.contains(" nh ") || !has_huge,
        "BRICKYARD_HUGE_PAGES: {other:?}"
    );
    let small = show(&[("BRICKYARD_THREAD_CACHE", "64K")]);
    assert!(
        small.cached[0] < 100_000,
        "BRICKYARD_THREAD_CACHE: {small:?}"
    );
}
