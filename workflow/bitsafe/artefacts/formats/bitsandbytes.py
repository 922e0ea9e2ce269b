"""The bitsandbytes format, as `transformers` saves and loads it.

4 bits (NF4, FP4): a layer `X` is X.weight (two codes a byte, the first in the high half), X.weight.absmax,
X.weight.quant_map (the table) and X.weight.quant_state.bitsandbytes__nf4 (JSON in bytes: block size, shape, dtype).
8 bits (LLM.int8): X.weight (int8 [out, in]), X.SCB (absolute maximum of each row) and X.weight_format.
"""

import json
from pathlib import Path

import torch
from torch import Tensor

from bitsafe.artefacts.grids import AffineGrid, TableGrid
from bitsafe.artefacts.layers import QuantizedLinear

QUANT_METHOD = "bitsandbytes"
_STATE, _ROW_MAXIMA = ".weight.quant_state.bitsandbytes__", ".SCB"
INT8_TOP, INT8_ZERO = 127, 128  # the largest code's magnitude; what our unsigned codes add


def read(folder: Path, tensors: dict[str, Tensor]) -> dict[str, QuantizedLinear]:
    """The quantized layers of an artefact, by name; an incomplete one is a KeyError."""
    four = {name.split(_STATE)[0]: name for name in tensors if _STATE in name}
    eight = {name.removesuffix(_ROW_MAXIMA) for name in tensors if name.endswith(_ROW_MAXIMA)}
    layers = {name: _four_bits(name, state, tensors) for name, state in sorted(four.items())}
    return layers | {name: _eight_bits(name, tensors) for name in sorted(eight)}


def _four_bits(name: str, state_name: str, tensors: dict[str, Tensor]) -> QuantizedLinear:
    state = json.loads(bytes(tensors[state_name].tolist()))
    if f"{name}.weight.nested_absmax" in tensors:
        raise ValueError(f"{name}: double quantization is not supported, set bnb_4bit_use_double_quant: false")
    grid = TableGrid(
        levels=tensors[f"{name}.weight.quant_map"],
        absmax=tensors[f"{name}.weight.absmax"],
        block_size=state["blocksize"],
        shape=tuple(state["shape"]),
    )
    return QuantizedLinear(name, _unpack(tensors[f"{name}.weight"], grid.shape), grid)


def _eight_bits(name: str, tensors: dict[str, Tensor]) -> QuantizedLinear:
    """w = SCB / 127 · code (Dettmers et al. 2022, §2.2): a symmetric grid of one group a row."""
    stored, maxima = tensors[f"{name}.weight"], tensors[f"{name}{_ROW_MAXIMA}"].float()
    grid = AffineGrid(8, stored.shape[1], (maxima / INT8_TOP).unsqueeze(1))
    return QuantizedLinear(name, (stored.to(torch.int16) + INT8_ZERO).to(torch.uint8), grid)


def with_codes(layer: QuantizedLinear, codes: Tensor) -> dict[str, Tensor]:
    """The stored tensors of `layer` that change when its codes do."""
    if isinstance(layer.grid, AffineGrid):
        return {f"{layer.name}.weight": (codes.to(torch.int16) - INT8_ZERO).to(torch.int8)}
    return {f"{layer.name}.weight": pack_nibbles(codes)}


def with_grid(layer: QuantizedLinear) -> dict[str, Tensor]:
    """The stored tensors of `layer` that change when its codes and its grid do."""
    codes = with_codes(layer, layer.codes)
    if isinstance(layer.grid, AffineGrid):
        return codes | {f"{layer.name}{_ROW_MAXIMA}": layer.grid.scale.flatten() * INT8_TOP}
    return codes | {f"{layer.name}.weight.absmax": layer.grid.absmax}


def _unpack(packed: Tensor, shape: tuple[int, int]) -> Tensor:
    return torch.stack([packed.flatten() >> 4, packed.flatten() & 15], dim=-1).view(shape)


def pack_nibbles(codes: Tensor) -> Tensor:
    """uint8 codes [out, in] (an even count) to the format's bytes [out·in/2, 1]."""
    pairs = codes.to(torch.uint8).reshape(-1, 2)
    return (pairs[:, :1] << 4) | pairs[:, 1:]
