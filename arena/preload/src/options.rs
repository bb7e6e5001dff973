//! The arena's options from the environment, read once when the library is loaded and
//! before the program can change it. Nothing here allocates.
//!
//! | variable | value | option |
//! |---|---|---|
//! | `BRICKYARD_PURGE_THREAD` | `0` or `1` | [`Builder::purge_thread`] |
//! | `BRICKYARD_DECAY_MS` | milliseconds, or `never` | [`Builder::decay`] |
//! | `BRICKYARD_IDLE_MS` | milliseconds, or `never` | [`Builder::idle_after`] |
//! | `BRICKYARD_MEMORY_LIMIT` | bytes, with `K`, `M` or `G` | [`Builder::memory_limit`] |
//! | `BRICKYARD_SOFT_LIMIT` | bytes | [`Builder::soft_limit`]: a line on stderr each time |
//! | `BRICKYARD_HUGE_PAGES` | `system`, `never` or `always` | [`Builder::huge_pages`] |
//! | `BRICKYARD_THREAD_CACHE` | bytes | [`Builder::thread_cache`] |
//! | `BRICKYARD_PROFILE` | path of a file | [`Builder::profile`], written at exit |
//! | `BRICKYARD_PROFILE_BYTES` | bytes, from 1 on | how many of them between two samples |
//! | `BRICKYARD_HARDENED` | `0` or `1` | [`Builder::hardened`] |
//! | `BRICKYARD_GUARD_EVERY` | a number of allocations, 0 for none | [`Builder::guard_every`] |
//! | `BRICKYARD_STATS` | anything but `0` | none: the report at exit (`report`) |
//!
//! A value that is none of these gives one line on stderr, and the option keeps its
//! default. A variable that is empty is one that is not set.

use core::ffi::{CStr, c_char};
use core::time::Duration;

use brickyard_arena::{Arena, Builder, HugePages};

use crate::report::say;

/// What all variables of the library begin with.
const PREFIX: &[u8] = b"BRICKYARD_";

/// Whether the environment has a variable of the library's. Most processes have none, and then the
/// pages of the options need not be touched.
pub(crate) fn are_any() -> bool {
    // SAFETY: the loader runs constructors before the program has threads that could change the
    // environment.
    let mut variable = unsafe { ENVIRONMENT };
    if variable.is_null() {
        return false;
    }
    loop {
        // SAFETY: the array ends with a null pointer, which is the last that is read.
        let text = unsafe { variable.read() };
        if text.is_null() {
            return false;
        }
        // SAFETY: the C library's environment is made of C strings, which end with a zero; no byte
        // beyond the first that differs is read.
        let is_ours = (PREFIX.iter().enumerate())
            .all(|(index, byte)| unsafe { text.add(index).cast::<u8>().read() } == *byte);
        if is_ours {
            return true;
        }
        // SAFETY: not at the null pointer yet.
        variable = unsafe { variable.add(1) };
    }
}

unsafe extern "C" {
    /// The C library's environment: an array of C strings with a null pointer behind the last.
    /// By the name that is its own: a program may define an `environ`, and `getenv` does not look
    /// there.
    #[link_name = "__environ"]
    static ENVIRONMENT: *const *const c_char;
}

