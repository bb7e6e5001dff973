//! `brickyard record` and `brickyard replay` as their user sees them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use serde_json::Value;

/// The release library that records, built when it is out of date.
fn library() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let output = Command::new(env!("CARGO"))
            .args(["build", "--release", "--package", "brickyard-recorder"])
            .args(["--message-format", "json-render-diagnostics"])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .output()
            .expect("cargo runs");
        assert!(output.status.success(), "{}", stderr(&output));
        let messages = stdout(&output);
        let name = "libbrickyard_recorder.so\"";
        let end = messages.find(name).expect("cargo names the library");
        let start = messages[..end].rfind('"').expect("the path is quoted") + 1;
        PathBuf::from(messages[start..end + name.len()].trim_end_matches('"'))
    })
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a temporary folder's path is UTF-8")
}

fn brickyard(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_brickyard"))
        .args(arguments)
        .output()
        .expect("the command is built")
}

/// Records a command into `file`.
fn record(file: &Path, command: &[&str]) -> Output {
    let start = [
        "record",
        "-o",
        text(file),
        "--preload",
        text(library()),
        "--",
    ];
    brickyard(&[&start[..], command].concat())
}

#[test]
fn a_recorded_program_is_replayed_with_table_plot_and_json() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("recording");
    // This command once more: hundreds of threads, whose blocks outlive them.
    let child = [
        "child",
        "--workload",
        "thread-churn",
        "--allocator",
        "system",
        "--quick",
    ];
    let own = env!("CARGO_BIN_EXE_brickyard");
    let output = record(
        &file,
        &[&[own][..], &child, &["--files", "unused"]].concat(),
    );
    assert!(output.status.success(), "{}", stderr(&output));
    let line = stdout(&output);
    assert!(
        line.contains("recorded ") && line.contains(" bytes a call"),
        "{line}"
    );

    let (plot, json) = (folder.path().join("t.svg"), folder.path().join("t.json"));
    let output = brickyard(&[
        "replay",
        text(&file),
        "--rounds",
        "1",
        "--under",
        "system,arena",
        "--plot",
        text(&plot),
        "--json",
        text(&json),
    ]);
    assert!(output.status.success(), "{}", stderr(&output));
    let printed = stdout(&output);
    assert!(!printed.contains("note:"), "{printed}");
    for name in ["system ", "arena "] {
        assert!(
            printed.lines().any(|line| line.starts_with(name)),
            "{printed}"
        );
    }
    assert!(
        printed.lines().all(|line| line.chars().count() <= 100),
        "{printed}"
    );
    assert!(
        fs::read_to_string(&plot)
            .expect("a plot")
            .contains("</svg>")
    );
    let json: Value = serde_json::from_slice(&fs::read(&json).expect("a file")).expect("JSON");
    let recording = &json["recording"];
    assert!(recording["threads"].as_u64() > Some(8), "{recording}");
    let points = recording["live_bytes"]
        .as_array()
        .expect("a timeline")
        .len();
    for row in json["rows"].as_array().expect("rows") {
        assert_eq!(
            row["rss_kib"].as_array().map(Vec::len),
            Some(points),
            "{row}"
        );
        assert!(row["time_s"].as_f64() > Some(0.0), "{row}");
        assert!(row["mean_rss_by_live"].as_f64() > Some(1.0), "{row}");
    }
}

#[test]
fn a_library_is_replayed_under_and_a_missing_one_is_an_error() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("recording");
    assert!(record(&file, &["ls", "/"]).status.success());
    // The recorder itself is an allocator, too: the C library's.
    let run = |under: &str| brickyard(&["replay", text(&file), "--rounds", "1", "--under", under]);
    let output = run(text(library()));
    assert!(
        stdout(&output).contains("libbrickyard_recorder.so"),
        "{}",
        stderr(&output)
    );
    for (under, reason) in [
        ("/nonexistent/lib.so", "no library at /nonexistent/lib.so"),
        ("dlmalloc", "is not in this build; there are system, arena"),
        (text(&file), "cannot be preloaded"),
    ] {
        let output = run(under);
        assert!(!output.status.success());
        assert!(stderr(&output).contains(reason), "{}", stderr(&output));
    }
}

#[test]
fn a_cut_recording_is_replayed_with_a_note_and_other_files_are_refused() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("recording");
    let script = "for ((i = 0; i < 20000; i++)); do a[i]=x$i; done";
    assert!(record(&file, &["bash", "-c", script]).status.success());
    let bytes = fs::read(&file).expect("the recording");
    fs::write(&file, &bytes[..bytes.len() - 50]).expect("a writable folder");
    let arguments = [
        "replay",
        text(&file),
        "--rounds",
        "1",
        "--serial",
        "--under",
        "system",
    ];
    let output = brickyard(&arguments);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(
        stdout(&output).contains("is cut off"),
        "{}",
        stdout(&output)
    );
    fs::write(&file, b"something else altogether").expect("a writable folder");
    let output = brickyard(&arguments);
    assert!(!output.status.success());
    assert!(
        stderr(&output).contains("this is no recording"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn a_command_that_fails_or_is_not_there_is_an_error() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("recording");
    let output = record(&file, &["sh", "-c", "exit 3"]);
    assert!(!output.status.success());
    assert!(
        stderr(&output).contains("exit status: 3"),
        "{}",
        stderr(&output)
    );
    assert!(file.exists(), "what it did is recorded");
    let output = record(&file, &["/nonexistent/program"]);
    assert!(stderr(&output).contains("cannot run /nonexistent/program"));
    let output = record(folder.path(), &["true"]);
    assert!(
        stderr(&output).contains("is no file"),
        "{}",
        stderr(&output)
    );
    let output = record(Path::new("/nonexistent/folder/file"), &["true"]);
    assert!(stderr(&output).contains("cannot write /nonexistent/folder/file"));
}
