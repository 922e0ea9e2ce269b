"""The control for Q-resafe's choice of weights that needs no data: those of the largest magnitude."""

from typing import Any

from torch import Tensor, nn

from bitsafe.patches.base import PatchJob
from bitsafe.patches.shared.repair import repair
from bitsafe.patches.training.trainer import Examples, Layers

VERSION = 1


def patch(job: PatchJob) -> dict[str, Any]:
    return repair(job, magnitude)


def magnitude(_model: nn.Module, layers: Layers, _examples: Examples) -> dict[str, Tensor]:
    """|Q| of every weight: the part of the SNIP score that no gradient has a say in."""
    return {name: layer.quantized_weight().abs() for name, layer in layers.items()}
