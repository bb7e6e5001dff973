//! Work on real input: Rust sources, text, JSON; on one thread and on four.

use core::sync::atomic::{AtomicUsize, Ordering};
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;

use anyhow::{Context as _, Result};
use serde_json::{Map, Value};
use syn::visit::Visit;

use super::{Outcome, Setting};

/// Threads of the rows that use several.
const THREADS: usize = 4;

/// Bytes of JSON to parse in the full size.
const JSON_BYTES: usize = 24 << 20;

/// Parsed documents a worker or the main thread keeps.
const KEPT_DOCUMENTS: usize = 4;

/// Parses every Rust file and keeps the trees.
pub(super) fn parse(setting: &mut Setting) -> Result<Outcome> {
    let files = &setting.input.rust;
    let (checksum, trees) = setting.watch.measure(|| -> Result<(u64, Vec<syn::File>)> {
        let mut trees = Vec::new();
        let mut items = 0;
        for path in files {
            // Some files are templates or test data and no Rust of this edition.
            if let Ok(tree) = syn::parse_file(&read(path)?) {
                items += tree.items.len() as u64;
                trees.push(tree);
            }
        }
        Ok((items, trees))
    })?;
    Ok(Outcome::new(checksum, trees))
}

/// Parses every Rust file in four threads; each sends the names it found to the
/// main thread, which counts them and frees what it does not keep.
pub(super) fn parse_threaded(setting: &mut Setting) -> Result<Outcome> {
    let files = &setting.input.rust;
    let names = setting.watch.measure(|| {
        let mut names: HashMap<String, u32> = HashMap::new();
        for_each_file(
            files,
            |_, text| {
                let mut found = Names::default();
                if let Ok(tree) = syn::parse_file(&text) {
                    found.visit_file(&tree);
                }
                found.0
            },
            |found| {
                found
                    .into_iter()
                    .for_each(|name| *names.entry(name).or_default() += 1);
            },
        )?;
        anyhow::Ok(names)
    })?;
    let checksum = names
        .iter()
        .map(|(name, count)| name.len() as u64 * u64::from(*count))
        .sum();
    Ok(Outcome::new(checksum, names))
}

/// The identifiers of a tree, one string each.
#[derive(Debug, Default)]
struct Names(Vec<String>);

impl Visit<'_> for Names {
    fn visit_ident(&mut self, ident: &syn::Ident) {
        self.0.push(ident.to_string());
    }
}

/// Word to the places it occurs at, in the order of the words.
type Ordered = BTreeMap<String, Vec<u32>>;

/// Word to the files it occurs in.
type Hashed = HashMap<String, Vec<u32>>;

/// Indexes every word of every text file: lines in a `BTreeMap`, files in a
/// `HashMap`.
pub(super) fn index(setting: &mut Setting) -> Result<Outcome> {
    let files = &setting.input.text;
    let maps = setting.watch.measure(|| {
        let (mut lines, mut places) = (Ordered::new(), Hashed::new());
        for (file, path) in (0_u32..).zip(files) {
            let text = read(path)?;
            for (line, word) in words(&text) {
                match lines.get_mut(word) {
                    Some(list) => list.push(line),
                    None => drop(lines.insert(word.to_owned(), vec![line])),
                }
                match places.get_mut(word) {
                    Some(list) if list.last() == Some(&file) => {}
                    Some(list) => list.push(file),
                    None => drop(places.insert(word.to_owned(), vec![file])),
                }
            }
        }
        anyhow::Ok((lines, places))
    })?;
    let checksum = entries(maps.0.values()) ^ entries(maps.1.values()).rotate_left(32);
    Ok(Outcome::new(checksum, maps))
}

