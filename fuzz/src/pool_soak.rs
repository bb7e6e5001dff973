//! Many threads on three pools, for as long as somebody wants to wait.
//!
//! | pool | what it is for |
//! |---|---|
//! | strict | threads want no more objects than the bound allows: no get may ever fail or wait |
//! | short | four objects for all threads: who waits must be served |
//! | free | no bound; decay, trim, retention limit, keys, objects that come and go |
//!
//! In rounds of a quarter of a second threads start, get, use, hand over, return, discard and
//! exit, with resets and creators that panic now and then. At the end of a round each pool is
//! counted, and then dropped while guards come back on other threads.
//!
//! What could go wrong and how it would show: an object with two users, or dropped twice, sees
//! that by itself; a bound that is exceeded shows in the objects' count; an object that lies
//! where nobody finds it makes a get of the strict pool fail; a wake-up that is lost lets a
//! thread of the short pool wait for [`PATIENCE`]; a return without reset, a leak, a wrong
//! figure show at the end of the round.

use core::future::Future as _;
use core::panic::AssertUnwindSafe;
use core::pin::pin;
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};
use core::task::{Context, Poll, Waker};
use core::time::Duration;
use std::panic::{catch_unwind, resume_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Instant;

use brickyard_pool::{GetTimeoutError, Key, Pool, TryGetError};
use crossbeam_channel::{Receiver, Sender, bounded};

use crate::pool_driver::{Held, Owned};
use crate::pool_lies::{Guard, Lie};
use crate::pool_object::{Ledger, NotNow, Planted, Recycler, Tracked};
use crate::pool_op::{CreateFault, PutFault};
use crate::soak::Plan;

/// Longest wait for an object that others hold for some microseconds.
const PATIENCE: Duration = Duration::from_secs(20);
/// Length of a round.
const ROUND: Duration = Duration::from_millis(250);
/// Objects of the strict pool, few enough that it is often in scarce mode.
const STRICT_OBJECTS: usize = 12;
/// Objects of the short pool.
const SHORT_OBJECTS: usize = 4;
/// Objects that a thread holds at once.
const MOST_HELD: usize = 40;
/// Objects on their way to other threads.
const IN_TRANSIT: usize = 64;
/// Steps between two looks at the clock.
const STEPS_PER_CLOCK: usize = 64;

/// What a soak run has done.
#[derive(Debug, Default, Clone, Copy)]
pub struct Summary {
    /// Rounds, each with its own pools.
    pub rounds: u64,
    /// Objects got.
    pub gets: u64,
    /// Objects that came back on another thread.
    pub handed_over: u64,
    /// Gets that waited.
    pub waits: u64,
    /// Calls of `reset` and creators that panicked, and creators that failed.
    pub faults: u64,
}

/// A pool with what is known of it.
#[derive(Debug)]
struct Site {
    pool: Pool<Tracked, Recycler>,
    ledger: Arc<Ledger>,
    /// Objects that threads may still want.
    tokens: AtomicUsize,
    /// Returns of objects, each with one reset to come.
    returns: AtomicU64,
    /// Objects that were made elsewhere.
    attached: AtomicU64,
    keys: Mutex<Vec<(Key, usize)>>,
}

const STRICT: usize = 0;
const SHORT: usize = 1;
const FREE: usize = 2;

impl Site {
    fn new(capacity: usize, tokens: usize) -> Self {
        let ledger = Ledger::new(capacity, Lie::Honest);
        let mut builder = Pool::builder().capacity(capacity);
        if capacity == usize::MAX {
            builder = builder.retain(64).idle_decay(Duration::from_millis(1));
        }
        let pool = builder
            .build_with(Recycler(Arc::clone(&ledger)))
            .expect("no fault is armed");
        Self {
            pool,
            ledger,
            tokens: AtomicUsize::new(tokens),
            returns: AtomicU64::new(0),
            attached: AtomicU64::new(0),
            keys: Mutex::new(Vec::new()),
        }
    }

    fn take_tokens(&self, count: usize) -> bool {
        self.tokens
            .fetch_update(SeqCst, SeqCst, |left| left.checked_sub(count))
            .is_ok()
    }

    fn put_tokens(&self, count: usize) {
        self.tokens.fetch_add(count, SeqCst);
    }

    fn keys(&self) -> std::sync::MutexGuard<'_, Vec<(Key, usize)>> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// No thread is in a call: counts, and drops the pool while `late` comes back.
    fn settle(self, late: Vec<Owned>) {
        let Self { pool, ledger, .. } = self;
        ledger.disarm();
        let keyed = self
            .keys
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner);
        let metrics = pool.metrics();
        let live = ledger.live.load(SeqCst);
        assert_eq!(
            (metrics.live, metrics.in_use),
            (live, late.len() + keyed.len())
        );
        let counted = ledger.created.load(SeqCst) - ledger.unborn.load(SeqCst);
        let attached = self.attached.load(SeqCst);
        assert_eq!(metrics.created, counted + attached, "created");
        let used = ledger.resets.load(SeqCst) - ledger.resets_unused.load(SeqCst);
        assert_eq!(used, self.returns.load(SeqCst), "calls of reset");
        let mut late = late;
        let there = late.split_off(late.len() / 2);
        thread::scope(|scope| {
            let threads = [
                scope.spawn(move || drop(there)),
                scope.spawn(move || drop(pool)),
            ];
            drop(late);
            // For their destructors, too.
            for thread in threads {
                thread.join().expect("closing and returning without panic");
            }
        });
        assert_eq!(ledger.live.load(SeqCst), 0, "objects leaked");
        assert_eq!(
            Arc::strong_count(&ledger),
            1,
            "the pool's own memory leaked"
        );
        assert_eq!(ledger.violation(), None);
    }
}

