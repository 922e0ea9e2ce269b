"""Integer grids, as compressed-tensors stores them: the base of a layer that keeps some weights in 16 bits."""

from typing import Any

import torch
from torch import Tensor

from bitsafe.artefacts.grids import AffineGrid
from bitsafe.artefacts.kinds.table import Pack, Unpack, packed, unpacked
from bitsafe.artefacts.layers import QuantizedLinear


def stored(layer: QuantizedLinear, pack: Pack = packed) -> dict[str, Tensor]:
    """codes: int32 words; scale: [out, groups]; zero_point (none: symmetric): int32 words, packed along its columns."""
    grid = layer.grid
    parts = {"codes": pack(layer.codes, grid.bits), "scale": grid.scale, "shape": torch.tensor(layer.shape)}
    if grid.zero_point is not None:
        parts["zero_point"] = packed(grid.zero_point.T, grid.bits)
    return parts


def restored(
    name: str, parts: dict[str, Tensor], settings: dict[str, Any], unpack: Unpack = unpacked
) -> QuantizedLinear:
    """settings: `bits`."""
    shape, scale, bits = tuple(parts["shape"].tolist()), parts["scale"], settings["bits"]
    zero_point = None
    if "zero_point" in parts:
        zero_point = unpacked(parts["zero_point"], bits, (scale.shape[1], shape[0])).T.contiguous()
    grid = AffineGrid(bits, shape[1] // scale.shape[1], scale, zero_point)
    return QuantizedLinear(name, unpack(parts["codes"], bits, shape), grid)
