"""A quantized cell on disk: which format it has, its layers, and copies of it with other codes."""

import os
from collections.abc import Iterable
from dataclasses import replace
from enum import StrEnum
from importlib import import_module
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from bitsafe.artefacts.checkpoint import CONFIG, read_config, read_tensors, replace_tensors
from bitsafe.artefacts.layers import Layer, LowRank
from bitsafe.errors import CellError
from bitsafe.files import read_json, sha256_folder, write_json

POINTER, ADAPTER = "pointer.json", "adapter"
_ADAPTER_PREFIX = "base_model.model."


class Format(StrEnum):
    """What a folder holds."""

    POINTER = "pointer"  # full precision, unchanged: pointer.json names the source
    DENSE = "dense"  # a checkpoint in full precision
    COMPRESSED = "compressed-tensors"
    BITSANDBYTES = "bitsandbytes"
    AQLM = "aqlm"
    GPTQ = "gptq"
    AWQ = "awq"
    BITSAFE = "bitsafe"  # methods whose layout no library has: docs/artefacts.md


# read(folder, tensors) -> layers by name; with_codes(layer, codes) -> the stored tensors that change with the codes
READERS = {
    Format.COMPRESSED: "bitsafe.artefacts.formats.compressed",
    Format.BITSANDBYTES: "bitsafe.artefacts.formats.bitsandbytes",
    Format.AQLM: "bitsafe.artefacts.formats.aqlm",
    Format.GPTQ: "bitsafe.artefacts.formats.gptq",
    Format.AWQ: "bitsafe.artefacts.formats.awq",
    Format.BITSAFE: "bitsafe.artefacts.formats.own",
}


def format_of(artefact: Path) -> Format:
    """The format of a folder, from its config; an unknown one is a CellError, and so is a folder that is gone."""
    if not artefact.exists():
        remedy = f"delete {artefact.parents[1]}/artefacts.json and run again, and they are made anew"
        raise CellError(f"{artefact}: no weights there (deleted, or left out of an archive): {remedy}")
    if (artefact / POINTER).exists():
        return Format.POINTER
    if not (artefact / CONFIG).exists():
        raise CellError(f"{artefact}: no {CONFIG} and no {POINTER}: not an artefact")
    config = read_config(artefact).get("quantization_config")
    try:
        return Format(config["quant_method"]) if config else Format.DENSE
    except (KeyError, ValueError):
        raise CellError(f"{artefact}/{CONFIG}: unknown quant_method {config.get('quant_method')!r}") from None


def write_pointer(out: Path, source: Path) -> None:
    """An artefact that is its source: a relative path and the source's hash, no copy."""
    place = os.path.relpath(source.resolve(), out.resolve())
    write_json(out / POINTER, {"source": place, "sha256": sha256_folder(source)})


def dense_folder(artefact: Path) -> Path:
    """The full-precision checkpoint of a pointer or dense artefact."""
    if format_of(artefact) is not Format.POINTER:
        return artefact
    folder = (artefact / read_json(artefact / POINTER)["source"]).resolve()
    if not folder.is_dir():
        raise CellError(f"{artefact / POINTER}: its source {folder} is gone: make this cell again")
    return folder


def pointer_is_stale(artefact: Path) -> bool:
    """Whether the source of a pointer has changed since the artefact was made."""
    return sha256_folder(dense_folder(artefact)) != read_json(artefact / POINTER)["sha256"]


def read_layers(artefact: Path) -> dict[str, Layer]:
    """The quantized layers by name, adapters attached; {} for full precision. Broken ones are CellErrors."""
    if format_of(artefact) in (Format.POINTER, Format.DENSE):
        return {}
    return layers_of(artefact, read_tensors(artefact))


def layers_of(artefact: Path, tensors: dict[str, Tensor]) -> dict[str, Layer]:
    """As `read_layers`, for tensors that are in memory already."""
    try:
        layers = _reader(artefact).read(artefact, tensors)
    except (KeyError, RuntimeError, ValueError) as error:
        raise CellError(f"{artefact}: a quantized layer cannot be read ({type(error).__name__}: {error})") from error
    layers = _with_adapter(artefact, layers)
    for layer in layers.values():
        if fault := layer.fault():
            raise CellError(f"{artefact}: {layer.name}: {fault}")
    return layers


def _reader(artefact: Path) -> Any:
    return import_module(READERS[format_of(artefact)])


