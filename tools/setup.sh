#!/bin/sh
# Makes sure that what the build needs is there: Rust, CMake, a C++ compiler, make and libclang. Installs with apt what is missing
# where it may; otherwise says exactly what to install. Prints nothing when all is there.
set -eu

say() { echo "airrun setup: $*" >&2; }

if ! command -v cargo >/dev/null 2>&1; then
    say "there is no Rust toolchain; install one from https://rustup.rs and run this again"
    exit 1
fi

missing=
need() { missing="$missing $1"; }
command -v cmake >/dev/null 2>&1 || need cmake
command -v c++ >/dev/null 2>&1 || need g++
command -v make >/dev/null 2>&1 || need make
has_libclang() {
    [ -n "${LIBCLANG_PATH:-}" ] && return 0
    for lib in /usr/lib/llvm-*/lib/libclang*.so* /usr/lib/*/libclang*.so* /usr/lib64/libclang*.so* /usr/lib/libclang*.so*; do
        case $lib in
            *libclang-cpp*) ;;
            *) [ -e "$lib" ] && return 0 ;;
        esac
    done
    [ "$(uname)" = Darwin ] # comes with Xcode's command line tools
}
# bindgen also wants the compiler's own headers (stddef.h), which come with libclang-dev.
has_libclang || need libclang-dev

[ -z "$missing" ] && exit 0

if ! command -v apt-get >/dev/null 2>&1; then
    say "missing:$missing"
    say "install them with your system's package manager and run this again (Fedora: cmake gcc-c++ make clang-devel)"
    exit 1
fi
as_root=
if [ "$(id -u)" != 0 ]; then
    if command -v sudo >/dev/null 2>&1 && { sudo -n true 2>/dev/null || [ -t 0 ]; }; then
        as_root=sudo
    else
        say "missing:$missing"
        say "run this as root and try again:  apt-get update && apt-get install -y$missing"
        exit 1
    fi
fi
say "installing$missing"
$as_root apt-get update -qq || say "apt-get update failed; trying with what apt knows"
# shellcheck disable=SC2086 # a list of packages
if ! DEBIAN_FRONTEND=noninteractive $as_root apt-get install -y -qq $missing >/dev/null; then
    say "apt could not install them; try by hand:  apt-get install -y$missing"
    exit 1
fi
