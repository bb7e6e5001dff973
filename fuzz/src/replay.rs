//! Inputs for the targets without a fuzzer: the corpus, and bytes from seeds.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Length of the longest input that [`seeded`] makes.
const MAX_SEEDED_BYTES: usize = 1500;

/// The input that belongs to a seed, the same on every machine.
#[must_use]
pub fn seeded(seed: u64) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(seed);
    let len = random.usize(16..MAX_SEEDED_BYTES);
    core::iter::repeat_with(|| random.u8(..))
        .take(len)
        .collect()
}

/// An input in the making: the bytes for which `Unstructured::choose_index` makes these choices.
#[derive(Clone, Debug, Default)]
pub struct Recorder(Vec<u8>);

impl Recorder {
    /// Appends the choice `chosen` of `n`, and gives it.
    pub fn choice(&mut self, n: usize, chosen: usize) -> usize {
        let most = n.saturating_sub(1).to_be_bytes();
        let unused = most.iter().take_while(|&&byte| byte == 0).count();
        self.0.extend_from_slice(&chosen.to_be_bytes()[unused..]);
        chosen
    }

    /// The input.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Where the corpus of a target lies.
#[must_use]
pub fn corpus_dir(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("corpus")
        .join(target)
}

/// The files of a target's corpus with their contents, in order of name.
///
/// # Errors
///
/// The folder or a file cannot be read.
pub fn corpus(target: &str) -> io::Result<Vec<(PathBuf, Vec<u8>)>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(corpus_dir(target))? {
        let path = entry?.path();
        let content = fs::read(&path)?;
        files.push((path, content));
    }
    files.sort();
    Ok(files)
}

/// Runs `body` on every file named on the command line: an artifact that a
/// fuzzer left, say.
///
/// # Errors
///
/// A file cannot be read.
pub fn run_files_from_arguments(body: fn(&[u8])) -> io::Result<()> {
    for path in std::env::args_os().skip(1) {
        let content = fs::read(&path)?;
        eprintln!("{} ({} bytes)", Path::new(&path).display(), content.len());
        body(&content);
    }
    Ok(())
}
