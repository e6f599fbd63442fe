#!/bin/sh
# Makes sure that what the build needs is there: Rust, CMake, a C++ compiler, make and libclang; with --tests, also what tests use
# and people need not have: Python with jinja2, script(1), fish. Installs with apt what is missing where it may; otherwise says
# exactly what to install. Prints nothing when all is there.
set -eu
# shellcheck source=tools/packages.sh
. "$(dirname "$0")/packages.sh"

if ! command -v cargo >/dev/null 2>&1; then
    say "there is no Rust toolchain; install one from https://rustup.rs and run this again"
    exit 1
fi

missing=
need() { missing="${missing:+$missing }$1"; }
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

if [ "${1:-}" = --tests ]; then
    python3 -c "import jinja2" 2>/dev/null || /usr/bin/python3 -c "import jinja2" 2>/dev/null || need python3-jinja2
    command -v script >/dev/null 2>&1 || need bsdutils
    command -v fish >/dev/null 2>&1 || need fish
fi

[ -z "$missing" ] || install_packages "$missing" "Fedora: cmake gcc-c++ make clang-devel python3-jinja2 util-linux-script fish"

# What CMake could not configure for want of something is tried again, which the crate that calls it would not do by itself.
for build in "${CARGO_TARGET_DIR:-target}"/*/build/llama-cpp-sys-2-*/out/build; do
    if [ -e "$build/CMakeCache.txt" ] && [ ! -e "$build/Makefile" ] && [ ! -e "$build/build.ninja" ]; then
        rm -rf "$build"
    fi
done
