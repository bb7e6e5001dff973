//! Settings that survive a crash.
//!
//! `cargo run -p brickyard-store --example settings -- FOLDER volume 11` stores a setting
//! and dies at once, without closing anything; without name and value it lists them all.

use core::error::Error;
use std::io::{self, Write};

use brickyard_store::Store;

/// Old and new value in one transaction: the history never disagrees with the settings.
fn set(store: &Store, name: &str, value: &str) -> Result<(), Box<dyn Error>> {
    let mut write = store.write()?;
    let old = write
        .table("settings")?
        .get(name.as_bytes())?
        .map(<[u8]>::to_vec);
    write
        .table("settings")?
        .put(name.as_bytes(), value.as_bytes())?;
    let mut history = write.table("history")?;
    let number = history.len().to_be_bytes();
    let old = old.map_or("unset".into(), |old| {
        String::from_utf8_lossy(&old).into_owned()
    });
    history.put(&number, format!("{name}: {old} -> {value}").as_bytes())?;
    write.commit()?;
    Ok(())
}

fn list(store: &Store) -> Result<(), Box<dyn Error>> {
    let (read, mut out) = (store.read(), io::stdout().lock());
    for name in ["settings", "history"] {
        writeln!(out, "{name}:")?;
        let Some(table) = read.table(name)? else {
            continue;
        };
        let mut range = table.range::<[u8]>(..)?;
        while let Some((key, value)) = range.next()? {
            match key.try_into().map(u64::from_be_bytes) {
                Ok(number) if name == "history" => write!(out, "  {number}. ")?,
                _ => write!(out, "  {} = ", String::from_utf8_lossy(key))?,
            }
            writeln!(out, "{}", String::from_utf8_lossy(value))?;
        }
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let folder = args.next().ok_or("usage: settings FOLDER [NAME VALUE]")?;
    let store = Store::open(&folder)?;
    if let (Some(name), Some(value)) = (args.next(), args.next()) {
        set(&store, &name, &value)?;
        // What was committed is safe, whatever comes next.
        std::process::abort();
    }
    list(&store)
}
