# shellcheck shell=sh
# What the setup scripts share: sourced, not run. `install_packages NAMES` installs Debian packages where it may; otherwise it
# says exactly what to do, and the script ends.

say() { echo "airrun setup: $*" >&2; }

# Runs a command as root, if this user may become root without being asked in the dark.
as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif command -v sudo >/dev/null 2>&1 && { sudo -n true 2>/dev/null || [ -t 0 ]; }; then
        sudo "$@"
    else
        return 77
    fi
}

# $1: packages, with spaces between them; $2: what they are called elsewhere.
install_packages() {
    if ! command -v apt-get >/dev/null 2>&1; then
        say "missing: $1"
        say "install them with your system's package manager and run this again ($2)"
        exit 1
    fi
    if ! as_root true; then
        say "missing: $1"
        say "run this as root and try again:  apt-get update && apt-get install -y $1"
        exit 1
    fi
    say "installing $1"
    as_root apt-get update -qq >&2 || say "apt-get update failed; trying with what apt knows"
    # shellcheck disable=SC2086 # a list of packages
    if ! as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq $1 >/dev/null; then
        say "apt could not install them; try by hand:  apt-get install -y $1"
        exit 1
    fi
}

# Where downloads that several builds share are kept.
cache_dir() {
    echo "${XDG_CACHE_HOME:-${HOME:-$PWD/target}/.cache}/airrun"
}
