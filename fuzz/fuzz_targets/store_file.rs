//! Shell of the target `store_file`: libFuzzer's entry point under `cargo fuzz`,
//! elsewhere a program that replays the files named on its command line.

#![cfg_attr(fuzzing, no_main)]

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|data: &[u8]| brickyard_fuzz::store_file::run(data));

#[cfg(not(fuzzing))]
fn main() -> std::io::Result<()> {
    brickyard_fuzz::replay::run_files_from_arguments(brickyard_fuzz::store_file::run)
}
