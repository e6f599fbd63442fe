//! Puts the git revision into the version string, where there is one.

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
}
