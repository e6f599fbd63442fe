#!/usr/bin/env python3
"""Runs airrun and llama.cpp side by side and writes down what each did.

    compare.py memory MODEL --airrun target/release/airrun --out DIR    tokens/s against memory given
    compare.py speed  MODEL --airrun target/release/airrun --out DIR    tokens/s when everything fits
    compare.py plot   DIR/memory.csv                                    picture and table of a run, finished or not

llama.cpp is driven through llama-cpp-python: this Python must have it, or --peer-python names one that does.
Both get the same tokens, threads and context, take turns, and are measured after a warm-up. README.md says more.
"""

import argparse
import csv
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import time

import cgroup
import plot

FIELDS = [
    "time", "mode", "engine", "setting", "test", "repetition", "memory_limit_bytes", "tokens", "seconds",
    "tokens_per_second", "limit_tokens_per_second", "of_limit", "limited_by", "streamed_bytes", "stall_seconds",
    "peak_rss_bytes", "group_peak_bytes", "model_bytes", "fio_bytes_per_second", "fio_fixed_bytes_per_second",
    "memory_bytes_per_second", "version", "note",
]

# What llama.cpp is tried with. Repacked weights are copies, which the page cache cannot give back.
PEER_SETTINGS = {
    "default": {},
    "mmap, no repack": {"use_mmap": True, "repack": False},
}


# Limits for a model of any size, as shares of its file.
SHARES = [0.25, 0.35, 0.5, 0.75, 1.1, 1.5]


def main():
    args = parse(sys.argv[1:])
    if args.command == "plot":
        plot.write(args.csv, args.csv.with_suffix(".svg"))
        summarise(args.csv)
        return
    args.out.mkdir(parents=True, exist_ok=True)
    args.peer_version = peer_version(args)
    args.airrun_version = airrun_version(args)
    if args.command == "speed":
        compare_speed(args)
    else:
        compare_memory(args)


def parse(argv):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    plotting = commands.add_parser("plot")
    plotting.add_argument("csv", type=pathlib.Path)
    for name, tokens, repeat in [("memory", 10, 3), ("speed", 64, 5)]:
        sub = commands.add_parser(name)
        sub.add_argument("model", type=pathlib.Path)
        sub.add_argument("--airrun", type=pathlib.Path, default=pathlib.Path("target/release/airrun"))
        sub.add_argument("--airrun-args", default="", help="more options for `airrun bench`, in one string")
        sub.add_argument("--peer-python", default=sys.executable, help="a Python that has llama_cpp")
        sub.add_argument("--out", type=pathlib.Path, required=True, help="a folder for the results")
        sub.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
        sub.add_argument("--ctx", type=int, default=512)
        sub.add_argument("--tokens", type=int, default=tokens, help="tokens to generate")
        sub.add_argument("--peer-tokens", type=int, help="tokens that llama.cpp generates, where it would not end otherwise; as many")
        sub.add_argument("--text", type=pathlib.Path, help="compute the tokens of this text, not fixed ones: experts are chosen by them")
        sub.add_argument("--repeat", type=int, default=repeat)
        sub.add_argument("--timeout", type=float, default=300, help="seconds until a run is given up")
    sub.add_argument("--prompt", type=int, default=512, help="tokens of the prompt test")
    memory = commands.choices["memory"]
    memory.add_argument("--limits", type=sizes, default=[],
                        help="memory of the control group, such as 600M,1200M,4G; six from a quarter of the model to all of it and "
                             "a half more, if nothing is said")
    memory.add_argument("--resume", action="store_true", help="go on with the memory.csv of a comparison that was interrupted")
    memory.add_argument("--headroom", type=float, default=1.1, help="the group's limit over --ram")
    memory.add_argument("--settings", default=",".join(["airrun", *map(short, PEER_SETTINGS)]),
                        help="who runs: some of airrun,default,mmap_no_repack")
    return parser.parse_args(argv)


def short(setting):
    return setting.replace(", ", "_").replace(" ", "_")


# ---- the two comparisons ----


def compare_memory(args):
    """Repetitions of each at each limit, by turns, in a control group of its own, with cold caches."""
    if os.geteuid() != 0:
        sys.exit("compare.py memory needs root: it makes a control group and drops caches")
    limits = args.limits or [int(args.model.stat().st_size * share) >> 20 << 20 for share in SHARES]
    wanted = args.settings.split(",")
    for setting in wanted:
        if setting != "airrun":
            peer_setting(setting)
    path = args.out / "memory.csv"
    if path.exists() and not args.resume:
        sys.exit(f"{path} is there: --resume goes on with it, or name another folder with --out")
    done = read(path) if path.exists() else []
    with Table(path, args) as table:
        # All limits once, then all once more: what a neighbour does for ten minutes is not taken for the effect of a limit.
        for repetition in range(1, args.repeat + 1):
            for limit in limits:
                rates = None
                for setting in wanted:
                    name = "airrun" if setting == "airrun" else peer_setting(setting)
                    seen = [row for row in done if is_of(row, limit, name)]
                    if any(int(row["repetition"]) == repetition for row in seen):
                        continue
                    base = {"memory_limit_bytes": limit, "repetition": repetition}
                    if seen and all("not finished" in row["note"] for row in seen):
                        # It takes as long as the patience each time, and says nothing new.
                        rows = [{**seen[-1], **base, "time": "", "note": f"not tried again: {seen[-1]['note']}"}]
                    else:
                        rates = rates or disk_rates(args.model)
                        rows = [{**base, **rates, **row} for row in run_limited(args, setting, limit)]
                    done += [table.add(row) for row in rows]
    plot.write(path, path.with_suffix(".svg"))
    summarise(path)
    print(f"\n{path} and {path.with_suffix('.svg')} are written")