/// An object on its way, with its site and perhaps a token.
type Parcel = (usize, Owned);

/// What the threads of a round share.
#[derive(Debug)]
struct Stage {
    sites: [Site; 3],
    route: (Sender<Parcel>, Receiver<Parcel>),
}

/// Runs a soak.
///
/// # Panics
///
/// Panics when the pool breaks a promise.
#[must_use]
pub fn run(plan: Plan) -> Summary {
    let end = Instant::now() + plan.duration;
    let mut total = Summary::default();
    while total.rounds == 0 || Instant::now() < end {
        round(plan, &mut total);
        total.rounds += 1;
    }
    total
}

fn round(plan: Plan, total: &mut Summary) {
    let stage = Stage {
        sites: [
            Site::new(STRICT_OBJECTS, STRICT_OBJECTS),
            Site::new(SHORT_OBJECTS, 0),
            Site::new(usize::MAX, 0),
        ],
        route: bounded(IN_TRANSIT),
    };
    let end = Instant::now() + ROUND;
    let seed = plan.seed ^ total.rounds << 20;
    thread::scope(|scope| {
        let workers: Vec<_> = (0..plan.threads as u64)
            .map(|number| {
                let stage = &stage;
                scope.spawn(move || Worker::new(stage, seed ^ number << 40).work_until(end))
            })
            .collect();
        for worker in workers {
            match worker.join() {
                Ok(done) => {
                    total.gets += done.gets;
                    total.handed_over += done.handed_over;
                    total.faults += done.faults;
                }
                Err(panic) => resume_unwind(panic),
            }
        }
    });
    let Stage { sites, route } = stage;
    drop(route.0);
    let mut late = [const { Vec::new() }; 3];
    for (site, guard) in route.1 {
        late[site].push(guard);
    }
    assert_eq!(
        sites[STRICT].pool.metrics().waits,
        0,
        "waits for what is idle"
    );
    total.waits += sites[SHORT].pool.metrics().waits;
    for (site, late) in sites.into_iter().zip(late) {
        // The late ones are reset, too; `settle` counts before they come back.
        site.settle(late);
    }
}

/// One thread of a round.
#[derive(Debug)]
struct Worker<'s> {
    stage: &'s Stage,
    random: fastrand::Rng,
    held: Vec<(usize, Held<'s>)>,
    done: Summary,
}

/// Why a get gave nothing.
enum Nothing {
    Empty,
    Failed,
}

impl<'s> Worker<'s> {
    fn new(stage: &'s Stage, seed: u64) -> Self {
        Self {
            stage,
            random: fastrand::Rng::with_seed(seed),
            held: Vec::with_capacity(MOST_HELD),
            done: Summary::default(),
        }
    }

    fn work_until(mut self, end: Instant) -> Summary {
        while Instant::now() < end {
            for _ in 0..STEPS_PER_CLOCK {
                self.step();
            }
        }
        while let Some((site, held)) = self.held.pop() {
            self.put(site, held);
        }
        self.done
    }

    fn step(&mut self) {
        match self.random.u32(..1000) {
            0..200 => self.get_strict(),
            200..300 => self.get_short(),
            300..500 => self.get_free(),
            500..780 => self.put_one(),
            780..830 => self.hand_over(),
            830..900 => self.take_delivery(),
            900..930 => self.leave_for_good(),
            930..960 => self.publish(),
            960..990 => self.visit_key(),
            990..994 => self.plant_fault(),
            994..996 => drop(self.caught(|stage| stage.sites[FREE].pool.trim())),
            _ => thread::yield_now(),
        }
    }

