//! Which pages of the tree are in memory: noted when a store is closed, loaded when it is
//! opened again.
//!
//! A hint and nothing else. A note that is missing, damaged, of another format or of
//! another state of the store costs time at worst: what it names is read ahead, in the
//! bounds of the file and of half of the memory that is available, and nobody believes that it
//! is there or what it means.
//!
//! A writer walks all nodes before it does anything else, so everything is asked for at
//! once ([`ask`]). What a reader wants next is not known: its own reads would wait behind
//! all others. For it a thread reads one piece after another ([`Loader`]).

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::sync::mpsc::{self, Receiver, Sender, TryRecvError};
use std::thread::{self, JoinHandle};

use memmap2::Advice;

use crate::backing::Map;
use crate::format::warm::{self, MOST_BYTES, Runs};
use crate::ids::{Extent, PAGE_BYTES, PAGE_BYTES_U64};

const NOTE: &str = "warm";
/// OS pages that the system is asked about at once: 256 MiB of 4 KiB pages.
const STEP_OS_PAGES: usize = 1 << 16;
/// Pages that are read at once, 128 KiB: of more than its read-ahead window the system
/// takes only the first part, and who reads meanwhile waits no longer than for these.
const PIECE_PAGES: u32 = 32;

/// A note asks for one part in so many of the memory that is available: what is loaded for
/// nothing should not take the place of all that others have there.
const MEMORY_SHARE: u64 = 2;

/// The most pages that a note may ask for now; none if the system does not say what is
/// available.
pub(crate) fn most_pages() -> u32 {
    let said = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let pages = available_bytes(&said) / MEMORY_SHARE / PAGE_BYTES_U64;
    u32::try_from(pages).unwrap_or(u32::MAX)
}

/// What programs can get without swapping, page cache included; 0 if it is not said. The
/// lines are those of `/proc/meminfo`, in units of 1024 bytes.
fn available_bytes(meminfo: &str) -> u64 {
    let mut lines = meminfo.lines();
    let line = lines.find_map(|line| line.strip_prefix("MemAvailable:"));
    let number = line.and_then(|line| line.trim().strip_suffix(" kB"));
    let kib: Option<u64> = number.and_then(|number| number.trim().parse().ok());
    kib.unwrap_or(0).saturating_mul(1024)
}

/// Notes which of the first `pages` pages are in memory in the folder `dir`.
pub(crate) fn remember(dir: &Path, map: &Map, pages: u32, mode: u32) -> io::Result<()> {
    let note = warm::encode(&resident(map, pages)?);
    let mut file = tempfile::Builder::new()
        .prefix("warm.")
        .permissions(Permissions::from_mode(mode))
        .tempfile_in(dir)?;
    // No barrier: what a power cut leaves of it lacks its checksum.
    file.write_all(&note)?;
    file.persist(dir.join(NOTE))?;
    Ok(())
}

/// Those of the first `pages` pages that the note in the folder `dir` names, in pieces: the
/// first `most` of them.
pub(crate) fn noted(dir: &Path, pages: u32, most: u32) -> Vec<Extent> {
    let mut bytes = Vec::new();
    // What is no file, a pipe for one, is not waited for.
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(libc::O_NONBLOCK);
    let file = options.open(dir.join(NOTE));
    let read = file.and_then(|file| file.take(MOST_BYTES as u64).read_to_end(&mut bytes));
    let runs = read.ok().and_then(|_| warm::decode(&bytes));
    let mut left = most;
    let pieces = runs.iter().flatten().flat_map(|run| {
        let end = run.end().min(pages).min(run.first.saturating_add(left));
        left -= end.saturating_sub(run.first);
        let firsts = (run.first..end).step_by(PIECE_PAGES as usize);
        firsts.map(move |first| Extent {
            first,
            pages: PIECE_PAGES.min(end - first),
        })
    });
    pieces.collect()
}

/// Asks the system for all pieces, and waits for none.
pub(crate) fn ask(map: &Map, pieces: &[Extent]) {
    for piece in pieces {
        let at = piece.first as usize * PAGE_BYTES;
        let len = piece.pages as usize * PAGE_BYTES;
        // Advice: a page that is not read ahead is read when it is needed.
        let _ = map.raw().advise_range(Advice::WillNeed, at, len);
    }
}

