//! `BRICKYARD_PROFILE` writes where the program's memory came from, and nothing without it.
//!
//! What could go wrong: the profile misses what `free` gives back, a sampled block breaks
//! a C function's promise (alignment, zeroes, contents over `realloc`), or the report at
//! exit hangs in a program that has closed what it needs.

mod common;

use core::ffi::c_void;
use core::ptr;
use std::fs;
use std::path::Path;
use std::process::Command;

use common::block::{self, Call};
use common::{in_preloaded_child, library, preloaded_test, stderr_of};

/// Live and allocated bytes of a profile's first line, in samples.
fn totals(path: &Path) -> (usize, usize) {
    let text = fs::read_to_string(path).expect("the profile is written");
    let first = text.lines().next().expect("a line");
    assert!(first.ends_with("@ heap_v2/65536"), "{first}");
    assert!(text.contains("\nMAPPED_LIBRARIES:\n"), "{text}");
    assert!(text.contains("libbrickyard.so"), "the mappings are there");
    let numbers: Vec<usize> = first
        .split(|c: char| !c.is_ascii_digit())
        .filter_map(|word| word.parse().ok())
        .collect();
    (numbers[1], numbers[3])
}

/// Also the subject of the test below.
#[test]
fn a_program_that_keeps_a_little_of_much() {
    in_preloaded_child(this_test!(), || {
        for round in 0..100 {
            let blocks: Vec<_> = (1..2000)
                .map(|size| Call::Malloc(size).make().expect("memory"))
                .collect();
            if round % 10 != 0 {
                blocks.into_iter().for_each(block::Block::free);
            }
        }
    });
}

#[test]
fn the_profile_is_written_at_exit_and_counts_frees() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let output = preloaded_test("a_program_that_keeps_a_little_of_much")
        .env("BRICKYARD_PROFILE", folder.path().join("heap.%p"))
        .env("BRICKYARD_PROFILE_BYTES", "64K")
        .output()
        .expect("the test runs");
    assert!(output.status.success(), "{}", stderr_of(&output));
    let files: Vec<_> = fs::read_dir(folder.path())
        .expect("a folder")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    let [file] = &files[..] else {
        panic!("one process, but {files:?}")
    };
    // 100 × 2 MB, and a tenth of that is kept: some 3,000 samples.
    let (live, allocated) = totals(file);
    assert!(allocated > 2 << 20, "{allocated}");
    assert!(
        (allocated / 20..allocated / 5).contains(&live),
        "{live} of {allocated}"
    );
}

/// Allocates first of all, unlike a thread of Rust's.
extern "C" fn short_thread(_: *mut c_void) -> *mut c_void {
    Call::Malloc(100).make().expect("memory").free();
    ptr::null_mut()
}

/// Also the subject of the test below. Each finds a cache that another thread left, with a
/// countdown under way.
#[test]
fn a_program_of_short_threads() {
    in_preloaded_child(this_test!(), || {
        for _ in 0..500 {
            let mut thread = 0;
            // SAFETY: the thread gets nothing, and is waited for.
            unsafe {
                let made = libc::pthread_create(
                    &raw mut thread,
                    ptr::null(),
                    short_thread,
                    ptr::null_mut(),
                );
                assert_eq!(made, 0);
                libc::pthread_join(thread, ptr::null_mut());
            }
        }
    });
}

#[test]
fn a_thread_s_first_allocation_is_as_likely_a_sample_as_any() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("heap");
    let output = preloaded_test("a_program_of_short_threads")
        .env("BRICKYARD_PROFILE", &file)
        .env("BRICKYARD_PROFILE_BYTES", "64K")
        .output()
        .expect("the test runs");
    assert!(output.status.success(), "{}", stderr_of(&output));
    let text = fs::read_to_string(&file).expect("the profile is written");
    let first = text.lines().next().expect("a line");
    // `heap profile: live blocks: live bytes [ blocks: bytes ] @ …`
    let blocks = first
        .split('[')
        .nth(1)
        .and_then(|rest| rest.split(':').next());
    let blocks: usize = blocks.expect("a number").trim().parse().expect("digits");
    // Some KiB a thread are a sample for every twenty.
    assert!(blocks < 100, "{first}");
}

/// Every C function, with a sample for nearly every allocation.
#[test]
fn programs_run_as_usual_under_a_dense_profile() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let script = "for i in 1 2 3 4 5; do echo $i$i$i; done | sort -r | head -n 1; ls /";
    let run = |profile: bool| {
        let mut command = Command::new("sh");
        command.args(["-c", script]).env("LD_PRELOAD", library());
        if profile {
            command
                .env("BRICKYARD_PROFILE", folder.path().join("heap.%p"))
                .env("BRICKYARD_PROFILE_BYTES", "64");
        }
        command.output().expect("sh runs")
    };
    let (plain, profiled) = (run(false), run(true));
    assert!(profiled.status.success(), "{}", stderr_of(&profiled));
    assert_eq!(stderr_of(&profiled), "");
    assert_eq!(profiled.stdout, plain.stdout);
    let files = fs::read_dir(folder.path()).expect("a folder").count();
    assert!(files >= 3, "{files} profiles");
}

#[test]
fn a_file_that_cannot_be_written_is_said_once() {
    let output = Command::new("true")
        .env("LD_PRELOAD", library())
        .env("BRICKYARD_PROFILE", "/nonexistent/heap")
        .output()
        .expect("true runs");
    assert!(output.status.success());
    assert_eq!(
        stderr_of(&output),
        "brickyard: BRICKYARD_PROFILE: the file cannot be written (error 2)\n"
    );
}
