//! A store as text. Equal states of a store give equal text.
//!
//! ```text
//! brickyard store dump 1
//! table<TAB>towns<TAB>2
//! Bonn<TAB>340000
//! Ulm<TAB>128000
//! table<TAB>maps<TAB>0<TAB>align=4096<TAB>key=u64<TAB>value=map 2
//! end
//! ```
//!
//! Names, keys and values are escaped (`text`). A table's line has the number of its entries
//! and its options, so that a cut file is noticed.

use std::io::{BufRead, Write};

use anyhow::{Context as _, Result, bail};
use brickyard_store::{Durability, ReadTxn, Store, TableInfo, TableOptions};

use crate::progress;
use crate::store_tool::text::{escaped, unescaped};

const HEAD: &str = "brickyard store dump 1";
const END: &str = "end";
/// Entries of a transaction of `load`, which holds what it changes in memory.
const BATCH: u64 = 10_000;
/// The bar moves after so many entries.
const STRIDE: u64 = 1000;

/// Writes a store, or one of its tables.
pub(super) fn write(store: &Store, only: Option<&str>, out: &mut impl Write) -> Result<()> {
    let read = store.read();
    let mut tables = read.tables()?;
    if let Some(only) = only {
        tables.retain(|table| &*table.name == only);
        if tables.is_empty() {
            bail!("there is no table {only}");
        }
    }
    let bar = progress::bar(tables.iter().map(|table| table.entries).sum());
    writeln!(out, "{HEAD}")?;
    for table in tables {
        write_table(&read, &table, out, &bar)?;
    }
    writeln!(out, "{END}")?;
    out.flush()?;
    bar.finish_and_clear();
    Ok(())
}

fn write_table(
    read: &ReadTxn<'_>,
    info: &TableInfo,
    out: &mut impl Write,
    bar: &indicatif::ProgressBar,
) -> Result<()> {
    let table = read.table(&info.name)?.context("the table is there")?;
    write!(
        out,
        "table\t{}\t{}",
        escaped(info.name.as_bytes()),
        info.entries
    )?;
    let options = &info.options;
    if options.value_alignment() > 1 {
        write!(out, "\talign={}", options.value_alignment())?;
    }
    for (what, name) in [
        ("key", options.key_type_name()),
        ("value", options.value_type_name()),
    ] {
        if !name.is_empty() {
            write!(out, "\t{what}={}", escaped(name.as_bytes()))?;
        }
    }
    writeln!(out)?;
    let (mut range, mut count) = (table.range::<[u8]>(..)?, 0);
    while let Some((key, value)) = range.next()? {
        writeln!(out, "{}\t{}", escaped(key), escaped(value))?;
        count += 1;
        if count % STRIDE == 0 {
            bar.inc(STRIDE);
        }
    }
    Ok(())
}

/// Puts what [`write()`] wrote into a store, over what is there.
pub(super) fn read(store: &Store, input: &mut impl BufRead) -> Result<()> {
    let mut lines = input.lines().enumerate();
    let mut next = || -> Result<(usize, String)> {
        let (index, line) = lines.next().context("the dump has no end: it was cut")?;
        Ok((index + 1, line.context("cannot read the dump")?))
    };
    if next()?.1 != HEAD {
        bail!("this is no dump: its first line is not `{HEAD}`");
    }
    let bar = progress::bar(0);
    loop {
        let (number, line) = next()?;
        if line == END {
            bar.finish_and_clear();
            return Ok(());
        }
        let table = Header::parse(&line).with_context(|| format!("line {number}"))?;
        bar.inc_length(table.entries);
        let mut left = table.entries;
        loop {
            let batch = left.min(BATCH);
            let mut write = store.write()?;
            let mut target = write.table_with(&table.name, &table.options)?;
            for _ in 0..batch {
                let (number, line) = next()?;
                let entry = entry(&line).with_context(|| format!("line {number}"))?;
                target.put(&entry.0, &entry.1)?;
            }
            write.commit_with(Durability::Visible)?;
            bar.inc(batch);
            left -= batch;
            if left == 0 {
                break;
            }
        }
    }
}

fn entry(line: &str) -> Result<(Vec<u8>, Vec<u8>)> {
    let (key, value) = line
        .split_once('\t')
        .context("a key, a tab and a value are needed")?;
    Ok((unescaped(key)?, unescaped(value)?))
}

/// The line of a table.
#[derive(Debug)]
struct Header {
    name: String,
    entries: u64,
    options: TableOptions,
}

impl Header {
    fn parse(line: &str) -> Result<Self> {
        let mut parts = line.split('\t');
        let (Some("table"), Some(name), Some(entries)) = (parts.next(), parts.next(), parts.next())
        else {
            bail!("a table or `{END}` is needed here");
        };
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).context("a name is not UTF-8");
        let mut options = TableOptions::new();
        for part in parts {
            options = match part.split_once('=') {
                Some(("align", bytes)) => {
                    options.alignment(bytes.parse().context("the alignment is no number")?)
                }
                Some(("key", name)) => options.key_type(&text(unescaped(name)?)?),
                Some(("value", name)) => options.value_type(&text(unescaped(name)?)?),
                _ => bail!("`{part}` is no option of a table"),
            };
        }
        Ok(Self {
            name: text(unescaped(name)?)?,
            entries: entries.parse().context("the number of entries is none")?,
            options,
        })
    }
}
