//! What the pool does without `std`: also run with `--no-default-features`, where every get and
//! return goes to the shared stack.
//!
//! What could go wrong: the core needs a thread's cache somewhere; a future is served only if
//! somebody polls it for no reason, which the executors that others use hide. The executor here
//! polls who was woken, and nobody else.

#![cfg(not(loom))]

use core::future::Future;
use core::pin::Pin;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use core::task::{Context, Poll, Waker};
use std::sync::Arc;
use std::task::Wake;
use std::thread;

use brickyard_pool::{DropReason, Pool, TryCreate, TryGetError};

type Task<'t> = Pin<Box<dyn Future<Output = ()> + 't>>;

#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, SeqCst);
    }
}

/// Runs tasks until nobody is woken any more. Returns how many have not ended.
fn run(tasks: Vec<Task<'_>>) -> usize {
    let mut tasks: Vec<_> = tasks
        .into_iter()
        .map(|task| (task, Arc::new(Woken(AtomicBool::new(true)))))
        .collect();
    loop {
        let before = tasks.len();
        let mut polled = 0;
        tasks.retain_mut(|(task, woken)| {
            if !woken.0.swap(false, SeqCst) {
                return true;
            }
            polled += 1;
            let waker = Waker::from(Arc::clone(woken));
            task.as_mut()
                .poll(&mut Context::from_waker(&waker))
                .is_pending()
        });
        if polled == 0 {
            return before;
        }
    }
}

/// Lets the others run.
async fn give_way() {
    let mut gave = false;
    core::future::poll_fn(|context| {
        context.waker().wake_by_ref();
        if core::mem::replace(&mut gave, true) {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    })
    .await;
}

#[test]
fn an_executor_that_polls_only_who_was_woken_serves_all() {
    let pool = Pool::builder().capacity(3).build(|| 0_u32);
    let served = AtomicUsize::new(0);
    let tasks = (0..20)
        .map(|task| {
            let (pool, served) = (&pool, &served);
            Box::pin(async move {
                for round in 0..50 {
                    let mut one = pool.get_async();
                    if (task + round) % 5 == 0 {
                        // Joins the queue, and gives up when its turn may have come.
                        let mut left = Pin::new(&mut one);
                        let polled = core::future::poll_fn(|context| {
                            Poll::Ready(left.as_mut().poll(context).is_ready())
                        });
                        if !polled.await {
                            give_way().await;
                            drop(one);
                        }
                        continue;
                    }
                    let Ok(mut one) = one.await;
                    *one += 1;
                    give_way().await;
                    served.fetch_add(1, SeqCst);
                }
            }) as Task<'_>
        })
        .collect();
    assert_eq!(run(tasks), 0, "somebody sleeps beside an idle object");
    assert_eq!(served.load(SeqCst), 20 * 40);
    assert_eq!(pool.metrics().in_use, 0);
}

#[test]
fn objects_are_got_returned_attached_and_taken_out() {
    let pool = Pool::builder()
        .capacity(4)
        .prewarm(2)
        .build(|| String::from("new"));
    assert_eq!(pool.metrics().idle, 2);
    let one = pool.attach(String::from("old")).expect("within the bound");
    let mut batch = pool.batch();
    assert!(batch.try_get(3).is_ok());
    assert!(matches!(pool.try_get(), Err(TryGetError::Empty)));
    assert_eq!(pool.attach(String::new()).err(), Some(String::new()));
    assert_eq!(one.into_owned().detach(), "old");
    let other = pool.try_get().expect("its place is free");
    other.discard(DropReason::Expired);
    pool.put_many([batch.pop().expect("three are in it")]);
    drop(batch);
    assert_eq!((pool.metrics().live, pool.trim()), (3, 3));
}

#[test]
fn keys_and_failing_creators_work() {
    let fails = AtomicBool::new(true);
    let pool = Pool::with(TryCreate::new(|| {
        if fails.load(SeqCst) {
            Err("not now")
        } else {
            Ok(7)
        }
    }));
    assert_eq!(pool.try_get().err(), Some(TryGetError::Create("not now")));
    let key = pool.insert(1).expect("no bound");
    assert_eq!(pool.lookup(key).as_deref(), Some(&1));
    assert_eq!(pool.keyed().count(), 1);
    assert!(pool.remove(key) && pool.lookup(key).is_none());
    fails.store(false, SeqCst);
    let (one, other) = (pool.try_get(), pool.try_get());
    assert_eq!(
        one.as_deref().ok().zip(other.as_deref().ok()),
        Some((&1, &7))
    );
}

#[test]
fn threads_share_a_bound() {
    let pool = Pool::builder().capacity(4).build(|| AtomicBool::new(false));
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..5_000 {
                    let one = pool.try_get().expect("one each");
                    assert!(!one.swap(true, SeqCst), "two have it");
                    one.store(false, SeqCst);
                    drop(one.into_owned());
                }
            });
        }
    });
    assert_eq!(
        (pool.metrics().in_use, pool.metrics().idle),
        (0, pool.metrics().live)
    );
}
