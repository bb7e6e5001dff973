//! libmdbx.

use std::borrow::Cow;
use std::path::Path;

use anyhow::Result;
use signet_libmdbx::tx::aliases::{RoTxUnsync, RwTxUnsync};
use signet_libmdbx::{Database, DatabaseFlags, Environment, Geometry, WriteFlags};

use super::super::adapter::{Changes, Store, View};
use super::MAP_BYTES;

const TABLE: Option<&str> = Some("t");

#[derive(Debug)]
pub(crate) struct Mdbx {
    env: Environment,
    table: Database,
}

/// The table in a read transaction.
pub(crate) struct Snapshot<'v> {
    txn: &'v RoTxUnsync,
    table: Database,
}

/// The table in a write transaction.
struct Update<'u> {
    txn: &'u RwTxUnsync,
    table: Database,
}

impl Store for Mdbx {
    type View<'v> = Snapshot<'v>;

    fn open(dir: &Path) -> Result<Self> {
        let mut builder = Environment::builder();
        builder.set_max_dbs(1).set_geometry(Geometry {
            size: Some(0..MAP_BYTES),
            ..Geometry::default()
        });
        let env = builder.open(dir)?;
        let txn = env.begin_rw_unsync()?;
        let table = txn.create_db(TABLE, DatabaseFlags::empty())?;
        txn.commit()?;
        Ok(Self { env, table })
    }

    #[inline]
    fn begin(&self) -> Result<()> {
        drop(self.env.begin_ro_unsync()?);
        Ok(())
    }

    #[inline]
    fn read<R>(&self, body: impl FnOnce(&Self::View<'_>) -> Result<R>) -> Result<R> {
        let txn = self.env.begin_ro_unsync()?;
        body(&Snapshot {
            txn: &txn,
            table: self.table,
        })
    }

    fn write(&self, body: impl FnOnce(&mut dyn Changes) -> Result<()>) -> Result<()> {
        let txn = self.env.begin_rw_unsync()?;
        body(&mut Update {
            txn: &txn,
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
        let value: Option<Cow<'_, [u8]>> = self.txn.get(self.table.dbi(), key)?;
        Ok(take(value.as_deref()))
    }

    #[inline]
    fn scan(&self, from: &[u8], most: usize, mut each: impl FnMut(&[u8], &[u8])) -> Result<usize> {
        let mut cursor = self.txn.cursor(self.table)?;
        let mut count = 0;
        let mut entries = cursor.iter_from::<Cow<'_, [u8]>, Cow<'_, [u8]>>(from)?;
        while count < most
            && let Some((key, value)) = entries.borrow_next()?
        {
            each(&key, &value);
            count += 1;
        }
        Ok(count)
    }
}

impl Changes for Update<'_> {
    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        Ok(self.txn.put(self.table, key, value, WriteFlags::UPSERT)?)
    }

    fn append(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        Ok(self.txn.append(self.table, key, value)?)
    }

    fn delete(&mut self, key: &[u8]) -> Result<()> {
        self.txn.del(self.table, key, None)?;
        Ok(())
    }
}
