"""Integer grids in the compressed-tensors format (pack-quantized), which plain `transformers` and vLLM load.

A layer `X` is stored as X.weight_packed, X.weight_scale, X.weight_shape and, when asymmetric, X.weight_zero_point
(packed along its first axis). Packing is compressed-tensors' own; its codes are signed, ours unsigned.
"""

from pathlib import Path

import torch
from compressed_tensors.compressors.pack_quantized.helpers import pack_to_int32, unpack_from_int32
from compressed_tensors.config import CompressionFormat
from compressed_tensors.quantization import QuantizationArgs, QuantizationConfig, QuantizationScheme, QuantizationStatus
from torch import Tensor

from bitsafe.artefacts.checkpoint import copy_side_files, read_config, write_config, write_tensors
from bitsafe.artefacts.grids import AffineGrid
from bitsafe.artefacts.layers import QuantizedLinear
from bitsafe.errors import CellError

QUANT_METHOD = "compressed-tensors"


def weight_args(bits: int, group_size: int, symmetric: bool) -> QuantizationArgs:
    """The format's description of a grid; group_size −1 is one group a row."""
    strategy = {"strategy": "channel"} if group_size == -1 else {"strategy": "group", "group_size": group_size}
    return QuantizationArgs(num_bits=bits, type="int", symmetric=symmetric, **strategy)


def write_compressed(
    out: Path, source: Path, layers: list[QuantizedLinear], others: dict[str, Tensor], group_size: int
) -> None:
    """Write an artefact: `layers` share bits and symmetry; `others` are the tensors that stay as they are."""
    grid = layers[0].grid
    tensors = dict(others)
    for layer in layers:
        tensors |= {f"{layer.name}.{key}": value for key, value in _pack(layer).items()}
    write_tensors(out, tensors)
    write_config(source, out, quantization_config=_config(grid.bits, group_size, grid.symmetric))
    copy_side_files(source, out)


def _config(bits: int, group_size: int, symmetric: bool) -> dict:
    packed = CompressionFormat.pack_quantized.value
    scheme = QuantizationScheme(targets=["Linear"], weights=weight_args(bits, group_size, symmetric), format=packed)
    config = QuantizationConfig(
        config_groups={"group_0": scheme},
        format=packed,
        ignore=["lm_head"],
        quantization_status=QuantizationStatus.COMPRESSED,
    )
    return config.model_dump(mode="json")


def _pack(layer: QuantizedLinear) -> dict[str, Tensor]:
    grid = layer.grid
    packed = {"weight_packed": pack_codes(layer.codes, grid.bits), "weight_scale": grid.scale}
    packed["weight_shape"] = torch.tensor(layer.codes.shape)
    if grid.zero_point is not None:
        packed["weight_zero_point"] = pack_codes(grid.zero_point, grid.bits, packed_dim=0)
    return packed


def pack_codes(codes: Tensor, bits: int, packed_dim: int = 1) -> Tensor:
    """Unsigned codes to the format's int32 words."""
    return pack_to_int32((codes.to(torch.int16) - 2 ** (bits - 1)).to(torch.int8), bits, packed_dim=packed_dim)


def with_codes(layer: QuantizedLinear, codes: Tensor) -> dict[str, Tensor]:
    """The stored tensors of `layer` that change when its codes do."""
    return {f"{layer.name}.weight_packed": pack_codes(codes, layer.grid.bits)}


def with_grid(layer: QuantizedLinear) -> dict[str, Tensor]:
    """The stored tensors of `layer` that change when its codes and its grid do."""
    return {f"{layer.name}.{key}": value for key, value in _pack(layer).items() if key != "weight_shape"}


def unpack_codes(words: Tensor, bits: int, shape: tuple[int, int], packed_dim: int = 1) -> Tensor:
    """The reverse of `pack_codes`: uint8 codes of this shape."""
    signed = unpack_from_int32(words, bits, torch.Size(shape), packed_dim=packed_dim)
    return (signed.to(torch.int16) + 2 ** (bits - 1)).to(torch.uint8)


def read(folder: Path, tensors: dict[str, Tensor]) -> dict[str, QuantizedLinear]:
    """The quantized layers of an artefact, by name; an incomplete one is a KeyError."""
    args = _weight_args_of(folder)
    names = sorted(name.removesuffix(".weight_packed") for name in tensors if name.endswith(".weight_packed"))
    return {name: _read_layer(name, tensors, args) for name in names}


def _weight_args_of(folder: Path) -> QuantizationArgs:
    config = read_config(folder)["quantization_config"]
    if config.get("transform_config"):
        raise CellError(f"{folder}/config.json: transform_config: rotations that no reader applies: not this model")
    groups = config["config_groups"]
    if len(groups) != 1:
        raise CellError(f"{folder}: {len(groups)} quantization groups, one is expected")
    return QuantizationScheme.model_validate(next(iter(groups.values()))).weights


def _read_layer(name: str, tensors: dict[str, Tensor], args: QuantizationArgs) -> QuantizedLinear:
    scale, bits = tensors[f"{name}.weight_scale"], args.num_bits
    shape = tuple(tensors[f"{name}.weight_shape"].tolist())
    zero_point = None
    if not args.symmetric:
        zero_point = unpack_codes(tensors[f"{name}.weight_zero_point"], bits, tuple(scale.shape), packed_dim=0)
    codes = unpack_codes(tensors[f"{name}.weight_packed"], bits, shape)
    return QuantizedLinear(name, codes, AffineGrid(bits, shape[1] // scale.shape[1], scale, zero_point))
