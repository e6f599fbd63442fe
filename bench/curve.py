#!/usr/bin/env python3
"""Seconds of a pass over n tokens in a group of 1200 MiB, by `airrun bench`: curve.py AIRRUN MODEL 1,2,4,8"""
import json
import subprocess
import sys

import cgroup
exe, model = sys.argv[1], sys.argv[2]
for n in map(int, sys.argv[3].split(",")):
    with cgroup.MemoryGroup(1200 << 20) as group:
        p = subprocess.run([exe, "bench", model, "--ram", "1000M", "-c", "512", "-p", str(n), "-n", "0", "-r", "2", "--json", "--draft", "none"],
            preexec_fn=group.enter, capture_output=True, text=True)
    for line in p.stdout.splitlines():
        j = json.loads(line)
        print(n, {k: (round(v, 3) if isinstance(v, float) else v) for k, v in j.items() if k in ("seconds", "tokens_per_second", "stall_seconds", "streamed_bytes", "limited_by", "bottleneck", "test")}, flush=True)
    if p.returncode: print(p.stderr[-500:])
