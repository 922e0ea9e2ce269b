"""What a patch costs: wall time, memory, and the floating-point operations of training and scoring."""

import resource
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop_count, sdpa_flop_count

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_RESET_PEAK = "5"  # proc_pid_clear_refs(5): set the peak resident size to the current one
_CPU_ATTENTION = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_CPU_ATTENTION_BACKWARD = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


class Watch:
    """Time and memory since it was made."""

    def __init__(self) -> None:
        self.began, self.cpu_began, self.held_mb = time.monotonic(), time.process_time(), None
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        with suppress(OSError):  # not on Linux, or /proc is read-only
            _CLEAR.write_text(_RESET_PEAK)
            self.held_mb = _status_mb("VmRSS")

    def facts(self) -> dict[str, float]:
        """What was taken since.

        seconds by the clock; cpu_seconds of all threads, which other work on the machine hardly lengthens;
        peak_memory_mb, the most that the process has held (Python, torch and the libraries included);
        added_memory_mb, how much more that is than it held at first; and of a GPU peak_gpu_mb, the most allocated.

        Where the mark cannot be reset, the peak is that since the process began, and nothing tells what was added. A
        replicate after the first finds memory that the one before it has left to the allocator: it adds less.
        """
        found = {"seconds": time.monotonic() - self.began, "cpu_seconds": time.process_time() - self.cpu_began}
        if self.held_mb is None:
            unit = 1 if sys.platform == "darwin" else 1024  # bytes of ru_maxrss
            found["peak_memory_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6
        else:
            peak = _status_mb("VmHWM")
            found |= {"peak_memory_mb": peak, "added_memory_mb": peak - self.held_mb}
        if torch.cuda.is_available():
            found["peak_gpu_mb"] = torch.cuda.max_memory_allocated() / 1e6
        return found


def _status_mb(name: str) -> float:
    """A line of /proc/self/status, which counts in units of 1024 bytes, in megabytes."""
    lines = dict(line.split(":", 1) for line in _STATUS.read_text(encoding="utf-8").splitlines())
    return int(lines[name].split()[0]) * 1024 / 1e6


class Counting(TorchDispatchMode):
    """Counts the FLOPs of every matrix product and attention inside it by torch's formulas (2·m·n·k a product).

    Element-wise work is not counted, as usual. It is torch's FlopCounterMode without the count of each module, which
    made a step of the toy twice as slow (this one a third), and with the attention of CPUs, which that one leaves out.
    """

    def __init__(self) -> None:
        super().__init__()
        self.flops = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        packet = getattr(func, "_overloadpacket", func)
        if packet is _CPU_ATTENTION:
            self.flops += sdpa_flop_count(*(tensor.shape for tensor in args[:3]))
        elif packet is _CPU_ATTENTION_BACKWARD:
            self.flops += sdpa_backward_flop_count(*(tensor.shape for tensor in args[:4]))
        elif packet in flop_registry:
            self.flops += flop_registry[packet](*args, **kwargs, out_val=result)
        return result


class Flops:
    """FLOPs of work that repeats: the first of a kind is counted, the others are taken in proportion to their tokens.

    To count them all would slow a small model down. Attention grows faster than the tokens of a sequence: with the
    toy's unlike answers the proportion is up to 3 % off the full count of 30 steps.
    """

    def __init__(self) -> None:
        self.total = 0.0
        self._a_token: dict[str, float] = {}

    @contextmanager
    def of(self, kind: str, tokens: int) -> Iterator[None]:
        """Add the work done inside; tokens: padding included, on which a model computes as on any other."""
        if kind in self._a_token:
            yield
        else:
            with Counting() as counted:
                yield
            self._a_token[kind] = counted.flops / tokens
        self.total += self._a_token[kind] * tokens


def padded_tokens(sequences: Sequence[Any]) -> int:
    """Tokens of a batch once each sequence is as long as the longest."""
    return len(sequences) * max(map(len, sequences))
