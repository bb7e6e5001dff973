//! The thread that makes transactions last for those who do not wait themselves.
//!
//! It starts with the first asynchronous commit, leads the group like any committer
//! whenever it is asked to, and ends when the store is closed, after all that was asked
//! of it.

use std::io;
use std::thread::{Builder, JoinHandle};

use crate::sync::Mutex;

/// The thread, if it was started.
#[derive(Debug, Default)]
pub(crate) struct Syncer(Mutex<Option<JoinHandle<()>>>);

impl Syncer {
    /// Starts the thread, unless it runs. `run` gives what it is to do.
    pub(crate) fn start<F: FnOnce() + Send + 'static>(
        &self,
        run: impl FnOnce() -> F,
    ) -> io::Result<()> {
        let mut thread = self.0.lock();
        // It ends before its time only if a waker panics, which is not the store's doing.
        if thread.as_ref().is_none_or(JoinHandle::is_finished) {
            let builder = Builder::new().name("brickyard-store".into());
            *thread = Some(builder.spawn(run())?);
        }
        Ok(())
    }

    /// Waits for the end of the thread, which was told to end.
    pub(crate) fn join(&self) {
        let thread = self.0.lock().take();
        if let Some(thread) = thread {
            // As in `start`: there is nothing to be done about a panic.
            let _ = thread.join();
        }
    }
}
