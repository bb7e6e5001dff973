//! The command `brickyard` as its user sees it.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

/// Runs the command with these arguments.
fn brickyard(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_brickyard"));
    command
        .args(arguments)
        .output()
        .expect("the command is built")
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn json(text: &[u8]) -> Value {
    serde_json::from_slice(text).unwrap_or_else(|error| {
        panic!("no JSON ({error}): {}", String::from_utf8_lossy(text));
    })
}

/// A folder of Rust files, small enough to keep the tests short.
fn input() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let source = "/// Doc.\npub fn add(left: u32, right: u32) -> u32 { left + right }\n";
    for number in 0..4 {
        fs::write(folder.path().join(format!("{number}.rs")), source).expect("a writable folder");
    }
    folder
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a temporary folder's path is UTF-8")
}

/// Runs one child by hand and returns its report.
fn child(workload: &str, named: &str, told: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_brickyard"));
    command
        .args([
            "child",
            "--quick",
            "--files",
            "unused",
            "--workload",
            workload,
        ])
        .args(["--allocator", told])
        .env("BRICKYARD_ALLOCATOR", named)
        .output()
        .expect("the command is built")
}

#[test]
fn quick_comparison_prints_table_and_verdict_and_writes_json() {
    let (input, report) = (
        input(),
        tempfile::NamedTempFile::new().expect("a temporary file"),
    );
    let arguments = [
        "--quick",
        "--only",
        "pair",
        "--rounds",
        "1",
        "--allocators",
        "arena",
    ];
    let places = ["--input", text(input.path()), "--json", text(report.path())];
    let output = brickyard(&[&arguments[..], &places].concat());
    assert!(output.status.success(), "{}", stderr(&output));
    let printed = stdout(&output);
    assert!(
        printed.lines().any(|line| line.starts_with("pairs ")),
        "{printed}"
    );
    assert!(
        printed
            .lines()
            .any(|line| line.starts_with("verdict: arena: ")),
        "{printed}"
    );
    assert!(
        printed.lines().all(|line| line.chars().count() <= 100),
        "{printed}"
    );

    let report = json(&fs::read(report.path()).expect("the report is written"));
    let keys: Vec<_> = report
        .as_object()
        .expect("an object")
        .keys()
        .cloned()
        .collect();
    assert_eq!(keys, ["machine", "rows", "versions"]);
    let rows = report["rows"].as_array().expect("an array");
    let names: Vec<_> = rows
        .iter()
        .filter_map(|row| row["allocator"].as_str())
        .collect();
    assert_eq!(names, ["system", "arena"]);
    for row in rows {
        assert_eq!(row.as_object().expect("an object").len(), 7, "{row}");
        assert_eq!(row["workload"], "pairs");
        for key in [
            "time_s",
            "cpu_s",
            "peak_rss_kib",
            "rest_rss_kib",
            "live_kib",
        ] {
            assert!(
                row[key].as_f64().is_some_and(|value| value > 0.0),
                "{key}: {row}"
            );
        }
    }
}

/// The quick form on one row: table, percentiles aside, verdict, and one record for each
/// pool in the file.
#[test]
fn pools_are_compared_and_reported() {
    let report = tempfile::NamedTempFile::new().expect("a temporary file");
    let start = ["compare", "--pool", "--quick", "--rounds", "1"];
    let output = brickyard(
        &[
            &start[..],
            &["--only", "owned", "--json", text(report.path())],
        ]
        .concat(),
    );
    assert!(output.status.success(), "{}", stderr(&output));
    let printed = stdout(&output);
    for name in ["owned", "brickyard", "Box arena", "verdict: "] {
        assert!(
            printed.lines().any(|line| line.starts_with(name)),
            "{name}: {printed}"
        );
    }
    assert!(
        printed.lines().all(|line| line.chars().count() <= 100),
        "{printed}"
    );
    let report = json(&fs::read(report.path()).expect("the report is written"));
    assert!(report["versions"]["brickyard-pool"].is_string(), "{report}");
    let rows = report["rows"].as_array().expect("an array");
    assert!(rows.len() >= 3, "{report}");
    for row in rows {
        assert_eq!(row["row"], "owned");
        assert!(row["ns"].as_f64().is_some_and(|ns| ns > 0.0), "{row}");
    }
}

