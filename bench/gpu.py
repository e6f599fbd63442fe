"""airrun on a GPU at several sizes of its memory, llama.cpp and AirLLM beside it, within a time that is given. Run by gpu.sh.

Rows: what the link gives (a pinned copy), then for each budget the tokens per second of one token after another and of a prompt
of 2048, the most memory that the driver counted beyond what an idle program takes, and the share of the link's limit: the bytes
that a pass brings over the link, at the link's rate, against the seconds that it took.
"""

import argparse
import csv
import json
import os
import pathlib
import shutil
import subprocess
import sys
import threading
import time

FIELDS = [
    "time", "engine", "setting", "test", "tokens", "seconds", "tokens_per_second", "peak_vram_bytes", "vram_budget_bytes",
    "within_budget", "streamed_bytes_per_pass", "of_link_limit", "of_resident", "link_bytes_per_second", "device", "plan", "note",
]
HERE = pathlib.Path(__file__).resolve().parent
MIB = 1 << 20
# What `airrun devices` takes on the GPU to measure the link.
COPY_ROOM = 64 * MIB


def main():
    args = parse()
    run = Run(args)
    try:
        measure(run)
    finally:
        run.file.close()
        print(args.out.read_text(), end="", flush=True)


def parse():
    parser = argparse.ArgumentParser(prog="gpu.sh", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--airrun", type=pathlib.Path, default=HERE.parent / "target/release/airrun")
    parser.add_argument("--device", default="auto", help="as airrun's --device")
    parser.add_argument("--vram", default="3.2G,8G,24G,auto", help="budgets, with commas between them; auto is all that is free")
    parser.add_argument("--model", type=pathlib.Path, help="a GGUF file; without it, one is made")
    parser.add_argument("--preset", default="70b", help="the shapes of the model that is made")
    parser.add_argument("--type", default="q4_k", help="and its weights")
    parser.add_argument("--dir", type=pathlib.Path, default=pathlib.Path("/tmp"), help="a fast disk with room for it")
    parser.add_argument("--prompt", type=int, default=2048, help="tokens of the prompt")
    parser.add_argument("--tokens", type=int, default=8, help="tokens that are generated where blocks stream")
    parser.add_argument("--minutes", type=float, default=8.7, help="all of it may take as long")
    parser.add_argument("--peer-python", default=sys.executable, help="a Python with llama-cpp-python, built for the GPU")
    parser.add_argument("--airllm-python", default=sys.executable, help="a Python with airllm and torch")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("gpu.csv"))
    return parser.parse_args()


class Run:
    """Where rows go, how long there is, and what the GPU has in use."""

    def __init__(self, args):
        self.args = args
        self.begin = time.monotonic()
        self.file = open(args.out, "w", newline="")
        self.writer = csv.DictWriter(self.file, FIELDS)
        self.writer.writeheader()
        self.link = None
        self.device = ""
        self.idle = 0  # what an idle program has in use on the GPU, others' included
        self.resident = {}  # tokens per second of each test when everything is resident

    def left(self):
        return self.args.minutes * 60 - (time.monotonic() - self.begin)

    def row(self, engine, setting, **what):
        row = {"time": time.strftime("%H:%M:%S"), "engine": engine, "setting": setting, "device": self.device, **what}
        self.writer.writerow({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()})
        self.file.flush()

    def skip(self, engine, setting, why):
        say(f"skipped: {engine} {setting}: {why}")
        self.row(engine, setting, note=f"skipped: {why}")

    def call(self, command, seconds, env=None):
        """Runs a program for as long; its stdout, and the most memory that the GPU had in use meanwhile."""
        seconds = min(seconds, self.left())
        if seconds < 5:
            raise Skipped("no time is left")
        with Watch() as watch:
            try:
                done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, env=env)
            except subprocess.TimeoutExpired:
                raise Skipped(f"not done within {seconds:.0f} s") from None
            except OSError as error:
                raise Skipped(str(error)) from None
        if done.returncode != 0:
            lines = [line for line in done.stderr.splitlines() if line.strip()] or [f"exit code {done.returncode}"]
            raise Skipped(lines[0] if "airrun:" in lines[0] else lines[-1])
        return done.stdout, watch.peak


