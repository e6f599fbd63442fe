"""What drafts bring, by turns: each prompt of golden.json with a draft model and without, in a control group; beside llama.cpp with the same draft.

    bench/golden_drafts.py AIRRUN MODEL DRAFT GOLDEN.json [--ram 1000M] [--limit 1200] [--tokens 36] [--plain 6] [--only NAME,NAME] [--peer PYTHON]

Answers of at least 20 tokens count. Seconds are those from the beginning of the prompt's reading to the end of the answer (what `airrun run` read by the
rate that it prints; the clock of the peer); what has no drafts is cut after `--plain` tokens and reckoned for as many as were drafted. Caches are dropped before each run.
"""

import argparse
import json
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).parent


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("airrun", "model", "draft", "golden"):
        parser.add_argument(name)
    parser.add_argument("--ram", default="1000M")
    parser.add_argument("--limit", type=int, default=1200)
    parser.add_argument("--tokens", type=int, default=36)
    parser.add_argument("--plain", type=int, default=6)
    parser.add_argument("--only", default="")
    parser.add_argument("--peer", default="")
    args = parser.parse_args()
    prompts = json.load(open(args.golden))["prompts"]
    if args.only:
        prompts = [p for p in prompts if p["name"] in args.only.split(",")]
    print(f"{'prompt':14} {'tokens':>6} {'a pass':>6} {'drafted s':>9} {'plain s':>8} {'ratio':>6} {'peer s':>7} {'ratio':>6}")
    rows = []
    for prompt in (p for p in prompts if len(p["completion_ids"]) >= 20):
        with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
            file.write(prompt["prompt"])
            file.flush()
            n = min(args.tokens, len(prompt["completion_ids"]))
            drafted = airrun(args, file.name, n, args.draft)
            plain = airrun(args, file.name, args.plain, "none")
            # The first token comes with the prompt.
            plain_s = plain["prompt"] + (n - 1) * plain["rest"] / max(plain["tokens"] - 1, 1)
            drafted_s = drafted["prompt"] + drafted["rest"]
            peer_s = peer(args, file.name, n) if args.peer else None
        rows.append((drafted["per_pass"], plain_s / drafted_s, peer_s and peer_s / drafted_s))
        tail = f" {peer_s:7.1f} {peer_s / drafted_s:6.2f}" if peer_s else ""
        print(f"{prompt['name']:14} {n:6} {drafted['per_pass']:6.1f} {drafted_s:9.1f} {plain_s:8.1f} {plain_s / drafted_s:6.2f}{tail}", flush=True)
    medians = [statistics.median(column) for column in zip(*rows) if None not in column]
    print("medians: tokens a pass, times as fast as without, as the peer:", *(f"{m:.2f}" for m in medians))


def airrun(args, prompt, n, draft):
    drop_caches()
    command = [args.airrun, "run", args.model, "--raw", "--temp", "0", "--ram", args.ram, "-c", "512", "--draft", draft,
               "-n", str(n), "--ignore-eos", "-v"]
    with open(prompt) as text:
        done = subprocess.run(grouped(args, command), stdin=text, capture_output=True, text=True)
    line = next((x for x in done.stderr.splitlines() if re.match(r"\d+ tokens?[,;]", x)), None)
    if line is None:
        sys.exit(f"{command}: {done.stderr}")
    number = lambda pattern, otherwise: float((re.search(pattern, line) or [0, otherwise])[1])
    units = {"MiB": 2**20, "GiB": 2**30}
    read = re.search(r"([\d.]+) (MiB|GiB), ([\d.]+) GB/s", line)
    # What was read, by its rate: the seconds of prompt and answer.
    seconds = float(read[1]) * units[read[2]] / (float(read[3]) * 1e9)
    tokens, prompt_s = number(r"^(\d+) token", 0), number(r"prompt .*? in ([\d.]+) s", 0)
    return {"tokens": tokens, "prompt": prompt_s, "rest": max(seconds - prompt_s, 0.0), "per_pass": number(r"([\d.]+) tokens/pass", 1)}


def peer(args, prompt, n):
    drop_caches()
    job = {"model": args.model, "draft": args.draft, "prompt": prompt, "tokens": n, "drafted": 8, "threads": 2, "ctx": 512}
    done = subprocess.run(grouped(args, [args.peer, str(HERE / "peer_draft.py"), json.dumps(job)]), capture_output=True, text=True)
    found = json.loads(next(x for x in done.stdout.splitlines() if x.startswith("{")))
    return found["prompt_seconds"] + found["seconds"] * n / found["tokens"]


def grouped(args, command):
    return [sys.executable, str(HERE / "cgroup.py"), str(args.limit), *command]


def drop_caches():
    subprocess.run(["sync"], check=True)
    pathlib.Path("/proc/sys/vm/drop_caches").write_text("3")


if __name__ == "__main__":
    main()
