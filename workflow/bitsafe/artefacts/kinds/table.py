"""A table of levels times one absolute maximum a block: NF3 and NF2, which bitsandbytes has not."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from bitsafe.artefacts.grids import TableGrid
from bitsafe.artefacts.layers import QuantizedLinear

# (codes, bits) -> what the file holds of them, and the reverse: (that, bits, shape of the codes) -> codes
Pack = Callable[[Tensor, int], Tensor]
Unpack = Callable[[Tensor, int, tuple[int, int]], Tensor]


def packed(codes: Tensor, bits: int) -> Tensor:
    """Unsigned codes [rows, columns] of 1 to 8 bits to int32 words."""
    from bitsafe.artefacts.formats.compressed import pack_codes

    return pack_codes(codes, bits)


def unpacked(words: Tensor, bits: int, shape: tuple[int, int]) -> Tensor:
    """The reverse of `packed`: uint8 [rows, columns]."""
    from bitsafe.artefacts.formats.compressed import unpack_codes

    return unpack_codes(words, bits, shape)


def stored(layer: QuantizedLinear, pack: Pack = packed) -> dict[str, Tensor]:
    """codes: int32 words [out, in·bits/32] (compressed-tensors' packing); absmax: [n_blocks]; levels: [2^bits]."""
    return {
        "codes": pack(layer.codes, layer.bits),
        "absmax": layer.grid.absmax,
        "levels": layer.grid.levels.clone(),  # layers share one table, a safetensors file shares nothing
        "shape": torch.tensor(layer.shape),
    }


def restored(
    name: str, parts: dict[str, Tensor], settings: dict[str, Any], unpack: Unpack = unpacked
) -> QuantizedLinear:
    """settings: `block_size`."""
    shape = tuple(parts["shape"].tolist())
    grid = TableGrid(parts["levels"], parts["absmax"], settings["block_size"], shape)
    return QuantizedLinear(name, unpack(parts["codes"], grid.bits, shape), grid)
