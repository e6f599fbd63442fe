#!/bin/sh
# Tests the page in a browser. Installs what is missing where it may: Chromium and Node.js with apt, the client that drives it with npm
# into target/browser. Where it may not, or there is no network, it says why it tests nothing and ends well; with
# AIRRUN_TEST_NO_SKIP=1, that is a failure.
set -eu
cd "$(dirname "$0")/../.."

CLIENT=playwright-core@1.65.1
AXE=axe-core@4.14.1

skip() {
    echo "skipped: the tests of the page: $*" >&2
    [ "${AIRRUN_TEST_NO_SKIP:-}" != 1 ] || exit 1
    exit 0
}

browser() {
    for name in "${AIRRUN_BROWSER:-}" chromium chromium-browser google-chrome google-chrome-stable; do
        [ -n "$name" ] && command -v "$name" && return 0
    done
    return 1
}

missing=
browser >/dev/null || missing="$missing chromium"
command -v node >/dev/null || missing="$missing nodejs"
command -v npm >/dev/null || missing="$missing npm"
if [ -n "$missing" ]; then
    command -v apt-get >/dev/null || skip "missing:$missing"
    as_root=
    if [ "$(id -u)" != 0 ]; then
        sudo -n true 2>/dev/null || skip "missing:$missing (apt-get install -y$missing)"
        as_root=sudo
    fi
    $as_root apt-get update -qq || true
    # shellcheck disable=SC2086 # a list of packages
    DEBIAN_FRONTEND=noninteractive $as_root apt-get install -y -qq $missing >/dev/null || skip "apt could not install$missing"
fi
AIRRUN_BROWSER=$(browser) || skip "no Chromium"

AIRRUN_CLIENT=${AIRRUN_CLIENT:-$PWD/target/browser}
if [ ! -d "$AIRRUN_CLIENT/node_modules/playwright-core" ] || [ ! -d "$AIRRUN_CLIENT/node_modules/axe-core" ]; then
    mkdir -p "$AIRRUN_CLIENT"
    npm install --silent --no-audit --no-fund --prefix "$AIRRUN_CLIENT" "$CLIENT" "$AXE" || skip "npm could not install $CLIENT and $AXE"
fi

AIRRUN_BIN=${AIRRUN_BIN:-$PWD/target/release/airrun}
AIRRUN_MODEL=${AIRRUN_MODEL:-$PWD/models/tiny-chat-q4_k_m.gguf}
[ -x "$AIRRUN_BIN" ] || unset AIRRUN_BIN
export AIRRUN_BROWSER AIRRUN_CLIENT AIRRUN_MODEL ${AIRRUN_BIN:+AIRRUN_BIN}
exec node tests/browser/run.mjs "$@"
