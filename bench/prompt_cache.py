"""How much sooner the first token comes when a restarted server finds a prompt that it once computed.

    bench/prompt_cache.py airrun MODEL.gguf [--tokens 2000] [more of serve's flags, such as --ram 1500M]

A server with an empty cache on disk is asked to go on with a text of so many tokens; it is ended, started again, and asked the same.
Printed are the times to the first token, how much of the prompt was found, what the cache takes on disk, and whether the answers are
equal. The exit code is 1 if they are not, or the second is not ten times sooner.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("airrun")
    parser.add_argument("model")
    parser.add_argument("--tokens", type=int, default=2000)
    args, args.flags = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as cache:
        runs = [asked(args, cache) for _ in range(2)]
        kept = sum(os.path.getsize(os.path.join(root, name)) for root, _, names in os.walk(cache) for name in names)
    for name, run in zip(("empty cache", "after the restart"), runs):
        print(f"{name}: first token after {run['first']:.2f} s, {run['found']} of {run['prompt']} tokens found")
    ratio, equal = runs[0]["first"] / runs[1]["first"], runs[0]["text"] == runs[1]["text"]
    print(f"{ratio:.1f} times sooner; {kept / 1e6:.1f} MB on disk; answers {'equal' if equal else 'DIFFER'}")
    sys.exit(not (equal and ratio >= 10))


def asked(args, cache):
    command = [args.airrun, "serve", args.model, "--port", "0", "--parallel", "1", "-c", str(args.tokens + 512), *args.flags]
    environment = {**os.environ, "XDG_CACHE_HOME": cache}
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    try:
        url = url_of(server)
        threading.Thread(target=server.stderr.read, daemon=True).start()
        words = " ".join(f"{number} bottles of beer on the wall" for number in range(args.tokens))
        with post(url, "/tokenize", {"content": words}) as reply:
            tokens = json.load(reply)["tokens"][: args.tokens]
        return answer(url, tokens)
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(timeout=600)


def url_of(server):
    url = None
    for line in server.stderr:
        if "http://" in line:
            url = "http://" + line.split("http://")[1].strip()
        if line.startswith("ready"):
            return url
    sys.exit("the server did not start")


def post(url, path, body):
    data = json.dumps(body).encode()
    return urllib.request.urlopen(urllib.request.Request(url + path, data, {"content-type": "application/json"}), timeout=3600)


def answer(url, tokens):
    body = {"prompt": tokens, "max_tokens": 16, "temperature": 0, "stream": True, "stream_options": {"include_usage": True}}
    begin, out = time.monotonic(), {"text": ""}
    with post(url, "/v1/completions", body) as reply:
        for line in reply:
            if not line.startswith(b"data: {"):
                continue
            event = json.loads(line[6:])
            for choice in event["choices"]:
                if choice["text"]:
                    out.setdefault("first", time.monotonic() - begin)
                out["text"] += choice["text"]
            if event.get("usage"):
                out["prompt"] = event["usage"]["prompt_tokens"]
                out["found"] = event["usage"].get("prompt_tokens_details", {}).get("cached_tokens", 0)
    return out


if __name__ == "__main__":
    main()