class Skipped(Exception):
    pass


class Watch:
    """Samples the memory in use on the first GPU, as its driver says; None where there is nothing to ask."""

    def __enter__(self):
        self.peak = None
        self.process = None
        if shutil.which("nvidia-smi"):
            query = ["nvidia-smi", "--id=0", "--query-gpu=memory.used", "--format=csv,noheader,nounits", "-lms", "50"]
            self.process = subprocess.Popen(query, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
            self.thread = threading.Thread(target=self.read)
            self.thread.start()
        return self

    def read(self):
        for line in self.process.stdout:
            if line.strip().isdigit():
                self.peak = max(self.peak or 0, int(line) * MIB)

    def __exit__(self, *_):
        if self.process:
            self.process.terminate()
            self.thread.join()
            self.process.wait()


def measure(run):
    args = run.args
    if not args.airrun.exists():
        run.skip("airrun", "", f"there is no {args.airrun}; `make cuda` or `make vulkan` builds it")
        return
    try:
        link(run)
    except Skipped as why:
        run.skip("link", "pinned copy", why)
    try:
        model = args.model or make_model(run)
    except Skipped as why:
        run.skip("airrun", "", f"no model: {why}")
        return
    budgets = args.vram.split(",")
    # Everything resident first: the others' prompts are compared with it.
    for vram in sorted(budgets, key=lambda b: b != "auto"):
        airrun(run, model, vram, [])
    tight = [b for b in budgets if b != "auto"][:1]
    for vram in tight:
        airrun(run, model, vram, ["--stream", "always"])
        # What does not fit is left to the CPU, by the same kernels: what llama.cpp does, also where there is no peer.
        airrun(run, model, vram, ["--stream", "never"])
    for vram in tight + [b for b in budgets if b not in tight]:
        llama_cpp(run, model, vram)
    airllm(run)


def link(run):
    """The device and its link; what an idle program takes."""
    out, peak = run.call([str(run.args.airrun), "devices", "--json"], 60)
    wanted = run.args.device.split(":")[0]
    for device in json.loads(out)["devices"]:
        if device["auto"] if wanted == "auto" else device["name"].startswith(wanted):
            break
    run.device = device["name"]
    run.idle = max(0, peak - COPY_ROOM) if peak else 0
    run.link = device["upload"]
    note = f"{device['description'].strip()}; pinned: {device['pinned']}; idle: {run.idle}"
    run.row("link", "pinned copy", link_bytes_per_second=run.link, note=note)
    say(f"{run.device}: {(run.link or 0) / 1e9:.2f} GB/s")


def make_model(run):
    path = run.args.dir / f"airrun-{run.args.preset}-{run.args.type}.gguf"
    done = path.with_suffix(".done")
    if not done.exists():
        say(f"making {path}")
        tool = HERE.parent / "tools/mksynth.py"
        run.call([sys.executable, str(tool), str(path), "--preset", run.args.preset, "--type", run.args.type], 240)
        done.touch()
    return path


def airrun(run, model, vram, more):
    args = run.args
    setting = " ".join([f"--vram {vram}"] + more)
    base = [str(args.airrun), "bench", str(model), "--device", args.device, "--vram", vram, "-r", "1", "--json"] + more
    tests = ["-p", str(args.prompt), "-n", str(args.tokens), "-c", str(args.prompt + 256)]
    try:
        out, peak = run.call(base + tests, 150)
    except Skipped as why:
        run.skip("airrun", setting, why)
        return
    for line in out.splitlines():
        report = json.loads(line)
        kind = report["test"][:2]
        if vram == "auto" and not more:
            run.resident[kind] = report["tokens_per_second"]
        per_pass = report["streamed_bytes"] / max(1, report["passes"])
        seconds = report["seconds"] / max(1, report["passes"])
        of_link = per_pass / run.link / seconds if run.link and per_pass else ""
        row(run, "airrun", setting, vram, report, peak, streamed_bytes_per_pass=per_pass, of_link_limit=of_link,
            plan=json.dumps(report["plan"]), note=report["engine"])


def row(run, engine, setting, vram, report, peak, **more):
    used = max(0, peak - run.idle) if peak else None
    budget = size(vram)
    resident = run.resident.get(report["test"][:2])
    run.row(engine, setting, test=report["test"], tokens=report["tokens"], seconds=report["seconds"],
            tokens_per_second=report["tokens_per_second"], peak_vram_bytes=used, vram_budget_bytes=budget,
            within_budget="" if used is None or budget is None else used <= budget,
            of_resident=report["tokens_per_second"] / resident if resident else "", **more)
    say(f"{engine} {setting}: {report['test']} {report['tokens_per_second']:.2f} tokens/s")


def llama_cpp(run, model, vram):
    """llama.cpp with as many of the layers on the GPU as fit the same memory."""
    args = run.args
    try:
        layers, note = fitted_layers(run, model, vram)
    except Skipped as why:
        run.skip("llama.cpp", f"for {vram}", why)
        return
    setting = f"-ngl {layers} for {vram}"
    for test in [f"tg{args.tokens}", f"pp{args.prompt}"]:
        job = {"model": str(model), "test": test, "ctx": args.prompt + 256, "threads": os.cpu_count() or 1, "use_mmap": True,
               "n_gpu_layers": layers, "batch": 2048}
        try:
            out, peak = run.call([args.peer_python, str(HERE / "peer.py"), json.dumps(job)], 120)
        except Skipped as why:
            run.skip("llama.cpp", setting, why)
            return
        report = {**json.loads(out.splitlines()[-1]), "test": test}
        row(run, "llama.cpp", setting, vram, report, peak, note=note)


def fitted_layers(run, model, vram):
    """The layers that fit beside what airrun's plan says that context, output and driver take."""
    command = [str(run.args.airrun), "plan", str(model), "--json", "--device", run.args.device, "-c", str(run.args.prompt + 256)]
    plan = json.loads(run.call(command, 60)[0])
    gpu = plan["gpu"]
    if not gpu:
        raise Skipped("no GPU computes here")
    blocks = [block["bytes"] for block in plan["blocks"]]
    if size(vram) is None:
        return len(blocks) + 1, "all layers"
    room = size(vram) - gpu["context"] - gpu["driver"] - gpu["outside"]
    layers = 0
    while layers < len(blocks) and sum(blocks[len(blocks) - layers - 1:]) <= room:
        layers += 1
    return layers, "fitted by sizes"


def airllm(run):
    """AirLLM with a few layers of the same shapes; a token takes as long as all layers do, one after the other."""
    if run.left() < 60:
        run.skip("AirLLM", run.args.preset, "no time is left")
        return
    job = {"preset": run.args.preset, "dir": str(run.args.dir), "layers": 4}
    try:
        out, peak = run.call([run.args.airllm_python, str(HERE / "airllm_peer.py"), json.dumps(job)], 180)
    except Skipped as why:
        run.skip("AirLLM", run.args.preset, why)
        return
    report = json.loads(out.splitlines()[-1])
    row(run, "AirLLM", report["setting"], "auto", report, peak, note=report["note"])


def size(text):
    """Bytes of a size as airrun reads it; None for auto."""
    if text == "auto":
        return None
    units = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
    number = text.rstrip("BbIiKkMmGg")
    return int(float(number) * units[text[len(number):len(number) + 1].upper()])


def say(text):
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
