#!/bin/sh
# Checks that the program compiles for other systems: everything but ggml, which is C and C++ and needs a compiler and headers of the
# system. What C the dependencies bring is not compiled either: checking links nothing.
#
#   sh tools/check-targets.sh [TARGET...]
set -eu
cd "$(dirname "$0")/.."
targets=${*:-aarch64-unknown-linux-gnu aarch64-apple-darwin x86_64-pc-windows-gnu}
target_dir=${CARGO_TARGET_DIR:-target}
bindings=$(ls -t "$target_dir"/*/build/ggml-sys-*/out/bindings.rs 2>/dev/null | head -n 1)
if [ -z "$bindings" ]; then
    echo "skipped: other systems, for which ggml's bindings of a build are needed: make build" >&2
    exit 0
fi
AIRRUN_BINDINGS=$(realpath "$bindings")
export AIRRUN_BINDINGS

# In place of compilers for the other systems: makes the file that is asked for, and nothing in it.
stub=$(mktemp -d)
trap 'rm -rf "$stub"' EXIT
cat > "$stub/cc" <<'END'
#!/bin/sh
while [ $# -gt 0 ]; do
    case $1 in
    -o) : > "$2"; shift ;;
    *.a) : > "$1" ;;
    esac
    shift
done
END
chmod +x "$stub/cc"
for target in $targets; do
    if ! rustup target list --installed 2>/dev/null | grep -qx "$target" &&
        ! rustup target add "$target" >/dev/null 2>&1; then
        echo "skipped: $target, whose standard library is not here (rustup target add $target)" >&2
        continue
    fi
    name=$(echo "$target" | tr - _)
    env "CC_$name=$stub/cc" "CXX_$name=$stub/cc" "AR_$name=$stub/cc" RUSTFLAGS="--cfg bindings_only" \
        cargo check --target "$target" --target-dir "$target_dir/other" --bins --lib
done
