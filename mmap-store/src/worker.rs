//! The store's own threads: how they start and end, and how one is asked to do something.
//!
//! There are two. One makes transactions last for those who do not wait themselves; what
//! it is asked for stands in [`Group`](crate::group::Group). The other makes the
//! checkpoints that are due, so that no commit waits for one; it is asked with a [`Bell`].
//! Each starts when it is first needed, and ends when the store is closed.

use std::io;
use std::thread::{Builder, JoinHandle, current};

use crate::sync::{Condvar, Mutex, Step, left_out, wait};

/// A thread, if it was started.
#[derive(Debug)]
pub(crate) struct Worker(Mutex<Option<JoinHandle<()>>>);

impl Worker {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(None))
    }

    /// Starts the thread, unless it runs. `run` gives what it is to do.
    pub(crate) fn start<F: FnOnce() + Send + 'static>(
        &self,
        name: &str,
        run: impl FnOnce() -> F,
    ) -> io::Result<()> {
        let mut thread = self.0.lock();
        // It ends before its time only if a waker panics, which is not the store's doing.
        if thread.as_ref().is_none_or(JoinHandle::is_finished) {
            let builder = Builder::new().name(name.into());
            *thread = Some(builder.spawn(run())?);
        }
        Ok(())
    }

    /// Waits for the end of the thread, which was told to end; not on that thread itself,
    /// where a waker that it calls may drop the store.
    pub(crate) fn join(&self) {
        let thread = self.0.lock().take();
        if let Some(thread) = thread.filter(|thread| thread.thread().id() != current().id()) {
            // As in `start`: there is nothing to be done about a panic.
            let _ = thread.join();
        }
    }
}

/// Asks a thread to look whether there is something to do. Ringing while it looks makes
/// it look once more; ringing twice before it begins is ringing once.
#[derive(Debug)]
pub(crate) struct Bell {
    state: Mutex<Rung>,
    wake: Condvar,
}

#[derive(Debug, Default)]
struct Rung {
    rung: bool,
    /// Nobody rings any more.
    ending: bool,
}

impl Bell {
    pub(crate) fn new() -> Self {
        Self {
            state: Mutex::new(Rung::default()),
            wake: Condvar::new(),
        }
    }

    /// Lets whoever waits look.
    pub(crate) fn ring(&self) {
        self.state.lock().rung = true;
        if !left_out(Step::WakeCleaner) {
            self.wake.notify_all();
        }
    }

    /// Waits until it is rung, or was since the last call. False if nobody rings any more.
    pub(crate) fn wait(&self) -> bool {
        let mut state = self.state.lock();
        while !state.rung && !state.ending {
            state = wait(&self.wake, state);
        }
        // Before the thread looks: what is rung for from now on it may not see.
        state.rung = false;
        !state.ending
    }

    /// Forgets that it was rung: what a thread does that listens after its work.
    #[cfg(all(test, loom))]
    pub(crate) fn forget(&self) {
        self.state.lock().rung = false;
    }

    /// Nobody rings any more. What was asked for and not begun is left undone.
    pub(crate) fn end(&self) {
        self.state.lock().ending = true;
        if !left_out(Step::WakeCleaner) {
            self.wake.notify_all();
        }
    }
}