/// A thread that loads pieces, until it is dropped.
#[derive(Debug)]
pub(crate) struct Loader {
    /// Tells the thread to end by being gone.
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Loader {
    /// Loads pieces of a file, from a descriptor of its own.
    pub(crate) fn start(tree: &File, pieces: Vec<Extent>) -> io::Result<Self> {
        let tree = tree.try_clone()?;
        let (stop, stopped) = mpsc::channel();
        let thread = thread::Builder::new().name("brickyard-warm".into());
        let thread = thread.spawn(move || load(&tree, &pieces, &stopped))?;
        Ok(Self {
            stop: Some(stop),
            thread: Some(thread),
        })
    }
}

impl Drop for Loader {
    fn drop(&mut self) {
        self.stop = None;
        // It does not panic, and what it did is a hint.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

fn load(tree: &File, pieces: &[Extent], stopped: &Receiver<()>) {
    let mut bytes = vec![0; PIECE_PAGES as usize * PAGE_BYTES];
    for piece in pieces {
        let Some(part) = bytes.get_mut(..piece.pages as usize * PAGE_BYTES) else {
            return;
        };
        // Into the page cache; the copy is nobody's.
        let read = tree.read_at(part, u64::from(piece.first) * PAGE_BYTES_U64);
        if read.is_err() || stopped.try_recv() == Err(TryRecvError::Disconnected) {
            return;
        }
    }
}

/// The pages below `pages` that are in memory, in runs.
fn resident(map: &Map, pages: u32) -> io::Result<Vec<Extent>> {
    let os_page = rustix::param::page_size();
    let per_os_page = u32::try_from(os_page / PAGE_BYTES).unwrap_or(1).max(1);
    let raw = map.raw();
    let bytes = raw.len().min(pages as usize * PAGE_BYTES);
    let mut states = vec![0_u8; STEP_OS_PAGES];
    let mut runs = Runs::default();
    for start in (0..bytes).step_by(STEP_OS_PAGES * os_page) {
        let len = (bytes - start).min(STEP_OS_PAGES * os_page);
        let from = raw.as_mut_ptr().wrapping_add(start);
        // SAFETY: (1) `start + len` is at most the length of the mapping, which lives as
        // long as `map` and starts on an OS page, as `start` does; (2) the call writes a
        // byte for each OS page of the range, and there are as many; (3) it reads and
        // writes no byte of the mapping.
        let asked = unsafe { libc::mincore(from.cast(), len, states.as_mut_ptr()) };
        if asked != 0 {
            return Err(io::Error::last_os_error());
        }
        let first = u32::try_from(start / PAGE_BYTES).unwrap_or(u32::MAX);
        for (index, state) in (0..).zip(&states[..len.div_ceil(os_page)]) {
            if state & 1 != 0 {
                let first = first + index * per_os_page;
                let pages = per_os_page.min(pages.saturating_sub(first));
                runs.push(Extent { first, pages });
            }
        }
    }
    Ok(runs.finish())
}

#[cfg(test)]
mod tests {
    //! What could go wrong: other pages are noted than those that are in memory, or those
    //! that were noted are not loaded. How it is seen: some pages of a file are touched and
    //! no others, and the system says which are there.

    use super::*;
    use core::time::Duration;
    use memmap2::MmapOptions;
    use rustix::fs::{Advice as FileAdvice, fadvise};
    use std::fs;
    use std::time::Instant;

    const PAGES: u32 = 1000;

    fn map(file: &File) -> Map {
        let map = MmapOptions::new().map_raw_read_only(file).expect("a file");
        map.advise(Advice::Random).expect("known advice");
        fadvise(file, 0, None, FileAdvice::Random).expect("known advice");
        Map::new(map)
    }

    fn touch(map: &Map, pages: impl Iterator<Item = u32>) -> u32 {
        pages
            .map(|page| {
                // SAFETY: the file has so many pages and this test does not change it.
                let bytes = unsafe { map.slice(page as usize, 1) };
                u32::from(bytes[0])
            })
            .sum()
    }

    fn run(first: u32, pages: u32) -> Extent {
        Extent { first, pages }
    }

    #[test]
    fn the_pages_that_were_in_memory_are_loaded_again() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let file = File::create_new(dir.path().join("tree")).expect("a new file");
        let bytes = vec![1; PAGES as usize * PAGE_BYTES];
        let file_again = || File::open(dir.path().join("tree")).expect("the same");
        (&file).write_all(&bytes).expect("room");
        let forget = || {
            file.sync_all().expect("a working disk");
            fadvise(&file, 0, None, FileAdvice::DontNeed).expect("known advice");
        };
        let known = |map: &Map| resident(map, PAGES).expect("this process's own file");
        forget();
        let first = map(&file_again());
        let mut hot = vec![run(100, 1), run(200, 300)];
        if !known(&first).is_empty() {
            // A file system in memory keeps all of it there.
            hot = vec![run(0, PAGES)];
        }
        assert_eq!(touch(&first, (200..500).chain(100..101)), 301);
        remember(dir.path(), &first, PAGES, 0o600).expect("room");
        let note = fs::read(dir.path().join(NOTE)).expect("it was written");
        assert_eq!(warm::decode(&note), Some(hot.clone()));
        // What is mapped is not forgotten.
        drop(first);
        for by_thread in [false, true] {
            forget();
            let (file, pieces) = (file_again(), noted(dir.path(), PAGES, PAGES));
            let (map, start) = (map(&file), Instant::now());
            let loader = by_thread.then(|| Loader::start(&file, pieces.clone()).expect("a thread"));
            if !by_thread {
                ask(&map, &pieces);
            }
            while known(&map) != hot {
                assert!(
                    start.elapsed() < Duration::from_secs(20),
                    "{:?}",
                    known(&map)
                );
                thread::sleep(Duration::from_millis(5));
            }
            drop(loader);
        }
        // The file became shorter since.
        let known = |pages, most| noted(dir.path(), pages, most);
        assert_eq!(known(300, PAGES).last().expect("some").end(), 300);
        // There is little memory.
        for most in [0, 1, 2, 33, 100, 1000] {
            let (all, some) = (known(PAGES, PAGES), known(PAGES, most));
            let pages = |pieces: &[Extent]| -> Vec<u32> {
                let pages = pieces.iter().flat_map(|piece| piece.first..piece.end());
                pages.collect()
            };
            let (all, some) = (pages(&all), pages(&some));
            assert_eq!(some, all[..all.len().min(most as usize)]);
        }
    }

    #[test]
    fn what_is_available_is_what_the_system_says() {
        let said = "MemTotal:       24683652 kB\nMemAvailable:   23792540 kB\nBuffers: 1 kB\n";
        assert_eq!(available_bytes(said), 23_792_540 * 1024);
        for said in [
            "",
            "MemAvailable:",
            "MemAvailable: many kB",
            "MemFree: 7 kB",
        ] {
            assert_eq!(available_bytes(said), 0, "{said}");
        }
        let most = format!("MemAvailable: {} kB", u64::MAX);
        assert_eq!(available_bytes(&most), u64::MAX);
        assert!(most_pages() > 0);
    }
}