/// The quick form on one row: both tables, floors, verdict, and one record for each store
/// in the file.
#[test]
fn stores_are_compared_and_reported() {
    let report = tempfile::NamedTempFile::new().expect("a temporary file");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let start = ["compare", "--store", "--quick", "--rounds", "1"];
    let rest = ["--only", "halved", "--dir", text(folder.path())];
    let output = brickyard(&[&start[..], &rest, &["--json", text(report.path())]].concat());
    assert!(output.status.success(), "{}", stderr(&output));
    let printed = stdout(&output);
    for name in ["file, halved", "log + sync", "brickyard: ", "verdict: "] {
        assert!(
            printed.lines().any(|line| line.starts_with(name)),
            "{name}: {printed}"
        );
    }
    assert!(
        printed.lines().all(|line| line.chars().count() <= 100),
        "{printed}"
    );
    let left = fs::read_dir(folder.path()).expect("the folder").count();
    assert_eq!(left, 0, "files are left behind");
    let report = json(&fs::read(report.path()).expect("the report is written"));
    assert!(
        report["versions"]["brickyard-store"].is_string(),
        "{report}"
    );
    assert!(
        report["rows"][0]["figure"]
            .as_f64()
            .is_some_and(|figure| figure > 1.0),
        "{report}"
    );
}

/// The process that fills the store is killed, and another one finds its last commit.
#[test]
fn store_is_opened_after_a_kill() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let start = ["store-child", "--job", "killed", "--subject", "brickyard"];
    let rest = ["--quick", "--tiny", "--dir", text(folder.path())];
    let output = brickyard(&[&start[..], &rest].concat());
    assert!(output.status.success(), "{}", stderr(&output));
    let figure = json(&output.stdout)["open, killed"].as_f64();
    assert!(figure.is_some_and(|ms| ms > 0.0), "{figure:?}");
}

#[test]
fn pools_are_refused_by_a_process_on_another_allocator() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_brickyard"));
    let output = command
        .args(["pool-child", "--row", "pair", "--subject", "Box arena"])
        .env("BRICKYARD_ALLOCATOR", "system")
        .output()
        .expect("the command is built");
    assert!(!output.status.success());
    let complaint = "runs on system, not on arena";
    assert!(stderr(&output).contains(complaint), "{}", stderr(&output));
}

/// Every real-input row under both allocators: their checksums are compared
/// within the run, so a row that lost or damaged data would fail here.
#[test]
fn real_input_rows_agree_under_both_allocators() {
    let input = input();
    for only in ["parse", "index", "json"] {
        let mut arguments = vec![
            "compare",
            "--quick",
            "--rounds",
            "1",
            "--allocators",
            "arena",
        ];
        arguments.extend(["--only", only, "--input", text(input.path())]);
        let output = brickyard(&arguments);
        assert!(output.status.success(), "{only}: {}", stderr(&output));
        let printed = stdout(&output);
        let rows = printed
            .lines()
            .filter(|line| line.starts_with(only))
            .count();
        assert_eq!(rows, 2, "{printed}");
    }
}

/// The arena's own figures show where a child's blocks come from: the system's
/// child never touches the arena, the arena's child keeps all its blocks there.
#[test]
fn child_runs_on_the_allocator_it_was_told_to() {
    let system = child("churn", "system", "system");
    assert!(system.status.success(), "{}", stderr(&system));
    let system = json(&system.stdout);
    assert_eq!(system["allocator"], "system");
    assert_eq!(system["arena_live_bytes"], 0);
    assert!(system["live_bytes"].is_null());

    let arena = child("churn", "arena", "arena");
    assert!(arena.status.success(), "{}", stderr(&arena));
    let arena = json(&arena.stdout);
    assert_eq!(arena["allocator"], "arena");

    let counting = child("churn", "counting", "counting");
    let counting = json(&counting.stdout);
    let asked = counting["live_bytes"].as_u64().expect("it counts");
    let live = arena["arena_live_bytes"].as_u64().expect("a figure");
    assert!(asked > 1 << 20, "churn holds {asked} bytes");
    assert!(
        live >= asked / 2,
        "{asked} bytes are held, the arena says {live}"
    );
    assert_eq!(system["checksum"], arena["checksum"]);
}

/// An allocation before the choice would be freed by another allocator. Debug
/// builds count them.
#[test]
fn nothing_is_allocated_before_the_choice() {
    for allocator in ["system", "arena"] {
        let report = json(&child("larson", allocator, allocator).stdout);
        let expected = if cfg!(debug_assertions) {
            Value::from(0)
        } else {
            Value::Null
        };
        assert_eq!(report["early_calls"], expected, "{allocator}");
    }
}

#[test]
fn child_refuses_another_allocator_than_it_was_told() {
    for (named, told) in [
        ("system", "arena"),
        ("no-such-allocator", "arena"),
        ("", "arena"),
    ] {
        let output = child("pairs", named, told);
        assert!(!output.status.success());
        assert!(
            stderr(&output).contains("runs on system, not on arena"),
            "{}",
            stderr(&output)
        );
    }
}

