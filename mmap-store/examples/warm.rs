//! What `Options::warm` is worth: `cargo run --release -p brickyard-store --example warm --
//! FOLDER` prints for a million entries of 170 bytes, of which nothing is in memory, the best
//! and worst of five runs in ms: until the store was open, and until the reads were done.

use core::error::Error;
use std::fs::File;
use std::io::{self, Write};
use std::time::Instant;

use brickyard_store::{Options, Store};
use rustix::fs::{Advice, fadvise};

type Failure = Box<dyn Error>;

const ENTRIES: u64 = 1_000_000;

fn fill(dir: &str) -> Result<(), Failure> {
    let store = Store::open(dir)?;
    let mut write = store.write()?;
    let mut table = write.table("entries")?;
    for number in 0..ENTRIES {
        table.put(format!("{number:020}").as_bytes(), &[7; 150])?;
    }
    write.commit()?;
    Ok(store.close()?)
}

/// Opens the store, reads some of the first `of` entries, and closes it.
fn visit(dir: &str, options: &Options, reads: u64, of: u64) -> Result<[u128; 2], Failure> {
    // Nobody has the store open, and all of it is on the disk.
    let tree = File::open(format!("{dir}/tree"))?;
    fadvise(tree, 0, None, Advice::DontNeed)?;
    let start = Instant::now();
    let store = options.open(dir)?;
    let (open, read) = (start.elapsed().as_millis(), store.read());
    let table = read.table("entries")?.ok_or("no entries")?;
    for step in 0..reads {
        let key = format!("{:020}", step.wrapping_mul(0x9e37_79b9_7f4a_7c15) % of);
        table.get(key.as_bytes())?.ok_or("an entry is missing")?;
    }
    Ok([open, start.elapsed().as_millis()])
}

fn main() -> Result<(), Failure> {
    let dir = std::env::args().nth(1).ok_or("usage: warm FOLDER")?;
    fill(&dir)?;
    let cases = [(1000, 1), (1000, 50), (1000, 1), (20_000, 1)];
    for (case, (reads, share)) in cases.into_iter().enumerate() {
        let (writes, of) = (case == 0, ENTRIES / share);
        for warm in [false, true] {
            let options = Options::new().read_only(true).warm(true);
            visit(&dir, &options, 200_000, of)?; // For the note.
            let options = options.read_only(!writes).warm(warm);
            let runs = (0..5).map(|_| visit(&dir, &options, reads, of));
            let mut times = runs.collect::<Result<Vec<_>, _>>()?;
            times.sort_by_key(|time| time[1]);
            write!(io::stdout(), "for writing: {writes}, {reads} of {of}, ")?;
            writeln!(io::stdout(), "warm: {warm}, {:?}", [times[0], times[4]])?;
        }
    }
    Ok(())
}
