"""The formulas of docs/resources.md: what a job takes, from the size of its model and its work. Pure functions."""

from dataclasses import dataclass

from bitsafe.resources.coefficients import Device, Row
from bitsafe.resources.rows import Architecture
from bitsafe.resources.work import Work

STORED = 2  # bytes a weight of a checkpoint
MB = 1e6


@dataclass(frozen=True)
class Estimate:
    """What one job is expected to take. seconds: of all replicates; gpu_mb: 0 where the work is done on cores."""

    seconds: float
    mem_mb: float
    gpu_mb: float = 0


def held_mb(row: Row, size: Architecture, work: Work, itemsize: int) -> float:
    """Megabytes where the work is done: weights and what training keeps of them, activations, logits, the cache.

    worked · P + batch · (activations · layers · hidden + logits · vocabulary)
    + cached · 2 · layers · kv_width · itemsize
    """
    kept = work.batch * (row.activations * size.layers * size.hidden_size + row.logits * size.vocabulary)
    cache = work.cached * 2 * size.layers * size.kv_width * itemsize
    return (row.worked * size.parameters + kept + cache) / MB


def memory(row: Row, size: Architecture, work: Work, on_gpu: bool) -> tuple[float, float]:
    """Megabytes of the machine and of its GPUs together. A core computes in float32, a GPU in bfloat16."""
    loaded = row.loaded * size.parameters / MB
    if on_gpu:
        return row.mb + loaded, held_mb(row, size, work, itemsize=2)
    return row.mb + max(loaded, held_mb(row, size, work, itemsize=4)), 0


def model_seconds(row: Row, size: Architecture, work: Work, device: Device, core: Device, cores: int) -> float:
    """Seconds of one replicate on a device; what is proved is computed on `cores` cores.

    loads · 2 P / read + proved · 2 P / (core flops · cores) + (forward · 2 P) / flops
    + trained · slow · 6 P / trained_flops + passes · (layers · step + 2 P / bandwidth)
    """
    weights = size.parameters
    load = row.loads * STORED * weights / device.read
    proof = work.proved * 2 * weights / (core.flops * cores)
    forward = (work.read + work.decoded) * 2 * weights / device.flops
    backward = work.trained * row.slow * 6 * weights / device.trained_flops
    decoding = work.passes * (size.layers * device.step + STORED * weights / device.bandwidth)
    return load + proof + forward + backward + decoding


def weight_seconds(row: Row, size: Architecture, on_gpu: bool) -> float:
    """Seconds that go by weights alone: searching codes, solving for them, packing."""
    each = row.weight_s.get("gpu" if on_gpu else "cpu", row.weight_s.get("cpu", 0))
    return each * size.parameters / 1e9


def judge_seconds(row: Row, answers: float, requests: float = 0, side_by_side: int = 1) -> float:
    """seconds + answers · answer_s + requests · request_s / concurrency"""
    return row.seconds + answers * row.answer_s + requests * row.request_s / side_by_side


def artefact_bytes(size: Architecture, bits: int, restored: float = 0) -> float:
    """Bytes of an artefact: codes and scales of the decoder's layers, embeddings as they were, and weights put back.

    body · ((bits + 0.5) / 8 + restored · 4) + 2 · embeddings; full precision is a pointer to its checkpoint.
    """
    embeddings = min(2 * size.vocabulary * size.hidden_size, size.parameters // 2)
    body = size.parameters - embeddings
    return STORED * embeddings + body * ((bits + 0.5) / 8 + 4 * restored)
