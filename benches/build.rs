//! Tells the program which compiler and target it was built with, and builds
//! the second mimalloc for the feature `peers`.

use std::{env, process::Command};

fn main() {
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let version = Command::new(rustc)
        .arg("-V")
        .output()
        .ok()
        .and_then(|output| String::from_utf8(output.stdout).ok())
        .unwrap_or_else(|| String::from("unknown"));
    let target = env::var("TARGET").unwrap_or_else(|_| String::from("unknown"));
    println!("cargo:rustc-env=BRICKYARD_RUSTC={}", version.trim());
    println!("cargo:rustc-env=BRICKYARD_TARGET={target}");
    println!("cargo:rerun-if-changed=build.rs");
    #[cfg(feature = "peers")]
    mimalloc2::build();
}

/// Builds mimalloc 2 beside mimalloc 3.
///
/// The package `libmimalloc-sys` carries the sources of both and builds one,
/// here version 3. Both define the same names, so version 2 is compiled from
/// those sources into one object in which the five functions that are called
/// get names of their own and all others become local.
#[cfg(feature = "peers")]
mod mimalloc2 {
    use std::path::{Path, PathBuf};
    use std::{env, process::Command};

    /// The functions to call, by the part of the name after `mi_`.
    const FUNCTIONS: [&str; 5] = [
        "malloc_aligned",
        "zalloc_aligned",
        "realloc_aligned",
        "free",
        "version",
    ];

    pub(super) fn build() {
        let include_v3 = variable("DEP_MIMALLOC_INCLUDE_DIR");
        let sources = Path::new(&include_v3)
            .ancestors()
            .nth(2)
            .expect("the include folder lies two below both versions")
            .join("v2");
        let objects = settings()
            .include(sources.join("include"))
            .include(sources.join("src"))
            .file(sources.join("src").join("static.c"))
            .compile_intermediates();
        let [object] = objects.as_slice() else {
            panic!("one source gave {objects:?}")
        };
        let renamed = folder().join("mimalloc2-renamed.o");
        let mut rename = Command::new("objcopy");
        for name in FUNCTIONS {
            rename.arg(format!("--redefine-sym=mi_{name}=brickyard_mi2_{name}"));
        }
        run(rename.arg(object).arg(&renamed));
        let local = folder().join("mimalloc2.o");
        let mut localize = Command::new("objcopy");
        for name in FUNCTIONS {
            localize.arg(format!("--keep-global-symbol=brickyard_mi2_{name}"));
        }
        run(localize.arg(&renamed).arg(&local));
        cc::Build::new()
            .object(&local)
            .compile("brickyard_mimalloc2");
    }

    /// The same settings that `libmimalloc-sys` uses for version 3.
    fn settings() -> cc::Build {
        let mut build = cc::Build::new();
        build
            .flag("-Wno-error=date-time")
            .flag_if_supported("-ftls-model=initial-exec");
        build.define("MI_DEBUG", "0").warnings(false);
        if variable("OPT_LEVEL") != "0" {
            build
                .define("MI_BUILD_RELEASE", None)
                .define("NDEBUG", None);
        }
        build
    }

    fn run(command: &mut Command) {
        let status = command.status().unwrap_or_else(|error| {
            panic!("cannot run {command:?} (install binutils): {error}");
        });
        assert!(status.success(), "{command:?}: {status}");
    }

    fn folder() -> PathBuf {
        PathBuf::from(variable("OUT_DIR"))
    }

    fn variable(name: &str) -> String {
        env::var(name).unwrap_or_else(|_| panic!("cargo sets {name}"))
    }
}