/// Indexes every text file in four threads, one map a file; the main thread
/// merges the maps and so frees most of what the threads allocated.
pub(super) fn index_threaded(setting: &mut Setting) -> Result<Outcome> {
    let files = &setting.input.text;
    let all = setting.watch.measure(|| {
        let mut all = Ordered::new();
        for_each_file(
            files,
            |_, text| {
                let mut lines = Hashed::new();
                for (line, word) in words(&text) {
                    match lines.get_mut(word) {
                        Some(list) => list.push(line),
                        None => drop(lines.insert(word.to_owned(), vec![line])),
                    }
                }
                lines
            },
            |lines| {
                for (word, mut list) in lines {
                    all.entry(word).or_default().append(&mut list);
                }
            },
        )?;
        anyhow::Ok(all)
    })?;
    Ok(Outcome::new(entries(all.values()), all))
}

/// The number of entries in all lists.
fn entries<'a>(lists: impl Iterator<Item = &'a Vec<u32>>) -> u64 {
    lists.map(|list| list.len() as u64).sum()
}

/// The words of a text with the numbers of their lines.
fn words(text: &str) -> impl Iterator<Item = (u32, &str)> {
    (0_u32..).zip(text.lines()).flat_map(|(number, line)| {
        line.split(|c: char| !c.is_alphanumeric() && c != '_')
            .filter(|word| !word.is_empty())
            .map(move |word| (number, word))
    })
}

/// Parses the JSON document, rewrites it and writes it out, again and again;
/// the last few documents are kept.
pub(super) fn json(setting: &mut Setting) -> Result<Outcome> {
    let text = read(&setting.input.json)?;
    let rounds = setting.scale.of(JSON_BYTES).div_ceil(text.len().max(1));
    let (checksum, kept) = setting.watch.measure(|| -> Result<(u64, Vec<Value>)> {
        let (mut bytes, mut kept) = (0, Vec::new());
        for round in 0..rounds {
            let document =
                rewrite(serde_json::from_str(&text).context("the JSON input is not JSON")?);
            bytes += serde_json::to_string_pretty(&document)?.len() as u64;
            keep(&mut kept, round, document);
        }
        Ok((bytes, kept))
    })?;
    Ok(Outcome::new(checksum, (text, kept)))
}

/// As [`json`], but two threads parse and hand each document to one of two
/// others, which rewrite it, write it out and free it.
pub(super) fn json_threaded(setting: &mut Setting) -> Result<Outcome> {
    let text = read(&setting.input.json)?;
    let rounds = setting.scale.of(JSON_BYTES).div_ceil(text.len().max(1));
    let (checksum, kept) = setting.watch.measure(|| {
        thread::scope(|scope| {
            let pipelines: Vec<_> = (0..THREADS / 2)
                .map(|number| {
                    let (sender, receiver) = mpsc::sync_channel::<Value>(2);
                    let mine = (number..rounds).step_by(THREADS / 2);
                    let text = text.as_str();
                    let parser = scope.spawn(move || {
                        for _ in mine {
                            let document = serde_json::from_str(text)?;
                            if sender.send(document).is_err() {
                                break;
                            }
                        }
                        serde_json::Result::Ok(())
                    });
                    (parser, scope.spawn(move || write_all(&receiver)))
                })
                .collect();
            let (mut bytes, mut kept) = (0, Vec::new());
            for (parser, writer) in pipelines {
                joined(parser)?.context("the JSON input is not JSON")?;
                let (written, documents) = joined(writer)??;
                bytes += written;
                kept.extend(documents);
            }
            anyhow::Ok((bytes, kept))
        })
    })?;
    Ok(Outcome::new(checksum, (text, kept)))
}

/// Rewrites and writes out all documents that come; returns the bytes written
/// and the last few documents.
fn write_all(documents: &mpsc::Receiver<Value>) -> serde_json::Result<(u64, Vec<Value>)> {
    let (mut bytes, mut kept) = (0, Vec::new());
    for (round, document) in documents.iter().enumerate() {
        let document = rewrite(document);
        bytes += serde_json::to_string_pretty(&document)?.len() as u64;
        keep(&mut kept, round, document);
    }
    Ok((bytes, kept))
}