#[test]
fn bad_input_is_refused_with_a_reason() {
    let empty = tempfile::tempdir().expect("a temporary folder");
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    let cases = [
        (text(empty.path()), "no Rust file"),
        (text(file.path()), "not a folder"),
        (
            "/nonexistent/brickyard",
            "no such folder: /nonexistent/brickyard",
        ),
    ];
    for (input, reason) in cases {
        let output = brickyard(&["--quick", "--only", "pairs", "--input", input]);
        assert!(!output.status.success(), "{input}");
        assert!(
            stderr(&output).starts_with("error: "),
            "{}",
            stderr(&output)
        );
        assert!(stderr(&output).contains(reason), "{}", stderr(&output));
    }
}

#[test]
fn unknown_names_are_refused_with_the_known_ones() {
    let output = brickyard(&["--only", "no-such-row"]);
    assert!(
        !output.status.success() && stderr(&output).contains("larson"),
        "{}",
        stderr(&output)
    );
    let output = brickyard(&["--pool", "--only", "no-such-row"]);
    assert!(
        !output.status.success() && stderr(&output).contains("across"),
        "{}",
        stderr(&output)
    );
    let output = brickyard(&["--allocators", "no-such-allocator"]);
    assert!(
        !output.status.success() && stderr(&output).contains("arena"),
        "{}",
        stderr(&output)
    );
}

