//! How a broken promise of a pool is reported.
//!
//! The macros below end a program by a panic that passes the panic hook by: proptest runs a
//! failing program some hundred times as it shrinks it, and the tests of planted lies expect
//! one. Who runs the program turns the panic into a [`Failure`].

use core::any::Any;
use core::fmt;

/// The payload of the macros' panics.
#[derive(Debug)]
pub(crate) struct Broken(pub(crate) String);

/// A promise that a pool broke.
#[derive(Clone, Debug)]
pub struct Failure(String);

impl Failure {
    /// What a panic says: of a promise, of the pool's own checks, or of anything else.
    pub(crate) fn of(payload: &(dyn Any + Send)) -> Self {
        let text = payload
            .downcast_ref::<Broken>()
            .map(|broken| broken.0.clone())
            .or_else(|| payload.downcast_ref::<String>().cloned())
            .or_else(|| payload.downcast_ref::<&str>().map(ToString::to_string));
        Self(text.unwrap_or_else(|| "a panic that nobody expected".to_owned()))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Ends the program unless the condition holds.
macro_rules! promise {
    ($condition:expr $(,)?) => {
        promise!($condition, "{}", stringify!($condition))
    };
    ($condition:expr, $($text:tt)+) => {
        if !$condition {
            let text = format!("{}:{}: {}", file!(), line!(), format_args!($($text)+));
            std::panic::resume_unwind(Box::new(crate::pool_promise::Broken(text)));
        }
    };
}

/// Ends the program unless both are equal.
macro_rules! promise_eq {
    ($found:expr, $expected:expr $(,)?) => {
        promise_eq!($found, $expected, "{}", stringify!($found))
    };
    ($found:expr, $expected:expr, $($text:tt)+) => {
        match (&$found, &$expected) {
            (found, expected) => promise!(
                *found == *expected,
                "{}: {found:?} instead of {expected:?}",
                format_args!($($text)+)
            ),
        }
    };
}

pub(crate) use {promise, promise_eq};
