"""The AWQ format (version gemm) of AutoAWQ and gptqmodel, which plain `transformers` (with gptqmodel) and vLLM load.

A layer `X` is X.qweight (int32 [in, out·bits/32]), X.qzeros (int32 [groups, out·bits/32]) and X.scales (fp16 [groups,
out]). At 4 bits the eight outputs of a word lie in the order that AWQ's GPU kernel unpacks them in; at the other
widths, which only gptqmodel writes, they lie in their own.
"""

from pathlib import Path

import torch
from torch import Tensor

from bitsafe.artefacts.checkpoint import read_config
from bitsafe.artefacts.formats.words import pack_words, unpack_words
from bitsafe.artefacts.grids import AffineGrid
from bitsafe.artefacts.layers import QuantizedLinear

QUANT_METHOD = "awq"
BITS = (8, 4, 3, 2)
ORDER = (0, 2, 4, 6, 1, 3, 5, 7)  # which output of eight stands at each place of a 4-bit word
_CODES = ".qweight"


def read(folder: Path, tensors: dict[str, Tensor]) -> dict[str, QuantizedLinear]:
    """The quantized layers of an artefact, by name; an incomplete one is a KeyError, an unknown variant ValueError."""
    config = read_config(folder)["quantization_config"]
    version = config.get("version") or config.get("checkpoint_format") or config.get("format")
    if str(version).lower() != "gemm" or config["bits"] not in BITS:
        raise ValueError(f"version {version!r} at {config['bits']} bits: not read here")
    names = sorted(name.removesuffix(_CODES) for name in tensors if name.endswith(_CODES))
    return {name: _layer(name, tensors, config["bits"]) for name in names}


def _layer(name: str, tensors: dict[str, Tensor], bits: int) -> QuantizedLinear:
    codes = _ordered(unpack_words(tensors[f"{name}.qweight"], bits), bits)
    scale = tensors[f"{name}.scales"].T.contiguous()
    zero_point = _ordered(unpack_words(tensors[f"{name}.qzeros"], bits), bits)
    return QuantizedLinear(name, codes, AffineGrid(bits, codes.shape[1] // scale.shape[1], scale, zero_point))


def with_codes(layer: QuantizedLinear, codes: Tensor) -> dict[str, Tensor]:
    """The stored tensors of `layer` that change when its codes do."""
    return {f"{layer.name}{_CODES}": pack_words(_interleaved(codes.T, layer.grid.bits), layer.grid.bits)}


def _ordered(stored: Tensor, bits: int) -> Tensor:
    """Unpacked codes [rows, out] as they lie in the words to [out, rows], in the order of the outputs."""
    if bits == 4:
        stored = stored.unflatten(1, (-1, len(ORDER)))[..., torch.tensor(ORDER).argsort()].flatten(1)
    return stored.T.contiguous()


def _interleaved(codes: Tensor, bits: int) -> Tensor:
    """Codes [rows, out] as they are to lie in the words."""
    return codes.unflatten(1, (-1, len(ORDER)))[..., torch.tensor(ORDER)].flatten(1) if bits == 4 else codes
