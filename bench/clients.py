"""Many clients at a running `airrun serve`: first one, then many, for a time each. Needs nothing but Python.

    bench/clients.py http://127.0.0.1:11435 [--clients 16] [--seconds 60] [--tokens 32]

Each client asks over and over for a text of so many tokens, which nothing ends before, with a prompt of its own. Printed are
tokens per second of one client alone and of all together, how unequally the clients were served, and what the server says it did.
The exit code is 1 if an answer was wrong.
"""

import argparse
import json
import random
import sys
import threading
import time
import urllib.request


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("url")
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--key", default="")
    args = parser.parse_args()
    one = run(args, 1)
    many = run(args, args.clients)
    for name, result in [("one client", one), (f"{args.clients} clients", many)]:
        each = [n for n, _ in result["clients"]]
        print(
            f"{name:12} {result['rate']:8.2f} tokens/s, {sum(r for _, r in result['clients'])} answers, "
            f"slowest client {min(each)} tokens, fastest {max(each)}; "
            f"{result['texts']:.1f} texts per batch, {result['bytes'] / 1e6:.0f} MB of weights read"
        )
    each = [n for n, _ in many["clients"]]
    print(f"throughput {many['rate'] / one['rate']:.2f} times that of one client, fastest/slowest {max(each) / max(min(each), 1):.2f}")
    errors = one["errors"] + many["errors"]
    for error in errors[:10]:
        print("error:", error)
    sys.exit(1 if errors else 0)


def run(args, n):
    """n clients for a time. Tokens count when their answer came within it."""
    results = [[0, 0] for _ in range(n)]
    errors = []
    before = metrics(args)
    end = time.monotonic() + args.seconds
    threads = [threading.Thread(target=client, args=(args, i, end, results, errors)) for i in range(n)]
    begin = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.monotonic() - begin
    after = metrics(args)
    change = {name: after[name] - before[name] for name in after}
    return {
        "rate": sum(tokens for tokens, _ in results) / seconds,
        "clients": [tuple(r) for r in results],
        "errors": errors,
        "texts": change["step_requests_total"] / max(change["steps_total"], 1),
        "bytes": change["streamed_bytes_total"],
    }


def client(args, i, end, results, errors):
    dice = random.Random(i)
    while time.monotonic() < end:
        prompt = f"Client {i}: " + " ".join(str(dice.randrange(1000)) for _ in range(8))
        body = {"prompt": prompt, "max_tokens": args.tokens, "temperature": 0, "ignore_eos": True, "seed": i}
        try:
            answer = call(args, "/v1/completions", body)
            results[i][0] += answer["usage"]["completion_tokens"]
            results[i][1] += 1
        except Exception as error:  # Whatever it is, it is what this script is there to find.
            errors.append(f"client {i}: {error}")
            time.sleep(0.1)


def call(args, path, body=None):
    request = urllib.request.Request(args.url + path, headers={"Authorization": f"Bearer {args.key}"})
    data = json.dumps(body).encode() if body else None
    with urllib.request.urlopen(request, data, timeout=600) as response:
        text = response.read()
    return json.loads(text) if body else text.decode()


def metrics(args):
    lines = [line.split() for line in call(args, "/metrics").splitlines() if not line.startswith("#")]
    return {name.removeprefix("airrun_"): float(value) for name, value in lines if "{" not in name}


if __name__ == "__main__":
    main()
