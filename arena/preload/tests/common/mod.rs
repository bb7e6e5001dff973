//! Building the library, and running a test inside a process that preloads it.
#![expect(dead_code, reason = "each test file uses a part of it")]

pub(crate) mod block;

use std::env;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::OnceLock;

/// Set in the processes that [`in_preloaded_child`] starts.
const CHILD_MARK: &str = "BRICKYARD_TEST_PRELOADED";

/// Path of the release library, the one that users get: built when it is not
/// there or out of date, or taken from `BRICKYARD_LIBRARY`.
pub(crate) fn library() -> PathBuf {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY
        .get_or_init(|| match env::var_os("BRICKYARD_LIBRARY") {
            Some(path) => PathBuf::from(path),
            None => build_library(),
        })
        .clone()
}

fn build_library() -> PathBuf {
    let output = Command::new(env!("CARGO"))
        .args(["build", "--release", "--package", "brickyard-preload"])
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
    // The file is named in cargo's own words, so that no layout of the target
    // directory is assumed.
    let end = messages
        .find("libbrickyard.so\"")
        .expect("cargo names the library");
    let start = messages[..end].rfind('"').expect("the path is quoted") + 1;
    PathBuf::from(format!("{}libbrickyard.so", &messages[start..end]))
}

/// Runs `body` in a process of its own that has the library preloaded: this test
/// executable once more, for the test called `name` only.
pub(crate) fn in_preloaded_child(name: &str, body: impl FnOnce()) {
    if env::var_os(CHILD_MARK).is_some() {
        return body();
    }
    let output = preloaded_test(name).output().expect("the test runs");
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(
        // The count shows that the name matched; with a wrong name no test
        // would run and the child would succeed.
        output.status.success() && stdout.contains("1 passed"),
        "preloaded {name}: {}\n{stdout}\n{}",
        output.status,
        stderr_of(&output)
    );
}

/// The command that runs one test of this executable with the library preloaded.
/// That test's body must be inside [`in_preloaded_child`].
pub(crate) fn preloaded_test(name: &str) -> Command {
    // A child that started children would do so for ever.
    assert!(
        env::var_os(CHILD_MARK).is_none(),
        "only the outer process starts children"
    );
    let mut command = Command::new(env::current_exe().expect("the test has a path"));
    command
        .args(["--exact", name, "--nocapture", "--test-threads=1"])
        .env(CHILD_MARK, "1")
        .env("LD_PRELOAD", library())
        .env_remove("BRICKYARD_STATS");
    command
}

/// What a process wrote on stderr.
pub(crate) fn stderr_of(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Name of the function around it, without its module.
#[macro_export]
macro_rules! this_test {
    () => {{
        fn here() {}
        let path = core::any::type_name_of_val(&here);
        path.trim_end_matches("::here")
            .rsplit("::")
            .next()
            .unwrap_or(path)
    }};
}
