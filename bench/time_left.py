#!/usr/bin/env python3
"""How good is the time left that a terminal is told while a prompt is read?

    bench/time_left.py target/release/airrun MODEL [FLAGS...] [--words N]

Runs `airrun run` on a terminal of its own with a prompt of N sentences, notes when each "... left" was drawn, and compares it with what
was left in fact, from a third of the way on. Prints one line of JSON.
"""
import json, os, pty, re, select, statistics, sys, time

LEFT = re.compile(r"(?:(\d+) h )?(?:(\d+) min )?(?:(\d+) s )?left")


def watch(command):
    """What was promised, as (seconds since the first line, seconds left), and when the answer began."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ["TERM"] = "xterm"
        os.execvp(command[0], command)
    told, text, begin, end = [], "", None, None
    while True:
        if not select.select([terminal], [], [], 600)[0]:
            break
        try:
            piece = os.read(terminal, 65536).decode(errors="replace")
        except OSError:
            break
        if not piece:
            break
        now = time.monotonic()
        if "reading the prompt" in piece:
            # Such a line is drawn after 0.3 s.
            begin = begin or now - 0.3
            for line in piece.split("\x1b[2K")[1:]:
                found = LEFT.search(line)
                if found and any(found.groups()):
                    hours, minutes, seconds = (int(n or 0) for n in found.groups())
                    told.append((now - begin, 3600 * hours + 60 * minutes + seconds))
        elif begin and end is None and re.sub(r"\x1b\[[\d;?]*[A-Za-z]|[\r\n]", "", piece).strip():
            end = now - begin
    os.waitpid(pid, 0)
    return told, end


def judge(told, end):
    """Errors of what was left, as shares of the whole and of what was left, from a third of the way on."""
    late = [(at, left, end - at) for at, left in told if at > end / 3]
    of_whole = [abs(left - true) / end for _, left, true in late]
    # In the last seconds, whole seconds say little.
    of_left = [abs(left - true) / true for _, left, true in late if true > max(4, end / 20)]
    figures = lambda all: {"median": round(statistics.median(all), 3), "worst": round(max(all), 3)}
    return {"seconds": round(end, 1), "promises": len(late), "of_whole": figures(of_whole), "of_what_was_left": figures(of_left),
            "within_25_percent": round(sum(e <= 0.25 for e in of_left) / len(of_left), 3)}


if __name__ == "__main__":
    args = sys.argv[1:]
    words = 28
    if "--words" in args:
        at = args.index("--words")
        words = int(args[at + 1])
        del args[at:at + 2]
    if len(args) < 2:
        sys.exit(__doc__)
    prompt = " ".join(f"Tell me about the fox and the hen, number {i}." for i in range(words))
    told, end = watch([args[0], "run", args[1], prompt, "-n", "2", "--temp", "0", *args[2:]])
    if end is None:
        sys.exit("no answer came, or the prompt took no time")
    print(json.dumps(judge(told, end)))
