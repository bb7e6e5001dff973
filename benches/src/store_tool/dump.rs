//! A store as text. Equal states of a store give equal text.
//!
//! ```text
//! brickyard store dump 1
//! table<TAB>towns<TAB>2
//! Bonn<TAB>340000
//! Ulm<TAB>128000
//! table<TAB>maps<TAB>0<TAB>align=4096<TAB>key=u64<TAB>value=map 2
//! table<TAB>tags<TAB>2<TAB>multi
//! apple<TAB>fruit
//! apple<TAB>red
//! table<TAB>texts<TAB>0<TAB>lz4=256
//! end
//! ```
//!
//! Names, keys and values are escaped (`text`). A table's line has the number of its entries
//! and its options, so that a cut file is noticed. In a multi-map (`multi`) each value has a
//! line with its key; the values of a compressed table stand there unpacked.

use core::fmt;
use std::io::{BufRead, Write};

use anyhow::{Context as _, Result, bail};
use brickyard_store::{
    CompressedTableMut, Compression, Durability, MultiMapMut, ReadTxn, Store, TableInfo, TableMut,
    TableOptions, WriteTxn,
};

use crate::progress;
use crate::store_tool::text::{escaped, unescaped};

const HEAD: &str = "brickyard store dump 1";
const END: &str = "end";
/// Entries of a transaction of `load`, which holds what it changes in memory.
const BATCH: u64 = 10_000;
/// A snapshot's tables are there.
const THERE: &str = "the table is there";
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
    let (name, options) = (&*info.name, &info.options);
    let kind = Kind::of(options)?;
    let name_text = escaped(name.as_bytes());
    write!(out, "table\t{name_text}\t{}{kind}", info.entries)?;
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
    let mut count = 0;
    let mut entry = |key: &[u8], value: &[u8]| -> Result<()> {
        writeln!(out, "{}\t{}", escaped(key), escaped(value))?;
        count += 1;
        if count % STRIDE == 0 {
            bar.inc(STRIDE);
        }
        Ok(())
    };
    match kind {
        Kind::Table => {
            let mut range = read.table(name)?.context(THERE)?.range::<[u8]>(..)?;
            while let Some((key, value)) = range.next()? {
                entry(key, value)?;
            }
        }
        Kind::MultiMap => {
            let mut pairs = read.multi_map(name)?.context(THERE)?.range::<[u8]>(..)?;
            while let Some((key, value)) = pairs.next()? {
                entry(key, value)?;
            }
        }
        Kind::Compressed(..) => {
            let mut range = read.compressed(name)?.context(THERE)?.range::<[u8]>(..)?;
            while let Some((key, value)) = range.next()? {
                entry(key, &value)?;
            }
        }
    }
    Ok(())
}

/// The kinds of tables that are opened differently.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Table,
    MultiMap,
    /// Above so many bytes.
    Compressed(Compression, u32),
}

/// The word for each way to compress.
const COMPRESSIONS: [(&str, Compression); 2] =
    [("lz4", Compression::Lz4), ("zstd", Compression::Zstd)];

impl Kind {
    fn of(options: &TableOptions) -> Result<Self> {
        let Some((compression, threshold)) = options.value_compression() else {
            return Ok(match options.is_multi_map() {
                true => Self::MultiMap,
                false => Self::Table,
            });
        };
        // There may be more of them one day.
        let known = COMPRESSIONS.iter().any(|each| each.1 == compression);
        known
            .then_some(Self::Compressed(compression, threshold))
            .with_context(|| format!("this command knows no {compression:?}"))
    }

    /// The kind that an option of a table's line says, if it says one.
    fn parse(option: &str) -> Result<Option<Self>> {
        if option == "multi" {
            return Ok(Some(Self::MultiMap));
        }
        let Some((word, threshold)) = option.split_once('=') else {
            return Ok(None);
        };
        let found = COMPRESSIONS.iter().find(|each| each.0 == word);
        let kind = found.map(|each| {
            let threshold = threshold.parse().context("the threshold is no number")?;
            Ok(Self::Compressed(each.1, threshold))
        });
        kind.transpose()
    }

    fn open<'t, 's>(self, write: &'t mut WriteTxn<'s>, table: &Header) -> Result<Target<'t, 's>> {
        let name = &table.name;
        Ok(match self {
            Self::Table => Target::Table(write.table_with(name, &table.options)?),
            Self::MultiMap => Target::MultiMap(write.multi_map(name)?),
            Self::Compressed(compression, threshold) => {
                Target::Compressed(write.compressed(name, compression, threshold)?)
            }
        })
    }
}

/// As the option of a table's line, with the tab before it.
impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Table => Ok(()),
            Self::MultiMap => f.write_str("\tmulti"),
            Self::Compressed(compression, threshold) => COMPRESSIONS
                .iter()
                .filter(|each| each.1 == *compression)
                .try_for_each(|each| write!(f, "\t{}={threshold}", each.0)),
        }
    }
}

/// A table that entries are put into.
enum Target<'t, 's> {
    Table(TableMut<'t, 's>),
    MultiMap(MultiMapMut<'t, 's>),
    Compressed(CompressedTableMut<'t, 's>),
}

impl Target<'_, '_> {
    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        match self {
            Self::Table(table) => table.put(key, value)?,
            Self::MultiMap(map) => map.insert(key, value)?,
            Self::Compressed(table) => table.put(key, value)?,
        };
        Ok(())
    }
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
            let mut target = table.kind.open(&mut write, &table)?;
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
    kind: Kind,
    /// Those of a table that is neither multi-map nor compressed.
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
        let (mut kind, mut options) = (Kind::Table, TableOptions::new());
        for part in parts {
            if let Some(said) = Kind::parse(part)? {
                kind = said;
                continue;
            }
            options = match part.split_once('=') {
                Some(("align", bytes)) => {
                    options.alignment(bytes.parse().context("the alignment is no number")?)
                }
                Some(("key", name)) => options.key_type(&text(unescaped(name)?)?),
                Some(("value", name)) => options.value_type(&text(unescaped(name)?)?),
                _ => bail!("`{part}` is no option of a table"),
            };
        }
        if !matches!(kind, Kind::Table) && options != TableOptions::new() {
            bail!("a multi-map or a compressed table has no other options");
        }
        Ok(Self {
            name: text(unescaped(name)?)?,
            entries: entries.parse().context("the number of entries is none")?,
            kind,
            options,
        })
    }
}
