"""Good clients and bad ones at a running `airrun serve`, for a time. Needs nothing but Python.

    bench/soak.py http://127.0.0.1:11435 PID [--clients 20] [--seconds 600]

Good clients ask what they asked before, streamed or not, in both protocols, with schemas and for vectors, and must get what they got
before, or be told to come later. Bad ones leave in the middle or before the first word, send half of a body, rubbish, or too much, read a
few bytes at a time, or say nothing. Of the process PID, the server's, memory, descriptors and threads are looked at meanwhile: after the
first quarter of the time, memory and threads may not grow, and descriptors, of which each connection is one, must be as few afterwards as
before. The exit code is 1 if they do, or if a good client was let down.
"""

import argparse
import json
import os
import random
import socket
import statistics
import sys
import threading
import time
import urllib.parse

ASKED = [
    ("/v1/chat/completions", {"messages": [{"role": "user", "content": "What is the capital of Mongolia?"}], "temperature": 0}),
    ("/v1/chat/completions", {"messages": [{"role": "user", "content": "Who are you?"}], "temperature": 0, "stream": True}),
    ("/api/chat", {"messages": [{"role": "user", "content": "Who are you?"}], "options": {"temperature": 0, "num_predict": 20}}),
    ("/v1/completions", {"prompt": "The capital of Peru is", "temperature": 0, "max_tokens": 4}),
    ("/v1/embeddings", {"input": "a cat sat on a mat"}),
]
SCHEMA = {"type": "object", "properties": {"a": {"enum": ["x", "y"]}}, "required": ["a"], "additionalProperties": False}


