"""Chat templates through the whole program, beside Jinja2: those of tests/it/template, and some that are made here of what templates are
made of. Each goes into a copy of the small model, a server is asked what five conversations become, and Jinja2, set up as transformers
does it, says what they should.

    templates_client.py AIRRUN
"""

import glob
import itertools
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from datetime import datetime

import jinja2
from jinja2.ext import Extension, loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

MODEL = "models/tiny-chat-q8_0.gguf"
KEY = b"tokenizer.chat_template"
TOOLS = [{"type": "function", "function": {"name": "weather", "description": "Weather of a city", "parameters": {
    "type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}, "required": ["city"]}}}]
CALL = {"role": "assistant", "content": "", "tool_calls": [
    {"id": "call12345", "type": "function", "function": {"name": "weather", "arguments": {"city": "Oslo", "days": 2}}}]}
SAID = {"role": "tool", "tool_call_id": "call12345", "name": "weather", "content": '{"sky": "clear"}'}
ASK = {"role": "user", "content": "Weather in Oslo?"}
CONVERSATIONS = {
    "user": ([{"role": "user", "content": "Hello there"}], None),
    "system": ([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello <b>'\"&\u00e9 \U0001f600"}], None),
    "turns": ([{"role": "user", "content": " Hello "}, {"role": "assistant", "content": "Hi!\n"}, {"role": "user", "content": "How are you?"}], None),
    "tools": ([ASK], TOOLS),
    "call": ([ASK, CALL, SAID], TOOLS),
}


class Generation(Extension):
    """The tag for training; what is inside counts as it is."""

    tags = {"generation"}

    def parse(self, parser):
        next(parser.stream)
        return parser.parse_statements(["name:endgeneration"], drop_needle=True)


def refuse(message):
    raise jinja2.exceptions.TemplateError(message)


def environment():
    env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, Generation])
    env.filters["tojson"] = lambda x, ensure_ascii=False, indent=None, separators=None, sort_keys=False: json.dumps(
        x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
    env.globals.update(raise_exception=refuse, strftime_now=lambda form: datetime.now().strftime(form))
    return env


def made():
    """Templates of every way to say some things."""
    roles = ["{{ m.role }}", "{{ m['role'] | upper }}", "{%- if m.role == 'user' %}Q{% elif m.role is eq 'system' %}S{% else %}{{ loop.index0 }}{% endif -%}"]
    texts = ["{{ m.content }}", "{{- m.content | trim -}}", "{{ (m.content or '') ~ '|' ~ m.content | length }}", "{{ m.get('content', 'none') | tojson }}"]
    calls = [
        "",
        "{% for c in m.tool_calls or [] %}[{{ c.function.name }} {{ c.function.arguments | tojson(indent=2) }}]{% endfor %}",
        "{% if m.tool_calls is defined and m.tool_calls %}{% for c in m.tool_calls %}{% for k, v in c.function.arguments.items() %}<{{ k }}={{ v if v is string else v | tojson }}>{% endfor %}{% endfor %}{% endif %}",
    ]
    tools = "{% if tools %}{{ tools | map(attribute='function') | map(attribute='name') | join(', ') }};{{ tools[0] | tojson }}\n{% endif %}"
    for (role, text), call in zip(itertools.product(roles, texts), itertools.cycle(calls)):
        body = "{% for m in messages %}<" + role + ">" + text + call + "</>\n{% endfor %}"
        yield tools + body + "{% if add_generation_prompt %}<assistant>{% endif %}"


def with_template(template, path):
    """Writes the model with another template, and gives it as it is there; what follows the header stays where readers look for it."""
    data = open(MODEL, "rb").read()
    at = data.index(KEY) + len(KEY) + 4
    length = int.from_bytes(data[at : at + 8], "little")
    text = template.encode()
    # A comment makes the header longer by whole units of alignment.
    rest = (length - len(text)) % 32
    text += b"{#" + b" " * (rest + 32 - 4) + b"#}"
    with open(path, "wb") as file:
        file.write(data[:at] + len(text).to_bytes(8, "little") + text + data[at + 8 + length :])
    return text.decode()


def prompt(url, messages, tools):
    body = {"messages": messages} | ({"tools": tools} if tools else {})
    request = urllib.request.Request(url + "/apply-template", json.dumps(body).encode(), {"Content-Type": "application/json"})
    try:
        return json.load(urllib.request.urlopen(request, timeout=60))["prompt"]
    except urllib.error.HTTPError as error:
        return f"{error.code}: {error.read().decode()}"


def start(airrun, model, log):
    server = subprocess.Popen([airrun, "serve", model, "--port", "0", "-q", "-c", "4096"], stderr=open(log, "w"))
    for _ in range(600):
        found = re.search(r"^listening on (\S+)$", open(log).read(), re.M)
        try:
            if found and urllib.request.urlopen(found[1] + "/health", timeout=60):
                return server, found[1]
        except (urllib.error.URLError, OSError):
            pass
        assert server.poll() is None, open(log).read()
        time.sleep(0.05)
    raise SystemExit("the server does not begin")


def check(airrun, folder, name, template):
    """How many conversations were compared, and which differ."""
    compiled = environment().from_string(with_template(template, model := os.path.join(folder, "model.gguf")))
    server, url = start(airrun, model, os.path.join(folder, "log"))
    n, wrong = 0, []
    try:
        for what, (messages, tools) in CONVERSATIONS.items():
            try:
                want = compiled.render(
                    messages=messages, tools=tools, add_generation_prompt=True, bos_token="<|endoftext|>", eos_token="<|im_end|>")
            except (jinja2.exceptions.TemplateError, TypeError):
                continue
            # Where the template does not tell of tools, or loses a text, the program does it in its own way.
            if tools and "Weather of a city" not in want or any(m["content"].strip() not in want and json.dumps(m["content"], ensure_ascii=False) not in want for m in messages):
                continue
            n += 1
            got = prompt(url, messages, tools)
            first = "<|endoftext|>"
            if got.removeprefix(first) != want.removeprefix(first):
                wrong.append(f"{name}, {what}:\n  got  {got!r}\n  want {want!r}")
    finally:
        server.kill()
        server.wait()
    return n, wrong


def main():
    airrun = sys.argv[1]
    ours = {os.path.basename(f): open(f).read() for f in sorted(glob.glob("tests/it/template/*.jinja"))}
    templates = ours | {f"made {i}": text for i, text in enumerate(made())}
    total, wrong = 0, []
    with tempfile.TemporaryDirectory() as folder:
        for name, template in templates.items():
            n, differ = check(airrun, folder, name, template)
            total += n
            wrong += differ
    print(*wrong[:20], sep="\n")
    print(f"templates: {total - len(wrong)} of {total} prompts of {len(templates)} templates are Jinja2's")
    assert total > 150 and not wrong


if __name__ == "__main__":
    main()
