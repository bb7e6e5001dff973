//! fjall.

use std::path::Path;

use anyhow::Result;
use fjall::{
    Database, Keyspace, KeyspaceCreateOptions, OwnedWriteBatch, PersistMode, Readable as _,
};

use super::super::adapter::{Append, Changes, Store, View};
use super::CACHE_BYTES;

pub(crate) struct Fjall {
    db: Database,
    table: Keyspace,
}

/// The table in a snapshot.
pub(crate) struct Snapshot<'v> {
    snapshot: fjall::Snapshot,
    table: &'v Keyspace,
}

/// The table in a batch.
struct Update<'u> {
    batch: OwnedWriteBatch,
    table: &'u Keyspace,
}

impl Store for Fjall {
    type View<'v> = Snapshot<'v>;

    fn open(dir: &Path) -> Result<Self> {
        let db = Database::builder(dir)
            .cache_size(CACHE_BYTES as u64)
            .open()?;
        let table = db.keyspace("t", KeyspaceCreateOptions::default)?;
        Ok(Self { db, table })
    }

    #[inline]
    fn begin(&self) -> Result<()> {
        drop(self.db.snapshot());
        Ok(())
    }

    #[inline]
    fn read<R>(&self, body: impl FnOnce(&Self::View<'_>) -> Result<R>) -> Result<R> {
        body(&Snapshot {
            snapshot: self.db.snapshot(),
            table: &self.table,
        })
    }

    fn write(&self, body: impl FnOnce(&mut dyn Changes) -> Result<()>) -> Result<()> {
        let mut update = Update {
            batch: self.db.batch().durability(Some(PersistMode::SyncAll)),
            table: &self.table,
        };
        body(&mut update)?;
        Ok(update.batch.commit()?)
    }

    fn append(&self, body: impl FnOnce(Append<'_>) -> Result<()>) -> Result<()> {
        let mut ingestion = self.table.start_ingestion()?;
        body(&mut |key, value| Ok(ingestion.write(key, value)?))?;
        Ok(ingestion.finish()?)
    }

    fn settle(&self) -> Result<bool> {
        self.table.rotate_memtable_and_wait()?;
        Ok(true)
    }
}

impl View for Snapshot<'_> {
    #[inline]
    fn get<R>(&self, key: &[u8], take: impl FnOnce(Option<&[u8]>) -> R) -> Result<R> {
        Ok(take(self.snapshot.get(self.table, key)?.as_deref()))
    }

    #[inline]
    fn scan(&self, from: &[u8], most: usize, mut each: impl FnMut(&[u8], &[u8])) -> Result<usize> {
        let mut count = 0;
        for entry in self.snapshot.range(self.table, from..).take(most) {
            let (key, value) = entry.into_inner()?;
            each(&key, &value);
            count += 1;
        }
        Ok(count)
    }
}

impl Changes for Update<'_> {
    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        self.batch.insert(self.table, key, value);
        Ok(())
    }

    fn delete(&mut self, key: &[u8]) -> Result<()> {
        self.batch.remove(self.table, key);
        Ok(())
    }
}