class Soak:
    def __init__(self, args):
        url = urllib.parse.urlsplit(args.url)
        self.address = (url.hostname, url.port)
        self.args = args
        self.end = time.monotonic() + args.seconds
        self.lock = threading.Lock()
        self.answers, self.later, self.bad, self.errors = 0, 0, 0, []
        self.first = {}

    def connect(self, timeout=120):
        stream = socket.create_connection(self.address, timeout)
        return stream

    def head(self, path, length, more=""):
        host = f"{self.address[0]}:{self.address[1]}"
        return f"POST {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{more}Content-Length: {length}\r\n\r\n".encode()

    def ask(self, path, body):
        """Status and text of an answer."""
        body = json.dumps(body).encode()
        with self.connect() as stream:
            stream.sendall(self.head(path, len(body)) + body)
            data = b""
            while piece := stream.recv(65536):
                data += piece
        head, _, rest = data.partition(b"\r\n\r\n")
        if b"chunked" in head.lower():
            rest = unchunked(rest)
        return int(head.split()[1]), rest.decode()

    # Good clients.

    def good(self, dice):
        which = dice.randrange(len(ASKED) + 1)
        if which == len(ASKED):
            return self.schema(dice)
        path, body = ASKED[which]
        status, text = self.ask(path, body)
        if status in (429, 503):
            return self.count("later")
        said = essence(path, text) if status == 200 else None
        with self.lock:
            known = self.first.setdefault(which, said)
        if said is None or not same(said, known):
            return self.wrong(f"{path}: {status} {text[:200]!r} instead of {known!r}")
        self.count("answers")

    def schema(self, dice):
        form = {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}
        body = {"messages": [{"role": "user", "content": "Go"}], "response_format": form, "temperature": 1, "seed": dice.randrange(99)}
        status, text = self.ask("/v1/chat/completions", body)
        if status in (429, 503):
            return self.count("later")
        try:
            fits = json.loads(json.loads(text)["choices"][0]["message"]["content"])["a"] in ("x", "y")
        except (ValueError, KeyError, TypeError):
            fits = False
        self.count("answers") if fits else self.wrong(f"schema: {status} {text[:200]!r}")

    # Bad ones.

    def leaves(self, dice):
        """Reads some of a stream, or nothing."""
        body = {"prompt": "Once", "max_tokens": 10_000, "ignore_eos": True, "stream": True, "n": dice.choice([1, 3])}
        body = json.dumps(body).encode()
        with self.connect() as stream:
            stream.sendall(self.head("/v1/completions", len(body)) + body)
            for _ in range(dice.choice([0, 1, 5])):
                stream.recv(2000)

    def half(self, dice):
        with self.connect() as stream:
            stream.sendall(self.head("/v1/chat/completions", 100_000) + b'{"messages": [' + b" " * dice.randrange(50_000))
            time.sleep(dice.random())

    def rubbish(self, dice):
        data = bytearray(json.dumps(ASKED[dice.randrange(len(ASKED))][1]).encode())
        for _ in range(dice.randrange(1, 9)):
            data[dice.randrange(len(data))] = dice.randrange(256)
        path = dice.choice(ASKED)[0]
        with self.connect() as stream:
            stream.sendall(dice.randbytes(200) if dice.random() < 0.2 else self.head(path, len(data)) + bytes(data))
            stream.shutdown(socket.SHUT_WR)
            while stream.recv(65536):
                pass

    def large(self, dice):
        text = "word " * dice.randrange(200_000, 1_400_000)
        body = {"messages": [{"role": "user", "content": text}]} if dice.random() < 0.7 else {"messages": [1] * (len(text) // 4)}
        status, text = self.ask("/v1/chat/completions", body)
        # On a machine that is busy enough, it does not arrive in time.
        if status not in (400, 408, 413, 429, 503):
            self.wrong(f"a body that is too large: {status} {text[:200]!r}")

    def slow(self, dice):
        body = json.dumps({**ASKED[1][1], "stream": True}).encode()
        with self.connect() as stream:
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            stream.sendall(self.head("/v1/chat/completions", len(body)) + body)
            end = time.monotonic() + 5
            while time.monotonic() < end and stream.recv(dice.randrange(1, 64)):
                time.sleep(0.15)

    def silent(self, dice):
        with self.connect() as stream:
            stream.sendall(b"POST /v1/ch")
            time.sleep(dice.random() * 3)

    def slow_grammar(self, dice):
        schema = {"type": "string", "pattern": "^(" + "[a-z]{0,300}" * 20 + ")$"}
        form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
        body = {"messages": [{"role": "user", "content": "Go"}], "response_format": form, "max_tokens": 5}
        self.ask("/v1/chat/completions", body)

    def client(self, number):
        dice = random.Random(number)
        bad = [self.leaves, self.leaves, self.half, self.rubbish, self.large, self.slow, self.silent, self.slow_grammar]
        while time.monotonic() < self.end:
            if number % 2 == 0 or dice.random() < 0.3:
                try:
                    self.good(dice)
                except (OSError, ValueError, IndexError, KeyError) as error:
                    self.wrong(f"{type(error).__name__}: {error}")
            else:
                try:
                    dice.choice(bad)(dice)
                except (OSError, ValueError, IndexError):
                    # A server may cut such clients off.
                    pass
                self.count("bad")

    def count(self, what):
        with self.lock:
            setattr(self, what, getattr(self, what) + 1)

    def wrong(self, text):
        with self.lock:
            self.errors.append(text)


def unchunked(data):
    out = b""
    while data:
        size, _, rest = data.partition(b"\r\n")
        n = int(size, 16)
        if n == 0:
            break
        out, data = out + rest[:n], rest[n + 2 :]
    return out


def essence(path, text):
    """What must be the same each time."""
    if path == "/v1/embeddings":
        return json.loads(text)["data"][0]["embedding"]
    if path == "/api/chat":
        return "".join(json.loads(line)["message"]["content"] for line in text.splitlines())
    if text.startswith("data: "):
        lines = [line[6:] for line in text.splitlines() if line.startswith("data: ")]
        assert lines[-1] == "[DONE]", lines[-1]
        return "".join(c["delta"].get("content") or "" for line in lines[:-1] for c in json.loads(line)["choices"])
    choice = json.loads(text)["choices"][0]
    return choice["text"] if "text" in choice else choice["message"]["content"]


def same(said, known):
    if isinstance(said, str):
        return said == known
    # Vectors come of batches of different sizes.
    return len(said) == len(known) and all(abs(a - b) < 1e-2 for a, b in zip(said, known))


def look(pid):
    with open(f"/proc/{pid}/status") as status:
        lines = dict(line.split(":", 1) for line in status)
    return {
        "RSS [MiB]": int(lines["VmRSS"].split()[0]) / 1024,
        "descriptors": len(os.listdir(f"/proc/{pid}/fd")),
        "threads": int(lines["Threads"]),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("url")
    parser.add_argument("pid", type=int)
    parser.add_argument("--clients", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=600)
    args = parser.parse_args()
    idle = look(args.pid)
    soak = Soak(args)
    threads = [threading.Thread(target=soak.client, args=(i,)) for i in range(args.clients)]
    for thread in threads:
        thread.start()
    samples = []
    while time.monotonic() < soak.end:
        time.sleep(min(1, args.seconds / 100))
        samples.append(look(args.pid))
    for thread in threads:
        thread.join()
    failed = bool(soak.errors)
    quarter = len(samples) // 4
    for name in samples[0]:
        early, late = ([s[name] for s in part] for part in (samples[quarter : 2 * quarter], samples[-quarter:]))
        before, after = statistics.median(early), statistics.median(late)
        grows = after > before * 1.05 + 1 and name != "descriptors"
        failed |= grows
        print(f"{name:12} {before:8.1f} in the second quarter, {after:8.1f} in the last, at most {max(s[name] for s in samples):.1f}{' GROWS' if grows else ''}")
    time.sleep(3)
    for when, seen in (("before:", idle), ("afterwards:", last := look(args.pid))):
        print(when, ", ".join(f"{name} {value:.0f}" for name, value in seen.items()))
    # A connection or two may be on its way out.
    failed |= last["descriptors"] > idle["descriptors"] + 2
    print(f"{soak.answers} good answers, {soak.later} told to come later, {soak.bad} bad clients, {len(soak.errors)} let down")
    for error in soak.errors[:10]:
        print("error:", error)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
