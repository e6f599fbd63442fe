"""A control group that limits memory: version 1 or 2, whichever the machine has. Needs root."""

import os
import pathlib
import subprocess
import sys
import time

ROOT = pathlib.Path("/sys/fs/cgroup")


class MemoryGroup:
    """A group of its own for the processes that `enter` it; gone at the end."""

    def __init__(self, limit):
        self.limit = limit
        self.v2 = (ROOT / "cgroup.controllers").exists()
        base = ROOT if self.v2 else ROOT / "memory"
        if not base.is_dir():
            sys.exit(f"there is no memory controller at {base}")
        self.path = base / f"airrun-compare-{os.getpid()}"

    def __enter__(self):
        if self.v2:
            control = ROOT / "cgroup.subtree_control"
            if "memory" not in control.read_text().split():
                control.write_text("+memory")
        self.path.mkdir()
        if self.v2:
            self.write("memory.max", self.limit)
            self.write("memory.swap.max", 0, needed=False)
        else:
            self.write("memory.limit_in_bytes", self.limit)
            # Swap would hide that memory was too small.
            self.write("memory.memsw.limit_in_bytes", self.limit, needed=False)
        return self

    def __exit__(self, *_):
        for _ in range(100):
            try:
                self.path.rmdir()
                return
            except OSError:
                # The kernel is not yet done with a process that has ended.
                time.sleep(0.1)
        print(f"{self.path} could not be removed", file=sys.stderr)

    def enter(self):
        """For a new process, before it becomes another program."""
        self.write("cgroup.procs", os.getpid())

    def peak(self):
        """The most memory that was charged to the group, page cache included; None where it is not counted."""
        name = "memory.peak" if self.v2 else "memory.max_usage_in_bytes"
        try:
            return int((self.path / name).read_text())
        except (OSError, ValueError):
            return None

    def write(self, name, value, needed=True):
        try:
            (self.path / name).write_text(str(value))
        except OSError:
            if needed:
                raise


def main():
    """cgroup.py LIMIT COMMAND...: runs the command in a group of so many MiB, with cold caches; says the most that the group had."""
    limit, command = int(sys.argv[1]) << 20, sys.argv[2:]
    subprocess.run(["sync"], check=True)
    pathlib.Path("/proc/sys/vm/drop_caches").write_text("3")
    with MemoryGroup(limit) as group:
        done = subprocess.run(command, preexec_fn=group.enter)
        print(f"{group.peak() / (1 << 20):.0f} MiB at most in a group of {limit >> 20} MiB", file=sys.stderr)
    sys.exit(done.returncode)


if __name__ == "__main__":
    main()
