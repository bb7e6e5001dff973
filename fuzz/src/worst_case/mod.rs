//! Programs that make an allocator hold far more memory than they have live, and the search for
//! them.
//!
//! [`Op`](crate::op::Op) counts single blocks, and an oracle checks each. What a heap holds at worst
//! shows in programs of some hundred thousand blocks, of which only the numbers matter. So a
//! [`Phase`] is a step on all blocks at once, in the words of the same sizes and caches:
//!
//! ```text
//! live     /|      /|   /|           a program has a budget, and never holds more
//!         / |     / |__/ |
//!        /  |____/       |           Free leaves survivors where they hurt,
//! held  ____/‾‾‾‾/‾‾‾‾‾‾‾‾‾‾‾        Alloc fills up to a share of the budget
//! ```
//!
//! The figure of a program is the most that the allocator held, over the budget. [`search()`] looks for
//! the greatest: it begins with what is known from the literature (`seeds`), keeps the best programs,
//! and changes them at random. After Robson ("Bounds for some functions concerning dynamic storage
//! allocation", JACM 1974), whose program for the lower bound of every allocator that does not move
//! blocks is one of the seeds.

pub mod program;
pub mod search;
pub mod seeds;
pub mod subject;

pub use program::{Keep, Outcome, Phase, Scope, run};
pub use search::{Limits, search};
