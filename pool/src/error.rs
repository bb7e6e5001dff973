//! Why a get gave nothing.

use core::fmt;

/// Why [`Pool::try_get`](crate::Pool::try_get) gave nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TryGetError<E> {
    /// All objects that the bound allows are in use (or promised to threads that wait).
    Empty,
    /// A new object was needed, and its creation failed.
    Create(E),
}

/// Why [`Pool::get_timeout`](crate::Pool::get_timeout) gave nothing.
#[cfg(feature = "std")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum GetTimeoutError<E> {
    /// The time was over before an object came back.
    Timeout,
    /// A new object was needed, and its creation failed.
    Create(E),
}

impl<E: fmt::Display> fmt::Display for TryGetError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str(
                "all objects of the pool are in use: return one, wait with get, or raise the capacity",
            ),
            Self::Create(error) => write!(f, "creating an object failed: {error}"),
        }
    }
}

#[cfg(feature = "std")]
impl<E: fmt::Display> fmt::Display for GetTimeoutError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Timeout => f.write_str(
                "no object came back in time: wait longer, raise the capacity, or look for who holds them",
            ),
            Self::Create(error) => write!(f, "creating an object failed: {error}"),
        }
    }
}

impl<E: core::error::Error + 'static> core::error::Error for TryGetError<E> {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::Empty => None,
            Self::Create(error) => Some(error),
        }
    }
}

#[cfg(feature = "std")]
impl<E: core::error::Error + 'static> core::error::Error for GetTimeoutError<E> {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::Timeout => None,
            Self::Create(error) => Some(error),
        }
    }
}
