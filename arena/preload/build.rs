//! Links the shared library without debug sections and local symbols, and in as few segments as
//! the linker can make.
//!
//! Every program started under `LD_PRELOAD` maps this file, so it should be
//! small. The workspace's release profile keeps line tables for profilers, and
//! cargo cannot strip one package only; the linker can. Symbols are a sixth of the file.
//!
//! Code and read-only data in one segment are a mapping less for each process: 8 of the 47
//! microseconds that the library adds to its start (decision 021). The option is lld's; GNU's
//! linker, which knows another, may refuse it, so it is tried.

use std::env;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

/// The smallest library that links.
const PROBE: &str =
    "#![no_std]\n#[panic_handler]\nfn panic(_: &core::panic::PanicInfo<'_>) -> ! { loop {} }\n";

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=CARGO_ENCODED_RUSTFLAGS");
    println!("cargo::rustc-cdylib-link-arg=-Wl,--strip-all");
    if can_link_with("-Wl,--no-rosegment") {
        println!("cargo::rustc-cdylib-link-arg=-Wl,--no-rosegment");
    }
}

/// Whether a library can be linked with `option`; `false` where that cannot be found out.
fn can_link_with(option: &str) -> bool {
    let (Some(rustc), Some(folder), Some(target)) = (
        env::var_os("RUSTC"),
        env::var_os("OUT_DIR"),
        env::var_os("TARGET"),
    ) else {
        return false;
    };
    let source = Path::new(&folder).join("probe.rs");
    if fs::write(&source, PROBE).is_err() {
        return false;
    }
    // What the user adds may name another linker.
    let flags = env::var("CARGO_ENCODED_RUSTFLAGS").unwrap_or_default();
    let mut command = Command::new(rustc);
    command
        .args(flags.split('\u{1f}').filter(|flag| !flag.is_empty()))
        .args(["--crate-type=cdylib", "-Cpanic=abort", "--target"])
        .arg(target)
        .arg(format!("-Clink-arg={option}"))
        .arg("--out-dir")
        .arg(&folder)
        .arg(&source)
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    if let Some(linker) = env::var_os("RUSTC_LINKER") {
        let mut argument = std::ffi::OsString::from("-Clinker=");
        argument.push(linker);
        command.arg(argument);
    }
    command.status().is_ok_and(|status| status.success())
}
