//! redb.

use std::path::Path;

use anyhow::Result;
use redb::{Database, ReadOnlyTable, ReadableDatabase as _, Table, TableDefinition};

use super::super::adapter::{Changes, Store, View};
use super::CACHE_BYTES;

const TABLE: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("t");

#[derive(Debug)]
pub(crate) struct Redb(Database);

impl Store for Redb {
    type View<'v> = ReadOnlyTable<&'static [u8], &'static [u8]>;

    fn open(dir: &Path) -> Result<Self> {
        let db = Database::builder()
            .set_cache_size(CACHE_BYTES)
            .create(dir.join("store"))?;
        Ok(Self(db))
    }

    #[inline]
    fn begin(&self) -> Result<()> {
        drop(self.0.begin_read()?);
        Ok(())
    }

    #[inline]
    fn read<R>(&self, body: impl FnOnce(&Self::View<'_>) -> Result<R>) -> Result<R> {
        body(&self.0.begin_read()?.open_table(TABLE)?)
    }

    fn write(&self, body: impl FnOnce(&mut dyn Changes) -> Result<()>) -> Result<()> {
        let txn = self.0.begin_write()?;
        body(&mut txn.open_table(TABLE)?)?;
        Ok(txn.commit()?)
    }

    fn settle(&self) -> Result<bool> {
        Ok(false)
    }
}

impl View for ReadOnlyTable<&'static [u8], &'static [u8]> {
    #[inline]
    fn get<R>(&self, key: &[u8], take: impl FnOnce(Option<&[u8]>) -> R) -> Result<R> {
        let value = ReadOnlyTable::get(self, key)?;
        Ok(take(value.as_ref().map(redb::AccessGuard::value)))
    }

    #[inline]
    fn scan(&self, from: &[u8], most: usize, mut each: impl FnMut(&[u8], &[u8])) -> Result<usize> {
        let mut count = 0;
        for entry in self.range::<&[u8]>(from..)?.take(most) {
            let (key, value) = entry?;
            each(key.value(), value.value());
            count += 1;
        }
        Ok(count)
    }
}

impl Changes for Table<'_, &[u8], &[u8]> {
    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        self.insert(key, value)?;
        Ok(())
    }

    fn delete(&mut self, key: &[u8]) -> Result<()> {
        self.remove(key)?;
        Ok(())
    }
}
