"""bitsafe's own safetensors layout, for methods whose weights no library's format holds (docs/artefacts.md).

config.json names it: `quantization_config: {quant_method: bitsafe, layout: 1, kind: …, settings: {…}}`. A layer `X` is
X.codes and whatever else its kind stores beside; all other tensors are the model's own. A kind is one module of
bitsafe.artefacts.kinds with two functions: `stored(layer)`, a layer's tensors by the last part of their names, and
`restored(name, parts, settings)`, the reverse.
"""

import shutil
from pathlib import Path
from typing import Any

from torch import Tensor

from bitsafe.artefacts.activations import FILE as ACTIVATIONS
from bitsafe.artefacts.artefact import ADAPTER, owner, unquantized
from bitsafe.artefacts.checkpoint import copy_side_files, read_config, read_tensors, write_config, write_tensors
from bitsafe.artefacts.kinds import kind_of
from bitsafe.artefacts.layers import Layer
from bitsafe.errors import CellError

QUANT_METHOD, LAYOUT, CODES = "bitsafe", 1, ".codes"


def write_own(
    out: Path, source: Path, kind: str, layers: list[Layer], others: dict[str, Tensor], settings: dict[str, Any]
) -> None:
    """Write an artefact whose layers are all of one kind; `settings` are what they share, in JSON."""
    module, tensors = kind_of(kind), dict(others)
    for layer in layers:
        tensors |= {f"{layer.name}.{part}": tensor for part, tensor in module.stored(layer).items()}
    write_tensors(out, tensors)
    config = {"quant_method": QUANT_METHOD, "layout": LAYOUT, "kind": kind, "settings": settings}
    write_config(source, out, quantization_config=config)
    copy_side_files(source, out)


def rewrite(artefact: Path, out: Path, kind: str, layers: list[Layer]) -> None:
    """Write `artefact` again into the empty folder `out` with all its quantized layers of another kind.

    What is not quantized, how activations are rounded and an adapter go along as they are.
    """
    others = unquantized(read_tensors(artefact), [layer.name for layer in layers])
    out.mkdir(exist_ok=True)
    write_own(out, artefact, kind, layers, others, kind_of(kind).settings_of(layers[0]))
    if (artefact / ACTIVATIONS).exists():
        shutil.copyfile(artefact / ACTIVATIONS, out / ACTIVATIONS)
    if (artefact / ADAPTER).exists():
        shutil.copytree(artefact / ADAPTER, out / ADAPTER, copy_function=shutil.copyfile)


def read(folder: Path, tensors: dict[str, Tensor]) -> dict[str, Layer]:
    """The quantized layers of an artefact, by name; an incomplete one is a KeyError."""
    config = read_config(folder)["quantization_config"]
    if config.get("layout") != LAYOUT:
        raise CellError(f"{folder}/config.json: layout {config.get('layout')}, this version reads {LAYOUT}")
    module = kind_of(config["kind"])
    names = {name.removesuffix(CODES) for name in tensors if name.endswith(CODES)}
    parts: dict[str, dict[str, Tensor]] = {name: {} for name in sorted(names)}
    for name, tensor in tensors.items():
        if layer := owner(name, names):
            parts[layer][name.removeprefix(f"{layer}.")] = tensor
    return {name: module.restored(name, own, config["settings"]) for name, own in parts.items()}


def with_codes(layer: Layer, codes: Tensor) -> dict[str, Tensor]:
    """The stored tensors of a patchable layer that change when its codes do."""
    from bitsafe.artefacts.kinds.table import packed

    return {f"{layer.name}{CODES}": packed(codes, layer.grid.bits)}


def with_grid(layer: Layer) -> dict[str, Tensor]:
    """The stored tensors of a patchable layer that change when its codes and its grid do."""
    return with_codes(layer, layer.codes) | {f"{layer.name}.absmax": layer.grid.absmax}
