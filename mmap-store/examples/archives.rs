//! What reading archives of `rkyv` takes: a large one, and many small ones.
//!
//! ```sh
//! cargo run --release -p brickyard-store --features rkyv --example archives
//! ```

use core::error::Error;
use core::hint::black_box;
use std::io::Write;
use std::time::Instant;

use brickyard_store::{Archive, Named, Options};

#[derive(rkyv::Archive, rkyv::Serialize)]
struct Town {
    name: String,
    streets: Vec<String>,
}

impl Named for Town {
    const NAME: &'static str = "town";
}

/// A town with so many streets.
fn town(streets: u32) -> Town {
    Town {
        name: "Ulm".into(),
        streets: (0..streets)
            .map(|number| format!("Street number {number}"))
            .collect(),
    }
}

const READS: u32 = 1000;

fn main() -> Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    let store = Options::new().open(dir.path())?;
    let mut out = std::io::stdout();
    for (streets, towns) in [(1, 1), (4, 10), (30, 1), (1000, 1), (100_000, 1)] {
        let name = format!("{streets} streets");
        let mut write = store.write()?;
        let mut table = write.typed::<u32, Archive<Town>>(&name)?;
        for number in 0..towns {
            table.put(&number, &town(streets))?;
        }
        write.commit()?;
        let begin = Instant::now();
        for number in 0..READS {
            let read = store.read();
            let table = read.typed::<u32, Archive<Town>>(&name)?.expect("made");
            let town = table.get(&(number % towns))?.expect("put");
            black_box(town.streets.len());
        }
        let each = begin.elapsed() / READS;
        writeln!(
            out,
            "{towns:>2} towns of {streets:>6} streets: {each:?} a read"
        )?;
    }
    Ok(())
}
