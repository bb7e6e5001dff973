//! The rows with several threads, each of which stays on one core.

use core::time::Duration;
use std::sync::Barrier;
use std::sync::mpsc::{self, TryRecvError, TrySendError};
use std::thread;
use std::time::Instant;

use nix::sched::{CpuSet, sched_setaffinity};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;

use super::adapter::Pool;
use super::work::{self, Effort, calibrate, middle, per_pair};

/// Objects that change threads together.
const PARCEL: usize = 32;

/// Parcels under way at most.
const PARCELS: usize = 8;

/// Least wall time of a slice with several threads. The scheduler lets a thread run for some
/// milliseconds before it gives its core to the next one: threads that are done sooner run
/// one after another, and what a thread pays once (its start, its first objects) is a large
/// part of the figure.
const TOGETHER: Duration = Duration::from_millis(32);

/// Keeps the calling thread on core `number`, counted around. Where that is not allowed
/// the scheduler decides.
pub(crate) fn pin(number: usize) {
    let cores = thread::available_parallelism().map_or(1, core::num::NonZero::get);
    let mut set = CpuSet::new();
    let _ = set
        .set(number % cores)
        .and_then(|()| sched_setaffinity(Pid::from_raw(0), &set));
}

/// Figures of threads that did the same.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Figures {
    /// Wall time of a pair, as each thread sees it.
    pub(crate) wall_ns: f64,
    /// CPU time of a pair.
    pub(crate) cpu_ns: f64,
}

/// Gets and returns in `count` threads.
pub(crate) fn pairs<P: Pool>(pool: &P, count: usize, effort: Effort) -> Figures {
    // The count includes the start of the threads, which is small against such a slice.
    let slice = effort.slice.max(TOGETHER);
    let each = calibrate(slice, |each| drop(together(pool, count, each)));
    let slices: Vec<_> = (0..effort.slices)
        .map(|_| together(pool, count, each))
        .collect();
    let figure = |of: fn(&Taken) -> Duration| {
        let slice = |taken: &Vec<Taken>| per_pair(taken.iter().map(of).sum(), each * count);
        middle(slices.iter().map(slice).collect())
    };
    Figures {
        wall_ns: figure(|taken| taken.wall),
        cpu_ns: figure(|taken| taken.cpu),
    }
}

/// What one thread took.
#[derive(Debug, Clone, Copy)]
struct Taken {
    wall: Duration,
    cpu: Duration,
}

/// `count` threads that begin at the same time; each does `each` pairs.
fn together<P: Pool>(pool: &P, count: usize, each: usize) -> Vec<Taken> {
    let barrier = Barrier::new(count);
    let work = |number: usize| {
        pin(number);
        // Neither the thread's cache nor its first object is part of the figure.
        work::pairs(pool, PARCEL);
        barrier.wait();
        let (start, cpu) = (Instant::now(), thread_cpu());
        work::pairs(pool, each);
        Taken {
            wall: start.elapsed(),
            cpu: thread_cpu().saturating_sub(cpu),
        }
    };
    let work = &work;
    thread::scope(|scope| {
        let threads: Vec<_> = (0..count)
            .map(|number| scope.spawn(move || work(number)))
            .collect();
        threads
            .into_iter()
            .filter_map(|thread| thread.join().ok())
            .collect()
    })
}

/// CPU time of the calling thread.
fn thread_cpu() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map_or(Duration::ZERO, Duration::from)
}

/// One thread gets, another returns; nanoseconds of wall time an object.
///
/// Parcels of 32 travel, so that the channel is a small part of the figure, and empty
/// parcels travel back. Both sides spin, and yield: on one core the other must run.
pub(crate) fn across<P: Pool>(pool: &P, effort: Effort) -> f64
where
    for<'p> P::Held<'p>: Send,
{
    pin(0);
    let count = calibrate(effort.slice, |count| hand_over(pool, count));
    let slice = |_| per_pair(work::time(|| hand_over(pool, count)), count);
    middle((0..effort.slices).map(slice).collect())
}

/// Hands `count` objects over.
fn hand_over<'p, P: Pool>(pool: &'p P, count: usize)
where
    P::Held<'p>: Send,
{
    let (full, arriving) = mpsc::sync_channel::<Vec<P::Held<'p>>>(PARCELS);
    let (empty, returning) = mpsc::sync_channel::<Vec<P::Held<'p>>>(2 * PARCELS);
    thread::scope(|scope| {
        scope.spawn(move || {
            pin(1);
            while let Some(mut parcel) = receive(&arriving) {
                for held in parcel.drain(..) {
                    pool.put(held);
                }
                // Full or gone: the parcel is not needed any more.
                let _ = empty.try_send(parcel);
            }
        });
        for _ in 0..count / PARCEL {
            let mut parcel = returning
                .try_recv()
                .unwrap_or_else(|_| Vec::with_capacity(PARCEL));
            for _ in 0..PARCEL {
                let mut held = pool.get();
                P::touch(&mut held, 1);
                parcel.push(held);
            }
            send(&full, parcel);
        }
        drop(full);
    });
}

/// Waits for a parcel without sleeping; `None` at the end.
fn receive<T>(channel: &mpsc::Receiver<T>) -> Option<T> {
    loop {
        match channel.try_recv() {
            Ok(parcel) => return Some(parcel),
            Err(TryRecvError::Empty) => thread::yield_now(),
            Err(TryRecvError::Disconnected) => return None,
        }
    }
}

/// Waits for a place without sleeping.
fn send<T>(channel: &mpsc::SyncSender<T>, mut parcel: T) {
    while let Err(TrySendError::Full(back)) = channel.try_send(parcel) {
        parcel = back;
        thread::yield_now();
    }
}
