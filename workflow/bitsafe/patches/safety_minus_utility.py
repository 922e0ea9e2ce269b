"""Q-resafe on the weights that matter for safety and not for use: SNIP on refusals less SNIP on benign answers.

Wei et al. (2024, arXiv 2402.05162) take the set difference of the two top shares; a difference of the scores,
each in units of its layer's mean, leaves the size of the mask to τ alone.
"""

from typing import Any

from torch import Tensor, nn

from bitsafe.errors import UserError
from bitsafe.patches.base import PatchJob
from bitsafe.patches.shared.repair import repair
from bitsafe.patches.training.snip import score_weights
from bitsafe.patches.training.trainer import Examples, Layers

VERSION = 1


def patch(job: PatchJob) -> dict[str, Any]:
    if not job.utility:
        raise UserError(
            "workflow/tables/patches.yaml: utility_examples: this patch scores benign answers too: set it above 0, and "
            "`risk_sets: {benign: …}` in the models table"
        )
    return repair(job, difference)


def difference(model: nn.Module, layers: Layers, examples: Examples) -> dict[str, Tensor]:
    """Importance on the patch set's answers less importance on benign ones, both relative to the layer's mean."""
    sets = (examples.answers, examples.utility)
    safety, utility = (score_weights(model, layers, answers, examples.batch_size) for answers in sets)
    return {name: relative(safety[name]) - relative(utility[name]) for name in layers}


def relative(score: Tensor) -> Tensor:
    return score / score.mean().clamp(min=1e-30)
