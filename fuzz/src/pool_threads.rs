//! Real threads that take steps by turns: each step runs on the thread that it names, while
//! all others rest, so a program for several threads has one outcome.

use core::any::Any;
use core::panic::AssertUnwindSafe;
use core::time::Duration;
use std::panic::catch_unwind;
use std::thread::{Scope, ScopedJoinHandle};

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::pool_object::Planted;
use crate::pool_op::{On, THREADS};

/// Longest step: steps take microseconds, and wait only for what is there.
const PATIENCE: Duration = Duration::from_secs(20);

type Job<'p> = Box<dyn FnOnce() + Send + 'p>;

struct Worker<'s, 'p> {
    jobs: Sender<Job<'p>>,
    runs: ScopedJoinHandle<'s, ()>,
}

/// See the module.
pub struct Threads<'s, 'p> {
    scope: &'s Scope<'s, 'p>,
    workers: [Option<Worker<'s, 'p>>; THREADS],
}

impl core::fmt::Debug for Threads<'_, '_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Threads").finish_non_exhaustive()
    }
}

/// The step ended in a planted panic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Panicked;

impl<'s, 'p> Threads<'s, 'p> {
    /// All threads, each started at its first step.
    #[must_use]
    pub fn new(scope: &'s Scope<'s, 'p>) -> Self {
        Self {
            scope,
            workers: [const { None }; THREADS],
        }
    }

    /// Runs `step` on a thread and waits for it.
    ///
    /// # Errors
    ///
    /// [`Panicked`] if the step met a planted panic.
    ///
    /// # Panics
    ///
    /// Any other panic goes on here.
    pub fn run<Out: Send + 'p>(
        &mut self,
        on: On,
        step: impl FnOnce() -> Out + Send + 'p,
    ) -> Result<Out, Panicked> {
        type Outcome<Out> = Result<Out, Box<dyn Any + Send>>;
        let (tell, told): (Sender<Outcome<Out>>, Receiver<_>) = bounded(1);
        let scope = self.scope;
        let worker = self.workers[on.index()].get_or_insert_with(|| {
            let (jobs, queue) = bounded::<Job<'p>>(1);
            let runs = scope.spawn(move || queue.into_iter().for_each(|job| job()));
            Worker { jobs, runs }
        });
        let job = Box::new(move || {
            let outcome = catch_unwind(AssertUnwindSafe(step));
            let _ = tell.send(outcome);
        });
        assert!(worker.jobs.send(job).is_ok(), "the thread lives");
        let Ok(outcome) = told.recv_timeout(PATIENCE) else {
            // Nothing ends a thread that sleeps for ever; a report is better than a hang.
            eprintln!("a step waits for what is there: a false \"empty\", or a dead lock");
            std::process::abort();
        };
        match outcome {
            Ok(out) => Ok(out),
            Err(payload) if payload.is::<Planted>() => Err(Panicked),
            Err(payload) => std::panic::resume_unwind(payload),
        }
    }

    /// Lets a thread exit; its next step starts another.
    ///
    /// # Panics
    ///
    /// Panics when a destructor of the thread does.
    pub fn restart(&mut self, on: On) {
        if let Some(worker) = self.workers[on.index()].take() {
            drop(worker.jobs);
            worker.runs.join().expect("the thread ends without panic");
        }
    }
}

impl Drop for Threads<'_, '_> {
    /// Unlike the end of the scope, waits for the threads' destructors, which return what is
    /// in the threads' caches.
    fn drop(&mut self) {
        for number in 0..THREADS {
            if let Some(worker) = self.workers[number].take() {
                drop(worker.jobs);
                let _ = worker.runs.join();
            }
        }
    }
}