/// Keeps the document in place of one of the last [`KEPT_DOCUMENTS`].
fn keep(kept: &mut Vec<Value>, round: usize, document: Value) {
    match kept.get_mut(round % KEPT_DOCUMENTS) {
        Some(place) => *place = document,
        None => kept.push(document),
    }
}

/// The document with nulls dropped, keys in capitals and strings trimmed of
/// their first path component: new strings and maps throughout.
fn rewrite(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let kept = fields.into_iter().filter(|(_, value)| !value.is_null());
            Value::Object(
                kept.map(|(k, v)| (k.to_uppercase(), rewrite(v)))
                    .collect::<Map<_, _>>(),
            )
        }
        Value::Array(values) => Value::Array(values.into_iter().map(rewrite).collect()),
        Value::String(text) => match text.split_once('/') {
            Some((_, rest)) => Value::String(rest.to_owned()),
            None => Value::String(text),
        },
        other => other,
    }
}

/// Gives the files one by one to [`THREADS`] threads that turn each into a
/// result, and the results, as they come, to `take` on this thread.
fn for_each_file<T: Send>(
    files: &[PathBuf],
    work: impl Fn(&Path, String) -> T + Sync,
    mut take: impl FnMut(T),
) -> Result<()> {
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        let (sender, receiver) = mpsc::sync_channel::<T>(2 * THREADS);
        let worker = || {
            let (sender, next, work) = (sender.clone(), &next, &work);
            scope.spawn(move || -> Result<()> {
                // Relaxed: a ticket; the files are shared before the threads start.
                while let Some(path) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if sender.send(work(path, read(path)?)).is_err() {
                        break;
                    }
                }
                Ok(())
            })
        };
        let workers: Vec<_> = (0..THREADS).map(|_| worker()).collect();
        drop(sender);
        receiver.iter().for_each(&mut take);
        workers.into_iter().try_for_each(|worker| joined(worker)?)
    })
}

/// The thread's result; a panic becomes an error.
fn joined<T>(handle: thread::ScopedJoinHandle<'_, T>) -> Result<T> {
    handle
        .join()
        .map_err(|_| anyhow::anyhow!("a worker thread panicked"))
}

/// The text of an input file.
fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_carry_the_numbers_of_their_lines() {
        let found: Vec<_> = words("let a_1 = b;\n\n// grün, b\n").collect();
        assert_eq!(
            found,
            [(0, "let"), (0, "a_1"), (0, "b"), (2, "grün"), (2, "b")]
        );
    }

    #[test]
    fn rewriting_drops_nulls_and_renames_keys() {
        let before = serde_json::json!({"a": null, "b": ["x/y/z", 1], "c": {"d": "e"}});
        let after = serde_json::json!({"B": ["y/z", 1], "C": {"D": "e"}});
        assert_eq!(rewrite(before), after);
    }

    #[test]
    fn every_file_is_taken_once() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let files: Vec<PathBuf> = (0..40)
            .map(|n| folder.path().join(format!("{n}")))
            .collect();
        for (number, path) in files.iter().enumerate() {
            fs::write(path, format!("{number}")).expect("a writable folder");
        }
        let mut taken: Vec<usize> = Vec::new();
        for_each_file(
            &files,
            |_, text| text.parse().expect("a number"),
            |n| taken.push(n),
        )
        .expect("all files can be read");
        taken.sort_unstable();
        assert_eq!(taken, (0..40).collect::<Vec<_>>());
    }

    #[test]
    fn a_missing_file_is_an_error_with_its_name() {
        let missing = [PathBuf::from("/nonexistent/brickyard.rs")];
        let error = for_each_file(&missing, |_, text| text, drop).expect_err("no such file");
        assert!(
            format!("{error:#}").contains("/nonexistent/brickyard.rs"),
            "{error:#}"
        );
    }
}
