"""The aqlm format, as `transformers` (AqlmConfig) and the `aqlm` package load it.

A layer `X` is X.codes (signed: code b stands as b − 2^B where b ≥ 2^(B−1); int8 up to 8 bits a code, else int16;
[out, in/g, K]), X.codebooks [K, 2^B, 1, g] and X.scales [out, 1, 1, 1]. Codes of fewer than 8 bits take a byte each in
the file: `stored_bits` counts the bytes, `effective_bits` the bits.

Whoever runs an artefact with the package (1.1.7) on a CPU must set NUMBA_NUM_THREADS=1: its kernel for 8-bit codes adds
to one output from several threads without a lock, and loses summands. Loading by bitsafe does not go through it.
"""

from pathlib import Path

import torch
from torch import Tensor

from bitsafe.artefacts.additive import AdditiveLinear
from bitsafe.artefacts.checkpoint import copy_side_files, read_config, write_config, write_tensors

QUANT_METHOD = "aqlm"
_CODES = ".codes"
# the package looks for modules of this name: with ".weight" behind it, as old checkpoints have it, the head would be
# replaced by an empty quantized layer
NOT_QUANTIZED = ["lm_head"]


def write_aqlm(out: Path, source: Path, layers: list[AdditiveLinear], others: dict[str, Tensor]) -> None:
    """Write an artefact: `layers` share their layout; `others` are the tensors that stay as they are."""
    tensors = dict(others)
    for layer in layers:
        tensors[f"{layer.name}{_CODES}"] = signed(layer.codes, layer.bits_a_code)
        tensors[f"{layer.name}.codebooks"] = layer.codebooks.unsqueeze(2)
        tensors[f"{layer.name}.scales"] = layer.scales.view(-1, 1, 1, 1)
    write_tensors(out, tensors)
    write_config(source, out, quantization_config=_config(layers[0]))
    copy_side_files(source, out)


def _config(layer: AdditiveLinear) -> dict:
    codebooks, _, group = layer.codebooks.shape
    shape = {"in_group_size": group, "out_group_size": 1, "num_codebooks": codebooks}
    names = {"nbits_per_codebook": layer.bits_a_code, "linear_weights_not_to_quantize": NOT_QUANTIZED}
    return {"quant_method": QUANT_METHOD} | shape | names


def read(folder: Path, tensors: dict[str, Tensor]) -> dict[str, AdditiveLinear]:
    """The quantized layers of an artefact, by name; an incomplete one is a KeyError."""
    config = read_config(folder)["quantization_config"]
    if config["out_group_size"] != 1:
        raise ValueError(f"out_group_size {config['out_group_size']} is not read here, only 1")
    names = sorted(name.removesuffix(_CODES) for name in tensors if name.endswith(_CODES))
    return {name: _read_layer(name, tensors, config["nbits_per_codebook"]) for name in names}


def _read_layer(name: str, tensors: dict[str, Tensor], bits: int) -> AdditiveLinear:
    codes, codebooks, scales = (tensors[f"{name}.{part}"] for part in ("codes", "codebooks", "scales"))
    if codebooks.shape[1] != 2**bits:
        raise ValueError(f"{name}: codebooks of {codebooks.shape[1]} codewords, {2**bits} are needed")
    return AdditiveLinear(name, unsigned(codes, bits), codebooks.squeeze(2), scales.flatten())


def with_codes(layer: AdditiveLinear, codes: Tensor) -> dict[str, Tensor]:
    """The stored tensors that change when the codes of a layer do."""
    return {f"{layer.name}{_CODES}": signed(codes, layer.bits_a_code)}


def signed(codes: Tensor, bits: int) -> Tensor:
    """Codes 0 … 2^bits − 1 as the format's two's complement."""
    wide = codes.to(torch.int32)
    wide = torch.where(wide >= 2 ** (bits - 1), wide - 2**bits, wide)
    return wide.to(torch.int8 if bits <= 8 else torch.int16)


def unsigned(stored: Tensor, bits: int) -> Tensor:
    """The reverse of `signed`: uint8 up to 8 bits, else int32."""
    return (stored.to(torch.int32) % 2**bits).to(code_dtype(bits))


def code_dtype(bits: int) -> torch.dtype:
    """What codes of so many bits are kept in."""
    return torch.uint8 if bits <= 8 else torch.int32
