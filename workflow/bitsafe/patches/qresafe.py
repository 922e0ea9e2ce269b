"""Q-resafe: DPO against the quantized model on its safety-critical weights alone (Chen et al. 2025, Alg. 1)."""

from typing import Any

from torch import Tensor, nn

from bitsafe.patches.base import PatchJob
from bitsafe.patches.shared.repair import repair
from bitsafe.patches.training.snip import score_weights
from bitsafe.patches.training.trainer import Examples, Layers

VERSION = 1


def patch(job: PatchJob) -> dict[str, Any]:
    """The mask holds the weights with the highest SNIP score on the preferred answers."""
    return repair(job, safe_score)


def safe_score(model: nn.Module, layers: Layers, examples: Examples) -> dict[str, Tensor]:
    """SNIP importance on the patch set's answers (Eq. 3)."""
    return score_weights(model, layers, examples.answers, examples.batch_size)
