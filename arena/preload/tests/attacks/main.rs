//! Programs that misuse the heap, and what stops them: the table of `docs/hardening.md`.
//!
//! What could go wrong: the documentation promises that a misuse is stopped, and it is not,
//! or no longer. So every row of the table is a program (`attacks.c` under the preloaded
//! library, `rust.rs` with the arena as its global allocator), which runs in a process of its
//! own under each of three settings, and the table in the documentation has to be the one
//! that came out. `BRICKYARD_BLESS=1` writes it there instead.
//!
//! | setting | |
//! |---|---|
//! | default | |
//! | hardened | `BRICKYARD_HARDENED=1`, no guarded blocks: what every block has |
//! | guarded | the same with every block guarded: what the sampled ones have |
//!
//! Without a C compiler the rows in C are not run, which is said, and taken from the
//! documentation as they are.

#[path = "../common/mod.rs"]
mod common;
#[expect(unsafe_code, reason = "misuses the heap")]
mod rust;

use core::fmt::Write as _;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Output};

use brickyard_arena::Arena;

#[global_allocator]
static GLOBAL: Arena = Arena::new();

/// Exit status of a program that survived and saw zeroes only.
pub(crate) const ZEROES: i32 = 10;

/// What a program writes right after the misuse.
pub(crate) const DONE: &str = "done\n";

/// Fewest rows that the table has to have.
const LEAST_ROWS: usize = 40;

const BEGIN: &str = "<!-- attacks: begin -->\n";
const END: &str = "<!-- attacks: end -->";

/// Column of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Setting {
    Default,
    Hardened,
    Guarded,
}

const SETTINGS: [Setting; 3] = [Setting::Default, Setting::Hardened, Setting::Guarded];

impl Setting {
    fn name(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Hardened => "hardened",
            Self::Guarded => "guarded",
        }
    }

    fn from_name(name: &str) -> Option<Self> {
        SETTINGS.into_iter().find(|setting| setting.name() == name)
    }

    /// `hardened` and `guard_every`.
    fn options(self) -> (bool, usize) {
        match self {
            Self::Default => (false, 0),
            Self::Hardened => (true, 0),
            Self::Guarded => (true, 1),
        }
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, command, name, setting] = arguments.as_slice() {
        if command == "rust" {
            return attack_in_rust(name, setting);
        }
    }
    match run() {
        Ok(said) => {
            eprintln!("attacks: {said}");
            ExitCode::SUCCESS
        }
        Err(why) => {
            eprintln!("attacks: FAILED: {why}");
            ExitCode::FAILURE
        }
    }
}

/// The child: puts the setting in force and runs the attack.
fn attack_in_rust(name: &str, setting: &str) -> ExitCode {
    let (hardened, every) = Setting::from_name(setting).expect("a setting").options();
    Arena::builder()
        .hardened(hardened)
        .guard_every(every)
        .apply();
    assert_eq!(
        Arena::is_hardened(),
        hardened,
        "no other thread has allocated"
    );
    let attack = rust::ATTACKS.iter().find(|(known, _)| *known == name);
    let status = attack.expect("an attack").1();
    ExitCode::from(u8::try_from(status).expect("a small number"))
}

/// Runs everything and compares the table; what to say.
fn run() -> Result<String, String> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/hardening.md");
    let text = fs::read_to_string(&page).map_err(|error| format!("{}: {error}", page.display()))?;
    let (before, rest) = text
        .split_once(BEGIN)
        .ok_or("docs/hardening.md has no table")?;
    let (written, after) = rest
        .split_once(END)
        .ok_or("docs/hardening.md: no end of table")?;
    let mut found = rows_in_rust()?;
    let mut said = String::new();
    let folder = std::env::temp_dir().join(format!("brickyard-attacks-{}", std::process::id()));
    fs::create_dir_all(&folder).map_err(|error| error.to_string())?;
    let in_c = rows_in_c(&folder);
    let _ = fs::remove_dir_all(&folder);
    match in_c? {
        Some(rows) => found.extend(rows),
        None => {
            said.push_str("SKIPPED the programs in C: no C compiler `cc`; ");
            found.extend(
                rows_of(written)
                    .into_iter()
                    .filter(|(name, _)| name.starts_with("C ")),
            );
        }
    }
    if found.len() < LEAST_ROWS {
        return Err(format!("{} attacks only", found.len()));
    }
    let table = table(&found);
    let _ = write!(said, "{} attacks, as documented", found.len());
    if table == written {
        return Ok(said);
    }
    if std::env::var_os("BRICKYARD_BLESS").is_some() {
        let text = format!("{before}{BEGIN}{table}{END}{after}");
        fs::write(&page, text).map_err(|error| error.to_string())?;
        return Ok(format!("{said}: the table was written anew"));
    }
    let old = rows_of(written);
    let mut complaint =
        String::from("docs/hardening.md says otherwise (BRICKYARD_BLESS=1 writes it anew):");
    for (name, row) in &found {
        if old.get(name) != Some(row) {
            let _ = write!(
                complaint,
                "\n{name}: {row:?}, documented {:?}",
                old.get(name)
            );
        }
    }
    Err(complaint)
}

