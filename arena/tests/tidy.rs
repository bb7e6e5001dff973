//! The rules of the house that no lint checks.
//!
//! What could go wrong: a file starts to use one that is built on it, an atomic
//! slips past the shim that loom watches, or a module gets the right to be unsafe
//! without saying why. Each test names the file and the line.
//!
//! The order of the modules is the list in `ARCHITECTURE.md` between
//! ```` ```files arena ```` and the closing fence: one module a line, its name
//! first; a module uses only modules above it.

use std::fs;
use std::path::{Path, PathBuf};

/// Most lines a source file may have.
const LINE_LIMIT: usize = 600;

/// Folders with the project's own Rust files.
const SOURCE_FOLDERS: [&str; 11] = [
    "arena/src",
    "arena/tests",
    "arena/preload",
    "arena/recorder",
    "arena/recording",
    "benches",
    "fuzz",
    "mmap-store/src",
    "mmap-store/tests",
    "pool/src",
    "pool/tests",
];

/// The libraries, each with a list of its modules.
const CRATES: [&str; 3] = ["arena", "pool", "mmap-store"];

/// Macros that mark unfinished work. Joined here so that this file has none.
const UNFINISHED: [&str; 3] = [
    concat!("to", "do!"),
    concat!("unimple", "mented!"),
    concat!("d", "bg!"),
];

fn root() -> PathBuf {
    let arena = Path::new(env!("CARGO_MANIFEST_DIR"));
    arena
        .parent()
        .expect("the crate lies in the workspace")
        .to_owned()
}

/// A source file, with its path below the root.
struct Source {
    path: String,
    text: String,
}

impl Source {
    /// The numbered lines without comments. Good enough for rustfmt's output: a
    /// `//` inside a string cuts the line short, which no rule here minds.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines = self.text.lines().enumerate();
        lines.map(|(index, line)| (index + 1, line.split("//").next().unwrap_or("")))
    }

    /// The lines of [`Source::code`] before the file's tests.
    fn product_code(&self) -> impl Iterator<Item = (usize, &str)> {
        let tests =
            |line: &str| line.starts_with("#[cfg(test)]") || line.starts_with("#[cfg(all(test");
        self.code().take_while(move |(_, line)| !tests(line))
    }

    /// Name of the module below `src`; the files of a folder are one module.
    fn module(&self) -> &str {
        let below = self.path.split_once("/src/");
        let path = below.map_or(self.path.as_str(), |(_, path)| path);
        path.split('/')
            .next()
            .unwrap_or(path)
            .trim_end_matches(".rs")
    }
}

/// Every Rust file below `folder`, but for what cargo builds.
fn sources(folder: &str) -> Vec<Source> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten() {
            let path = entry.expect("the folder can be read").path();
            if path.is_dir() && !path.ends_with("target") {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).expect("the file can be read");
                let path = path.strip_prefix(root()).expect("it lies below the root");
                found.push(Source {
                    path: path.display().to_string(),
                    text,
                });
            }
        }
    }
    found.sort_by(|one, other| one.path.cmp(&other.path));
    found
}

/// The files of a crate's `src` but `lib.rs`, which declares all modules.
fn modules(name: &str) -> Vec<Source> {
    let files: Vec<Source> = sources(&format!("{name}/src"))
        .into_iter()
        .filter(|source| source.module() != "lib")
        .collect();
    assert!(files.len() > 10, "the source files were not found");
    files
}

/// The modules of a crate in the order of `ARCHITECTURE.md`.
fn listed(name: &str) -> Vec<String> {
    let begin = format!("```files {name}");
    let path = root().join("ARCHITECTURE.md");
    let text = fs::read_to_string(&path).expect("ARCHITECTURE.md can be read");
    let list: Vec<String> = text
        .lines()
        .skip_while(|line| line.trim() != begin)
        .skip(1)
        .take_while(|line| line.trim() != "```")
        .filter_map(|line| line.split_whitespace().next().map(str::to_owned))
        .collect();
    assert!(!list.is_empty(), "ARCHITECTURE.md has no block {begin}");
    list
}

