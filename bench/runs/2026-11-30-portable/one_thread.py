"""Two builds by turns, one thread: tokens per second of the processor's own time, from the difference of two lengths.

    python3 one_thread.py MODEL ROUNDS BINARY BINARY

The time is what the process computed, so that it does not matter how often others had the processor; the difference takes out what loading
and the measuring of the machine cost.
"""
import os
import resource
import subprocess
import sys

model, rounds, *binaries = sys.argv[1:]
PROMPT, GENERATED = (64, 320), (4, 36)


def seconds(binary, prompt, generated):
    args = ["bench", model, "-p", str(prompt), "-n", str(generated), "-r", "1", "--draft", "none", "-t", "1", "--json"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    subprocess.run([binary, *args], env=dict(os.environ, AIRRUN_CONFIG=""), capture_output=True, check=True)
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before


for i in range(int(rounds)):
    for binary in binaries:
        short, long = (seconds(binary, n, 0) for n in PROMPT)
        few, many = (seconds(binary, 0, n) for n in GENERATED)
        prompt = (PROMPT[1] - PROMPT[0]) / (long - short)
        generation = (GENERATED[1] - GENERATED[0]) / (many - few)
        print(i, binary, f"prompt {prompt:.2f} generation {generation:.2f} load {os.getloadavg()[0]:.1f}", flush=True)
