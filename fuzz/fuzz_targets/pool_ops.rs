//! Shell of the target `pool_ops`: libFuzzer's entry point under `cargo fuzz`,
//! elsewhere a program that replays the files named on its command line.

#![cfg_attr(fuzzing, no_main)]

// Its programs plant panics, and go on after them.
#[cfg(all(fuzzing, panic = "abort"))]
compile_error!("set CARGO_PROFILE_RELEASE_PANIC=unwind");

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|data: &[u8]| brickyard_fuzz::pool_ops::run(data));

#[cfg(not(fuzzing))]
fn main() -> std::io::Result<()> {
    if cfg!(panic = "abort") {
        return Err(std::io::Error::other(
            "planted panics must unwind: build without --release",
        ));
    }
    brickyard_fuzz::replay::run_files_from_arguments(brickyard_fuzz::pool_ops::run)
}
