//! Links the shared library without debug sections and local symbols.
//!
//! Every program started under `LD_PRELOAD` maps this file, so it should be
//! small. The workspace's release profile keeps line tables for profilers, and
//! cargo cannot strip one package only; the linker can. Symbols are a sixth of the file.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-cdylib-link-arg=-Wl,--strip-all");
}
