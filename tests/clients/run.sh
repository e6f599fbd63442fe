#!/bin/sh
# Runs the clients of this folder against a server with the small model, with and without tools in its chat template. Needs
# python3 with venv and pip, and a package index; where these are missing, it says so and is content.
set -eu
cd "$(dirname "$0")/../.."
venv=target/clients
# With AIRRUN_TEST_NO_SKIP=1, that is a failure.
skip() { echo "skipped: the clients' tests ($1)" >&2; [ "${AIRRUN_TEST_NO_SKIP:-}" != 1 ] || exit 1; exit 0; }
command -v python3 > /dev/null || skip "no python3"
[ -x "$venv/bin/python" ] || python3 -m venv "$venv" 2> /dev/null || skip "python3 has no venv"
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check openai ollama anthropic \
    || skip "pip cannot install openai, ollama and anthropic"

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
for file in models/tiny-chat-q8_0.gguf "$model"; do
    ${AIRRUN:-target/release/airrun} serve "$file" --port 0 --api-key secret --stream always -q 2> "$log" &
    server=$!
    url=
    for _ in $(seq 600); do
        url=$(sed -n 's/^listening on //p' "$log")
        [ -n "$url" ] && "$venv/bin/python" -c "import urllib.request as r; r.urlopen('$url/health')" 2> /dev/null && break
        kill -0 "$server" 2> /dev/null || { cat "$log" >&2; exit 1; }
        sleep 0.1
    done
    "$venv/bin/python" tests/clients/openai_client.py "$url" secret
    "$venv/bin/python" tests/clients/ollama_client.py "$url" secret
    tools=
    [ "$file" != "$model" ] || tools=--tools
    "$venv/bin/python" tests/clients/responses_client.py "$url" secret $tools
    "$venv/bin/python" tests/clients/anthropic_client.py "$url" secret $tools
    kill "$server"
    wait "$server"
done
