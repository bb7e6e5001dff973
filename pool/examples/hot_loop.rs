//! A hot loop that formats into pooled buffers instead of allocating.
//!
//! `cargo run --release -p brickyard-pool --example hot_loop`

use core::fmt::Write as _;
use core::hint::black_box;
use std::io::{self, Write as _};

use brickyard_pool::{CreateReset, Pool};

fn main() -> io::Result<()> {
    let Ok(buffers) = Pool::builder().name("lines").build_with(CreateReset::new(
        || String::with_capacity(256),
        String::clear,
    ));
    let mut bytes = 0;
    for line in 0..1_000_000 {
        let Ok(mut buffer) = buffers.get();
        write!(buffer, "line {line}").map_err(io::Error::other)?;
        bytes += black_box(&buffer).len();
    }
    let metrics = buffers.metrics();
    writeln!(
        io::stdout(),
        "{bytes} bytes written through {} buffer(s)",
        metrics.created
    )
}
