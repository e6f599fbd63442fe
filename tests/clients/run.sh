#!/bin/sh
# Runs the clients of this folder, as others published them, against servers: the companies' own packages with the small model, with and
# without tools in its chat template; what is built on them, npm's packages and agents with a parrot, which says what they wait for.
# Needs python3 with venv and pip, node with npm, and their registries; where these are missing, it says so and is content.
set -eu
cd "$(dirname "$0")/../.."
venv=target/clients
suites=target/clients-suites
npm=$PWD/target/clients-npm
# With AIRRUN_TEST_NO_SKIP=1, that is a failure.
skip() { echo "skipped: the clients' tests ($1)" >&2; [ "${AIRRUN_TEST_NO_SKIP:-}" != 1 ] || exit 1; }
# python VENV LIST: installs what a list names, unless that has been done.
python() {
    cmp -s "$2" "$1/installed" && return
    command -v python3 > /dev/null && python3 -m venv --clear "$1" 2> /dev/null || { skip "no python3 with venv"; return 1; }
    "$1/bin/python" -m pip install --quiet --disable-pip-version-check -r "$2" || { skip "pip cannot install $2"; return 1; }
    cp "$2" "$1/installed"
}
node() {
    cmp -s tests/clients/package.json "$npm/package.json" && [ -d "$npm/node_modules/openai" ] && return
    command -v npm > /dev/null || { skip "no npm"; return 1; }
    rm -rf "$npm" && mkdir -p "$npm" && cp tests/clients/package.json "$npm/"
    npm install --silent --no-audit --no-fund --prefix "$npm" || { rm "$npm/package.json"; skip "npm cannot install package.json"; return 1; }
}
python "$venv" tests/clients/requirements.txt || exit 0

log=$(mktemp)
model=$(mktemp)
trap 'kill "$server" 2> /dev/null || true; rm -f "$log" "$model"' EXIT
# The same model, with a template that knows tools: shorter than its own, and with a comment that makes it as long.
"$venv/bin/python" - "$model" << 'PYTHON'
import sys
data = bytearray(open("models/tiny-chat-q8_0.gguf", "rb").read())
key = b"tokenizer.chat_template"
at = data.index(key) + len(key) + 4
length = int.from_bytes(data[at : at + 8], "little")
template = (
    b"{% for t in tools or [] %}<tool_call>{{ t.function.name }}{% endfor %}{% for m in messages %}"
    b"<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}<|im_start|>assistant\n"
)
data[at + 8 : at + 8 + length] = template + b"{#" + b" " * (length - len(template) - 4) + b"#}"
open(sys.argv[1], "wb").write(data)
PYTHON
# begin ARGUMENTS...: starts a server; `url` is where it is.
begin() {
    ${AIRRUN:-target/release/airrun} serve "$@" --port 0 --api-key secret -q 2> "$log" &
    server=$!
    url=
    for _ in $(seq 600); do
        url=$(sed -n 's/^listening on //p' "$log")
        [ -n "$url" ] && "$venv/bin/python" -c "import urllib.request as r; r.urlopen('$url/health')" 2> /dev/null && return
        kill -0 "$server" 2> /dev/null || { cat "$log" >&2; exit 1; }
        sleep 0.1
    done
}
for file in models/tiny-chat-q8_0.gguf "$model"; do
    begin "$file" --stream always
    "$venv/bin/python" tests/clients/openai_client.py "$url" secret
    "$venv/bin/python" tests/clients/ollama_client.py "$url" secret
    tools=
    [ "$file" != "$model" ] || tools=--tools
    "$venv/bin/python" tests/clients/responses_client.py "$url" secret $tools
    "$venv/bin/python" tests/clients/anthropic_client.py "$url" secret $tools
    kill "$server"
    wait "$server"
done

"$venv/bin/python" tests/clients/templates_client.py "${AIRRUN:-target/release/airrun}"

# Agents send tens of thousands of tokens before the first question.
"$venv/bin/python" tests/clients/script.py "$model"
begin "$model" --name parrot -c 100000 --parallel 2 --cors '*'
if python "$suites" tests/clients/suites.txt; then
    "$suites/bin/python" tests/clients/litellm_client.py "$url" secret
    "$suites/bin/python" tests/clients/instructor_client.py "$url" secret
    AIRRUN_URL=$url AIRRUN_KEY=secret "$suites/bin/python" -m pytest -q -p no:cacheprovider -W ignore -o asyncio_mode=auto \
        -o asyncio_default_test_loop_scope=session -o asyncio_default_fixture_loop_scope=session tests/clients/langchain_suites.py
fi
if node; then
    cp tests/clients/*.mjs "$npm/"
    command node "$npm/npm_client.mjs" "$url" secret
    command node "$npm/browser.mjs" "$url" secret
    sh tests/clients/agents.sh "$npm" "$url" secret
fi
kill "$server"
wait "$server"
