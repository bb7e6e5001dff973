//! The real input: which files the workloads read.
//!
//! By default the sources of this workspace and of every package it depends
//! on, where cargo has unpacked them; with `--input DIR` all files below a
//! folder. Files are taken in an order that is shuffled with a fixed seed, so
//! that a part of them is a fair sample, until a number of bytes is reached;
//! too small an input is read several times over. The JSON document is what
//! `cargo metadata` prints.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use fastrand::Rng;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use walkdir::{DirEntry, WalkDir};

use crate::workloads::Scale;

/// Bytes of Rust source to parse in the full size: some 0.4 s of work.
const RUST_BYTES: usize = 6 << 20;

/// Bytes of text to index in the full size.
const TEXT_BYTES: usize = 18 << 20;

/// Larger files are left out: they are generated tables as a rule, and one of
/// them would make up most of a sample.
const LARGEST_FILE_BYTES: u64 = 512 << 10;

/// How often a small input is read at most.
const MOST_PASSES: usize = 64;

/// Directory entries looked at before the search ends.
const MOST_ENTRIES: usize = 200_000;

/// The files of a run, as the children get them.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct InputFiles {
    /// Rust files, with repetitions.
    pub(crate) rust: Vec<PathBuf>,
    /// Text files, with repetitions.
    pub(crate) text: Vec<PathBuf>,
    /// One JSON document.
    pub(crate) json: PathBuf,
}

/// The files and what to say of them.
#[derive(Debug)]
pub(crate) struct Input {
    /// What the children read.
    pub(crate) files: InputFiles,
    /// One line for the reader of the table.
    pub(crate) summary: String,
}

/// Chooses the input and writes the JSON document into `scratch`.
///
/// # Errors
///
/// When `dir` is no folder that can be read or holds no Rust file.
pub(crate) fn prepare(dir: Option<&Path>, scale: Scale, scratch: &Path) -> Result<Input> {
    if let Some(dir) = dir {
        ensure!(dir.exists(), "--input: no such folder: {}", dir.display());
        ensure!(dir.is_dir(), "--input: not a folder: {}", dir.display());
    }
    let metadata = metadata(dir);
    let roots = match (dir, &metadata) {
        (Some(dir), _) => vec![dir.to_path_buf()],
        (None, Ok(metadata)) => package_folders(metadata),
        (None, Err(_)) => default_folders(),
    };
    let found = Found::search(&roots);
    let rust = sample(&found.rust, scale.of(RUST_BYTES));
    let text = sample(&found.text, scale.of(TEXT_BYTES));
    if rust.paths.is_empty() {
        let places: Vec<_> = roots
            .iter()
            .map(|root| root.display().to_string())
            .collect();
        bail!(
            "no Rust file under {} (choose a folder with --input)",
            places.join(", ")
        );
    }
    let (document, origin) = match metadata {
        Ok(metadata) => (metadata, "cargo metadata"),
        Err(_) => (
            listing(&text.paths),
            "a list of the files (cargo metadata failed)",
        ),
    };
    let document = serde_json::to_string(&document)?;
    let json = scratch.join("document.json");
    fs::write(&json, &document).with_context(|| format!("cannot write {}", json.display()))?;
    let summary = format!(
        "input: {rust} of Rust, {text} of text, {kib} KiB of JSON from {origin}",
        kib = document.len() >> 10,
    );
    Ok(Input {
        files: InputFiles {
            rust: rust.paths,
            text: text.paths,
            json,
        },
        summary,
    })
}

/// What `cargo metadata` says of the workspace in `dir`, or of this one. Tried
/// a second time without the network, because a machine may have none.
fn metadata(dir: Option<&Path>) -> Result<Value> {
    let manifest = dir
        .map(|dir| dir.join("Cargo.toml"))
        .filter(|manifest| manifest.is_file())
        .unwrap_or_else(|| workspace_root().join("Cargo.toml"));
    let mut failure = String::new();
    for more in [&[][..], &["--offline"]] {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
        // The platform filter keeps cargo from fetching packages for systems
        // that nothing here is built for.
        let output = Command::new(cargo)
            .args(["metadata", "--format-version=1", "--filter-platform"])
            .args([env!("BRICKYARD_TARGET"), "--manifest-path"])
            .arg(&manifest)
            .args(more)
            .stdin(Stdio::null())
            .output()
            .context("cannot run cargo")?;
        if output.status.success() {
            return serde_json::from_slice(&output.stdout).context("cargo metadata is no JSON");
        }
        failure = String::from_utf8_lossy(&output.stderr).into_owned();
    }
    bail!("cargo metadata: {failure}")
}

/// The root of this workspace, where it was when this program was built.
fn workspace_root() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    root.canonicalize().unwrap_or_else(|_| PathBuf::from("."))
}

/// The folders of all packages in the metadata, the workspace's among them.
fn package_folders(metadata: &Value) -> Vec<PathBuf> {
    let manifests = metadata["packages"].as_array().into_iter().flatten();
    let manifests = manifests.filter_map(|package| package["manifest_path"].as_str());
    manifests
        .filter_map(|path| Path::new(path).parent())
        .map(Path::to_path_buf)
        .collect()
}

/// The workspace and the folder cargo unpacks packages into.
fn default_folders() -> Vec<PathBuf> {
    let home = std::env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo")));
    let unpacked = home.map(|home| home.join("registry").join("src"));
    core::iter::once(workspace_root())
        .chain(unpacked.filter(|path| path.is_dir()))
        .collect()
}

/// Candidates, in an order that depends on their paths only.
#[derive(Debug, Default)]
struct Found {
    rust: Vec<PathBuf>,
    text: Vec<PathBuf>,
}

