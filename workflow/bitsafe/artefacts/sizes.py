"""How many bits an artefact spends on a quantized weight: as stored in the file, and as the method needs."""

from dataclasses import dataclass
from pathlib import Path

from bitsafe.artefacts.artefact import ADAPTER, dense_folder, owner
from bitsafe.artefacts.checkpoint import tensor_headers, weight_files
from bitsafe.artefacts.layers import Layer

_ADAPTER_FILE = "adapter_model.safetensors"


@dataclass(frozen=True)
class Sizes:
    """Bits per quantized weight, and the artefact's weight files relative to the source's."""

    stored_bits: float
    effective_bits: float
    size_ratio: float


def measure(artefact: Path, source: Path, names: list[str], layers: dict[str, Layer]) -> Sizes:
    """The sizes of an artefact whose decoder layers are `names`; `layers` is empty for full precision."""
    headers, known = tensor_headers(dense_folder(artefact)), set(names)
    stored = 8 * sum(size for name, (_, size) in headers.items() if owner(name, known))
    weights = sum(_count(shape) for name, (shape, _) in tensor_headers(source).items() if owner(name, known))
    if not layers:
        return Sizes(stored / weights, stored / weights, weight_bytes(artefact) / weight_bytes(source))
    adapter = sum(layer.adapter.side_bits for layer in layers.values() if layer.adapter)
    return Sizes(
        stored_bits=(stored + adapter) / weights,
        effective_bits=effective_bits(layers),
        size_ratio=weight_bytes(artefact) / weight_bytes(source),
    )


def effective_bits(layers: dict[str, Layer]) -> float:
    """(codes at log2 size + scales + zero-points + tables + codebooks + outliers + adapters) / quantized weights."""
    total = sum(layer.code_bits + layer.side_bits for layer in layers.values())
    return total / sum(layer.numel for layer in layers.values())


def weight_bytes(artefact: Path) -> int:
    """Bytes of the safetensors files, adapter included."""
    adapter = artefact / ADAPTER / _ADAPTER_FILE
    files = [*weight_files(dense_folder(artefact)), *([adapter] if adapter.exists() else [])]
    return sum(file.stat().st_size for file in files)


def _count(shape: tuple[int, ...]) -> int:
    count = 1
    for size in shape:
        count *= size
    return count
