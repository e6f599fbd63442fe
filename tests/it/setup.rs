//! The scripts that fetch what a build needs: they are shell that every `sh` reads, and find an installed CUDA toolkit.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn scripts_are_shell() {
    let tools = fs::read_dir(root().join("tools")).unwrap().map(|e| e.unwrap().path());
    let bench = fs::read_dir(root().join("bench")).unwrap().map(|e| e.unwrap().path());
    let is_script = |path: &PathBuf| path.extension().is_some_and(|e| e == "sh");
    let scripts: Vec<PathBuf> = tools.chain(bench).filter(is_script).collect();
    assert!(scripts.len() >= 4, "{scripts:?}");
    for script in scripts {
        let text = fs::read_to_string(&script).unwrap();
        let shell = if text.starts_with("#!/usr/bin/env bash") { "bash" } else { "sh" };
        let output = Command::new(shell).arg("-n").arg(&script).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && stderr.is_empty(), "{}: {stderr}", script.display());
    }
}

/// A toolkit with a compiler that does nothing, and empty libraries in `lib`.
fn toolkit(dir: &Path, lib: &str) {
    fs::create_dir_all(dir.join("bin")).unwrap();
    fs::create_dir_all(dir.join(lib)).unwrap();
    let nvcc = dir.join("bin/nvcc");
    fs::write(&nvcc, "#!/bin/sh\n").unwrap();
    fs::set_permissions(&nvcc, fs::Permissions::from_mode(0o755)).unwrap();
    for name in ["libcudart_static.a", "libcublas.so", "libcublasLt.so"] {
        fs::write(dir.join(lib).join(name), "").unwrap();
    }
}

/// Runs the script with `cuda` as CUDA_PATH, a cache of its own, and nothing else on the machine that could be a toolkit.
fn setup_cuda(cuda: &Path, home: &Path) -> Output {
    let mut command = Command::new("sh");
    command.arg(root().join("tools/setup-cuda.sh")).env("PATH", "/usr/bin:/bin");
    command.env("CUDA_PATH", cuda).env("XDG_CACHE_HOME", home).output().unwrap()
}

#[test]
fn an_installed_cuda_toolkit_is_taken() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("cache");
    for lib in ["lib64", &format!("targets/{}-linux/lib", std::env::consts::ARCH)] {
        let real = dir.path().join(lib.replace('/', "-"));
        toolkit(&real, lib);
        // As /usr/local/cuda is one, a link counts for what it leads to.
        let link = real.with_extension("link");
        symlink(&real, &link).unwrap();
        let output = setup_cuda(&link, &home);
        let stdout = String::from_utf8(output.stdout).unwrap();
        let lines: Vec<&str> = stdout.lines().collect();
        assert_eq!(lines.len(), 3, "{stdout}{}", String::from_utf8_lossy(&output.stderr));
        let real = real.canonicalize().unwrap();
        assert_eq!(Path::new(lines[0]), real.join("bin/nvcc"));
        assert_eq!(Path::new(lines[2]).canonicalize().unwrap(), real.join(lib));
        // The runtime is the real one, and what would be linked statically is empty.
        let linked = Path::new(lines[1]).join("lib64");
        let runtime = fs::canonicalize(linked.join("libcudart_static.a")).unwrap();
        assert_eq!(runtime, real.join(lib).join("libcudart_static.a"));
        for name in ["libcublas_static.a", "libcublasLt_static.a", "libculibos.a"] {
            assert_eq!(fs::read(linked.join(name)).unwrap(), b"!<arch>\n", "{name}");
        }
    }
}
