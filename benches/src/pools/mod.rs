//! Object pools side by side: one trait to use them through, one list of them, one list of
//! the questions they are asked.

mod adapter;
mod latency;
mod own;
#[cfg(feature = "peers-pool")]
mod peers;
mod row;
mod subject;
mod threads;
mod work;

pub use latency::Latency;
pub use row::{Kind, ROWS, Row, Size, find_row};
pub use subject::{Role, SUBJECTS, Subject, find_subject};
pub use work::{Effort, Measured};
