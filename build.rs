//! Puts the git revision into the version string, where there is one, and tells the linker where a build with CUDA finds cuBLAS.

use std::env;
use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    // Where these are differs between clones and work trees. A path that does not exist would have everything compiled anew each time.
    for name in ["HEAD", "refs/heads"] {
        if let Some(path) =
            git(&["rev-parse", "--git-path", name]).filter(|p| Path::new(p).exists())
        {
            println!("cargo:rerun-if-changed={path}");
        }
    }
    let version = env!("CARGO_PKG_VERSION");
    match git(&["rev-parse", "--short=9", "HEAD"]) {
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

/// What git says, where there is a git and a repository.
fn git(args: &[&str]) -> Option<String> {
    let output = Command::new("git").args(args).output().ok().filter(|o| o.status.success())?;
    let text = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (!text.is_empty()).then_some(text)
}
