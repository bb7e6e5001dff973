//! Bringing a backup up to date with an increment.
//!
//! | we die after | the folder |
//! |---|---|
//! | reading the stream into a file of the folder | is the backup it was |
//! | giving the ring another name | is no store; applying the same increment again helps |
//! | writing the pages, and the barrier | the same |
//! | writing the slot, and the barrier | the same, and only the name is missing |
//! | giving the ring its name back | is the new backup |
//!
//! Pages are written over those of the state before, so that nothing is left of it; a stream
//! is therefore read to its end, and each of its checksums looked at, before anything.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use crate::backing::file::{self, APPLYING, FileOptions};
use crate::backup::copy::{MODE, verify};
use crate::backup::{
    BackupMark, BackupProgress, BackupReport, io_error, newest_slot, state, sync_dir,
};
use crate::check::Depth;
use crate::error::BackupError;
use crate::format::increment::{
    BLOCK_BYTES, Block, HEADER_BYTES, Header, HeaderError, STREAM_FORMAT, block_crc, data_bytes,
    decode_block,
};
use crate::format::meta::Meta;
use crate::format::ring::{self, Found};
use crate::ids::{Extent, FIRST_PAGE, PAGE_BYTES, PAGE_BYTES_U64};

/// The stream while it is read.
const SPOOL: &str = "increment.partial";

/// Applies the increment `stream` to the backup in `dir`.
pub(crate) fn apply(
    dir: &Path,
    stream: &mut dyn Read,
    progress: &mut dyn FnMut(BackupProgress),
) -> Result<BackupReport, BackupError> {
    let options = FileOptions {
        read_only: false,
        create: false,
        create_new: false,
        mode: MODE,
        ring_bytes: 0,
        map_bytes: 0,
        guard: false,
        warm: false,
    };
    let _lock = file::lock(dir, &options).map_err(|source| BackupError::Unsound {
        source: Box::new(source),
    })?;
    let path = dir.join("tree");
    let opened = OpenOptions::new().read(true).write(true).open(&path);
    let tree = opened.map_err(|source| io_error("open", &path, source))?;
    let meta = newest_slot(&tree, &path)?;
    let header = read_header(stream)?;
    let finished = state(&meta) == header.result;
    if !finished && state(&meta) != header.base {
        return Err(BackupError::WrongBase {
            expected: header.base.txn,
            found: meta.txn,
        });
    }
    let (ring, applying) = (dir.join("ring"), dir.join(APPLYING));
    let kept = if ring.exists() { &ring } else { &applying };
    if !finished && was_written_to(kept, &meta)? {
        return Err(BackupError::WrongBase {
            expected: header.base.txn,
            found: meta.txn + 1,
        });
    }
    let spool = dir.join(SPOOL);
    let pages = if finished {
        0
    } else {
        read_stream(stream, &header, &spool)?
    };
    if !finished && ring.exists() {
        fs::rename(&ring, &applying).map_err(|source| io_error("rename", &ring, source))?;
        sync_dir(dir)?;
    }
    if !finished {
        let written = write_pages(&tree, &spool, &header, progress);
        let written = written.and_then(|()| write_slot(&tree, &meta, &header));
        written.map_err(|source| io_error("write", &path, source))?;
    }
    if applying.exists() {
        fs::rename(&applying, &ring).map_err(|source| io_error("rename", &applying, source))?;
    }
    // It is only in the way, and the next increment replaces it.
    let _ = fs::remove_file(&spool);
    sync_dir(dir)?;
    drop((tree, _lock));
    verify(dir, Depth::Nodes)?;
    Ok(BackupReport {
        mark: BackupMark(header.result),
        pages,
    })
}

/// Whether the ring records a transaction after the slot's.
fn was_written_to(path: &Path, meta: &Meta) -> Result<bool, BackupError> {
    let bytes = fs::read(path).map_err(|source| io_error("read", path, source))?;
    let place = meta.ring_start % meta.ring_bytes.max(1);
    let next = ring::read(&bytes, place, meta.salt, meta.txn.saturating_add(1), true);
    Ok(next != Found::End)
}

/// Fills `bytes`; the end of the stream is an error of its own.
fn read(stream: &mut dyn Read, bytes: &mut [u8]) -> Result<(), BackupError> {
    stream
        .read_exact(bytes)
        .map_err(|source| match source.kind() {
            io::ErrorKind::UnexpectedEof => BackupError::Truncated,
            _ => BackupError::Stream(source),
        })
}

