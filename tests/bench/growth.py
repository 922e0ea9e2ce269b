"""growth: seconds and memory of the quantizers by the size of a layer, and of a model by the number of its layers.

A layer of the made-up kind has random weights and inputs that correlate as text's do (a few directions carry most of
them). Each fit is a process of its own on one thread. ours: CPU seconds a million weights in the largest; peer: in the
smallest; linear is a ratio of 1. What solves with the Gram matrix of its inputs (GPTQ, QUIP#'s LDLQ) has a part that
grows with the width by itself; a model with more layers of the same width shows it no more.
"""

from collections.abc import Iterator
from functools import partial

import torch
from tests.bench.forked import measured
from tests.bench.quantizers import Case, Fit, gptq, ours, rtn

from bitsafe.quantizers import aqlm, quik, quip_sharp
from bitsafe.quantizers.shared.blocks import Statistics

SIZES = (256, 512, 1024)  # of a square layer
TOKENS = (512, 4096)  # of calibration
LAYERS = (1, 4)  # of the smallest size, one after the other, as in a model
BITS = 4
METHODS: dict[str, Fit] = {
    "rtn": rtn(64),
    "gptq": gptq(64),
    "aqlm": ours(aqlm),
    "quip_sharp": ours(quip_sharp),
    "quik": ours(quik, activations=False),
}


def run() -> Iterator[dict]:
    for name, fit in METHODS.items():
        warm(fit)
        yield row(name, "a layer's width", {size: fitted(fit, size, 1) for size in SIZES})
        by_depth = {layers: fitted(fit, SIZES[1], layers) for layers in LAYERS}
        yield row(name, f"layers of {SIZES[1]} × {SIZES[1]}", by_depth)
    yield row("gram", "tokens of calibration", {tokens: observed(tokens) for tokens in TOKENS})


def warm(fit: Fit) -> None:
    """Import what it needs before anything is forked."""
    fit(case(64), BITS)


def case(size: int, tokens: int = 1024) -> Case:
    draw = torch.Generator().manual_seed(size)
    weight = torch.randn(size, size, generator=draw) * 0.02
    inputs = made_inputs(tokens, size, draw)
    return Case(f"square{size}", weight, statistics(inputs), inputs.T @ inputs)


def made_inputs(tokens: int, size: int, draw: torch.Generator) -> torch.Tensor:
    """Inputs [tokens, size] whose spectrum falls with the square root of the rank."""
    mixed = torch.randn(tokens, size, generator=draw) / torch.arange(1, size + 1).sqrt()
    return mixed @ torch.linalg.qr(torch.randn(size, size, generator=draw)).Q


def statistics(inputs: torch.Tensor) -> Statistics:
    return Statistics(inputs.T @ inputs, inputs.abs().amax(0))


def fitted(fit: Fit, size: int, layers: int) -> dict:
    return measured(partial(fit_all, fit, case(size), layers)) | {"weights": layers * size * size}


def fit_all(fit: Fit, one: Case, layers: int, meter) -> None:
    for _ in range(layers):
        with meter:
            fit(one, BITS)


def observed(tokens: int) -> dict:
    inputs = made_inputs(tokens, SIZES[-1], torch.Generator().manual_seed(0))
    return measured(partial(observe, inputs)) | {"weights": tokens}


def observe(inputs: torch.Tensor, meter) -> None:
    with meter:
        statistics(inputs)


def row(name: str, what: str, found: dict[int, dict]) -> dict:
    """Seconds a million of weights (or tokens) at the largest against the smallest; all sizes beside."""
    each = {size: one["cpu_seconds"] / one["weights"] * 1e6 for size, one in found.items()}
    smallest, largest = min(found), max(found)
    return {
        **{"name": "growth", "method": name, "what": what},
        **{"ours": each[largest], "peer": each[smallest], "ratio": each[largest] / each[smallest]},
        **{"peer_name": f"{what}: {smallest}", "unit": "CPU s a million", "size": largest, "n": 1, "spread": None},
        "seconds": {size: one["cpu_seconds"] for size, one in found.items()},
        "above_mb": {size: one["above_mb"] for size, one in found.items()},
    }


if __name__ == "__main__":
    for found in run():
        print(found, flush=True)