/// The C library itself is a library that can be preloaded and changes nothing.
#[test]
fn run_compares_a_command_with_and_without_a_library() {
    let Some(library) = c_library() else {
        panic!("no C library in /proc/self/maps")
    };
    let start = ["run", "--rounds", "2", "--preload", &library, "--"];
    let output = brickyard(&[&start[..], &["echo", "hello"]].concat());
    assert!(output.status.success(), "{}", stderr(&output));
    let printed = stdout(&output);
    assert!(
        printed.lines().any(|line| line.starts_with("echo ")),
        "{printed}"
    );
    assert!(printed.contains("outputs: the same"), "{printed}");

    let shell = r#"test -z "$LD_PRELOAD" && echo without || echo with"#;
    let output = brickyard(&[&start[..], &["sh", "-c", shell]].concat());
    assert!(
        stdout(&output).contains("DIFFER between"),
        "{}",
        stdout(&output)
    );

    let shell = r#"test -z "$LD_PRELOAD""#;
    let output = brickyard(&[&start[..], &["sh", "-c", shell]].concat());
    assert!(!output.status.success());
    assert!(
        stderr(&output).contains("exit status: 1"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn programs_run_under_each_library_and_are_compared_with_the_best() {
    let library = c_library().expect("the C library is mapped");
    let report = tempfile::NamedTempFile::new().expect("a temporary file");
    let start = ["programs", "--quick", "--rounds", "1", "--only", "true-"];
    let libraries = ["--preload", &library, "--under", &library];
    let places = ["--json", text(report.path())];
    let output = brickyard(&[&start[..], &libraries, &places].concat());
    assert!(output.status.success(), "{}", stderr(&output));
    let text = stdout(&output);
    let rows = text.lines().filter(|line| line.starts_with("true-x100"));
    assert_eq!(rows.count(), 3, "{text}");
    assert!(
        text.contains("verdict: brickyard against the best"),
        "{text}"
    );
    let report = json(&fs::read(report.path()).expect("the report was written"));
    assert_eq!(report["rows"].as_array().map(Vec::len), Some(3));
}

#[test]
fn a_library_that_cannot_be_preloaded_fails_its_programs() {
    let (library, file) = (
        c_library().expect("the C library is mapped"),
        tempfile::NamedTempFile::new().expect("a temporary file"),
    );
    let start = ["programs", "--quick", "--rounds", "1", "--only", "true-"];
    let libraries = ["--preload", &library, "--under", text(file.path())];
    let output = brickyard(&[&start[..], &libraries].concat());
    assert!(!output.status.success());
    let reason = stderr(&output);
    assert!(reason.contains("cannot be preloaded"), "{reason}");
}

#[test]
fn run_refuses_what_cannot_be_preloaded_or_run() {
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    let output = brickyard(&["run", "--preload", text(file.path()), "--", "true"]);
    assert!(!output.status.success());
    assert!(
        stderr(&output).contains("cannot be preloaded"),
        "{}",
        stderr(&output)
    );

    let output = brickyard(&["run", "--preload", "/nonexistent.so", "--", "true"]);
    assert!(
        stderr(&output).contains("/nonexistent.so"),
        "{}",
        stderr(&output)
    );

    let library = c_library().expect("a C library");
    let output = brickyard(&["run", "--preload", &library, "--", "/nonexistent/command"]);
    assert!(!output.status.success());
    assert!(
        stderr(&output).contains("/nonexistent/command"),
        "{}",
        stderr(&output)
    );
}

/// The path of the C library this test itself is linked to.
fn c_library() -> Option<String> {
    let maps = fs::read_to_string("/proc/self/maps").ok()?;
    let path = maps
        .lines()
        .filter_map(|line| line.split_whitespace().nth(5));
    path.into_iter()
        .find(|path| path.contains("/libc.so") || path.contains("/libc-"))
        .map(String::from)
}

/// Builds the library that the command preloads, in the release form that users get; returns its path.
fn preload_library() -> String {
    let output = Command::new(env!("CARGO"))
        .args(["build", "--release", "--package", "brickyard-preload"])
        .args(["--message-format", "json-render-diagnostics"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    let messages = stdout(&output);
    assert!(output.status.success(), "{}", stderr(&output));
    let end = messages
        .find("libbrickyard.so\"")
        .expect("cargo names the library");
    let start = messages[..end].rfind('"').expect("a quoted path") + 1;
    format!("{}libbrickyard.so", &messages[start..end])
}

/// Two processes (the shell itself ends without its exit handlers): their functions are in
/// the stacks, in both forms.
#[test]
fn run_writes_a_heap_profile_of_a_command() {
    let library = preload_library();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (profile, collapsed) = (folder.path().join("p.pb"), folder.path().join("c.txt"));
    let brickyard_itself = env!("CARGO_BIN_EXE_brickyard");
    let start = ["run", "--preload", &library, "--profile-bytes", "512"];
    let files = ["--profile", text(&profile), "--collapsed", text(&collapsed)];
    let shell = format!("{brickyard_itself} --help; {brickyard_itself} --version");
    let output = brickyard(&[&start[..], &files, &["--", "sh", "-c", &shell]].concat());
    assert!(output.status.success(), "{}", stderr(&output));
    let printed = stdout(&output);
    assert!(printed.contains("Usage: brickyard"), "{printed}");
    assert!(printed.contains("heap profile of 2 processes"), "{printed}");
    let stacks = fs::read_to_string(&collapsed).expect("it is written");
    let line = stacks
        .lines()
        .find(|line| line.contains("clap"))
        .unwrap_or_else(|| panic!("no stack of the argument parser: {stacks}"));
    let (_, bytes) = line.rsplit_once(' ').expect("a number");
    assert!(bytes.parse::<u64>().is_ok_and(|bytes| bytes > 0), "{line}");
    assert!(!stacks.contains("libbrickyard.so"), "{stacks}");
    let encoded = fs::read(&profile).expect("it is written");
    let names = encoded.windows(4).any(|window| window == b"clap");
    assert!(names && encoded.windows(11).any(|window| window == b"inuse_space"));
}

#[test]
fn a_command_without_a_profile_is_an_error() {
    let library = c_library().expect("a C library");
    let start = [
        "run",
        "--preload",
        &library,
        "--collapsed",
        "/dev/null",
        "--",
    ];
    let output = brickyard(&[&start[..], &["true"]].concat());
    assert!(!output.status.success());
    assert!(
        stderr(&output).contains("left no profile"),
        "{}",
        stderr(&output)
    );
}

/// The least that `grow` does: two tables, three charts, one record for each point.
#[test]
fn growth_is_measured_and_drawn() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let report = folder.path().join("growth.json");
    let arguments = [
        "grow",
        "--quick",
        "--rounds",
        "1",
        "--most-mib",
        "4",
        "--allocators",
        "arena",
    ];
    let places = ["--plot", text(folder.path()), "--json", text(&report)];
    let output = brickyard(&[&arguments[..], &places].concat());
    assert!(output.status.success(), "{}", stderr(&output));
    let printed = stdout(&output);
    for title in ["threads", "live MiB"] {
        assert!(
            printed.lines().any(|line| line.starts_with(title)),
            "{printed}"
        );
    }
    for chart in ["threads.svg", "live.svg", "live-memory.svg"] {
        assert!(folder.path().join(chart).exists(), "{chart}");
    }
    let report = json(&fs::read(report).expect("the report is written"));
    for (curve, points) in [("by_threads", 7), ("by_live", 2)] {
        let rows = report[curve].as_array().expect("an array");
        assert_eq!(rows.len(), points * 2, "{curve}");
        assert!(rows.iter().all(|row| row["pair_ns"].as_f64() > Some(0.0)));
    }
}
