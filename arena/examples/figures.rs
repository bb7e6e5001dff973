//! A program on the arena that looks at its own memory.
//!
//! `cargo run --release -p brickyard-arena --example figures`

use std::collections::BTreeMap;
use std::io::{self, Write as _};

use brickyard_arena::Arena;

#[global_allocator]
static GLOBAL: Arena = Arena::new();

fn main() -> io::Result<()> {
    let mut out = io::stdout().lock();
    let words: BTreeMap<u32, String> = (0..100_000).map(|n| (n, format!("brick {n}"))).collect();
    writeln!(out, "a map of {} strings:\n{}", words.len(), Arena::stats())?;

    drop(words);
    let returned = Arena::trim();
    writeln!(
        out,
        "dropped; {returned} bytes went back to the system:\n{}",
        Arena::stats()
    )
}
