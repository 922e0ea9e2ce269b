"""The GPTQ format of gptqmodel and AutoGPTQ, which plain `transformers` (with gptqmodel) and vLLM load.

A layer `X` is X.qweight (int32 [in·bits/32, out]), X.qzeros (int32 [groups, out·bits/32]), X.scales (fp16 [groups,
out]) and X.g_idx (int32 [in], each input's group). Version 1 (checkpoint_format `gptq`, or none) stores every
zero-point less one, modulo 2^bits; version 2 (`gptq_v2`) stores it as it is.
"""

from pathlib import Path

import torch
from torch import Tensor

from bitsafe.artefacts.checkpoint import read_config
from bitsafe.artefacts.formats.words import pack_words, unpack_words
from bitsafe.artefacts.grids import AffineGrid
from bitsafe.artefacts.layers import QuantizedLinear

QUANT_METHOD = "gptq"
BITS = (8, 4, 3, 2)
LESS = {"gptq": 1, "gptq_v2": 0}  # what is taken from a zero-point before it is stored
_CODES = ".qweight"


def read(folder: Path, tensors: dict[str, Tensor]) -> dict[str, QuantizedLinear]:
    """The quantized layers of an artefact, by name; an incomplete one is a KeyError, an unknown variant ValueError."""
    config = read_config(folder)["quantization_config"]
    version, bits = config.get("checkpoint_format") or "gptq", config["bits"]
    if version not in LESS or bits not in BITS or config.get("dynamic"):
        raise ValueError(
            f"checkpoint_format {version!r} at {bits} bits, dynamic {config.get('dynamic')}: not read here"
        )
    names = sorted(name.removesuffix(_CODES) for name in tensors if name.endswith(_CODES))
    return {name: _layer(name, tensors, bits, LESS[version], bool(config.get("sym"))) for name in names}


def _layer(name: str, tensors: dict[str, Tensor], bits: int, less: int, symmetric: bool) -> QuantizedLinear:
    codes = unpack_words(tensors[f"{name}.qweight"].T, bits)
    scale = tensors[f"{name}.scales"].T.contiguous()
    group_size = codes.shape[1] // scale.shape[1]
    in_order = torch.arange(codes.shape[1]) // group_size
    if not torch.equal(tensors[f"{name}.g_idx"].long(), in_order):
        raise ValueError(f"{name}.g_idx: groups that are not {group_size} inputs in order (desc_act) are not read here")
    stored = unpack_words(tensors[f"{name}.qzeros"], bits)[:, : scale.shape[0]].T
    zero_point = ((stored.to(torch.int16) + less) % 2**bits).to(torch.uint8).contiguous()
    grid = AffineGrid(bits, group_size, scale, zero_point)
    if symmetric and torch.all(zero_point == 2 ** (bits - 1)):
        grid = AffineGrid(bits, group_size, scale)  # its zero-points lie in the file, but say nothing
    return QuantizedLinear(name, codes.contiguous(), grid)


def with_codes(layer: QuantizedLinear, codes: Tensor) -> dict[str, Tensor]:
    """The stored tensors of `layer` that change when its codes do."""
    return {f"{layer.name}{_CODES}": pack_words(codes, layer.grid.bits).T.contiguous()}
