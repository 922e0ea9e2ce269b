"""Writing a patched cell: the artefact as it was, with other codes, other grids, or an update beside them."""

import math
from collections.abc import Mapping
from pathlib import Path

import torch

from bitsafe.artefacts.artefact import with_adapters, with_codes, with_grids
from bitsafe.artefacts.checkpoint import replace_tensors
from bitsafe.artefacts.formats.own import rewrite
from bitsafe.artefacts.kinds.trained import TrainedLinear
from bitsafe.artefacts.layers import Layer, QuantizedLinear, moved
from bitsafe.patches.training.latent import LatentLinear

Quantized = dict[str, Layer]


def export(artefact: Path, out: Path, after: Quantized, quant_mode: str = "requant_grid") -> None:
    """Write what has become of `artefact` into the empty folder `out`; nothing else of it changes."""
    some = next(iter(after.values()))
    if isinstance(some, TrainedLinear):
        rewrite(artefact, out, "trained", list(after.values()))
    elif quant_mode == "requant_fp":
        with_grids(artefact, out, after)
    elif quant_mode == "adapter":
        with_adapters(artefact, out, after)
    elif quant_mode == "delta_quant":
        rewrite(artefact, out, "delta", list(after.values()))
    else:
        with_codes(artefact, out, {name: layer.codes for name, layer in after.items()})


def leave(artefact: Path, out: Path) -> None:
    """Copy an artefact that nothing was learnt for."""
    replace_tensors(artefact, out, {})


@torch.no_grad()
def export_error(trained: Mapping[str, LatentLinear], made: Quantized) -> float:
    """‖W_written − W_trained‖ / ‖W_trained‖ over all layers, adapters included: what writing costs.

    It is 0, or rounding of 16-bit factors, where training computes with what is written, and the rounding of every
    code where it does not.
    """
    wrong = total = 0.0
    for name, layer in trained.items():
        own = layer.quantized.adapter.delta() if layer.quantized.adapter else 0.0
        wanted = layer.weight() + own
        wrong += float((made[name].dense().to(wanted.device) - wanted).square().sum())
        total += float(wanted.square().sum())
    return math.sqrt(wrong / total)


@torch.no_grad()
def unmasked_changes(trained: Mapping[str, LatentLinear], made: Quantized) -> dict[str, float]:
    """What moved that no mask had held, of layers with a code a weight: `requant_fp` moves scales, and all with them.

    unmasked_codes_changed: share of those codes. unmasked_change: root mean square of their weights' change, relative
    to that of their weights.
    """
    codes = count = change = size = 0.0
    for name, layer in trained.items():
        before, after = moved(layer.quantized, "cpu"), made[name]
        if not (isinstance(before, QuantizedLinear) and isinstance(after, QuantizedLinear)):
            return {}
        free = ~layer.touched.cpu()
        codes, count = codes + int((before.codes != after.codes)[free].sum()), count + int(free.sum())
        change += float((after.weight() - before.weight())[free].square().sum())
        size += float(before.weight()[free].square().sum())
    shares = {"unmasked_codes_changed": codes / count if count else 0.0}
    return shares | {"unmasked_change": math.sqrt(change / size) if size else 0.0}


def changes(before: Quantized, after: Quantized) -> dict[str, float]:
    """The share of all codes that are others now; nothing where the trained weights have no codes."""
    if any(isinstance(layer, TrainedLinear) for layer in after.values()):
        return {}
    total = sum(layer.codes.numel() for layer in before.values())
    moved = sum(int((after[name].codes != layer.codes).sum()) for name, layer in before.items())
    return {"codes_changed": moved / total}
