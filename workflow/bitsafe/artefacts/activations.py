"""Activations rounded in the forward pass of the dense model, for methods that quantize them too.

`activations.json` beside an artefact says how: a rule for the inputs of the quantized layers, rules for some by the
last part of their names, and a rule for the outputs of the key and value projections (the cache). Every rule works a
token at a time, so an answer does not depend on what else is in its batch. The gradient passes as if nothing had been
rounded, so that patches train through it.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bitsafe.artefacts.layers import Layer
from bitsafe.files import read_json, write_json

FILE = "activations.json"
CACHED = ("k_proj", "v_proj")


@dataclass(frozen=True)
class Rule:
    """bits: of each entry. symmetric: levels around zero, else between the token's extremes.

    threshold: entries at or above it in magnitude stay as they are and count in no scale (LLM.int8, Dettmers et al.
    2022, §3.2); None: none do.
    """

    bits: int
    symmetric: bool
    threshold: float | None = None


@dataclass(frozen=True)
class Activations:
    """inputs: of the quantized layers; by_layer: others, by last part of a name; cache: of the outputs of K and V."""

    inputs: Rule | None = None
    by_layer: dict[str, Rule] = field(default_factory=dict)
    cache: Rule | None = None

    def rule(self, layer: str) -> Rule | None:
        return self.by_layer.get(layer.rpartition(".")[2], self.inputs)


def write_activations(out: Path, activations: Activations) -> None:
    """Say beside an artefact how its activations are rounded."""
    write_json(out / FILE, asdict(activations))


def read_activations(artefact: Path) -> Activations | None:
    """What an artefact says, or None."""
    if not (artefact / FILE).exists():
        return None
    raw: dict[str, Any] = read_json(artefact / FILE)
    one = {key: Rule(**raw[key]) if raw[key] else None for key in ("inputs", "cache")}
    return Activations(**one, by_layer={name: Rule(**rule) for name, rule in raw["by_layer"].items()})


def quantize_activations(model: nn.Module, artefact: Path, layers: dict[str, Layer]) -> None:
    """Make `model` round its activations as the artefact says, where it says so."""
    if (found := read_activations(artefact)) is not None:
        attach_rules(model, found, {name: layer.outliers() for name, layer in layers.items()})


def attach_rules(model: nn.Module, activations: Activations, outliers: dict[str, Tensor | None]) -> None:
    """Hooks on the layers named in `outliers`, which gives the input columns each keeps in 16 bits, or None."""
    for name, columns in outliers.items():
        module = model.get_submodule(name)
        if rule := activations.rule(name):
            module.register_forward_pre_hook(_input_hook(rule, columns))
        if activations.cache and name.rpartition(".")[2] in CACHED:
            module.register_forward_hook(_output_hook(activations.cache))


def _input_hook(rule: Rule, columns: Tensor | None) -> Callable:
    def hook(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (fake_quantize(inputs[0], rule, columns), *inputs[1:])

    return hook


def _output_hook(rule: Rule) -> Callable:
    def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return fake_quantize(output, rule)

    return hook


def fake_quantize(x: Tensor, rule: Rule, columns: Tensor | None = None) -> Tensor:
    """Activations [..., features] rounded a token at a time, in their own dtype; `columns` stay as they are.

    symmetric: round(x / s) · s with s = max|x| / (2^(bits−1) − 1). Otherwise s = (max − min) / (2^bits − 1) and levels
    start at the minimum. The gradient is the identity's.
    """
    wide = x.detach().float()
    kept = torch.zeros_like(wide, dtype=torch.bool)
    if columns is not None:
        kept[..., columns.to(x.device)] = True
    if rule.threshold is not None:
        kept |= wide.abs() >= rule.threshold
    rounded = _symmetric(wide, rule.bits, kept) if rule.symmetric else _asymmetric(wide, rule.bits, kept)
    rounded = torch.where(kept, wide, rounded).to(x.dtype)
    # x − x is zero, so training computes with the very numbers that an answer is computed with
    return rounded + (x - x.detach()) if x.requires_grad else rounded


def _symmetric(x: Tensor, bits: int, kept: Tensor) -> Tensor:
    scale = x.abs().masked_fill(kept, 0).amax(-1, keepdim=True) / (2 ** (bits - 1) - 1)
    return torch.where(scale > 0, torch.round(x / scale) * scale, 0.0)


def _asymmetric(x: Tensor, bits: int, kept: Tensor) -> Tensor:
    low = x.masked_fill(kept, torch.inf).amin(-1, keepdim=True)
    high = x.masked_fill(kept, -torch.inf).amax(-1, keepdim=True)
    scale = (high - low) / (2**bits - 1)
    return torch.where(scale > 0, torch.round((x - low) / scale) * scale + low, x)
