//! Stores side by side: one trait to use them through, one list of them, one list of the
//! questions they are asked, and what the disk itself can do.

mod adapter;
mod data;
mod disk;
mod job;
mod loads;
mod own;
#[cfg(feature = "peers-store")]
mod peers;
mod reads;
mod row;
mod space;
mod subject;
mod writes;

pub use disk::{DISK, floors};
pub use job::{Figures, JOBS, Job, Place, Work, find_job};
pub use row::{ROWS, Row, Unit};
pub use subject::{Role, SUBJECTS, Subject, find_subject};
