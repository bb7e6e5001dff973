//! The statistics at exit appear when asked for, and only then.
//!
//! What could go wrong: many programs close stderr before they exit, and a
//! report that allocates would change what it reports or recurse.

mod common;

use std::process::{Command, Stdio};

use common::block;
use common::{in_preloaded_child, library, preloaded_test, stderr_of};

/// Lines of the report with the totals.
fn totals(stderr: &str) -> Vec<&str> {
    stderr
        .lines()
        .filter(|line| line.starts_with("brickyard: pid "))
        .collect()
}

/// Value of the figure after `name` in a line.
fn figure(line: &str, name: &str) -> usize {
    let mut words = line.split_whitespace().skip_while(|word| *word != name);
    words
        .nth(1)
        .and_then(|word| word.parse().ok())
        .unwrap_or_else(|| panic!("{name} in: {line}"))
}

/// Also the subject of the tests below, which look at what it leaves behind.
#[test]
fn a_program_that_allocates() {
    in_preloaded_child(this_test!(), || {
        let kept: Vec<_> = (0..50)
            .map(|_| block::Call::Malloc(20_000).make())
            .collect();
        assert!(kept.iter().all(Result::is_ok));
    });
}

#[test]
fn the_report_is_printed_at_exit_with_true_figures() {
    let output = preloaded_test("a_program_that_allocates")
        .env("BRICKYARD_STATS", "1")
        .output()
        .expect("the test runs");
    let stderr = stderr_of(&output);
    assert!(output.status.success(), "{stderr}");
    let [line] = totals(&stderr)[..] else {
        panic!("one line of totals, got: {stderr}")
    };
    // The 50 blocks were never freed.
    assert!(figure(line, "requested") >= 1_000_000, "{line}");
    assert!(figure(line, "live") >= figure(line, "requested"), "{line}");
    assert!(figure(line, "committed") >= figure(line, "live"), "{line}");
}

#[test]
fn nothing_is_printed_unless_asked_for() {
    for value in [None, Some(""), Some("0")] {
        let mut command = preloaded_test("a_program_that_allocates");
        if let Some(value) = value {
            command.env("BRICKYARD_STATS", value);
        }
        let stderr = stderr_of(&command.output().expect("the test runs"));
        assert!(totals(&stderr).is_empty(), "with {value:?}: {stderr}");
    }
}

/// The core utilities close stderr in an exit handler of their own.
#[test]
fn a_program_that_closes_stderr_still_reports() {
    let output = Command::new("ls")
        .arg(env!("CARGO_MANIFEST_DIR"))
        .env("LD_PRELOAD", library())
        .env("BRICKYARD_STATS", "1")
        .output()
        .expect("ls runs");
    assert!(output.status.success());
    assert!(String::from_utf8_lossy(&output.stdout).contains("Cargo.toml"));
    assert_eq!(
        totals(&stderr_of(&output)).len(),
        1,
        "{}",
        stderr_of(&output)
    );
}

/// A report that cannot be written must not keep the program from ending.
#[test]
fn a_program_without_stderr_ends_as_usual() {
    let status = Command::new("sh")
        .args(["-c", "exec 2>&-; exec ls /"])
        .env("LD_PRELOAD", library())
        .env("BRICKYARD_STATS", "1")
        .stdout(Stdio::null())
        .status()
        .expect("sh runs");
    assert!(status.success());
}

/// Also the subject of the test below.
#[test]
fn a_program_that_calls_malloc_stats() {
    in_preloaded_child(this_test!(), block::malloc_stats);
}

#[test]
fn malloc_stats_prints_on_stderr() {
    let output = preloaded_test("a_program_that_calls_malloc_stats")
        .output()
        .expect("the test runs");
    assert_eq!(
        totals(&stderr_of(&output)).len(),
        1,
        "{}",
        stderr_of(&output)
    );
}
