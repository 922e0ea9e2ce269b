"""quantizers: the layer objective of every weight quantizer on the same SmolLM2 layers and the same inputs.

Relative objective ‖(W−Ŵ)X‖² / ‖WX‖² on held-out X (a quarter of the conversations, which no method saw). Ours stand
beside llm-compressor's GPTQ and plain residual k-means. A win counts only where our effective bits are at most the
rival's + 0.1 (`comparable`). `aqlm` is measured before block tuning. SmolLM2 from the wheel was 4-bit already (Q4_1,
groups of 32), so its 4-bit rows rank nothing.
"""

import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

import torch
from torch import Tensor

from bitsafe.artefacts.formats.compressed import weight_args
from bitsafe.artefacts.grids import affine_grid
from bitsafe.artefacts.layers import Layer, QuantizedLinear
from bitsafe.artefacts.load import load_model, load_tokenizer
from bitsafe.data.chat import encode_all
from bitsafe.data.checkpoints import fetch_model
from bitsafe.data.conversations import load_conversations
from bitsafe.matrix.tables import ROOT, Tables
from bitsafe.quantizers import aqlm, quik, quip_sharp
from bitsafe.quantizers.shared.blocks import Statistics, walk
from bitsafe.quantizers.shared.calibration import calibration_batches

CHECKPOINT = Path("results/models/smollm2/checkpoint")
LAYERS = ("model.layers.3.self_attn.q_proj", "model.layers.15.self_attn.o_proj", "model.layers.15.mlp.up_proj")
BITS = (4, 3, 2)
GPTQ_DAMPENING = 0.01


@dataclass(frozen=True)
class Case:
    """One layer: weight [out, in], what calibration tells of its inputs, and the Gram matrix it is scored on."""

    name: str
    weight: Tensor
    seen: Statistics
    held_out: Tensor

    def objective(self, layer: Layer) -> float:
        return self.objective_of(layer.dense())

    def objective_of(self, weight: Tensor) -> float:
        wrong = weight - self.weight
        return float(((wrong @ self.held_out) * wrong).sum() / ((self.weight @ self.held_out) * self.weight).sum())


Fit = Callable[[Case, int], Layer]


def rtn(group_size: int) -> Fit:
    def fit(case: Case, bits: int) -> Layer:
        grid = affine_grid(case.weight, bits, group_size)
        return QuantizedLinear(case.name, grid.nearest(case.weight), grid)

    return fit


def gptq(group_size: int) -> Fit:
    """llm-compressor's own function on our Gram matrix, its grid that of `rtn`."""

    def fit(case: Case, bits: int) -> Layer:
        os.environ.setdefault("LLM_COMPRESSOR_LOG_LEVEL", "ERROR")  # read when it is imported
        from llmcompressor.modifiers.gptq.gptq_quantize import quantize_weight

        grid = affine_grid(case.weight, bits, group_size)
        zero = grid.zero_point.to(torch.int16) - 2 ** (bits - 1)
        weight, *_ = quantize_weight(
            case.weight[None].clone(),
            2 * case.seen.gram[None].clone(),
            grid.scale[None].float(),
            zero[None].to(torch.int8),
            None,
            weight_args(bits, group_size, False),
            percdamp=GPTQ_DAMPENING,
        )
        return QuantizedLinear(case.name, grid.nearest(weight[0]), grid)

    return fit


def ours(module, **extra) -> Fit:
    """A method's own `fit_layer` with the parameters of its row."""

    def fit(case: Case, bits: int) -> Layer:
        params = Tables().get("methods", module.__name__.rpartition(".")[2], "bench").params | extra
        more = {"peak": case.seen.peak} if module is quik else {}
        return module.fit_layer(case.name, case.weight, case.seen.gram, bits, params, 0, **more)

    return fit


def kmeans(case: Case, bits: int) -> Layer:
    """Residual k-means with AQLM's layout at these bits, blind to the inputs."""
    blind = Statistics(torch.eye(case.weight.shape[1]), torch.ones(case.weight.shape[1]))
    return ours(aqlm, max_rounds=0, adam_steps=0)(Case(case.name, case.weight, blind, case.held_out), bits)