def run_limited(args, setting, limit):
    """One run inside of `limit` bytes. A list of rows."""
    drop_caches()
    with cgroup.MemoryGroup(limit) as group:
        if setting == "airrun":
            rows = run_airrun(args, 0, args.tokens, ["--ram", str(int(limit / args.headroom))], group)
        else:
            rows = [run_peer(args, peer_setting(setting), f"tg{args.peer_tokens or args.tokens}", group)]
        peak = group.peak()
    return [{**row, "group_peak_bytes": peak} for row in rows]


def is_of(row, limit, setting):
    """Whether a row is of this competitor at this limit. airrun's setting is its --ram, which follows from the limit."""
    name = "airrun" if row["engine"] == "airrun" else row["setting"]
    return int(float(row["memory_limit_bytes"])) == limit and name == setting


def read(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def summarise(path):
    """Medians and ranges, a line for each limit."""
    lines = plot.series([row for row in read(path) if row["memory_limit_bytes"]])
    print(f"\n{'memory':>9}  " + "  ".join(f"{name:>30}" for name in lines) + "   medians (slowest-fastest), tokens/s")
    for x in sorted({x for points in lines.values() for x in points}):
        cells = []
        for points in lines.values():
            values = points.get(x)
            cells.append(f"{statistics.median(values):.2f} ({min(values):.2f}-{max(values):.2f})" if values else "-")
        print(f"{x:5.2f} GiB  " + "  ".join(f"{cell:>30}" for cell in cells))


def compare_speed(args):
    """Everything in memory; alternating, because machines warm up, cool down and are shared."""
    rates = {"pp": [], "tg": []}
    args.ctx = max(args.ctx, args.prompt, args.tokens + 1)
    path = args.out / "speed.csv"
    if path.exists():
        sys.exit(f"{path} is there: name another folder with --out")
    with Table(path, args) as table:
        for repetition in range(1, args.repeat + 1):
            for test, n_prompt, n_tokens in [(f"pp{args.prompt}", args.prompt, 0), (f"tg{args.tokens}", 0, args.tokens)]:
                ours = run_airrun(args, n_prompt, n_tokens, ["--stream", "never"], None)[0]
                theirs = run_peer(args, "default", test, None)
                rates[test[:2]].append((ours["tokens_per_second"], theirs["tokens_per_second"]))
                for row in (ours, theirs):
                    table.add({"repetition": repetition, **row})
    print(f"\n{'test':6} {'airrun':>10} {'llama.cpp':>10} {'ratio':>7}   medians, tokens/s")
    for test, pairs in rates.items():
        a, b = (statistics.median(x) for x in zip(*pairs))
        ratio = f"{a / b:7.3f}" if b else "      -"
        print(f"{test:6} {a:10.2f} {b:10.2f} {ratio}")


def peer_setting(name):
    for setting in PEER_SETTINGS:
        if short(setting) == name:
            return setting
    sys.exit(f"--settings: '{name}' is none of airrun, {', '.join(map(short, PEER_SETTINGS))}")


# ---- one run each ----


def run_airrun(args, n_prompt, n_tokens, options, group):
    """`airrun bench --json`, once. A list of rows."""
    command = [str(args.airrun), "bench", str(args.model), "--json", "-r", "1", "-p", str(n_prompt), "-n", str(n_tokens),
               "-t", str(args.threads), "-c", str(args.ctx), *options, *args.airrun_args.split()]
    if args.text:
        command += ["--text", str(args.text)]
    row = {"engine": "airrun", "setting": " ".join(options + args.airrun_args.split()), "tokens_per_second": 0.0,
           "version": args.airrun_version,
           "test": f"pp{n_prompt}" if n_prompt else f"tg{n_tokens}"}
    out, note = finish(command, args.timeout, group)
    found = [json.loads(line) for line in out.splitlines() if line.startswith("{")]
    if not found:
        return [{**row, "note": note or "no result"}]
    # What airrun calls its engine is a description, not the name of the competitor.
    wanted = [name for name in FIELDS if name not in ("engine", "version")]
    return [{**row, **{k: result[k] for k in wanted if k in result}, "note": note} for result in found]


def run_peer(args, setting, test, group):
    """llama.cpp in a process of its own, once. A row; what did not finish has 0 tokens/s and a note."""
    job = {"model": str(args.model), "test": test, "threads": args.threads, "ctx": args.ctx, **PEER_SETTINGS[setting]}
    if args.text:
        job["text"] = str(args.text)
    worker = pathlib.Path(__file__).with_name("peer.py")
    row = {"engine": "llama.cpp", "setting": setting, "test": test, "tokens_per_second": 0.0, "version": args.peer_version}
    out, note = finish([args.peer_python, str(worker), json.dumps(job)], args.timeout, group)
    steps = [json.loads(line) for line in out.splitlines() if line.startswith("{")]
    last = steps[-1] if steps else {"stage": "nothing"}
    if "tokens_per_second" in last:
        return {**row, **{k: v for k, v in last.items() if k in FIELDS}, "note": last.get("note", "")}
    return {**row, "note": f"{note or 'failed'}; last stage: {last['stage']}"}


def finish(command, timeout, group):
    """Runs a command inside of `group`: its output, and what went wrong with it."""
    enter = group.enter if group else None
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=enter)
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        return out, f"not finished in {timeout:.0f} s"
    finally:
        # Interrupted, nothing is left behind that holds the control group.
        process.kill()
    if process.returncode == 0:
        return out, ""
    why = "killed, out of memory" if process.returncode == -9 else f"exit {process.returncode}"
    lines = err.strip().splitlines()
    return out, f"{why}: {lines[0]}" if lines else why


