//! Puts the git revision into the version string, where there is one, and tells the linker where a build with CUDA finds cuBLAS.

use std::env;
use std::process::Command;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=.git/HEAD");
    println!("cargo:rerun-if-changed=.git/refs/heads");
    let git = Command::new("git").args(["rev-parse", "--short=9", "HEAD"]).output();
    let revision =
        git.ok().filter(|o| o.status.success()).and_then(|o| String::from_utf8(o.stdout).ok());
    let version = env!("CARGO_PKG_VERSION");
    match revision.as_deref().map(str::trim).filter(|r| !r.is_empty()) {
        Some(revision) => println!("cargo:rustc-env=AIRRUN_VERSION={version} ({revision})"),
        None => println!("cargo:rustc-env=AIRRUN_VERSION={version}"),
    }
    let linux = env::var("CARGO_CFG_TARGET_OS").is_ok_and(|os| os == "linux");
    if linux && env::var_os("CARGO_FEATURE_CUDA").is_some() {
        // Beside the program, or beside the folder of the tests; otherwise where the system looks.
        println!("cargo:rustc-link-arg=-Wl,-rpath,$ORIGIN:$ORIGIN/..");
        // After ggml, which the crate that builds it has no say in: a library counts only for what was linked before it.
        println!("cargo:rustc-link-arg=-lcublas");
    }
}
