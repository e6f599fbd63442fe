"""Renders chat templates as transformers does, for tests/it/template.rs: JSON cases on stdin, JSON results on stdout."""

import json
import sys
from datetime import datetime

import jinja2
import jinja2.ext
from jinja2.sandbox import ImmutableSandboxedEnvironment


def raise_exception(message):
    raise jinja2.exceptions.TemplateError(message)


def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[jinja2.ext.loopcontrols])
env.filters["tojson"] = tojson
env.globals["raise_exception"] = raise_exception
env.globals["strftime_now"] = lambda format: datetime.now().strftime(format)

results = []
for case in json.load(sys.stdin):
    try:
        results.append({"text": env.from_string(case["template"]).render(**case["context"])})
    except jinja2.exceptions.TemplateError as error:
        results.append({"error": str(error)})
json.dump(results, sys.stdout)
