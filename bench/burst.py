"""Clients that come at once: in which pass over the weights each has its first token. Needs nothing but Python.

    bench/burst.py http://127.0.0.1:11435 [--clients 16]

Passes are counted by the server (`airrun_passes_total`), so that a busy machine does not matter. The exit code is 1 if the last one begins
more than four passes after the first.
"""

import argparse
import json
import sys
import threading
import time
import urllib.request


def passes(url):
    text = urllib.request.urlopen(url + "/metrics", timeout=600).read().decode()
    return next(int(float(line.split()[1])) for line in text.splitlines() if line.startswith("airrun_passes_total"))


def first_token(url, number, begun, found):
    question = f"What is the capital of country number {number}?"
    body = {"messages": [{"role": "user", "content": question}], "stream": True, "max_tokens": 6, "temperature": 0}
    request = urllib.request.Request(url + "/v1/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=3600) as answer:
        for line in answer:
            if line.startswith(b"data: {") and json.loads(line[6:])["choices"][0]["delta"].get("content"):
                found.append((passes(url) - begun[0], time.monotonic() - begun[1]))
                return


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("url")
    parser.add_argument("--clients", type=int, default=16)
    args = parser.parse_args()
    begun, found = (passes(args.url), time.monotonic()), []
    threads = [threading.Thread(target=first_token, args=(args.url, i, begun, found)) for i in range(args.clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found.sort()
    print("first tokens after passes:", *(n for n, _ in found))
    print("after seconds:", *(f"{seconds:.1f}" for _, seconds in found))
    sys.exit(len(found) < args.clients or found[-1][0] - found[0][0] > 4)


if __name__ == "__main__":
    main()
