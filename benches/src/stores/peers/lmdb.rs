//! LMDB, through heed.

use core::ops::Bound;
use std::path::Path;

use anyhow::{Context as _, Result};
use heed::types::Bytes;
use heed::{CommitOrAbort, Database, Env, EnvOpenOptions, PutFlags, RoTxn, RwTxn, WithoutTls};

use super::super::adapter::{Changes, Store, View};
use super::MAP_BYTES;

type Table = Database<'static, Bytes, Bytes>;

#[derive(Debug)]
pub(crate) struct Lmdb {
    env: Env<WithoutTls>,
    table: Table,
}

/// The table in a read transaction.
pub(crate) struct Snapshot<'v> {
    txn: &'v RoTxn<'v, WithoutTls>,
    table: Table,
}

/// The table in a write transaction.
struct Update<'u, 'e> {
    txn: &'u mut RwTxn<'e>,
    table: Table,
}

impl Store for Lmdb {
    type View<'v> = Snapshot<'v>;

    fn open(dir: &Path) -> Result<Self> {
        let mut options = EnvOpenOptions::new().read_txn_without_tls();
        options.map_size(MAP_BYTES).max_dbs(1);
        // SAFETY: the folder is this job's own: nobody else opens, cuts or writes to it.
        let env = unsafe { options.open(dir) }?;
        let txn = env.write_txn()?;
        let created = env.create_databases_and_commit(txn, |databases, txn| {
            let table = databases.create_database::<Bytes, Bytes>(txn, Some("t"))?;
            heed::Result::Ok(CommitOrAbort::<_, ()>::Commit(table))
        })?;
        let table = created.unwrap_commit();
        Ok(Self { env, table })
    }

    #[inline]
    fn begin(&self) -> Result<()> {
        drop(self.env.read_txn()?);
        Ok(())
    }

    #[inline]
    fn read<R>(&self, body: impl FnOnce(&Self::View<'_>) -> Result<R>) -> Result<R> {
        let txn = self.env.read_txn()?;
        body(&Snapshot {
            txn: &txn,
            table: self.table,
        })
    }

    fn write(&self, body: impl FnOnce(&mut dyn Changes) -> Result<()>) -> Result<()> {
        let mut txn = self.env.write_txn()?;
        body(&mut Update {
            txn: &mut txn,
            table: self.table,
        })?;
        Ok(txn.commit()?)
    }

    fn settle(&self) -> Result<bool> {
        Ok(false)
    }
}

impl View for Snapshot<'_> {
    #[inline]
    fn get<R>(&self, key: &[u8], take: impl FnOnce(Option<&[u8]>) -> R) -> Result<R> {
        Ok(take(self.table.get(self.txn, key)?))
    }

    #[inline]
    fn scan(&self, from: &[u8], most: usize, mut each: impl FnMut(&[u8], &[u8])) -> Result<usize> {
        let mut count = 0;
        let mut visit = |entry: heed::Result<(&[u8], &[u8])>| -> Result<()> {
            let (key, value) = entry?;
            each(key, value);
            count += 1;
            Ok(())
        };
        if from.is_empty() {
            // LMDB has no empty key.
            self.table
                .iter(self.txn)?
                .take(most)
                .try_for_each(&mut visit)?;
        } else {
            let bounds = (Bound::Included(from), Bound::Unbounded);
            let range = self.table.range(self.txn, &bounds)?;
            range.take(most).try_for_each(&mut visit)?;
        }
        Ok(count)
    }
}

impl Changes for Update<'_, '_> {
    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        Ok(self.table.put(self.txn, key, value)?)
    }

    fn append(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        let put = self
            .table
            .put_with_flags(self.txn, PutFlags::APPEND, key, value);
        put.context("append")
    }

    fn delete(&mut self, key: &[u8]) -> Result<()> {
        self.table.delete(self.txn, key)?;
        Ok(())
    }
}
