"""The state of a replicate's current step, kept in its status.json for people and for the tables."""

import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from bitsafe.errors import CellError, UserError
from bitsafe.files import read_json, sweep, write_json


@contextmanager
def telling(folder: Path, step: str) -> Iterator[None]:
    """Write `running` to folder/status.json, then `done`, or `failed` with the reason when the block raises.

    What a killed step has left half-written in the folder is deleted first: each has one step at a time.
    """
    sweep(folder)
    tell(folder, step, "running")
    started = time.time()
    try:
        yield
    except BaseException as error:
        tell_failure(folder, step, error)
        raise
    tell(folder, step, "done", seconds=round(time.time() - started, 3))


def tell_failure(folder: Path, step: str, error: BaseException) -> None:
    """Write why a step ended badly; on a full disk the first error is the one to show, so this one is quiet."""
    with suppress(UserError, OSError):
        if isinstance(error, KeyboardInterrupt | SystemExit):
            tell(folder, step, "interrupted", "stopped by a signal")
        else:
            tell(folder, step, "failed", reason_of(error))


def tell_unless_told(folders: list[Path], step: str, error: BaseException) -> None:
    """Record a failure of the whole cell with its first replicate, unless one of them has told it already."""
    files = [folder / "status.json" for folder in folders]
    if not any(file.exists() and read_json(file).get("state") == "failed" for file in files):
        tell_failure(folders[0], step, error)


def reason_of(error: BaseException) -> str:
    """One line, at most 500 characters."""
    text = str(error) if isinstance(error, UserError | CellError) else f"{type(error).__name__}: {error}"
    return " ".join(text.split())[:500]


def tell(folder: Path, step: str, state: str, reason: str = "", seconds: float | None = None) -> None:
    status = {"state": state, "step": step, "reason": reason, "at": time.strftime("%Y-%m-%dT%H:%M:%S%z")}
    if seconds is not None:
        status["seconds"] = seconds
    write_json(folder / "status.json", status | {"host": socket.gethostname(), "pid": os.getpid()})
