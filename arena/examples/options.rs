//! A server that rests at night: options set in a `static`, and what they do.
//!
//! `cargo run --release -p brickyard-arena --example options`

use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;
use std::io::{self, Write as _};
use std::thread::sleep;

use brickyard_arena::Arena;

#[global_allocator]
static GLOBAL: Arena = Arena::builder()
    .purge_thread(true)
    .decay(Duration::from_millis(100))
    .memory_limit(256 << 20)
    .soft_limit(64 << 20, too_much)
    .build();

/// Set when the cache below should shrink.
static SHRINK: AtomicBool = AtomicBool::new(false);

/// Runs inside an allocation: it only leaves a note.
fn too_much(_held: usize) {
    SHRINK.store(true, Ordering::Relaxed);
}

fn main() -> io::Result<()> {
    let mut out = io::stdout().lock();
    let mut cache: Vec<String> = Vec::new();
    for request in 0..2_000_000 {
        cache.push(format!("the answer to request {request}"));
        if SHRINK.swap(false, Ordering::Relaxed) {
            writeln!(out, "{request}: {} answers, shrinking", cache.len())?;
            cache.truncate(cache.len() / 4);
        }
    }
    drop(cache);
    let committed = || Arena::stats().committed >> 20;
    writeln!(out, "work is done: {} MiB", committed())?;
    sleep(Duration::from_secs(2));
    writeln!(out, "two seconds of sleep later: {} MiB", committed())?;

    let much: Result<Vec<u8>, _> = {
        let mut much = Vec::new();
        much.try_reserve_exact(512 << 20).map(|()| much)
    };
    writeln!(
        out,
        "512 MiB at once: {}",
        much.map_or("refused", |_| "given")
    )
}
