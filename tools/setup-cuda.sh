#!/bin/sh
# Makes sure that there is a CUDA compiler with its libraries: an installed toolkit (CUDA_PATH, nvcc on PATH, /usr/local/cuda,
# /opt/cuda), otherwise NVIDIA's packages on PyPI, in a virtual environment in the cache directory (1.5 GB). No driver is needed.
#
# stdout: three lines, a path each: the compiler; a folder to be CUDA_PATH and CUDA_LIBRARY_PATH of the build; the folder of the
# libraries to run with.
set -eu
# shellcheck source=tools/packages.sh
. "$(dirname "$0")/packages.sh"

packages="nvidia-cuda-nvcc==13.0.88 nvidia-cuda-crt==13.0.88 nvidia-nvvm==13.0.88 nvidia-cuda-runtime==13.0.96
nvidia-cuda-cccl==13.0.85 nvidia-cublas==13.0.2.14"
cache=$(cache_dir)

# The root of an installed toolkit; fails if there is none.
installed() {
    for nvcc in "${CUDA_PATH:+$CUDA_PATH/bin/nvcc}" "$(command -v nvcc || true)" /usr/local/cuda/bin/nvcc /opt/cuda/bin/nvcc; do
        [ -x "$nvcc" ] || continue
        # What a linker finds as libcublas is the sign that this is more than a compiler.
        bin=$(dirname "$(readlink -f "$nvcc")")
        for lib in "$bin/../lib64" "$bin/../lib" "$bin/../targets/$(uname -m)-linux/lib"; do
            [ -e "$lib/libcublas.so" ] && { cd "$bin/.." && pwd -P; return 0; }
        done
    done
    return 1
}

# Installs the packages; prints the root that they have in common.
from_pypi() {
    venv=$cache/cuda-13.0
    root=$(echo "$venv"/lib/python3*/site-packages/nvidia/cu13)
    if [ ! -e "$root/.complete" ]; then
        python=$(command -v python3) || { say "neither a CUDA toolkit nor Python, to get one from PyPI; install either"; exit 1; }
        say "getting the CUDA 13.0 compiler and libraries from PyPI (600 MB)"
        "$python" -m venv "$venv" >&2 || { say "python3 cannot make a virtual environment: apt-get install -y python3-venv"; exit 1; }
        # shellcheck disable=SC2086 # a list of packages
        "$venv/bin/pip" install -q --disable-pip-version-check --no-cache-dir --no-deps $packages >&2 ||
            { say "pip could not install $packages"; exit 1; }
        root=$(echo "$venv"/lib/python3*/site-packages/nvidia/cu13)
        # The packages bring libraries for programs; a linker looks for names without a version, CMake and nvcc in lib64.
        [ -e "$root/lib64" ] || ln -s lib "$root/lib64"
        for name in cudart cublas cublasLt; do ln -sf "lib$name.so.13" "$root/lib/lib$name.so"; done
        touch "$root/.complete"
    fi
    echo "$root"
}

root=$(installed) || root=$(from_pypi)
for libs in "$root/lib64" "$root/targets/$(uname -m)-linux/lib" "$root/lib"; do
    [ -e "$libs/libcublas.so" ] && break
done

# The crate that builds ggml links cuBLAS statically, which makes a program of a gigabyte; ours takes it from a library beside
# it. So the build gets a folder in which the runtime is the real one, and the static cuBLAS is empty.
link=$cache/cuda-link-$(printf '%s' "$root" | cksum | cut -d' ' -f1)
mkdir -p "$link/lib64"
for name in libcudart_static.a libcublas.so libcublasLt.so; do ln -sfn "$libs/$name" "$link/lib64/$name"; done
for name in libcublas_static.a libcublasLt_static.a libculibos.a; do printf '!<arch>\n' >"$link/lib64/$name"; done
if [ -e "$libs/libculibos.a" ]; then ln -sfn "$libs/libculibos.a" "$link/lib64/libculibos.a"; fi
ln -sfn "$root/include" "$link/include"

printf '%s\n' "$root/bin/nvcc" "$link" "$libs"
