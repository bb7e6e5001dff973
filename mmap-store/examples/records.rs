//! A million typed records, read without a copy.
//!
//! `cargo run --release -p brickyard-store --features zerocopy --example records -- FOLDER`
//! stores them at the first run, and adds all of them up in the mapped file at each.
//! A number after the folder stores so many instead.

use core::error::Error;
use std::io::Write;

use brickyard_store::{Named, Plain, Store};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The file keeps the name and version of the type, and where its values must start.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Trade {
    cents: u64,
    shares: u64,
}

impl Named for Trade {
    const NAME: &'static str = "trade";
}

/// In transactions of some size, since what one changes is in memory until it commits.
fn fill(store: &Store, count: u64) -> Result<(), Box<dyn Error>> {
    for start in (0..count).step_by(50_000) {
        let mut write = store.write()?;
        let mut trades = write.typed::<u64, Plain<Trade>>("trades")?;
        for number in start..count.min(start + 50_000) {
            let (cents, shares) = (100 + number * 31 % 9_900, 1 + number % 90);
            trades.put(&number, &Trade { cents, shares })?;
        }
        write.commit()?;
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let folder = args.next().ok_or("usage: records FOLDER [COUNT]")?;
    let count = args.next().as_deref().unwrap_or("1000000").parse()?;
    let store = Store::open(folder)?;
    if store.read().table("trades")?.is_none() {
        fill(&store, count)?;
    }
    let (start, read) = (std::time::Instant::now(), store.read());
    let trades = read.typed::<u64, Plain<Trade>>("trades")?;
    let trades = trades.ok_or("there are no trades")?;
    let mut turnover = 0;
    for trade in trades.iter()? {
        let trade: &Trade = trade?.1; // In the file; nothing was copied or decoded.
        turnover += trade.cents * trade.shares;
    }
    let (number, time) = (trades.len(), start.elapsed());
    let mut out = std::io::stdout().lock();
    writeln!(out, "{number} trades of {turnover} cents, read in {time:?}")?;
    Ok(())
}
