//! Our store.

use core::ops::Bound;
use std::path::Path;

use anyhow::{Context as _, Result};
use brickyard_store::TableMut;

use super::adapter::{Append, Changes, Store, View};

const TABLE: &str = "t";

/// Our store with the options that its users get by default.
#[derive(Debug)]
pub(crate) struct Brickyard(brickyard_store::Store);

impl Store for Brickyard {
    type View<'v> = brickyard_store::Table<'v>;

    const EMPTY_LOG: &'static [&'static str] = &["ring"];

    fn open(dir: &Path) -> Result<Self> {
        Ok(Self(brickyard_store::Store::open(dir)?))
    }

    #[inline]
    fn begin(&self) -> Result<()> {
        drop(self.0.read());
        Ok(())
    }

    #[inline]
    fn read<R>(&self, body: impl FnOnce(&Self::View<'_>) -> Result<R>) -> Result<R> {
        let txn = self.0.read();
        let table = txn.table(TABLE)?.context("there is no table")?;
        body(&table)
    }

    fn write(&self, body: impl FnOnce(&mut dyn Changes) -> Result<()>) -> Result<()> {
        let mut txn = self.0.write()?;
        body(&mut txn.table(TABLE)?)?;
        Ok(txn.commit()?)
    }

    fn append(&self, body: impl FnOnce(Append<'_>) -> Result<()>) -> Result<()> {
        let mut txn = self.0.write()?;
        let mut table = txn.table(TABLE)?;
        let mut appender = table.appender()?;
        body(&mut |key, value| Ok(appender.append(key, value)?))?;
        appender.finish()?;
        Ok(txn.commit()?)
    }

    fn settle(&self) -> Result<bool> {
        self.0.checkpoint()?;
        Ok(true)
    }
}

impl View for brickyard_store::Table<'_> {
    #[inline]
    fn get<R>(&self, key: &[u8], take: impl FnOnce(Option<&[u8]>) -> R) -> Result<R> {
        Ok(take(brickyard_store::Table::get(self, key)?))
    }

    #[inline]
    fn get_many(&self, keys: &[&[u8]], mut take: impl FnMut(usize, Option<&[u8]>)) -> Result<()> {
        let values = brickyard_store::Table::get_many(self, keys)?;
        for (index, value) in values.into_iter().enumerate() {
            take(index, value);
        }
        Ok(())
    }

    #[inline]
    fn scan(&self, from: &[u8], most: usize, mut each: impl FnMut(&[u8], &[u8])) -> Result<usize> {
        let mut range = self.range::<[u8]>((Bound::Included(from), Bound::Unbounded))?;
        let mut count = 0;
        while count < most
            && let Some((key, value)) = range.next()?
        {
            each(key, value);
            count += 1;
        }
        Ok(count)
    }
}

impl Changes for TableMut<'_, '_> {
    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        TableMut::put(self, key, value)?;
        Ok(())
    }

    fn delete(&mut self, key: &[u8]) -> Result<()> {
        TableMut::delete(self, key)?;
        Ok(())
    }
}
