//! What does a get and return cost that hits? For counting instructions:
//!
//! ```sh
//! cargo build --release -p brickyard-pool --example pair
//! for pairs in 100000 200000; do
//!     valgrind --tool=callgrind --callgrind-out-file=/dev/null \
//!         target/release/examples/pair $pairs 2>&1 | grep Collected
//! done
//! ```
//!
//! The difference, divided by 100000, is what one turn of the loop takes: the get, a touch of
//! one byte of the object, the return, and the loop itself.

use core::hint::black_box;
use std::io::{self, Write as _};
use std::time::Instant;

use brickyard_pool::{Pool, Recycle};

type Object = Box<[u8; 64]>;

#[inline(never)]
fn pairs<R: Recycle<Object>>(pool: &Pool<Object, R>, count: u32) -> Result<(), R::Error> {
    for number in 0..count {
        let mut object = pool.get()?;
        object[0] = number.to_le_bytes()[0];
        black_box(&mut *object);
    }
    Ok(())
}

fn main() -> io::Result<()> {
    let count = std::env::args().nth(1).and_then(|count| count.parse().ok());
    let count: u32 = count.unwrap_or(10_000_000);
    let pool = Pool::new(|| Box::new([0; 64]));
    let begun = Instant::now();
    let Ok(()) = pairs(&pool, count);
    let nanos = begun.elapsed().as_secs_f64() * 1e9 / f64::from(count);
    writeln!(io::stdout(), "{nanos:.2} ns a pair, {count} pairs")
}
