//! The gate on instructions as a benchmark: `cargo bench -p brickyard-bench --bench instructions`.

#![deny(unsafe_code)]

#[path = "../src/bin/instructions/main.rs"]
mod instructions;

use std::process::ExitCode;

fn main() -> ExitCode {
    instructions::main()
}
