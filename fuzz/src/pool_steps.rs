//! The steps of a program for a pool, and what the oracle expects of each.

use core::future::Future as _;
use core::pin::Pin;
use core::task::{Context, Poll};
use core::time::Duration;

use brickyard_pool::{GetTimeoutError, TryGetError};

use crate::op::Pick;
use crate::pool_driver::{Before, Driver, Given, Held, Waiting, Wakes};
use crate::pool_object::{NotNow, Tracked};
use crate::pool_op::{CreateFault, How, On, Op, PutFault};
use crate::pool_promise::{promise, promise_eq};
use crate::pool_threads::Panicked;

/// Why a get gave nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Nothing {
    Empty,
    Failed,
}

impl<'p> Driver<'_, 'p> {
    /// Runs one step and checks what came of it.
    pub fn step(&mut self, op: &Op) {
        match *op {
            Op::Get { on, how, fault } => self.get(on, how, fault),
            Op::GetMany { on, count, batch } => self.get_many(on, usize::from(count) % 80, batch),
            Op::Put { on, pick, fault } => self.put(on, pick, fault),
            Op::PutMany { on, count, batch } => self.put_many(on, usize::from(count), batch),
            Op::Discard { on, pick, panics } => self.discard(on, pick, panics),
            Op::Detach { on, pick } => self.detach(on, pick),
            Op::Attach { on } => self.attach(on),
            Op::IntoOwned { pick } => {
                if let Some(held) = self.pick_held(pick) {
                    self.held.push(Held::Owned(held.into_owned()));
                }
            }
            Op::Forget { pick } => {
                if let Some(held) = self.pick_held(pick) {
                    self.forgotten.push(held.into_owned());
                }
            }
            Op::Trim { on, panics } => self.trim(on, panics),
            Op::Prewarm { on, objects, fault } => self.prewarm(on, usize::from(objects), fault),
            Op::StartWait { on, fault } => self.start_wait(on, fault),
            Op::PollWait { on, pick, fault } => self.poll_wait(on, pick, fault),
            Op::DropWait { on, pick } => self.drop_wait(on, pick),
            Op::Restart { on } => self.threads.restart(on),
            Op::Insert { on } => self.insert(on),
            Op::Publish { on, pick } => self.publish(on, pick),
            Op::Lookup { on, pick } => self.lookup(on, pick),
            Op::Leave { on, pick, fault } => self.leave(on, pick, fault),
            Op::Remove { on, pick, fault } => self.remove(on, pick, fault),
            Op::Stale { on, pick } => self.stale(on, pick),
            Op::ListKeys { on } => self.list_keys(on),
        }
        self.check();
    }

    fn get(&mut self, on: On, how: How, fault: CreateFault) {
        let obtainable = self.obtainable() > 0;
        let how = if obtainable { how } else { no_wait(how) };
        let idle = self.idle();
        let before = self.before();
        self.gets += 1;
        self.ledger.arm_create(fault);
        let pool = self.pool;
        let got = self.threads.run(on, move || match how {
            How::Try => pool.try_get().map_err(|error| match error {
                TryGetError::Create(NotNow) => Nothing::Failed,
                _ => Nothing::Empty,
            }),
            How::NoTime => pool
                .get_timeout(Duration::ZERO)
                .map_err(|error| match error {
                    GetTimeoutError::Create(NotNow) => Nothing::Failed,
                    _ => Nothing::Empty,
                }),
            How::Blocking => pool.pool().get().map_err(|NotNow| Nothing::Failed),
        });
        let struck = !self.ledger.disarm() && is_fault(fault);
        self.expect_resets(before, 0);
        match got {
            Ok(Ok(guard)) => {
                promise!(obtainable && !struck);
                let created = self.created_since(before);
                promise!(
                    created == 1 || (created == 0 && idle > 0),
                    "{created} created"
                );
                self.take_hold(Held::Borrowed(guard));
            }
            Ok(Err(Nothing::Empty)) => {
                promise!(!obtainable, "a false \"empty\": {idle} idle");
                self.waits += u64::from(matches!(how, How::NoTime));
            }
            Ok(Err(Nothing::Failed)) => promise!(struck && fault == CreateFault::Error),
            Err(Panicked) => promise!(struck && panics(fault)),
        }
    }

    fn get_many(&mut self, on: On, count: usize, batch: bool) {
        let obtainable = self.obtainable();
        let before = self.before();
        self.gets += count as u64 + 1;
        let pool = self.pool;
        let (got, guards) = self
            .threads
            .run(on, move || {
                let mut guards = Vec::new();
                let got = pool.try_get_many(count, batch, &mut guards).is_ok();
                (got, guards)
            })
            .expect("no fault is armed");
        if got {
            promise!(guards.len() == count && count <= obtainable);
            self.expect_resets(before, 0);
            guards
                .into_iter()
                .for_each(|guard| self.take_hold(Held::Borrowed(guard)));
        } else {
            promise!(
                count > obtainable,
                "a false \"empty\" of many: {obtainable} of {count}"
            );
            promise!(guards.is_empty());
            // What it had got by then is returned as if it had been used.
            let now = self.before();
            let resets = now.resets - before.resets;
            promise!(resets <= obtainable as u64, "{resets} calls of reset");
            promise_eq!(now.resets_unused - before.resets_unused, resets);
        }
    }

    fn put(&mut self, on: On, pick: Pick, fault: PutFault) {
        let Some(held) = self.pick_held(pick) else {
            return;
        };
        let before = self.before();
        self.ledger.arm_put(fault);
        let ended = self.threads.run(on, move || drop(held));
        self.expect_return(before, fault, ended.is_err());
    }

    /// What follows from the return of one object, which went on with a planted panic or not.
    pub(crate) fn expect_return(&mut self, before: Before, fault: PutFault, panicked: bool) {
        promise!(
            !self.ledger.disarm(),
            "a return asked neither reset nor keep"
        );
        self.expect_resets(before, 1);
        let panics = matches!(
            fault,
            PutFault::ResetPanics | PutFault::KeepPanics | PutFault::NotKeptAndDropPanics
        );
        promise_eq!(panicked, panics, "a panic at {fault:?}");
        match fault {
            PutFault::None | PutFault::NoneAgain => {}
            PutFault::ResetPanics | PutFault::KeepPanics => self.panicked += 1,
            PutFault::NotKept | PutFault::NotKeptAndDropPanics => self.not_kept += 1,
        }
        let dropped = self.dropped_since(before);
        promise!(dropped <= 1 && (dropped == 1 || !is_put_fault(fault)));
        self.give_returned(before);
    }

    fn put_many(&mut self, on: On, count: usize, batch: bool) {
        let from = self.held.len().saturating_sub(count);
        let (guards, owned): (Vec<_>, Vec<_>) = self
            .held
            .split_off(from)
            .into_iter()
            .partition(|one| matches!(one, Held::Borrowed(_)));
        self.held.extend(owned);
        let mut guards: Vec<_> = guards
            .into_iter()
            .filter_map(|one| match one {
                Held::Borrowed(guard) => Some(guard),
                Held::Owned(_) => None,
            })
            .collect();
        // One by one for those who wait, so that the oracle sees what each was given.
        let rest = guards.split_off(self.granted(Given::Nothing).min(guards.len()));
        for part in guards.into_iter().map(|one| vec![one]).chain([rest]) {
            let before = self.before();
            let returned = part.len();
            let (pool, in_use) = (self.pool, self.pool.metrics().in_use);
            let seen = self.threads.run(on, move || {
                let mut seen = Vec::new();
                let part = part.into_iter().inspect(|_| {
                    seen.push(pool.metrics().in_use);
                });
                pool.put_many(part, batch);
                seen
            });
            let seen = seen.expect("no fault is armed");
            if self.capacity != usize::MAX && !batch {
                let at_once: Vec<_> = (0..returned).map(|put| in_use - put).collect();
                promise_eq!(seen, at_once, "in use while many are put");
            }
            self.expect_resets(before, returned);
            if returned > 0 {
                self.give_returned(before);
            }
        }
    }

    fn discard(&mut self, on: On, pick: Pick, panics: bool) {
        let Some(held) = self.pick_held(pick) else {
            return;
        };
        let before = self.before();
        self.ledger.arm_drop(panics);
        let ended = self.threads.run(on, move || held.discard());
        promise_eq!((ended.is_err(), self.ledger.disarm()), (panics, false));
        self.expect_resets(before, 0);
        promise_eq!(self.dropped_since(before), 1);
        self.discarded += 1;
        self.give(Given::Permit);
    }

    fn detach(&mut self, on: On, pick: Pick) {
        let Some(held) = self.pick_held(pick) else {
            return;
        };
        let before = self.before();
        // Dropped on the spot: the oracle counts objects, and this is the pool's no more.
        let detached = self.threads.run(on, move || drop(held.detach()));
        promise_eq!(detached, Ok(()));
        self.expect_resets(before, 0);
        promise_eq!(self.dropped_since(before), 1);
        self.detached += 1;
        self.give(Given::Permit);
    }

    fn attach(&mut self, on: On) {
        let (fits, object) = self.foreign();
        let pool = self.pool.pool();
        let attached = self.threads.run(on, move || pool.attach(object).ok());
        let guard = attached.expect("no fault is armed");
        promise_eq!(guard.is_some(), fits, "attach within the bound");
        if let Some(guard) = guard {
            self.attached += 1;
            self.take_hold(Held::Borrowed(guard));
        }
    }

    /// An object that was made elsewhere, and whether the bound allows it.
    pub(crate) fn foreign(&self) -> (bool, Tracked) {
        let fits = self.free_permits() > 0;
        let object = if fits {
            Tracked::new(&self.ledger)
        } else {
            Tracked::surplus(&self.ledger)
        };
        (fits, object)
    }

    fn trim(&mut self, on: On, panics: bool) {
        let (idle, before) = (self.idle(), self.before());
        self.ledger.arm_drop(panics);
        let pool = self.pool;
        let trimmed = self.threads.run(on, move || pool.trim());
        let unused = self.ledger.disarm();
        self.expect_resets(before, 0);
        match trimmed {
            Ok(dropped) => {
                promise!(!panics || (unused && idle == 0));
                promise_eq!((dropped, self.idle()), (idle, 0), "trim");
            }
            Err(Panicked) => promise_eq!((panics, self.dropped_since(before)), (true, 1)),
        }
    }

    fn prewarm(&mut self, on: On, objects: usize, fault: CreateFault) {
        let used = self.live() + self.granted(Given::Permit);
        let missing = objects.min(self.capacity).saturating_sub(used);
        let before = self.before();
        self.ledger.arm_create(fault);
        let pool = self.pool;
        let done = self
            .threads
            .run(on, move || pool.pool().prewarm(objects).is_ok());
        let struck = !self.ledger.disarm() && is_fault(fault);
        promise_eq!(struck, is_fault(fault) && missing > 0);
        match done {
            Ok(true) => {
                promise!(!struck);
                promise_eq!(self.created_since(before), missing as u64);
            }
            Ok(false) => promise!(struck && fault == CreateFault::Error),
            Err(Panicked) => promise!(struck && panics(fault)),
        }
    }

    fn start_wait(&mut self, on: On, fault: CreateFault) {
        if self.waiting.len() >= 40 {
            return;
        }
        self.gets += 1;
        let wakes = Wakes::new(&self.ledger);
        let future = self.pool.get_async();
        let waiting = Waiting {
            future,
            wakes,
            given: Given::Nothing,
        };
        let obtainable = self.obtainable() > 0;
        self.poll_now(on, waiting, fault, obtainable, None);
    }

    fn poll_wait(&mut self, on: On, pick: Pick, fault: CreateFault) {
        let Some(index) = pick.index(self.waiting.len()) else {
            return;
        };
        let waiting = self.waiting.remove(index);
        let ready = waiting.given != Given::Nothing;
        self.poll_now(on, waiting, fault, ready, Some(index));
    }

    /// Polls a future, which was at `index` of those that wait, or is new.
    fn poll_now(
        &mut self,
        on: On,
        waiting: Waiting<'p>,
        fault: CreateFault,
        ready: bool,
        index: Option<usize>,
    ) {
        let before = self.before();
        self.ledger.arm_create(fault);
        let Waiting {
            mut future,
            wakes,
            given,
        } = waiting;
        let waker = Waiting::waker(&wakes);
        let waits_on = ready && self.pool.keeps_waiting();
        let polled = self.threads.run(on, move || {
            if waits_on {
                return Err(future);
            }
            let polled = Pin::new(&mut future).poll(&mut Context::from_waker(&waker));
            match polled {
                Poll::Ready(got) => Ok(got),
                Poll::Pending => Err(future),
            }
        });
        let struck = !self.ledger.disarm() && is_fault(fault);
        self.expect_resets(before, 0);
        self.waits += u64::from(ready && index.is_some());
        match polled {
            Ok(Ok(Ok(guard))) => {
                promise!(ready && !struck);
                self.take_hold(Held::Borrowed(guard));
            }
            Ok(Err(future)) => {
                promise!(!ready && !struck, "a false \"pending\"");
                let place = index.unwrap_or(self.waiting.len());
                self.waiting.insert(
                    place,
                    Waiting {
                        future,
                        wakes,
                        given,
                    },
                );
            }
            Ok(Ok(Err(NotNow))) => {
                promise!(ready && struck && fault == CreateFault::Error);
                self.give(Given::Permit);
            }
            Err(Panicked) => {
                promise!(ready && struck && panics(fault));
                self.give(Given::Permit);
            }
        }
    }

    pub(crate) fn drop_wait(&mut self, on: On, pick: Pick) {
        let Some(index) = pick.index(self.waiting.len()) else {
            return;
        };
        let Waiting { future, given, .. } = self.waiting.remove(index);
        let before = self.before();
        let dropped = self.threads.run(on, move || drop(future));
        promise_eq!(dropped, Ok(()));
        self.expect_resets(before, 0);
        match given {
            Given::Nothing => {}
            Given::Idle => self.give_returned(before),
            Given::Permit => self.give(Given::Permit),
        }
    }
}

fn no_wait(how: How) -> How {
    match how {
        How::Blocking => How::Try,
        how => how,
    }
}

fn is_fault(fault: CreateFault) -> bool {
    fault == CreateFault::Error || panics(fault)
}

fn panics(fault: CreateFault) -> bool {
    matches!(fault, CreateFault::Panic | CreateFault::PanicAfterwards)
}

fn is_put_fault(fault: PutFault) -> bool {
    !matches!(fault, PutFault::None | PutFault::NoneAgain)
}
