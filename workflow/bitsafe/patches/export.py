"""Writing a patched cell: the artefact as it was, with other codes, other grids, or an update beside them."""

from pathlib import Path

from bitsafe.artefacts.artefact import with_adapters, with_codes, with_grids
from bitsafe.artefacts.checkpoint import replace_tensors
from bitsafe.artefacts.kinds.trained import TrainedLinear
from bitsafe.artefacts.layers import Layer
from bitsafe.artefacts.own_file import rewrite

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


def changes(before: Quantized, after: Quantized) -> dict[str, float]:
    """The share of all codes that are others now; nothing where the trained weights have no codes."""
    if any(isinstance(layer, TrainedLinear) for layer in after.values()):
        return {}
    total = sum(layer.codes.numel() for layer in before.values())
    moved = sum(int((after[name].codes != layer.codes).sum()) for name, layer in before.items())
    return {"codes_changed": moved / total}
