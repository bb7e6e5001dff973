//! A collection in a heap of its own, which goes at once with everything in it.
//!
//! `cargo run --release -p brickyard-arena --features allocator-api2 --example scratch_heap`

use std::io::{self, Write as _};

use allocator_api2::vec::Vec;
use brickyard_arena::Heap;

fn main() -> io::Result<()> {
    let mut out = io::stdout().lock();
    let heap = Heap::new().map_err(io::Error::other)?;
    let mut rows: Vec<Vec<u64, &Heap>, &Heap> = Vec::new_in(&heap);
    for row in 0..1000 {
        let mut cells = Vec::new_in(&heap);
        cells.extend(0..row);
        rows.push(cells);
    }
    let cells: usize = rows.iter().map(Vec::len).sum();
    writeln!(out, "{cells} cells in {} KiB", heap.stats().live / 1024)
}
