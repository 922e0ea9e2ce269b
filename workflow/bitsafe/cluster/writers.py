"""One writer a file, whoever started it: a step holds its output while it works, and a second one stops with a line.

The lock is the kernel's (flock), so one that is killed leaves none behind. Over NFS it holds between machines where the
server's lock service runs; on a file system without locks nothing is held, and only the care at the start of a run
(`earlier.py`) is left. BITSAFE_WRITE_LOG names a file that records who wrote what when: tests prove by it.
"""

import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from bitsafe.errors import UserError
from bitsafe.files import told_plainly


@contextmanager
def only_writer(folder: Path, what: str) -> Iterator[None]:
    """Hold `what` of a run (`generate toy__rtn__4bit__none__quantized`) for the block; a UserError names its holder."""
    file = Path(folder) / ".writers" / what.replace(" ", ".")
    with told_plainly(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        handle = file.open("a+", encoding="utf-8")
    with handle:
        before = holder(handle)
        alive = bool(before) and before["host"] == socket.gethostname() and is_alive(before["pid"])
        take(handle, file, before)
        me = {"host": socket.gethostname(), "pid": os.getpid(), "job": os.environ.get("SLURM_JOB_ID")}
        record(what, "begin", me | {"other": before, "other_alive": alive})
        write_holder(handle, me)
        ended = "failed"
        try:
            yield
            ended = "end"
        finally:
            write_holder(handle, None)
            record(what, ended, me)


def take(handle: IO[str], file: Path, before: dict | None) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        who = "another process" if before is None else "process {pid} on {host}, Slurm job {job}".format(**before)
        raise UserError(f"{file}: being written by {who}: wait for it or end it, then run again") from None
    except OSError:
        pass  # a file system without locks


def holder(handle: IO[str]) -> dict | None:
    """Who began to write and has not said that it ended; a torn line counts as nobody."""
    handle.seek(0)
    try:
        return json.loads(handle.read() or "null")
    except ValueError:
        return None


def write_holder(handle: IO[str], who: dict | None) -> None:
    """Best effort: on a full disk the lock itself still holds."""
    try:
        handle.truncate(0)
        if who:
            handle.write(json.dumps(who))
        handle.flush()
    except OSError:
        pass


def is_alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def record(what: str, event: str, facts: dict) -> None:
    """One line, in one write, at the end of the file that BITSAFE_WRITE_LOG names."""
    if log := os.environ.get("BITSAFE_WRITE_LOG"):
        line = json.dumps({"time": time.time(), "what": what, "event": event, **facts}) + "\n"
        handle = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            os.write(handle, line.encode())
        finally:
            os.close(handle)