/// Name of an attack, and what became of it in each setting.
type Rows = BTreeMap<String, [String; 3]>;

fn rows_in_rust() -> Result<Rows, String> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let mut rows = Rows::new();
    for (name, _) in rust::ATTACKS {
        let mut row = [const { String::new() }; 3];
        for (cell, setting) in row.iter_mut().zip(SETTINGS) {
            let mut child = Command::new(&program);
            child.args(["rust", name, setting.name()]);
            *cell = outcome(&child.output().map_err(|error| error.to_string())?)
                .map_err(|why| format!("{name}, {}: {why}", setting.name()))?;
        }
        rows.insert(format!("Rust `{name}`"), row);
    }
    Ok(rows)
}

/// `None` without a C compiler.
fn rows_in_c(folder: &Path) -> Result<Option<Rows>, String> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/attacks/attacks.c");
    let program: PathBuf = folder.join("attacks");
    let compiler = Command::new("cc")
        .args(["-O0", "-w", "-pthread", "-o"])
        .args([&program, &source])
        .output();
    let Ok(compiled) = compiler else {
        return Ok(None);
    };
    if !compiled.status.success() {
        return Err(format!("cc: {}", String::from_utf8_lossy(&compiled.stderr)));
    }
    let list = Command::new(&program)
        .output()
        .map_err(|error| error.to_string())?;
    let mut rows = Rows::new();
    for name in String::from_utf8_lossy(&list.stdout).lines() {
        let mut row = [const { String::new() }; 3];
        for (cell, setting) in row.iter_mut().zip(SETTINGS) {
            let (hardened, every) = setting.options();
            let mut child = Command::new(&program);
            child
                .arg(name)
                .env("LD_PRELOAD", common::library())
                .env("BRICKYARD_HARDENED", if hardened { "1" } else { "0" })
                .env("BRICKYARD_GUARD_EVERY", every.to_string());
            *cell = outcome(&child.output().map_err(|error| error.to_string())?)
                .map_err(|why| format!("{name}, {}: {why}", setting.name()))?;
        }
        rows.insert(format!("C `{name}`"), row);
    }
    reports_name_the_callers(&program)?;
    Ok(Some(rows))
}

/// An access to a guarded block is reported with the places in the program that allocated
/// and freed the block.
fn reports_name_the_callers(program: &Path) -> Result<(), String> {
    let here = format!("brickyard:   {} + 0x", program.display());
    for (attack, what, traces) in [
        (
            "over_by_64",
            "access out of bounds, 64 bytes behind the block at ",
            1,
        ),
        (
            "under_by_5000",
            "access out of bounds, 5000 bytes in front of the block at ",
            1,
        ),
        (
            "read_just_freed",
            "use after free, 0 bytes into the block at ",
            2,
        ),
    ] {
        let mut child = Command::new(program);
        child
            .arg(attack)
            .env("LD_PRELOAD", common::library())
            .env("BRICKYARD_HARDENED", "1")
            .env("BRICKYARD_GUARD_EVERY", "1");
        let output = child.output().map_err(|error| error.to_string())?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        let (allocated, freed) = stderr
            .split_once("freed by thread ")
            .unwrap_or((&stderr, ""));
        let named = [allocated, freed].map(|part| part.contains(&here));
        let complete = stderr.contains(what)
            && allocated.contains("allocated by thread ")
            && named == [true, traces == 2];
        if !complete {
            return Err(format!("{attack}: the report is not complete: {stderr}"));
        }
    }
    Ok(())
}

/// What became of an attack.
fn outcome(output: &Output) -> Result<String, String> {
    let stderr = String::from_utf8_lossy(&output.stderr);
    let done = String::from_utf8_lossy(&output.stdout).contains(DONE);
    let word = match (output.status.signal(), output.status.code()) {
        // A line of ours, or an access to a page that is not there.
        (Some(libc::SIGABRT), _) if stderr.contains("brickyard: ") => None,
        (Some(libc::SIGSEGV), _) => None,
        (None, Some(0)) => Some("**not**"),
        (None, Some(ZEROES)) => Some("harmless"),
        _ => return Err(format!("{}: {stderr}", output.status)),
    };
    let stopped = if done { "later" } else { "at once" };
    Ok(String::from(word.unwrap_or(stopped)))
}

fn table(rows: &Rows) -> String {
    let mut text = String::from("| attack | default | hardened | guarded |\n|---|---|---|---|\n");
    for (name, [default, hardened, guarded]) in rows {
        let _ = writeln!(text, "| {name} | {default} | {hardened} | {guarded} |");
    }
    text
}

/// The reverse of [`table`].
fn rows_of(table: &str) -> Rows {
    let lines = table.lines().skip(2);
    lines
        .filter_map(|line| {
            let mut cells = line
                .trim_matches('|')
                .split('|')
                .map(|cell| String::from(cell.trim()));
            Some((cells.next()?, [cells.next()?, cells.next()?, cells.next()?]))
        })
        .collect()
}
