//! What programs run on.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use object::elf::FileHeader64;
use object::read::elf::ElfFile;
use object::{Endianness, Object as _, ObjectSymbol as _};

use crate::run;

/// The name of the side that runs on the C library's malloc.
const SYSTEM: &str = "system";

/// The name of this workspace's library.
pub(super) const OURS: &str = "brickyard";

/// The C library by the name that the loader knows. It is preloaded, too: else a program that is
/// linked to another allocator, as Debian's redis is, would run on that.
const C_LIBRARY: &str = "libc.so.6";

/// The allocators' libraries as Debian installs them, with their packages.
const PEERS: [(&str, &str); 3] = [
    ("libmimalloc.so.2.0", "libmimalloc2.0"),
    ("libjemalloc.so.2", "libjemalloc2"),
    ("libtcmalloc_minimal.so.4", "libtcmalloc-minimal4"),
];

/// Where libraries lie.
const FOLDERS: [&str; 4] = [
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/usr/lib64",
    "/usr/lib",
];

/// An allocator, by the library that brings it.
#[derive(Debug)]
pub(super) struct Side {
    pub(super) name: String,
    pub(super) preload: PathBuf,
}

/// The sides of the comparison, and notes on what is not there: the system's malloc and this
/// workspace's library, then those asked for or, without, those found.
///
/// # Errors
///
/// When the library of this workspace or one asked for is not there.
pub(super) fn sides(ours: Option<&Path>, asked: &[PathBuf]) -> Result<(Vec<Side>, Vec<String>)> {
    let mut notes = Vec::new();
    let mut sides = vec![
        Side {
            name: String::from(SYSTEM),
            preload: PathBuf::from(C_LIBRARY),
        },
        Side {
            name: String::from(OURS),
            preload: run::library(ours, run::LIBRARY, "brickyard-preload")?,
        },
    ];
    for path in asked {
        let preload = path
            .canonicalize()
            .with_context(|| format!("--under: no library at {}", path.display()))?;
        let name = name(path);
        sides.push(Side { name, preload });
    }
    if asked.is_empty() {
        for (file, package) in PEERS {
            let places = FOLDERS.iter().map(|folder| Path::new(folder).join(file));
            match places
                .into_iter()
                .find_map(|place| place.canonicalize().ok())
            {
                Some(preload) => sides.push(Side {
                    name: name(Path::new(file)),
                    preload,
                }),
                None => notes.push(format!("not installed: {file} (Debian: {package})")),
            }
        }
    }
    Ok((sides, notes))
}

/// The name of an allocator: `libmimalloc.so.2.0` is `mimalloc`.
fn name(path: &Path) -> String {
    let file = path.file_name().unwrap_or_default().to_string_lossy();
    let stem = file.split(".so").next().unwrap_or_default();
    let short = stem.trim_start_matches("lib").split('_').next();
    short.unwrap_or_default().to_owned()
}

/// Why preloading would change nothing for a program, if so.
///
/// # Errors
///
/// When the file cannot be read.
pub(super) fn deaf(program: &Path) -> Result<Option<&'static str>> {
    let data = fs::read(program).with_context(|| format!("cannot read {}", program.display()))?;
    let Ok(file) = ElfFile::<FileHeader64<Endianness>, _>::parse(&*data) else {
        return Ok(Some("not a program of this machine"));
    };
    let mut symbols = file.dynamic_symbols().peekable();
    if symbols.peek().is_none() {
        return Ok(Some("linked statically"));
    }
    let own = |name| name == Ok("malloc");
    let brings = symbols.any(|symbol| symbol.is_definition() && own(symbol.name()));
    Ok(brings.then_some("brings its own malloc"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_called_as_their_allocators() {
        let names = PEERS.map(|(file, _)| name(Path::new(file)));
        assert_eq!(names, ["mimalloc", "jemalloc", "tcmalloc"]);
    }

    #[test]
    fn a_script_is_deaf_and_a_program_that_is_linked_to_the_c_library_is_not() {
        let script = tempfile::NamedTempFile::new().expect("a temporary file");
        fs::write(script.path(), "#!/bin/sh\n").expect("a writable file");
        assert!(deaf(script.path()).expect("it is there").is_some());
        assert_eq!(deaf(Path::new("/bin/sh")).expect("it is there"), None);
        assert!(deaf(Path::new("/nonexistent")).is_err());
    }

    #[test]
    fn a_missing_library_is_an_error_with_its_path() {
        let ours = std::env::current_exe().expect("a path");
        let asked = [PathBuf::from("/nonexistent/libmine.so")];
        let error = sides(Some(&ours), &asked).expect_err("not there");
        assert!(format!("{error:#}").contains("/nonexistent/libmine.so"));
    }
}
