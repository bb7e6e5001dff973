//! A snapshot and a backup while somebody writes.
//!
//! `cargo run -p brickyard-store --example backup -- FOLDER COPY` moves money between
//! accounts all the while: nobody waits, and no money is missing in any of them.

use core::error::Error;
use core::sync::atomic::{AtomicBool, Ordering};
use std::io::Write;

use brickyard_store::{Options, ReadTxn, Store};

type Failure = Box<dyn Error + Send + Sync>;

const ACCOUNTS: u64 = 1000;

/// Says what the first account holds, and what all do together.
fn show(what: &str, read: &ReadTxn<'_>) -> Result<(), Failure> {
    let accounts = read.typed::<u64, u64>("accounts")?.ok_or("none yet")?;
    let (first, mut sum) = (accounts.get(&0_u64)?.ok_or("no account")?, 0);
    for entry in accounts.iter()? {
        sum += entry?.1;
    }
    Ok(writeln!(std::io::stdout(), "{what}: {first} of {sum}")?)
}

fn transfer(store: &Store, from: u64, to: u64) -> Result<(), Failure> {
    let mut write = store.write()?;
    let mut accounts = write.typed::<u64, u64>("accounts")?;
    let (less, more) = (accounts.get(&from)?, accounts.get(&to)?);
    accounts.put(&from, &(less.ok_or("no account")? - 1))?;
    accounts.put(&to, &(more.ok_or("no account")? + 1))?;
    Ok(write.commit()?)
}

fn main() -> Result<(), Failure> {
    let (mut args, usage) = (std::env::args().skip(1), "usage: backup FOLDER COPY");
    let (folder, copy) = (args.next().ok_or(usage)?, args.next().ok_or(usage)?);
    let (store, stop) = (Store::open(folder)?, AtomicBool::new(false));
    let mut write = store.write()?;
    let mut accounts = write.typed::<u64, u64>("accounts")?;
    (0..ACCOUNTS).try_for_each(|number| accounts.put(&number, &1_000_000).map(drop))?;
    write.commit()?;
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let going = |_: &u64| !stop.load(Ordering::Relaxed);
            let mut others = (1..ACCOUNTS).cycle().take_while(going);
            others.try_for_each(|to| transfer(&store, to - 1, to))
        });
        let snapshot = store.read();
        let shown = show("snapshot, before", &snapshot);
        let backup = store.backup(&copy, |_| ());
        stop.store(true, Ordering::Relaxed);
        backup?;
        let backup = Options::new().read_only(true).open(&copy)?;
        show("snapshot, after ", &snapshot).and(shown)?;
        show("backup          ", &backup.read())?;
        show("store           ", &store.read())?;
        writer.join().unwrap_or(Err("the writer panicked".into()))
    })
}
