//! The folder in which programs run: their inputs, and which of them can run here.

use core::time::Duration;
use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};

use super::libraries::deaf;
use super::list::{FILES, Program};
use crate::spawn::{Foreign, Ran};

/// After this a program counts as hung. The slowest takes some seconds under the slowest library.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where programs run, and with what in their environment.
#[derive(Debug)]
pub(super) struct Folder<'a> {
    path: PathBuf,
    /// For the outputs, so that programs do not see them.
    scratch: &'a Path,
    /// Programs first found in the folder itself.
    search: OsString,
    amount: &'static str,
}

impl<'a> Folder<'a> {
    /// A folder below `scratch` with the files that all programs share.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub(super) fn new(scratch: &'a Path, quick: bool) -> Result<Self> {
        let path = scratch.join("work");
        let own = path.join("bin");
        fs::create_dir_all(&own).with_context(|| format!("cannot make {}", own.display()))?;
        for (name, text) in FILES {
            fs::write(path.join(name), text).with_context(|| format!("cannot write {name}"))?;
        }
        let old = env::var_os("PATH").unwrap_or_default();
        let all = core::iter::once(own).chain(env::split_paths(&old));
        Ok(Self {
            search: env::join_paths(all)?,
            path,
            scratch,
            amount: if quick { "1" } else { "8" },
        })
    }

    /// Makes a program's input. If the program cannot be measured here, says why.
    ///
    /// # Errors
    ///
    /// When making the input fails.
    pub(super) fn prepare(&self, program: &Program) -> Result<Option<String>> {
        let needed = core::iter::once(program.command).chain(program.also.iter().copied());
        if let Some(missing) = needed.into_iter().find(|name| self.find(name).is_none()) {
            return Ok(Some(format!("{missing} is not installed")));
        }
        if !program.prepare.is_empty() {
            let ran = self.run(program.prepare, None)?;
            ensure!(
                ran.spawned.success,
                "the input of {}: {}: {}",
                program.name,
                ran.spawned.status,
                self.complaint(),
            );
        }
        // Now, for making the input may have put the program itself before a script.
        let found = self.find(program.command);
        let reason = found.map_or(Ok(None), |path| deaf(&path))?;
        Ok(reason.map(|reason| format!("{}: {reason}", program.command)))
    }

    /// The file of a command.
    fn find(&self, command: &str) -> Option<PathBuf> {
        // An absolute path stays what it is.
        let places = env::split_paths(&self.search).map(|folder| folder.join(command));
        places
            .into_iter()
            .find_map(|place| place.canonicalize().ok())
    }

    /// Runs a line under a library.
    ///
    /// # Errors
    ///
    /// When it cannot be started or hangs, or the library cannot be loaded.
    pub(super) fn run(&self, line: &str, preload: Option<&Path>) -> Result<Ran> {
        let text = OsStr::new;
        let foreign = Foreign {
            command: &["sh", "-c", &format!("set -e; {line}")],
            preload,
            folder: Some(&self.path),
            variables: &[
                ("n", text(self.amount)),
                ("PATH", &self.search),
                ("HOME", self.path.as_os_str()),
                ("LC_ALL", text("C")),
                ("TZ", text("UTC")),
                ("PYTHONHASHSEED", text("0")),
                ("PERL_HASH_SEED", text("0")),
                ("GIT_CONFIG_NOSYSTEM", text("1")),
            ],
            patience: Some(PATIENCE),
            scratch: self.scratch,
        };
        foreign.run()
    }

    /// The last line that the last command wrote to its standard error.
    pub(super) fn complaint(&self) -> String {
        let text = fs::read_to_string(self.scratch.join("stderr")).unwrap_or_default();
        text.lines().last().unwrap_or_default().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_that_are_not_there_or_do_not_listen_are_told() {
        let scratch = tempfile::tempdir().expect("a temporary folder");
        let folder = Folder::new(scratch.path(), true).expect("a writable folder");
        let prepare = |command| {
            let program = Program {
                name: "test",
                command,
                also: &[],
                prepare: "",
                run: "",
            };
            folder.prepare(&program).expect("no failure")
        };
        let missing = prepare("no-such-command");
        assert_eq!(missing.as_deref(), Some("no-such-command is not installed"));
        assert_eq!(prepare("/bin/sh"), None);
        assert_eq!(prepare("sh"), None);
        // What lies in the folder comes before what the system has.
        let script = scratch.path().join("work/bin/sh");
        fs::write(script, "#!/bin/sh\n").expect("a writable folder");
        let reason = prepare("sh").expect("a script is no program");
        assert!(reason.starts_with("sh: not a program"), "{reason}");
    }
}