fn read_header(stream: &mut dyn Read) -> Result<Header, BackupError> {
    let mut bytes = [0; HEADER_BYTES];
    read(stream, &mut bytes)?;
    Header::decode(&bytes).map_err(|error| match error {
        HeaderError::Foreign => BackupError::Foreign,
        HeaderError::Version(found) => BackupError::Version {
            found,
            known: STREAM_FORMAT,
        },
        HeaderError::Damaged => BackupError::Corrupt { block: 0 },
    })
}

/// The next block into `data`: its extent, or `None` at the end.
fn next_block(
    stream: &mut dyn Read,
    header: &Header,
    number: u64,
    data: &mut Vec<u8>,
) -> Result<Option<Extent>, BackupError> {
    let corrupt = BackupError::Corrupt { block: number };
    let mut bytes = [0; BLOCK_BYTES];
    read(stream, &mut bytes)?;
    let none = Extent { first: 0, pages: 0 };
    match decode_block(&bytes, header.pages) {
        None => Err(corrupt),
        Some(Block::End { crc }) => {
            let mut count = [0; 8];
            read(stream, &mut count)?;
            let fits = block_crc(none, &count) == crc && u64::from_le_bytes(count) + 1 == number;
            if fits { Ok(None) } else { Err(corrupt) }
        }
        Some(Block::Pages { extent, crc }) => {
            data.resize(data_bytes(extent), 0);
            read(stream, data)?;
            if block_crc(extent, data) == crc {
                Ok(Some(extent))
            } else {
                Err(corrupt)
            }
        }
    }
}

/// Reads the blocks into the file `spool`; how many pages they have.
fn read_stream(stream: &mut dyn Read, header: &Header, spool: &Path) -> Result<u64, BackupError> {
    let failed = |source| io_error("write", spool, source);
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(MODE)
        .open(spool);
    let mut out = BufWriter::new(file.map_err(failed)?);
    let (mut data, mut pages, mut number) = (Vec::new(), 0, 1);
    while let Some(extent) = next_block(stream, header, number, &mut data)? {
        let words = [extent.first, extent.pages].map(u32::to_le_bytes).concat();
        out.write_all(&words).map_err(failed)?;
        out.write_all(&data).map_err(failed)?;
        pages += u64::from(extent.pages);
        number += 1;
    }
    let file = out
        .into_inner()
        .map_err(|error| failed(error.into_error()))?;
    file.sync_all().map_err(failed)?;
    Ok(pages)
}

/// Writes the pages of the file `spool` to where they belong.
fn write_pages(
    tree: &File,
    spool: &Path,
    header: &Header,
    progress: &mut dyn FnMut(BackupProgress),
) -> io::Result<()> {
    let mut spool = BufReader::new(File::open(spool)?);
    let (mut data, mut done) = (Vec::new(), 0);
    let mut words = [0; 8];
    loop {
        match spool.read_exact(&mut words) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => break,
            Err(error) => return Err(error),
        }
        let [a, b, c, d, e, f, g, h] = words;
        let extent = Extent {
            first: u32::from_le_bytes([a, b, c, d]),
            pages: u32::from_le_bytes([e, f, g, h]),
        };
        data.resize(data_bytes(extent), 0);
        spool.read_exact(&mut data)?;
        tree.write_all_at(&data, u64::from(extent.first) * PAGE_BYTES_U64)?;
        done += u64::from(extent.pages);
        progress(BackupProgress {
            pages: done,
            of: None,
        });
    }
    // Pages that the increment does not name may lie behind the last that it does.
    let bytes = u64::from(header.pages) * PAGE_BYTES_U64;
    tree.set_len(bytes)?;
    tree.sync_all()
}

/// Names the new state, and then nothing else any more.
fn write_slot(tree: &File, base: &Meta, header: &Header) -> io::Result<()> {
    let meta = Meta {
        generation: base.generation + 1,
        txn: header.result.txn,
        // What the ring may hold is of the life before.
        salt: base.salt.wrapping_add(1),
        ring_start: 0,
        root: header.result.root,
        pages: header.pages,
        map: header.map,
        map_crc: header.map_crc,
        ring_bytes: base.ring_bytes,
    };
    let slot = meta.generation % u64::from(FIRST_PAGE);
    tree.write_all_at(&meta.encode()[..], slot * PAGE_BYTES_U64)?;
    tree.sync_data()?;
    tree.write_all_at(&[0; PAGE_BYTES], (1 - slot) * PAGE_BYTES_U64)?;
    tree.sync_data()
}
