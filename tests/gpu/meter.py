"""What a piece of work takes on the card: seconds by the clock, and the peaks of the card and of the process."""

import gc
import time
from collections.abc import Callable
from typing import Any

import torch

from bitsafe.patches.shared.cost import Watch

Measured = dict[str, Any]


def watched(work: Callable[[], Measured | None]) -> Measured:
    """{seconds, host_mb, gpu_mb and reserved_mb (None without a card)}, and what `work` says as `said`.

    gpu_mb: the most that tensors took; reserved_mb: the most that torch's allocator held for them.
    """
    cleared()
    watch, began = Watch(), time.perf_counter()
    said = work() or {}
    waited()
    seconds, found = time.perf_counter() - began, watch.facts()
    reserved = torch.cuda.max_memory_reserved() / 1e6 if torch.cuda.is_available() else None
    peaks = {"host_mb": found["peak_memory_mb"], "gpu_mb": found.get("peak_gpu_mb"), "reserved_mb": reserved}
    return {"seconds": seconds, **peaks, "said": said}


def cleared() -> None:
    """Give back what earlier work has left, so that it is in no peak."""
    gc.collect()
    waited()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def waited() -> None:
    """A kernel that has been asked for is not yet done."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