impl Found {
    /// Walks the folders. What cannot be read is left out, as are hidden
    /// folders and `target`.
    fn search(roots: &[PathBuf]) -> Self {
        let wanted = |entry: &DirEntry| {
            let name = entry.file_name().to_string_lossy();
            entry.depth() == 0 || !(name.starts_with('.') || name == "target")
        };
        let entries = roots.iter().flat_map(|root| {
            WalkDir::new(root)
                .sort_by_file_name()
                .into_iter()
                .filter_entry(wanted)
                .flatten()
        });
        let small = |entry: &DirEntry| {
            let size = entry.metadata().map_or(0, |metadata| metadata.len());
            (1..=LARGEST_FILE_BYTES).contains(&size)
        };
        let files = entries
            .take(MOST_ENTRIES)
            .filter(|entry| entry.file_type().is_file());
        let mut text: Vec<PathBuf> = files.filter(small).map(DirEntry::into_path).collect();
        // Packages can lie one inside the other.
        text.sort();
        text.dedup();
        let rust = text
            .iter()
            .filter(|path| path.extension().is_some_and(|end| end == "rs"));
        Self {
            rust: rust.cloned().collect(),
            text,
        }
    }
}

/// Files chosen, in their order.
#[derive(Debug, Default)]
struct Sample {
    paths: Vec<PathBuf>,
    files: usize,
    bytes: usize,
}

impl core::fmt::Display for Sample {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{} KiB in {} files", self.bytes >> 10, self.files)
    }
}

/// Takes files in a shuffled order until there are `wanted` bytes, over again if
/// all of them together are less. Each file is read here once, which shows that
/// it is text and leaves it in the system's cache before the first measurement.
fn sample(candidates: &[PathBuf], wanted: usize) -> Sample {
    let mut order: Vec<&PathBuf> = candidates.iter().collect();
    Rng::with_seed(1).shuffle(&mut order);
    let mut sample = Sample::default();
    for path in order {
        if sample.bytes >= wanted {
            return sample;
        }
        let text = fs::read_to_string(path)
            .ok()
            .filter(|text| !text.contains('\0'));
        if let Some(text) = text {
            sample.bytes += text.len();
            sample.files += 1;
            sample.paths.push(path.clone());
        }
    }
    if sample.bytes > 0 {
        let passes = wanted.div_ceil(sample.bytes).min(MOST_PASSES);
        let once = sample.paths.len();
        sample.paths = sample
            .paths
            .into_iter()
            .cycle()
            .take(once * passes)
            .collect();
        sample.bytes *= passes;
    }
    sample
}

/// A document about the files, for a machine where `cargo metadata` fails.
fn listing(paths: &[PathBuf]) -> Value {
    let describe = |path: &PathBuf| {
        let text = fs::read_to_string(path).unwrap_or_default();
        let lines: Vec<&str> = text.lines().take(40).collect();
        json!({"path": path, "bytes": text.len(), "license": null, "lines": lines})
    };
    json!({"files": paths.iter().take(400).map(describe).collect::<Vec<_>>()})
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder with `count` Rust files of `bytes` bytes each, one text file,
    /// one binary file and one hidden folder.
    fn folder(count: usize, bytes: usize) -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let write = |name: &str, content: &[u8]| {
            fs::write(folder.path().join(name), content).expect("a writable folder");
        };
        (0..count).for_each(|n| write(&format!("{n}.rs"), " ".repeat(bytes).as_bytes()));
        write("notes.txt", b"words");
        write("binary", b"\x00\xff\xfe");
        fs::create_dir(folder.path().join(".hidden")).expect("a writable folder");
        write(".hidden/x.rs", b"fn hidden() {}");
        folder
    }

    #[test]
    fn search_leaves_out_hidden_folders() {
        let folder = folder(3, 10);
        let found = Found::search(&[folder.path().to_path_buf()]);
        assert_eq!(found.rust.len(), 3);
        assert_eq!(found.text.len(), 5, "{:?}", found.text);
    }

    #[test]
    fn sample_ends_when_there_are_bytes_enough() {
        let folder = folder(10, 100);
        let found = Found::search(&[folder.path().to_path_buf()]);
        let sample = sample(&found.rust, 350);
        assert_eq!(
            (sample.files, sample.bytes, sample.paths.len()),
            (4, 400, 4)
        );
    }

    #[test]
    fn small_input_is_repeated_and_what_is_no_text_left_out() {
        let folder = folder(2, 100);
        let found = Found::search(&[folder.path().to_path_buf()]);
        let rust = sample(&found.rust, 1000);
        assert_eq!((rust.files, rust.bytes, rust.paths.len()), (2, 1000, 10));
        let text = sample(&found.text, 205);
        assert_eq!((text.files, text.bytes), (3, 205));
    }

    #[test]
    fn samples_repeat() {
        let folder = folder(50, 10);
        let found = Found::search(&[folder.path().to_path_buf()]);
        assert_eq!(
            sample(&found.rust, 100).paths,
            sample(&found.rust, 100).paths
        );
    }

    #[test]
    fn empty_folder_is_an_error_that_names_it() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let error = prepare(Some(folder.path()), Scale::Quick, folder.path())
            .expect_err("there is no Rust file");
        let text = format!("{error:#}");
        assert!(
            text.contains("no Rust file") && text.contains("--input"),
            "{text}"
        );
    }

    #[test]
    fn listing_names_each_file() {
        let folder = folder(2, 10);
        let found = Found::search(&[folder.path().to_path_buf()]);
        let listing = listing(&found.rust);
        assert_eq!(listing["files"].as_array().map(Vec::len), Some(2));
        assert_eq!(listing["files"][0]["bytes"], 10);
    }
}
