"""A command in a process of its own: what it said, and what it and all that it waited for took."""

import os
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path


def waited(command: Sequence[str], cwd: Path | None = None) -> tuple[str, dict[str, float]]:
    """Its output, and `cpu` and `wall` seconds with the peak of memory in megabytes. SystemExit if it fails.

    The process that calls stays small: a child's peak begins at its parent's.
    """
    started = time.monotonic()
    with tempfile.TemporaryFile("w+") as out:
        child = subprocess.Popen(command, cwd=cwd, stdout=out, stderr=subprocess.STDOUT)
        _, status, used = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        wall = time.monotonic() - started
        out.seek(0)
        said = out.read()
    if child.returncode:
        raise SystemExit(f"{' '.join(command)}:\n{said[-2000:]}")
    return said, {"cpu": used.ru_utime + used.ru_stime, "wall": wall, "memory_mb": used.ru_maxrss * 1024 / 1e6}
