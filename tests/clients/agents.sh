#!/bin/sh
# Codex and Claude Code, each with a task: the model calls the tool that runs commands, which leaves a note, and answers with what it
# says then. Whatever else they would ask the network for goes nowhere.
#
#   agents.sh FOLDER-WITH-NODE_MODULES http://127.0.0.1:11435 KEY
set -eu
bin=$1/node_modules/.bin url=$2 key=$3
skip() { echo "skipped: $1 (npm could not install it)" >&2; [ "${AIRRUN_TEST_NO_SKIP:-}" != 1 ]; }
# Codex makes no helpers in a home below /tmp.
place=$(mktemp -d -p "$1")
trap 'rm -rf "$place"' EXIT
nowhere=http://127.0.0.1:9

# agent NAME COMMAND...: runs it in an empty folder, and looks for the note and the answer.
agent() {
    name=$1
    shift
    mkdir -p "$place/$name/home" "$place/$name/work"
    said=$(cd "$place/$name/work" && env -i PATH="$PATH" HOME="$place/$name/home" TERM=dumb NO_PROXY=127.0.0.1 no_proxy=127.0.0.1 \
        HTTPS_PROXY=$nowhere HTTP_PROXY=$nowhere ANTHROPIC_BASE_URL="$url" ANTHROPIC_API_KEY="$key" ANTHROPIC_MODEL=parrot \
        ANTHROPIC_SMALL_FAST_MODEL=parrot CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC=1 DISABLE_AUTOUPDATER=1 AIRRUN_KEY="$key" \
        timeout 150 "$@" < /dev/null 2>&1) || { echo "$name: $said" >&2; exit 1; }
    grep -q airrun-was-here "$place/$name/work/note.txt" || { echo "$name left no note: $said" >&2; exit 1; }
    case $said in
    *"The tool has told me: all is well."*) echo "$name works" ;;
    *) echo "$name says: $said" >&2; exit 1 ;;
    esac
}

if "$bin/codex" --version > /dev/null 2>&1; then
    # A sandbox cannot be made everywhere, and here is none to guard.
    agent codex "$bin/codex" exec --skip-git-repo-check --dangerously-bypass-approvals-and-sandbox \
        -c "model_providers.a={name=\"a\",base_url=\"$url/v1\",wire_api=\"responses\",env_key=\"AIRRUN_KEY\"}" \
        -c model_provider=a -m parrot "Write the note."
else
    skip Codex
fi
if "$bin/claude" --version > /dev/null 2>&1; then
    agent claude "$bin/claude" -p "Write the note." --allowedTools Bash --max-turns 4
else
    skip "Claude Code"
fi
