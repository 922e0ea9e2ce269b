"""The control for Q-resafe's choice of weights: the same share of them, drawn at random."""

from typing import Any

import torch
from torch import Tensor, nn

from bitsafe.patches.base import PatchJob
from bitsafe.patches.shared.repair import repair
from bitsafe.patches.training.trainer import Examples, Layers

VERSION = 1


def patch(job: PatchJob) -> dict[str, Any]:
    """One random mask for the whole patch. Drawn anew at each refresh, it would give no entry the steps to reach the
    next code, and the control would lose for that reason alone."""

    def score(_model: nn.Module, layers: Layers, _examples: Examples) -> dict[str, Tensor]:
        generator, found = torch.Generator().manual_seed(job.seed), {}
        for name, layer in layers.items():
            found[name] = torch.rand(layer.quantized.shape, generator=generator).to(layer.touched.device)
        return found

    return repair(job, score)