METHODS: dict[str, Fit] = {
    "rtn g64": rtn(64),
    "rtn g32": rtn(32),
    "gptq g64": gptq(64),
    "gptq g32": gptq(32),
    "k-means": kmeans,
    "aqlm": ours(aqlm),
    "quip_sharp": ours(quip_sharp),
    "quik": ours(quik, activations=False),
}
PEERS = {"aqlm": ("gptq g64", "gptq g32", "k-means"), "quip_sharp": ("gptq g64", "gptq g32"), "quik": ("gptq g64",)}
PEERS |= {"gptq g64": ("rtn g64",)}


def run() -> list[dict]:
    cases = load_cases()
    warm(METHODS)
    measured = {(name, bits): measure(fit, cases, bits) for name, fit in METHODS.items() for bits in BITS}
    rows = [against(measured, name, peer, bits) for name, peers in PEERS.items() for peer in peers for bits in BITS]
    headline = [row for row in rows if row["bits"] == 2 and row["method"] != "gptq g64"]
    return headline + [row for row in rows if row not in headline] + told_alone(measured, len(cases))


UNIT = "relative layer objective"


def told_alone(measured: dict, layers: int) -> list[dict]:
    """A row for every method and width by itself."""
    alone = [{"name": "quantizers", "method": name, "bits": bits, **found} for (name, bits), found in measured.items()]
    for row in alone:
        row |= {"ours": row["objective"], "peer": 1.0, "peer_name": "the weight left out", "unit": UNIT}
        row |= {"ratio": row["objective"], "n": layers, "spread": None}
    return alone


def warm(names: Iterable[str]) -> None:
    """What a library does at its first call belongs to no layer's seconds."""
    weight, gram = torch.randn(64, 64), torch.eye(64)
    for name in names:
        METHODS[name](Case("small", weight, Statistics(gram, torch.ones(64)), gram), 4)


def measure(fit: Fit, cases: list[Case], bits: int) -> dict:
    objectives, used, started = [], [], time.process_time()
    for case in cases:
        layer = fit(case, bits)
        objectives.append(case.objective(layer))
        used.append((layer.code_bits + layer.side_bits) / layer.numel)
    seconds = time.process_time() - started
    return {"objective": mean(objectives), "by_layer": objectives, "effective_bits": mean(used), "cpu_seconds": seconds}


def against(measured: dict, name: str, peer: str, bits: int) -> dict:
    """Our method beside a rival at the same nominal bits; the ratio is of means over the layers."""
    mine, theirs = measured[name, bits], measured[peer, bits]
    ratios = [a / b for a, b in zip(mine["by_layer"], theirs["by_layer"])]
    row = {"name": "quantizers", "method": name, "bits": bits, "ours": mine["objective"], "peer": theirs["objective"]}
    row |= {"peer_name": peer, "ratio": mine["objective"] / theirs["objective"], "unit": UNIT, "n": len(ratios)}
    row |= {"spread": [min(ratios), max(ratios)], "effective_bits": mine["effective_bits"]}
    row |= {"peer_effective_bits": theirs["effective_bits"]}
    row |= {"cpu_seconds": mine["cpu_seconds"], "peer_cpu_seconds": theirs["cpu_seconds"]}
    row |= {"time_ratio": mine["cpu_seconds"] / theirs["cpu_seconds"]}
    return row | {"comparable": mine["effective_bits"] <= theirs["effective_bits"] + 0.1}


def load_cases() -> list[Case]:
    if not (CHECKPOINT / "config.json").exists():
        fetch_model(Tables().get("models", "smollm2", "bench").model_dump() | {"name": "smollm2"}, CHECKPOINT)
    examples = encode_all(load_tokenizer(CHECKPOINT), conversations())
    model = load_model(CHECKPOINT, "float32")
    cut = len(examples) // 4
    held_out, seen = (statistics(model, calibration_batches(part)) for part in (examples[:cut], examples[cut:]))
    return [Case(name, model.get_submodule(name).weight.detach(), seen[name], held_out[name].gram) for name in LAYERS]


def conversations() -> list[dict]:
    """Those of both parts: the first quarter is held out."""
    row = Tables().get("datasets", "everyday", "bench").model_dump() | {"name": "everyday"}
    return load_conversations(row, ROOT, answered=True)


def statistics(model, batches: list[Tensor]) -> dict[str, Statistics]:
    """What enters each layer under test in the full-precision model."""
    found = {}
    for block in walk(model, batches, set(LAYERS), "inputs"):
        if block.linears:
            found |= block.statistics()
    return found
