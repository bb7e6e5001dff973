//! `brickyard run`: any command under the system malloc and under a preloaded
//! library, in turns.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};

use crate::cli::RunArgs;
use crate::heap_profile;
use crate::progress;
use crate::report;
use crate::results::{Results, Row, Series};
use crate::spawn::{Foreign, Ran};
use crate::table;

/// The library that stands beside this program when the workspace is built.
pub(crate) const LIBRARY: &str = "libbrickyard.so";

/// The two sides, in the order of the table.
const SIDES: [&str; 2] = ["system", "preload"];

/// Runs the command in turns and prints the table.
///
/// # Errors
///
/// When the library or the command cannot be used, or the two sides end
/// differently.
pub(crate) fn main(args: &RunArgs) -> Result<()> {
    let library = library(args.preload.as_deref(), LIBRARY, "brickyard-preload")?;
    if args.profile.is_some() || args.collapsed.is_some() {
        return heap_profile::main(args, &library);
    }
    let scratch = tempfile::tempdir().context("no folder for temporary files")?;
    let bar = progress::bar(u64::from(args.rounds) * 2);
    let mut row = Row {
        workload: name(args),
        live_kib: None,
        series: vec![Series::default(); SIDES.len()],
    };
    let mut first: [Option<Ran>; 2] = [None, None];
    let mut outputs_differ = [false; 2];
    let mut expected: Option<String> = None;
    for round in 0..args.rounds {
        let order: [usize; 2] = if round % 2 == 0 { [0, 1] } else { [1, 0] };
        for side in order {
            bar.set_message(format!("{} under {}", row.workload, SIDES[side]));
            let preload = (side == 1).then_some(library.as_path());
            let ran = run_once(args, preload, scratch.path())?;
            let expected = expected.get_or_insert_with(|| ran.spawned.status.clone());
            // Figures of a command that was cut short would only mislead.
            ensure!(
                ran.spawned.status == *expected,
                "the command ended with {expected}, but in round {} under {} with {}",
                round + 1,
                preload.map_or(Cow::Borrowed("the system malloc"), Path::to_string_lossy),
                ran.spawned.status,
            );
            let series = &mut row.series[side];
            series.time_s.push(ran.spawned.time_s);
            series.cpu_s.push(ran.spawned.cpu_s);
            // A count of KiB far below 2^53, so exact.
            series.peak_rss_kib.push(ran.spawned.peak_rss_kib as f64);
            match &first[side] {
                Some(earlier) => outputs_differ[side] |= earlier.stdout != ran.stdout,
                None => first[side] = Some(ran),
            }
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    let [Some(system), Some(preload)] = first else {
        bail!("no round was run")
    };
    let results = Results {
        allocators: SIDES.map(String::from).to_vec(),
        rows: vec![row],
    };
    report::say(&table::detailed(&results));
    report::say(&remark(&system, &preload, outputs_differ));
    if let Some(path) = &args.json {
        report::write_json(path, &results)?;
    }
    Ok(())
}

/// The command's file name, cut to the width of a workload's.
fn name(args: &RunArgs) -> String {
    let path = args.command.first().map(PathBuf::from).unwrap_or_default();
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.chars().take(14).collect()
}

/// A library to preload, as an absolute path, for the command may run anywhere: the one
/// given, or `name` beside this program, where building `package` puts it.
///
/// # Errors
///
/// When there is no such file.
pub(crate) fn library(given: Option<&Path>, name: &str, package: &str) -> Result<PathBuf> {
    let path = match given {
        Some(path) => path.to_path_buf(),
        None => std::env::current_exe()
            .context("no path of this program")?
            .with_file_name(name),
    };
    let hint = if given.is_none() {
        format!(" (build it with: cargo build --release -p {package})")
    } else {
        String::new()
    };
    path.canonicalize()
        .with_context(|| format!("no library at {}{hint}", path.display()))
}

/// Runs the command once.
fn run_once(args: &RunArgs, preload: Option<&Path>, scratch: &Path) -> Result<Ran> {
    let foreign = Foreign {
        command: &args.command,
        preload,
        folder: None,
        variables: &[],
        patience: None,
        scratch,
    };
    foreign.run()
}

/// What to say of outputs and exit codes.
fn remark(system: &Ran, preload: &Ran, outputs_differ: [bool; 2]) -> String {
    let mut text = match (outputs_differ, system.stdout == preload.stdout) {
        ([false, false], true) => String::from("outputs: the same in all rounds on both sides"),
        ([true, _], _) => {
            String::from("outputs: differ from round to round under the system malloc already")
        }
        _ => String::from("outputs: DIFFER between the system malloc and the preloaded library"),
    };
    if !system.spawned.success {
        text.push_str("; the command ends with ");
        text.push_str(&system.spawned.status);
        text.push_str(" on both sides");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spawn::Spawned;

    fn ran(stdout: &str, code: u8) -> Ran {
        let spawned = Spawned {
            time_s: 1.0,
            cpu_s: 1.0,
            peak_rss_kib: 1,
            status: format!("exit status: {code}"),
            success: code == 0,
        };
        Ran {
            spawned,
            stdout: stdout.as_bytes().to_vec(),
        }
    }

    #[test]
    fn remark_tells_differing_outputs_from_restless_ones() {
        let same = remark(&ran("a", 0), &ran("a", 0), [false, false]);
        assert!(same.contains("the same"), "{same}");
        let different = remark(&ran("a", 0), &ran("b", 0), [false, false]);
        assert!(different.contains("DIFFER between"), "{different}");
        let broken = remark(&ran("a", 0), &ran("a", 0), [false, true]);
        assert!(broken.contains("DIFFER between"), "{broken}");
        let restless = remark(&ran("a", 0), &ran("b", 0), [true, true]);
        assert!(restless.contains("already"), "{restless}");
    }

    #[test]
    fn remark_names_a_failure_on_both_sides() {
        let text = remark(&ran("", 3), &ran("", 3), [false, false]);
        assert!(text.contains("exit status: 3 on both sides"), "{text}");
    }

    #[test]
    fn missing_library_is_an_error_with_its_path() {
        let error =
            library(Some(Path::new("/nonexistent/lib.so")), LIBRARY, "").expect_err("not there");
        assert!(format!("{error:#}").contains("/nonexistent/lib.so"));
    }
}
