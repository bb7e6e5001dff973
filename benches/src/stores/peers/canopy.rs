//! canopydb.

use std::path::Path;

use anyhow::{Context as _, Result};
use canopydb::{Database, DbOptions, EnvOptions, Tree};

use super::super::adapter::{Changes, Store, View};
use super::CACHE_BYTES;

const TABLE: &[u8] = b"t";

pub(crate) struct Canopy(Database);

impl Store for Canopy {
    type View<'v> = Tree<'v>;

    fn open(dir: &Path) -> Result<Self> {
        let mut options = EnvOptions::new(dir);
        options.page_cache_size = CACHE_BYTES;
        let mut of_db = DbOptions::new();
        of_db.default_commit_sync = true;
        Ok(Self(Database::with_options(options, of_db)?))
    }

    #[inline]
    fn begin(&self) -> Result<()> {
        drop(self.0.begin_read()?);
        Ok(())
    }

    #[inline]
    fn read<R>(&self, body: impl FnOnce(&Self::View<'_>) -> Result<R>) -> Result<R> {
        let txn = self.0.begin_read()?;
        let tree = txn.get_tree(TABLE)?.context("there is no table")?;
        body(&tree)
    }

    fn write(&self, body: impl FnOnce(&mut dyn Changes) -> Result<()>) -> Result<()> {
        let txn = self.0.begin_write()?;
        body(&mut txn.get_or_create_tree(TABLE)?)?;
        txn.commit()?;
        Ok(())
    }

    fn settle(&self) -> Result<bool> {
        self.0.checkpoint()?;
        Ok(true)
    }
}

impl View for Tree<'_> {
    #[inline]
    fn get<R>(&self, key: &[u8], take: impl FnOnce(Option<&[u8]>) -> R) -> Result<R> {
        Ok(take(Tree::get(self, key)?.as_deref()))
    }

    #[inline]
    fn scan(&self, from: &[u8], most: usize, mut each: impl FnMut(&[u8], &[u8])) -> Result<usize> {
        let mut count = 0;
        for entry in self.range(from..)?.take(most) {
            let (key, value) = entry?;
            each(&key, &value);
            count += 1;
        }
        Ok(count)
    }
}

impl Changes for Tree<'_> {
    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        Ok(self.insert(key, value)?)
    }

    fn delete(&mut self, key: &[u8]) -> Result<()> {
        Tree::delete(self, key)?;
        Ok(())
    }
}
