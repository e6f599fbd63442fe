"""Three models that fit two at a time, and many clients: whether all are answered, budgets are kept and memory is given back.

    bench/three.py airrun MODEL.gguf [--clients 8] [--seconds 300]

Copies of MODEL are served as `a`, `b` and `c` with a budget in which two fit. Each client asks one model after the other, by all of
the server's protocols. Printed are the answers, the errors, how often models were loaded, the most that the loaded ones took of the
budget by their plans, and the process' memory (RSS, MiB) in each minute and after all models have gone. The exit code is 1 if an answer was wrong,
the budget was not kept, or memory did not come back.
"""

import argparse
import collections
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

MESSAGES = [{"role": "user", "content": "What is the capital of Mongolia?"}]
PATHS = [
    ("/v1/chat/completions", {"messages": MESSAGES, "max_tokens": 16, "temperature": 0}),
    ("/v1/chat/completions", {"messages": MESSAGES, "max_tokens": 16, "temperature": 0, "stream": True}),
    ("/v1/completions", {"prompt": "Once upon", "max_tokens": 8}),
    ("/v1/responses", {"input": "What is the capital of Peru?", "max_output_tokens": 16}),
    ("/v1/messages", {"messages": MESSAGES, "max_tokens": 16}),
    ("/api/chat", {"messages": MESSAGES, "stream": False, "options": {"num_predict": 16}}),
    ("/api/generate", {"prompt": "Hello", "options": {"num_predict": 8}}),
    ("/tokenize", {"content": "Hello there"}),
    ("/apply-template", {"messages": MESSAGES}),
]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("airrun")
    parser.add_argument("model")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=300)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for name in "abc":
            shutil.copy(args.model, os.path.join(folder, f"{name}.gguf"))
        with Server(args, folder, "1G") as server:
            ask(server.url, "/api/chat", {**PATHS[5][1], "model": "a"})
            each = taken(server.url)
        budget = each * 5 // 2
        with Server(args, folder, f"{budget >> 20}M") as server:
            sys.exit(run(args, server, budget))


def run(args, server, budget):
    counts, errors, most, loads = collections.Counter(), [], [0], collections.Counter()
    end = time.monotonic() + args.seconds

    def client(i):
        dice = random.Random(i)
        while time.monotonic() < end:
            path, body = dice.choice(PATHS)
            try:
                ask(server.url, path, {**body, "model": dice.choice("abc")})
                counts[path] += 1
            except Exception as error:  # Whatever it is, it is what this script is there to find.
                errors.append(f"{path}: {error}")

    def watch():
        before = set()
        while time.monotonic() < end:
            models = get(server.url, "/api/ps")["models"]
            most[0] = max(most[0], sum(model["size"] for model in models))
            now = {model["name"] for model in models}
            loads.update(now - before)
            before = now
            time.sleep(0.2)

    threads = [threading.Thread(target=client, args=(i,)) for i in range(args.clients)]
    threads.append(threading.Thread(target=watch))
    idle = rss(server.process.pid)
    for thread in threads:
        thread.start()
    minutes = []
    while time.monotonic() < end:
        time.sleep(min(60, max(0.1, end - time.monotonic())))
        minutes.append(rss(server.process.pid))
    for thread in threads:
        thread.join()
    for name in "abc":
        ask(server.url, "/api/generate", {"model": name, "prompt": "", "keep_alive": 0, "stream": False})
    deadline = time.monotonic() + 30
    while get(server.url, "/api/ps")["models"] and time.monotonic() < deadline:
        time.sleep(0.5)
    time.sleep(3)
    left = rss(server.process.pid)
    print(f"{sum(counts.values())} answers, {len(errors)} errors; {dict(counts)}")
    print(f"seen to be loaded: {dict(loads)}; most of the budget by plans {most[0] >> 20} of {budget >> 20} MiB")
    print(f"RSS before {idle} MiB, by minutes {minutes}, after all have gone {left}")
    for error in errors[:10]:
        print("error:", error)
    kept = most[0] <= budget and max(minutes) <= idle + (budget >> 20)
    return 0 if not errors and kept and left <= idle + (budget >> 20) // 4 else 1


class Server:
    """airrun, serving a folder."""

    def __init__(self, args, folder, ram):
        command = [args.airrun, "serve", "--models", folder, "--port", "0", "-c", "1024", "-t", "2", "--prompt-cache", "off", "--ram", ram]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
        for line in self.process.stderr:
            if found := re.search(r"http://\S+", line):
                self.url = found.group()
                break
        threading.Thread(target=self.process.stderr.read, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)


def taken(url):
    return sum(model["size"] for model in get(url, "/api/ps")["models"])


def rss(pid):
    with open(f"/proc/{pid}/status") as status:
        return int(re.search(r"VmRSS:\s+(\d+)", status.read()).group(1)) >> 10


def get(url, path):
    with urllib.request.urlopen(url + path, timeout=120) as answer:
        return json.load(answer)


def ask(url, path, body):
    request = urllib.request.Request(url + path, json.dumps(body).encode(), {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=300) as answer:
        text = answer.read().decode()
    if '"error"' in text and '"error":null' not in text.replace(" ", ""):
        raise RuntimeError(text[:300])
    return text


if __name__ == "__main__":
    main()
