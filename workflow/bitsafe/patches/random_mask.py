"""The control for Q-resafe's choice of weights: the same share of them, drawn at random."""

import random
from typing import Any

import torch
from torch import Tensor, nn

from bitsafe.patches.base import PatchJob
from bitsafe.patches.shared.repair import repair
from bitsafe.patches.training.trainer import Examples, Layers

# 2: drawn apart from where the weights start; before, the masked ones were those near the upper end of their cells
VERSION = 2


def patch(job: PatchJob) -> dict[str, Any]:
    """One random mask for the whole patch. Drawn anew at each refresh, it would give no entry the steps to reach the
    next code, and the control would lose for that reason alone."""

    def score(_model: nn.Module, layers: Layers, _examples: Examples) -> dict[str, Tensor]:
        generator, found = torch.Generator().manual_seed(own_seed(job.seed)), {}
        for name, layer in layers.items():
            found[name] = torch.rand(layer.quantized.shape, generator=generator).to(layer.touched.device)
        return found

    return repair(job, score)


def own_seed(seed: int) -> int:
    """Another stream than the one that says where in their cells the weights start (`training.latent.attach`).

    Of one stream the mask would hold just those weights that lie next to the upper end of their cell.
    """
    return random.Random(f"random_mask {seed}").getrandbits(63)
