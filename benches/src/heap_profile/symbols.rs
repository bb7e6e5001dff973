//! From an address in a process to functions and lines, by the files that were mapped.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use addr2line::Loader;
use object::{Object as _, ObjectSegment as _};

use super::text::Mapping;

/// One function in a stack; several may stand for one address where calls were inlined.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Frame {
    pub(crate) function: String,
    pub(crate) file: String,
    pub(crate) line: u32,
}

/// A mapped file that was opened.
struct Opened {
    loader: Option<Loader>,
    /// Of each loaded part: offset in the file, length, address.
    segments: Vec<(u64, u64, u64)>,
}

/// Files that were opened so far.
#[derive(Default)]
pub(crate) struct Symbols {
    files: HashMap<PathBuf, Opened>,
}

impl Symbols {
    /// The frames of a return address, innermost first.
    pub(crate) fn frames(&mut self, address: u64, mappings: &[Mapping]) -> Vec<Frame> {
        // The call lies before the address that it returns to.
        let call = address.saturating_sub(1);
        let mapping = mappings
            .iter()
            .find(|mapping| (mapping.start..mapping.end).contains(&call));
        let Some(mapping) = mapping else {
            return vec![unknown("unmapped", call)];
        };
        let offset = call - mapping.start + mapping.offset;
        let file = self
            .files
            .entry(mapping.path.clone())
            .or_insert_with(|| open(&mapping.path));
        let name = mapping.path.file_name().unwrap_or_default();
        let place = unknown(&name.to_string_lossy(), offset);
        let probe = file.segments.iter().find_map(|&(start, len, address)| {
            let within = offset.checked_sub(start).filter(|within| *within < len)?;
            address.checked_add(within)
        });
        let found = probe.zip(file.loader.as_ref());
        let frames = found.map(|(probe, loader)| look_up(loader, probe));
        match frames {
            Some(frames) if !frames.is_empty() => frames,
            _ => vec![place],
        }
    }
}

/// A place that has no name.
fn unknown(file: &str, offset: u64) -> Frame {
    Frame {
        function: format!("{file}+{offset:#x}"),
        file: String::from(file),
        line: 0,
    }
}

/// Opens a file; one that cannot be read, because it was deleted say, has no symbols.
fn open(path: &Path) -> Opened {
    let bytes = fs::read(path).unwrap_or_default();
    let segments = object::File::parse(&*bytes).map(|file| {
        file.segments()
            .map(|segment| {
                let (start, len) = segment.file_range();
                (start, len, segment.address())
            })
            .collect()
    });
    Opened {
        loader: Loader::new(path).ok(),
        segments: segments.unwrap_or_default(),
    }
}

/// By debug information, inlined calls included, or else by the table of symbols.
fn look_up(loader: &Loader, probe: u64) -> Vec<Frame> {
    let mut found = Vec::new();
    if let Ok(mut frames) = loader.find_frames(probe) {
        while let Ok(Some(frame)) = frames.next() {
            let Some(name) = &frame.function else {
                continue;
            };
            let name = name.demangle().map_or_else(|_| "?".into(), Cow::into_owned);
            let location = frame.location;
            found.push(Frame {
                function: name,
                file: location
                    .as_ref()
                    .and_then(|location| location.file)
                    .map(String::from)
                    .unwrap_or_default(),
                line: location.and_then(|location| location.line).unwrap_or(0),
            });
        }
    }
    if found.is_empty()
        && let Some(symbol) = loader.find_symbol(probe)
    {
        found.push(Frame {
            function: addr2line::demangle_auto(Cow::Borrowed(symbol), None).into_owned(),
            file: String::new(),
            line: 0,
        });
    }
    found
}

/// Whether a function is part of the way into the allocator, which is above every stack.
pub(crate) fn is_allocator(frame: &Frame) -> bool {
    const PARTS: [&str; 6] = [
        "brickyard_arena::",
        "__rust_alloc",
        "__rust_realloc",
        "__rustc::__r",
        "alloc::alloc::",
        "libbrickyard.so+",
    ];
    const LIBRARY: [&str; 9] = [
        "malloc",
        "calloc",
        "realloc",
        "reallocarray",
        "posix_memalign",
        "aligned_alloc",
        "memalign",
        "valloc",
        "pvalloc",
    ];
    let name = frame.function.as_str();
    PARTS.iter().any(|part| name.contains(part))
        || name.starts_with("brickyard::")
        || LIBRARY.contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// This very test, by an address inside it.
    #[test]
    fn a_function_of_this_program_is_found_with_its_line() {
        let maps = fs::read_to_string("/proc/self/maps").expect("/proc is there");
        let text = format!("heap profile: 0: 0 [0: 0] @ heap_v2/1\nMAPPED_LIBRARIES:\n{maps}");
        let profile = super::super::text::parse(&text).expect("a profile");
        let here: fn() = a_function_of_this_program_is_found_with_its_line;
        let address = here as usize as u64 + 2;
        let frames = Symbols::default().frames(address, &profile.mappings);
        let found = frames
            .iter()
            .find(|frame| frame.function.contains("a_function_of_this_program"))
            .unwrap_or_else(|| panic!("{frames:?}"));
        assert!(
            found.file.ends_with("symbols.rs") && found.line > 0,
            "{found:?}"
        );
    }

    #[test]
    fn places_without_symbols_are_named_by_file_and_offset() {
        let mut symbols = Symbols::default();
        assert_eq!(symbols.frames(0x51, &[])[0].function, "unmapped+0x50");
        let mapping = Mapping {
            start: 0x1000,
            end: 0x2000,
            offset: 0x400,
            path: PathBuf::from("/nonexistent/lib.so"),
        };
        let frames = symbols.frames(0x1011, &[mapping]);
        assert_eq!(frames[0].function, "lib.so+0x410");
    }
}
