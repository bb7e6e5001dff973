//! `brickyard programs`: real programs under the system's malloc, the library of this workspace
//! and other allocators' libraries, in rounds and in turns.
//!
//! [`list`] has the programs, [`libraries`] what they run on, [`inputs`] makes their inputs and
//! says which of them can run here, [`rounds`] measures; the tables and the verdict compare each
//! allocator with the best of the others on a row.

mod inputs;
mod libraries;
mod list;
mod rounds;

pub(crate) use rounds::{ProgramsArgs, main};
