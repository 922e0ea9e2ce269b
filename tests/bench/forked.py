"""A measurement in a process of its own, forked off one that has imported and loaded everything.

The child starts with what its parent holds then, its own peak too (Linux: fork copies the resident size, not the
high-water mark), so what it adds is the measured work's alone. The parent must not have run a backward pass.
"""

import ctypes
import gc
import multiprocessing
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch


class Meter:
    """`with meter:` around the timed part; seconds add up over several. Memory is the process's, in megabytes."""

    def __init__(self) -> None:
        self.cpu, self.wall, self.loaded = 0.0, 0.0, resident_mb()

    def __enter__(self) -> None:
        self.began = time.process_time(), time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self.cpu += time.process_time() - self.began[0]
        self.wall += time.perf_counter() - self.began[1]
        self.peak = peak_mb()

    def facts(self) -> dict[str, float]:
        memory = {"loaded_mb": self.loaded, "peak_mb": self.peak, "above_mb": self.peak - self.loaded}
        return {"cpu_seconds": self.cpu, "wall_seconds": self.wall, **memory}


def measured(work: Callable[..., dict | None], *arguments: Any) -> dict[str, Any]:
    """What `work(meter, *arguments)` says, with its seconds and memory."""

    def metered() -> dict[str, Any]:
        meter = Meter()
        said = work(meter, *arguments) or {}
        return meter.facts() | said

    return forked(metered)


def forked(work: Callable[[], Any]) -> Any:
    """The result of `work()` in a child process; SystemExit when it fails (its traceback is on stderr)."""
    release()
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    child = context.Process(target=lambda: theirs.send(alone(work)))
    child.start()
    theirs.close()
    try:
        return ours.recv()
    except EOFError as error:
        raise SystemExit("bench: a measurement ended without a result") from error
    finally:
        child.join()


def alone(work: Callable[[], Any]) -> Any:
    """`work()` on one thread. torch makes its pool anew in a child, at the first need of it: where several threads of a
    loader need it at once, one finds none ("Invalid thread pool")."""
    torch.set_num_threads(1)
    return work()


def release() -> None:
    """Give freed memory back, or a child would work in it and seem to need none."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)


def resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