    /// The outcome of a call, unless a planted panic ended it.
    fn caught<Out>(&mut self, call: impl FnOnce(&'s Stage) -> Out) -> Option<Out> {
        let stage = self.stage;
        match catch_unwind(AssertUnwindSafe(|| call(stage))) {
            Ok(out) => Some(out),
            Err(payload) if payload.is::<Planted>() => {
                self.done.faults += 1;
                None
            }
            Err(payload) => resume_unwind(payload),
        }
    }

    /// Lets somebody's next return or creation go wrong.
    fn plant_fault(&mut self) {
        let ledger = &self.stage.sites[self.random.usize(..3)].ledger;
        match self.random.u32(..6) {
            0 => ledger.arm_put(PutFault::ResetPanics),
            1 => ledger.arm_put(PutFault::KeepPanics),
            2 => ledger.arm_put(PutFault::NotKept),
            3 => ledger.arm_put(PutFault::NotKeptAndDropPanics),
            4 => ledger.arm_create(CreateFault::PanicAfterwards),
            _ => ledger.arm_create(CreateFault::Error),
        }
    }

    fn take_hold(&mut self, site: usize, guard: Guard<'s>) {
        guard.begin_use();
        self.done.gets += 1;
        let held = if self.random.bool() {
            Held::Owned(guard.into_owned())
        } else {
            Held::Borrowed(guard)
        };
        self.held.push((site, held));
    }

    /// Nobody wants more objects than there may be: each get must succeed.
    fn get_strict(&mut self) {
        let count = if self.random.u8(..8) == 0 { 3 } else { 1 };
        let site = &self.stage.sites[STRICT];
        if self.held.len() + count > MOST_HELD || !site.take_tokens(count) {
            return;
        }
        let how = self.random.u32(..3);
        let got = self.caught(|stage| {
            let pool = &stage.sites[STRICT].pool;
            let mut guards = Vec::new();
            let got = match how {
                _ if count > 1 => pool.try_get_many(count, &mut guards),
                0 => pool.try_get().map(|one| guards.push(one)),
                1 => match pin!(pool.get_async()).poll(&mut Context::from_waker(Waker::noop())) {
                    Poll::Ready(got) => {
                        got.map(|one| guards.push(one)).map_err(TryGetError::Create)
                    }
                    Poll::Pending => Err(TryGetError::Empty),
                },
                _ => match pool.get_timeout(Duration::ZERO) {
                    Ok(one) => {
                        guards.push(one);
                        Ok(())
                    }
                    Err(GetTimeoutError::Create(NotNow)) => Err(TryGetError::Create(NotNow)),
                    Err(_) => Err(TryGetError::Empty),
                },
            };
            match got {
                Ok(()) => Ok(guards),
                Err(TryGetError::Create(NotNow)) => Err(Nothing::Failed),
                Err(_) => Err(Nothing::Empty),
            }
        });
        match got {
            Some(Ok(guards)) => guards
                .into_iter()
                .for_each(|guard| self.take_hold(STRICT, guard)),
            Some(Err(Nothing::Empty)) => {
                panic!("a false \"empty\": {:?}", site.pool.metrics())
            }
            Some(Err(Nothing::Failed)) | None => site.put_tokens(count),
        }
    }

    /// Holds nothing of the pool while it waits, as every thread.
    fn get_short(&mut self) {
        let how = self.random.u32(..4);
        while let Some(at) = self.held.iter().position(|(site, _)| *site == SHORT) {
            let (site, held) = self.held.swap_remove(at);
            self.put(site, held);
        }
        let got = self.caught(|stage| {
            let pool = &stage.sites[SHORT].pool;
            match how {
                0 => pool.try_get().ok(),
                // Polled once, then dropped: in the queue, or with a grant on its way.
                1 => match pin!(pool.get_async()).poll(&mut Context::from_waker(Waker::noop())) {
                    Poll::Ready(got) => got.ok(),
                    Poll::Pending => None,
                },
                2 => poll_until_ready(pool).ok(),
                _ => match pool.get_timeout(PATIENCE) {
                    Err(GetTimeoutError::Timeout) => {
                        panic!("nobody served a waiter: {:?}", pool.metrics())
                    }
                    got => got.ok(),
                },
            }
        });
        if let Some(Some(guard)) = got {
            self.take_hold(SHORT, guard);
        }
    }

    fn get_free(&mut self) {
        let count = 1 + self.random.usize(..8) / 7 * self.random.usize(..20);
        if self.held.len() + count > MOST_HELD {
            return self.put_one();
        }
        let got = self.caught(|stage| {
            let mut guards = Vec::new();
            let got = stage.sites[FREE].pool.try_get_many(count, &mut guards);
            assert_ne!(got, Err(TryGetError::Empty), "a pool without bound");
            guards
        });
        for guard in got.into_iter().flatten() {
            self.take_hold(FREE, guard);
        }
    }

    fn take_any(&mut self) -> Option<(usize, Held<'s>)> {
        if self.held.is_empty() {
            return None;
        }
        let at = self.random.usize(..self.held.len());
        Some(self.held.swap_remove(at))
    }

    fn put_one(&mut self) {
        if let Some((site, held)) = self.take_any() {
            self.put(site, held);
        }
    }

    fn put(&mut self, site: usize, held: Held<'s>) {
        assert!(held.object().is_in_use(), "reset under its user");
        self.stage.sites[site].returns.fetch_add(1, SeqCst);
        self.caught(|_| drop(held));
        self.put_token(site);
    }

    /// After the call that gave the object up.
    fn put_token(&self, site: usize) {
        if site == STRICT {
            self.stage.sites[site].put_tokens(1);
        }
    }

    /// Discards an object, or takes one out and puts another in.
    fn leave_for_good(&mut self) {
        let Some((site, held)) = self.take_any() else {
            return;
        };
        if site != FREE {
            self.caught(|_| held.discard());
            return self.put_token(site);
        }
        // The ledger of a pool with a bound would count the one that is out.
        self.caught(|stage| {
            drop(held.detach());
            let site = &stage.sites[FREE];
            let key = site.pool.attach(Tracked::new(&site.ledger)).map(|guard| {
                site.attached.fetch_add(1, SeqCst);
                guard.begin_use();
                (guard.id(), guard.publish())
            });
            let (id, key) = key.expect("no bound");
            site.keys().push((key, id));
        });
    }

    fn hand_over(&mut self) {
        let Some((site, held)) = self.take_any() else {
            return;
        };
        // Who waits in the short pool would wait for what nobody fetches.
        if site == SHORT {
            return self.put(site, held);
        }
        let owned = held.into_owned();
        if let Err(refused) = self.stage.route.0.try_send((site, owned)) {
            let (site, owned) = refused.into_inner();
            self.put(site, Held::Owned(owned));
        }
    }

    fn take_delivery(&mut self) {
        if let Ok((site, owned)) = self.stage.route.1.try_recv() {
            self.done.handed_over += 1;
            self.put(site, Held::Owned(owned));
        }
    }

    fn publish(&mut self) {
        let site = &self.stage.sites[FREE];
        match self.take_any() {
            Some((FREE, Held::Borrowed(guard))) => {
                let id = guard.id();
                let key = guard.publish();
                site.keys().push((key, id));
            }
            Some(other) => self.held.push(other),
            None => {}
        }
    }

    /// Looks at an object under a key; then perhaps removes it.
    fn visit_key(&mut self) {
        let site = &self.stage.sites[FREE];
        let removes = self.random.bool();
        let (key, id) = {
            let mut keys = site.keys();
            if keys.is_empty() {
                return;
            }
            let at = self.random.usize(..keys.len());
            if removes {
                keys.swap_remove(at)
            } else {
                keys[at]
            }
        };
        let reader = site.pool.lookup(key);
        if let Some(reader) = &reader {
            assert_eq!((reader.key(), reader.id()), (key, id), "a key's object");
            assert!(reader.is_in_use(), "reset under its reader");
        }
        if removes {
            // Whoever is the last to look returns the object.
            site.returns.fetch_add(1, SeqCst);
            assert!(reader.is_some(), "a valid key found nothing");
            self.caught(|_| assert!(site.pool.remove(key), "a valid key was not removed"));
            assert!(
                site.pool.lookup(key).is_none(),
                "a stale key found an object"
            );
        }
        self.caught(|_| drop(reader));
    }
}

/// Polls a future until it is ready, as an executor that is not in a hurry.
fn poll_until_ready(pool: &Pool<Tracked, Recycler>) -> Result<Guard<'_>, NotNow> {
    let begun = Instant::now();
    let mut future = pin!(pool.get_async());
    loop {
        match future
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()))
        {
            Poll::Ready(got) => return got,
            Poll::Pending => thread::yield_now(),
        }
        assert!(
            begun.elapsed() < PATIENCE,
            "nobody served a future: {:?}",
            pool.metrics()
        );
    }
}