def peer_version(args):
    script = "import llama_cpp; print('llama-cpp-python', llama_cpp.__version__)"
    done = subprocess.run([args.peer_python, "-c", script], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{args.peer_python} has no llama_cpp; `pip install llama-cpp-python` into it, or name another with "
                 "--peer-python")
    return done.stdout.strip()


def airrun_version(args):
    try:
        done = subprocess.run([str(args.airrun), "--version"], capture_output=True, text=True)
    except OSError as error:
        sys.exit(f"{args.airrun} does not run ({error.strerror}); build it, or say with --airrun where it is")
    return done.stdout.strip()


# ---- the machine ----


def disk_rates(model):
    """What fio reads from the file past the page cache, 1 MiB at a time, 16 in flight. Plain, and with registered buffers:
    plain ones are of 4 KiB pages, which costs some disks a part of their rate."""
    if not shutil.which("fio"):
        return {}
    rates = {}
    for name, options in [("fio_bytes_per_second", []), ("fio_fixed_bytes_per_second", ["--fixedbufs=1"])]:
        for engine in ["io_uring", "libaio"]:
            command = ["fio", "--name=disk", f"--filename={model}", "--readonly", "--rw=read", "--direct=1", "--bs=1M",
                       "--iodepth=16", f"--ioengine={engine}", "--runtime=3", "--time_based", "--output-format=json",
                       *(options if engine == "io_uring" else [])]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode == 0:
                rates[name] = json.loads(done.stdout[done.stdout.index("{"):])["jobs"][0]["read"]["bw_bytes"]
                break
    return rates


def drop_caches():
    os.sync()
    pathlib.Path("/proc/sys/vm/drop_caches").write_text("3\n")


def sizes(text):
    try:
        return [size(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is no list of sizes such as 600M,1200M,4G") from None


def size(text):
    """`600M`, `1.2G`: in binary units, as airrun reads them."""
    number = text.strip().upper().removesuffix("B").removesuffix("I")
    shift = {"K": 10, "M": 20, "G": 30, "T": 40}.get(number[-1:], 0)
    return int(float(number[:-1] if shift else number) * (1 << shift))


class Table:
    """A CSV file that is written row by row, so that an interrupted comparison leaves what it measured."""

    def __init__(self, path, args):
        self.path, self.args = path, args

    def __enter__(self):
        self.file = open(self.path, "a", newline="")
        self.writer = csv.DictWriter(self.file, FIELDS, restval="")
        if not self.path.stat().st_size:
            self.writer.writeheader()
        return self

    def __exit__(self, *_):
        self.file.close()

    def add(self, row):
        """Writes a row, says it, and gives it back as it would be read."""
        known = {"time": time.strftime("%Y-%m-%dT%H:%M:%S"), "mode": self.args.command,
                 "model_bytes": self.args.model.stat().st_size}
        row = {**known, **{k: v for k, v in row.items() if v not in (None, "")}}
        self.writer.writerow(row)
        self.file.flush()
        limit = row.get("memory_limit_bytes")
        given = f"{limit / (1 << 20):7.0f} MiB  " if limit else ""
        print(f"{given}{row['engine']:10} {row['setting'][:34]:34} {row['test']:6} "
              f"{float(row['tokens_per_second']):9.3f} tokens/s  {row.get('note', '')}", flush=True)
        return {name: str(row.get(name, "")) for name in FIELDS}


if __name__ == "__main__":
    main()