def owner(tensor: str, layers: set[str]) -> str | None:
    """The layer that a stored tensor describes the weight of: X for X.weight, X.weight.absmax, X.codes; not X.bias."""
    parts = tensor.split(".")
    for count in range(len(parts) - 1, 0, -1):
        name = ".".join(parts[:count])
        if name in layers:
            return None if parts[count:] == ["bias"] else name
    return None


def unquantized(tensors: dict[str, Tensor], layers: Iterable[str]) -> dict[str, Tensor]:
    """The stored tensors that are no part of these quantized layers."""
    names = set(layers)
    return {name: tensor for name, tensor in tensors.items() if owner(name, names) is None}


def _with_adapter(artefact: Path, layers: dict[str, Layer]) -> dict[str, Layer]:
    folder = artefact / ADAPTER
    if not folder.exists():
        return layers
    config = read_json(folder / "adapter_config.json")
    scaling = config["lora_alpha"] / (config["r"] ** 0.5 if config.get("use_rslora") else config["r"])
    factors = load_file(folder / "adapter_model.safetensors")
    adapted = {key.removeprefix(_ADAPTER_PREFIX).removesuffix(".lora_A.weight") for key in factors if "lora_A" in key}
    if unknown := sorted(adapted - set(layers)):
        raise CellError(f"{folder}: it adapts {unknown[0]}, which is not a quantized layer")
    for name in adapted:
        a, b = (factors[f"{_ADAPTER_PREFIX}{name}.lora_{side}.weight"] for side in "AB")
        layers[name] = replace(layers[name], adapter=LowRank(a, b, scaling))
    return layers


def with_codes(artefact: Path, out: Path, codes: dict[str, Tensor]) -> None:
    """Copy `artefact` into the empty folder `out` with new codes; not one other byte of any tensor changes.

    codes: layer name to what its `codes` are; layers left out keep theirs. Unknown layers and codes off the grid are
    ValueErrors.
    """
    layers, reader = read_layers(artefact), _reader(artefact)
    changed = {}
    for name, code in codes.items():
        if name not in layers or not layers[name].code_values or code.shape != layers[name].codes.shape:
            raise ValueError(
                f"{name}: no such layer in {artefact}, none whose codes can move, or codes of another shape"
            )
        if int(code.min()) < 0 or int(code.max()) >= layers[name].code_values:  # as uint8, 256 would be 0
            raise ValueError(f"{name}: codes outside 0 … {layers[name].code_values - 1}")
        changed |= reader.with_codes(layers[name], code)
    replace_tensors(artefact, out, changed)


def takes_grids(artefact: Path) -> bool:
    """Whether `with_grids` can write this format."""
    return hasattr(_reader(artefact), "with_grid")


def with_grids(artefact: Path, out: Path, layers: dict[str, Layer]) -> None:
    """Copy `artefact` into the empty folder `out` with other codes and scales of the same kind of grid."""
    if not takes_grids(artefact):
        raise CellError(
            f"{artefact}: new scales cannot be written in the {format_of(artefact)} format: keep the old ones"
        )
    changed = {}
    for layer in layers.values():
        changed |= _reader(artefact).with_grid(layer)
    replace_tensors(artefact, out, changed)


def with_adapters(artefact: Path, out: Path, layers: dict[str, Layer]) -> None:
    """Copy `artefact` into the empty folder `out` with the adapters of `layers`, all of one rank, in peft's format."""
    replace_tensors(artefact, out, {})
    adapters = {name: layer.adapter for name, layer in layers.items()}
    rank, scaling = len(next(iter(adapters.values())).A), next(iter(adapters.values())).scaling
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": rank,
        "lora_alpha": scaling * rank,
        "bias": "none",
        "use_rslora": False,
    }
    config |= {"target_modules": sorted({name.rpartition(".")[2] for name in adapters}), "lora_dropout": 0.0}
    old = out / ADAPTER / "adapter_config.json"
    config = (read_json(old) if old.exists() else {"base_model_name_or_path": "", "inference_mode": True}) | config
    factors = {f"{_ADAPTER_PREFIX}{name}.lora_A.weight": adapter.A for name, adapter in adapters.items()}
    factors |= {f"{_ADAPTER_PREFIX}{name}.lora_B.weight": adapter.B for name, adapter in adapters.items()}
    (out / ADAPTER).mkdir(exist_ok=True)
    whole = {name: factors[name].contiguous() for name in sorted(factors)}
    save_file(whole, out / ADAPTER / "adapter_model.safetensors", metadata={"format": "pt"})
    write_json(old, config)