/// Fails with all complaints, one a line.
fn report(complaints: &[String]) {
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

/// Whether `word` occurs in `line` with nothing of a name on either side.
fn has_word(line: &str, word: &str) -> bool {
    let of_a_name = |side: Option<char>| side.is_some_and(|c| c.is_alphanumeric() || c == '_');
    line.match_indices(word).any(|(at, _)| {
        !of_a_name(line[..at].chars().next_back())
            && !of_a_name(line[at + word.len()..].chars().next())
    })
}

/// First names after each `crate::` in `line`, also of `crate::{a, b}` on one line.
fn used_modules(line: &str) -> Vec<&str> {
    let name = |text: &str| {
        text.find(|c: char| !c.is_alphanumeric() && c != '_')
            .unwrap_or(text.len())
    };
    let mut found = Vec::new();
    for (at, prefix) in line.match_indices("crate::") {
        let rest = &line[at + prefix.len()..];
        match rest.strip_prefix('{') {
            // A group that goes over several lines is refused by the caller.
            Some(group) => {
                for part in group.split('}').next().unwrap_or("").split(',') {
                    found.push(&part.trim()[..name(part.trim())]);
                }
            }
            None => found.push(&rest[..name(rest)]),
        }
    }
    found
}

#[test]
fn every_module_is_in_the_list_and_the_reverse() {
    let mut complaints = Vec::new();
    for krate in CRATES {
        let listed = listed(krate);
        let files = modules(krate);
        let has = |name: &str| files.iter().any(|file| file.module() == name);
        let unlisted = files
            .iter()
            .filter(|file| !listed.iter().any(|name| name == file.module()));
        let absent = listed.iter().filter(|name| !has(name));
        complaints
            .extend(unlisted.map(|file| format!("{}: not in ARCHITECTURE.md's list", file.path)));
        complaints.extend(
            absent.map(|name| format!("ARCHITECTURE.md: {krate} lists {name}, which is not there")),
        );
    }
    report(&complaints);
}

#[test]
fn each_module_uses_only_modules_above_it() {
    let mut complaints = Vec::new();
    for file in CRATES.into_iter().flat_map(modules) {
        let listed = listed(file.path.split('/').next().unwrap_or(""));
        let place = |name: &str| listed.iter().position(|listed| listed == name);
        let Some(own) = place(file.module()) else {
            continue;
        };
        for (number, line) in file.product_code() {
            for used in used_modules(line) {
                let allowed = used == file.module() || place(used).is_some_and(|place| place < own);
                if !allowed {
                    let module = file.module();
                    complaints.push(format!(
                        "{}:{number}: {module} uses `{used}`, which is not above it in ARCHITECTURE.md",
                        file.path
                    ));
                }
            }
        }
    }
    report(&complaints);
}

/// Loom sees only what goes through the shim.
#[test]
fn atomics_are_named_in_sync_only() {
    let mut complaints = Vec::new();
    let files = CRATES.into_iter().flat_map(modules);
    for file in files.filter(|file| file.module() != "sync") {
        for (number, line) in file.product_code() {
            if ["core", "std", "loom"]
                .iter()
                .any(|base| line.contains(&format!("{base}::sync::atomic")))
            {
                complaints.push(format!(
                    "{}:{number}: use crate::sync: {}",
                    file.path,
                    line.trim()
                ));
            }
        }
    }
    report(&complaints);
}

#[test]
fn files_are_short_and_finished() {
    let mut complaints = Vec::new();
    let mut seen = 0;
    for file in SOURCE_FOLDERS.iter().flat_map(|folder| sources(folder)) {
        seen += 1;
        let lines = file.text.lines().count();
        if lines > LINE_LIMIT {
            complaints.push(format!(
                "{}:{lines}: more than {LINE_LIMIT} lines",
                file.path
            ));
        }
        for (number, line) in file.code() {
            if let Some(word) = UNFINISHED.iter().find(|word| line.contains(*word)) {
                complaints.push(format!("{}:{number}: {word}", file.path));
            }
        }
    }
    assert!(seen > 20, "the source files were not found");
    report(&complaints);
}

/// `lib.rs` is the register of unsafe: which modules, and why.
#[test]
fn unsafe_stays_where_the_register_allows_it() {
    let complaints: Vec<String> = CRATES.into_iter().flat_map(unregistered).collect();
    report(&complaints);
}

/// What is wrong with a crate's register.
fn unregistered(krate: &str) -> Vec<String> {
    let register = format!("{krate}/src/lib.rs");
    let lib = fs::read_to_string(root().join(&register)).expect("lib.rs can be read");
    assert!(
        lib.contains("#![deny(unsafe_code)]"),
        "{register}: does not deny unsafe_code"
    );
    let mut allowed = Vec::new();
    let mut complaints = Vec::new();
    let mut attributes = String::new();
    for (index, line) in lib.lines().enumerate() {
        let line = line.trim();
        let Some(module) = line
            .split("mod ")
            .nth(1)
            .and_then(|rest| rest.strip_suffix(';'))
        else {
            // Attributes may go over several lines; an item ends them.
            let ends = line.is_empty() || line.ends_with(';') || line.starts_with("//");
            if ends {
                attributes.clear();
            } else {
                attributes.push_str(line);
            }
            continue;
        };
        if attributes.contains("unsafe_code") {
            let reason = attributes
                .split("reason = \"")
                .nth(1)
                .and_then(|rest| rest.split('"').next());
            if reason.is_none_or(|reason| reason.split_whitespace().count() < 3) {
                let number = index + 1;
                complaints.push(format!(
                    "{register}:{number}: {module} may be unsafe for no reason that says anything"
                ));
            }
            allowed.push(module.to_owned());
        }
        attributes.clear();
    }
    for file in modules(krate)
        .iter()
        .filter(|file| !allowed.iter().any(|name| name == file.module()))
    {
        for (number, line) in file.code() {
            if has_word(line, "unsafe") {
                complaints.push(format!(
                    "{}:{number}: not in the register: {}",
                    file.path,
                    line.trim()
                ));
            }
        }
    }
    assert!(
        !allowed.is_empty(),
        "{register}: no module may be unsafe; the register was not read"
    );
    complaints
}

/// The rules above are only as good as their reading of the sources.
#[test]
fn the_reading_of_a_line_is_right() {
    assert_eq!(used_modules("use crate::units::{A, B};"), ["units"]);
    assert_eq!(used_modules("use crate::{os, span::Span};"), ["os", "span"]);
    assert_eq!(used_modules("x: crate::a::B, y: crate::c"), ["a", "c"]);
    assert!(used_modules("use core::mem;").is_empty());
    assert!(has_word("    unsafe { x() }", "unsafe"));
    assert!(!has_word("#![forbid(unsafe_code)]", "unsafe"));
    let file = Source {
        path: "arena/src/os/unix.rs".to_owned(),
        text: "a // b\n".to_owned(),
    };
    assert_eq!((file.module(), file.code().next()), ("os", Some((1, "a "))));
}
