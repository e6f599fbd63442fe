#!/bin/sh
# Makes sure that what a build with Vulkan needs is there: the shader compiler, the loader, the SPIR-V headers, and Vulkan's C++
# headers, new enough for ggml. With `--tests`, a Vulkan device made of the CPU as well, for machines without a GPU.
#
# stdout: the folder of the headers to compile with, to be given to CMake as CMAKE_INCLUDE_PATH; nothing if the system's are new
# enough. Installs with apt what is missing where it may; otherwise says exactly what to install.
set -eu
# shellcheck source=tools/packages.sh
. "$(dirname "$0")/packages.sh"

# Of Debian 13: ggml needs `vk::LayerSettingEXT`, which the headers of Debian 12 and Ubuntu 22.04 do not have yet.
version=1.4.309.0
package=libvulkan-dev_$version-1_amd64.deb
sha256=8d329d465e16168afff58b1bd0dd6db46aac2cc3f56054a481b25a04e90b345a
sources="http://deb.debian.org/debian http://snapshot.debian.org/archive/debian/20250601T000000Z"

missing=
need() { missing="${missing:+$missing }$1"; }
exists() { for file in "$@"; do [ -e "$file" ] && return 0; done; return 1; }

command -v glslc >/dev/null 2>&1 || need glslc
if [ "$(uname)" = Linux ]; then
    exists /usr/lib/libvulkan.so /usr/lib64/libvulkan.so /usr/lib/*/libvulkan.so "${VULKAN_SDK:-/nowhere}"/lib/libvulkan.so ||
        need libvulkan-dev
    exists /usr/share/cmake/SPIRV-Headers /usr/lib*/cmake/SPIRV-Headers /usr/lib/*/cmake/SPIRV-Headers \
        /usr/local/share/cmake/SPIRV-Headers "${VULKAN_SDK:-/nowhere}"/share/cmake/SPIRV-Headers || need spirv-headers
    if [ "${1:-}" = --tests ]; then
        exists /usr/share/vulkan/icd.d/lvp_icd*.json || need mesa-vulkan-drivers
    fi
fi
[ -z "$missing" ] || install_packages "$missing" "Fedora: glslc vulkan-loader-devel spirv-headers-devel mesa-vulkan-drivers"

new_enough() { grep -qs LayerSettingEXT "$1/vulkan/vulkan_structs.hpp"; }
for dir in "${VULKAN_SDK:-/nowhere}/include" /usr/include /usr/local/include /opt/homebrew/include; do
    # The first that exists is the one that CMake finds.
    if [ -e "$dir/vulkan/vulkan.h" ]; then
        if new_enough "$dir"; then exit 0; fi
        break
    fi
done

into=$(cache_dir)/vulkan-headers-$version
if ! new_enough "$into/usr/include"; then
    say "getting Vulkan headers $version"
    mkdir -p "$into"
    work=$(mktemp -d "$into/unpack.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    for source in $sources; do
        url=$source/pool/main/v/vulkan-loader/$package
        curl -fsSL --retry 2 -o "$work/$package" "$url" || wget -q -O "$work/$package" "$url" || continue
        echo "$sha256  $work/$package" | sha256sum -c >/dev/null 2>&1 && break
        say "$url is not what it should be"
        rm -f "$work/$package"
    done
    if [ ! -e "$work/$package" ]; then
        say "could not download $package; unpack Vulkan headers $version or newer yourself and set CMAKE_INCLUDE_PATH to their folder"
        exit 1
    fi
    # The package is an archive of archives; `ar` comes with every compiler, `dpkg` with Debian only.
    (cd "$work" && ar x "$package" data.tar.xz && tar xJf data.tar.xz ./usr/include)
    # Two builds may do this at a time: whoever comes second finds it done.
    [ -e "$into/usr" ] || mv "$work/usr" "$into/usr"
fi
if ! new_enough "$into/usr/include"; then
    say "the headers in $into are not complete; remove that folder and run this again"
    exit 1
fi
echo "$into/usr/include"
