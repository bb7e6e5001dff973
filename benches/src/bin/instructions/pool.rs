//! Get and return of the pool, with the loop and the write of one byte, on the first and on
//! a second thread.

use core::hint::black_box;
use std::thread;

use brickyard_pool::Pool;

/// The object: what the limit of a pair was set for.
type Object = Box<[u8; 64]>;

pub(super) fn borrowed(count: usize) {
    borrow(&pool(), count);
}

pub(super) fn owned(count: usize) {
    own(&pool(), count);
}

pub(super) fn borrowed_second(count: usize) {
    let pool = pool();
    second(&pool, &|| borrow(&pool, count));
}

pub(super) fn owned_second(count: usize) {
    let pool = pool();
    second(&pool, &|| own(&pool, count));
}

fn pool() -> Pool<Object, fn() -> Object> {
    Pool::new(|| Box::new([0; 64]))
}

/// Works on a second thread, when the first one has a cache of its own.
fn second<C: Fn() -> Object>(pool: &Pool<Object, C>, work: &(dyn Fn() + Sync)) {
    borrow(pool, 100);
    thread::scope(|scope| drop(scope.spawn(work).join()));
}

#[inline(never)]
fn borrow<C: Fn() -> Object>(pool: &Pool<Object, C>, count: usize) {
    for index in 0..count {
        let Ok(mut object) = pool.get();
        object[0] = index.to_le_bytes()[0];
        black_box(&mut *object);
    }
}

#[inline(never)]
fn own<C: Fn() -> Object>(pool: &Pool<Object, C>, count: usize) {
    for index in 0..count {
        let Ok(object) = pool.get();
        let mut object = object.into_owned();
        object[0] = index.to_le_bytes()[0];
        black_box(&mut *object);
    }
}
