//! Links the shared library without debug sections and local symbols, as that of the
//! allocator: every program started under `LD_PRELOAD` maps this file.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-cdylib-link-arg=-Wl,--strip-all");
}