/// Reads all variables and puts them in force.
pub(crate) fn apply() {
    let mut builder = Arena::builder();
    builder = read(
        builder,
        c"BRICKYARD_PURGE_THREAD",
        "0 or 1",
        |builder, text| Some(builder.purge_thread(switch(text)?)),
    );
    builder = read(builder, c"BRICKYARD_DECAY_MS", MS, |builder, text| {
        Some(builder.decay(duration(text)?))
    });
    builder = read(builder, c"BRICKYARD_IDLE_MS", MS, |builder, text| {
        Some(builder.idle_after(duration(text)?))
    });
    builder = read(
        builder,
        c"BRICKYARD_MEMORY_LIMIT",
        BYTES,
        |builder, text| Some(builder.memory_limit(bytes(text)?)),
    );
    builder = read(builder, c"BRICKYARD_SOFT_LIMIT", BYTES, |builder, text| {
        Some(builder.soft_limit(bytes(text)?, on_soft_limit))
    });
    builder = read(builder, c"BRICKYARD_HUGE_PAGES", HUGE, |builder, text| {
        Some(builder.huge_pages(policy(text)?))
    });
    builder = read(
        builder,
        c"BRICKYARD_THREAD_CACHE",
        BYTES,
        |builder, text| Some(builder.thread_cache(bytes(text)?)),
    );
    builder = read(builder, c"BRICKYARD_PROFILE", PATH, |builder, text| {
        crate::profile::begin(text).then_some(builder.profile(Builder::PROFILE_BYTES))
    });
    if crate::profile::is_on() {
        builder = read(
            builder,
            c"BRICKYARD_PROFILE_BYTES",
            BYTES,
            |builder, text| Some(builder.profile(bytes(text)?.max(1))),
        );
    }
    builder = read(builder, c"BRICKYARD_HARDENED", "0 or 1", |builder, text| {
        Some(builder.hardened(switch(text)?))
    });
    builder = read(
        builder,
        c"BRICKYARD_GUARD_EVERY",
        "a number of allocations, or 0",
        |builder, text| Some(builder.guard_every(number(text)?)),
    );
    builder.apply();
}

const MS: &str = "a number of milliseconds, or never";
const BYTES: &str = "a number of bytes, such as 1048576, 512K, 64M or 2G";
const PATH: &str = "a path of less than 512 bytes";
const HUGE: &str = "system, never or always";

/// `set` applied to `builder` and the value of `name`, or `builder` as it was.
fn read(
    builder: Builder,
    name: &CStr,
    wanted: &str,
    set: fn(Builder, &[u8]) -> Option<Builder>,
) -> Builder {
    // SAFETY: the loader runs constructors before the program has threads that could
    // change the environment, and the value is dead when this function returns.
    let value = unsafe { libc::getenv(name.as_ptr()) };
    if value.is_null() {
        return builder;
    }
    // SAFETY: not null, so `getenv` returned a C string of the environment.
    let value = unsafe { CStr::from_ptr(value) }.to_bytes();
    if value.is_empty() {
        return builder;
    }
    set(builder, value).unwrap_or_else(|| {
        say(format_args!(
            "brickyard: {}={}: not {wanted}; the default is used\n",
            Text(name.to_bytes()),
            Text(value),
        ));
        builder
    })
}

/// Bytes from outside as text: what is not printable ASCII is a question mark.
struct Text<'a>(&'a [u8]);

impl core::fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        // Longer values would push the advice off the line.
        for &byte in self.0.iter().take(40) {
            let printable = byte == b' ' || byte.is_ascii_graphic();
            let shown = if printable { char::from(byte) } else { '?' };
            core::fmt::Write::write_char(f, shown)?;
        }
        Ok(())
    }
}

fn on_soft_limit(held: usize) {
    say(format_args!(
        "brickyard: BRICKYARD_SOFT_LIMIT is passed: {held} bytes are held\n"
    ));
}

fn switch(text: &[u8]) -> Option<bool> {
    match text {
        b"0" => Some(false),
        b"1" => Some(true),
        _ => None,
    }
}

fn policy(text: &[u8]) -> Option<HugePages> {
    match text {
        b"system" => Some(HugePages::System),
        b"never" => Some(HugePages::Never),
        b"always" => Some(HugePages::Always),
        _ => None,
    }
}

fn duration(text: &[u8]) -> Option<Duration> {
    if text == b"never" {
        return Some(Duration::MAX);
    }
    u64::try_from(number(text)?).ok().map(Duration::from_millis)
}

/// A number with a unit behind it, or none.
fn bytes(text: &[u8]) -> Option<usize> {
    let (&last, rest) = text.split_last()?;
    let shift = match last {
        b'K' | b'k' => 10,
        b'M' | b'm' => 20,
        b'G' | b'g' => 30,
        _ => return number(text),
    };
    number(rest)?.checked_mul(1 << shift)
}

/// Decimal digits, at least one; `None` when there is anything else or too many.
fn number(text: &[u8]) -> Option<usize> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0_usize, |sum, byte| {
        let digit = byte.checked_sub(b'0').filter(|digit| *digit < 10)?;
        sum.checked_mul(10)?.checked_add(usize::from(digit))
    })
}
