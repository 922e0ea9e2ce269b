"""Writing a patched cell: the artefact as it was, with other codes, other grids or an adapter."""

from pathlib import Path

from bitsafe.artefacts.artefact import with_adapters, with_codes, with_grids
from bitsafe.artefacts.layers import QuantizedLinear

Quantized = dict[str, QuantizedLinear]


def export(artefact: Path, out: Path, after: Quantized, quant_mode: str = "requant_grid") -> None:
    """Write what has become of `artefact` into the empty folder `out`; nothing else of it changes."""
    if quant_mode == "requant_fp":
        with_grids(artefact, out, after)
    elif quant_mode == "adapter" and all(layer.adapter for layer in after.values()):
        with_adapters(artefact, out, after)
    else:
        with_codes(artefact, out, {name: layer.codes for name, layer in after.items()})


def changes(before: Quantized, after: Quantized) -> dict[str, float]:
    """The share of all quantized weights whose code is another one now."""
    total = sum(layer.codes.numel() for layer in before.values())
    moved = sum(int((after[name].codes != layer.codes).sum()) for name, layer in before.items())
    return {"codes_changed": moved / total}
