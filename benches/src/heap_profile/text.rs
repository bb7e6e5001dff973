//! The profile as the library writes it: the text form of gperftools, `heap_v2`.
//!
//! ```text
//! heap profile: 3: 4096 [9: 8192] @ heap_v2/524288        live [allocated] @ mean bytes
//! 1: 64 [2: 128] @ 0x55d0 0x5610                          one stack, innermost first
//! # lost: 0
//!
//! MAPPED_LIBRARIES:
//! 5590-5600 r-xp 0002f000 fe:00 247003 /usr/bin/bash      /proc/self/maps
//! ```

use std::path::PathBuf;

use anyhow::{Context as _, Result};

/// Blocks and bytes of samples, not scaled.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Sum {
    pub(crate) blocks: u64,
    pub(crate) bytes: u64,
}

/// What was sampled of one stack and one size.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) live: Sum,
    pub(crate) allocated: Sum,
    /// Return addresses, innermost first.
    pub(crate) addresses: Vec<u64>,
}

/// A file mapped into the process.
#[derive(Debug, Clone)]
pub(crate) struct Mapping {
    pub(crate) start: u64,
    pub(crate) end: u64,
    /// Offset in the file of `start`.
    pub(crate) offset: u64,
    pub(crate) path: PathBuf,
}

/// One process's profile.
#[derive(Debug, Clone, Default)]
pub(crate) struct Profile {
    pub(crate) mean_bytes: u64,
    pub(crate) entries: Vec<Entry>,
    pub(crate) mappings: Vec<Mapping>,
    pub(crate) lost: u64,
}

/// Reads a profile.
///
/// # Errors
///
/// When a line is not in the form of the module.
pub(crate) fn parse(text: &str) -> Result<Profile> {
    let mut lines = text.lines().zip(1..);
    let (first, _) = lines.next().context("empty")?;
    let mean = first
        .strip_prefix("heap profile: ")
        .and_then(|rest| rest.split_once(" @ heap_v2/"))
        .and_then(|(_, mean)| mean.parse().ok())
        .context("line 1: no heap profile")?;
    let mut profile = Profile {
        mean_bytes: mean,
        ..Profile::default()
    };
    for (line, number) in lines.by_ref() {
        if line == "MAPPED_LIBRARIES:" {
            break;
        }
        if let Some(lost) = line.strip_prefix("# lost: ") {
            profile.lost = lost.parse().context("no number of lost samples")?;
        } else if !line.is_empty() && !line.starts_with('#') {
            let entry = entry(line).with_context(|| format!("line {number}: no stack: {line}"))?;
            profile.entries.push(entry);
        }
    }
    profile.mappings = lines.filter_map(|(line, _)| mapping(line)).collect();
    Ok(profile)
}

fn entry(line: &str) -> Option<Entry> {
    let (sums, addresses) = line.split_once(" @")?;
    let (live, allocated) = sums.strip_suffix(']')?.split_once(" [")?;
    let addresses: Option<Vec<u64>> = addresses.split_whitespace().map(hexadecimal).collect();
    Some(Entry {
        live: sum(live)?,
        allocated: sum(allocated)?,
        addresses: addresses?,
    })
}

fn sum(text: &str) -> Option<Sum> {
    let (blocks, bytes) = text.split_once(": ")?;
    Some(Sum {
        blocks: blocks.parse().ok()?,
        bytes: bytes.parse().ok()?,
    })
}

fn hexadecimal(text: &str) -> Option<u64> {
    u64::from_str_radix(text.trim_start_matches("0x"), 16).ok()
}

/// A line of the maps; `None` for memory without a file.
fn mapping(line: &str) -> Option<Mapping> {
    let mut words = line.split_whitespace();
    let (start, end) = words.next()?.split_once('-')?;
    let offset = words.nth(1)?;
    let path = words.nth(2)?;
    path.starts_with('/').then_some(())?;
    // A path may have spaces in it.
    let path = line.get(line.find(path)?..)?;
    Some(Mapping {
        start: hexadecimal(start)?,
        end: hexadecimal(end)?,
        offset: hexadecimal(offset)?,
        path: PathBuf::from(path),
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) const TEXT: &str = "heap profile: 2: 2000 [5: 5000] @ heap_v2/1000\n\
        1: 1000 [2: 2000] @ 0x1010 0x1020\n\
        1: 1000 [3: 3000] @ 0x1010\n\
        # lost: 7\n\
        \nMAPPED_LIBRARIES:\n\
        1000-2000 r-xp 00000400 fe:00 12                         /no/such file\n\
        3000-4000 rw-p 00000000 00:00 0 \n";

    #[test]
    fn a_profile_is_read_whole() {
        let profile = parse(TEXT).expect("it is one");
        assert_eq!((profile.mean_bytes, profile.lost), (1000, 7));
        assert_eq!(profile.entries[0].addresses, [0x1010, 0x1020]);
        let allocated = Sum {
            blocks: 3,
            bytes: 3000,
        };
        assert_eq!(profile.entries[1].allocated, allocated);
        let [mapping] = &profile.mappings[..] else {
            panic!("{:?}", profile.mappings)
        };
        assert_eq!((mapping.end, mapping.offset), (0x2000, 0x400));
        assert_eq!(mapping.path, PathBuf::from("/no/such file"));
    }

    #[test]
    fn what_is_no_profile_is_refused_with_the_line() {
        for text in ["", "heap profile: x", "<html>"] {
            assert!(parse(text).is_err(), "{text}");
        }
        let error = parse("heap profile: 0: 0 [0: 0] @ heap_v2/1\n1: x [2: 3] @ 0x1\n");
        let error = error.expect_err("no number");
        assert!(format!("{error:#}").starts_with("line 2"), "{error:#}");
    }
}
