"""Q-realign: activations of refused prompts go back to the side where full precision has them (Tan et al. 2026).

The paper (arXiv 2601.08089) realigns a fine-tuned model while it is quantized. From it and its released code (Skilteee/
Q-Realign, 8902011): the sparse logistic regression that tells malicious from benign prompts by the aligned model's last
token, a block each; the loss, log(1 + exp(−logit)) on malicious prompts and squared error against the block's own
outputs on benign ones, three to one; a walk from the first block to the last, each entered with what the realigned
blocks before it say; AdamW, five passes in the lower half of the model and fifteen in the upper; activations rounded as
they are in use.

Ours: nobody labels the prompts, full precision's refusals do. The cell is quantized already and its scales are frozen,
so where the paper learns clipping thresholds and a rescaling, codes move on the cell's own grid (or, as `quant_mode:
adapter`, a low-rank update in 16 bits beside them, for layers of any kind), at rates of their own, chosen on prompts
that nothing is learned from. The squared error is against what the quantized cell said, for the model as it was
fine-tuned in full precision is not there; it is taken over a prompt's own tokens, where the code has padding too. The
three to one are weights in the loss, not draws. The separator of the last block sees its outputs before the final norm,
as the loss does; the released code fits it after the norm. `refused_target: full_precision` is no part of the paper:
squared error against full precision's own activations takes the place of the line on refused prompts.
"""

import logging
from typing import Any

from bitsafe.artefacts.layers import Layer
from bitsafe.artefacts.load import load_dense
from bitsafe.patches.base import PatchJob
from bitsafe.patches.realigning.blocks import Aim, realign
from bitsafe.patches.realigning.maths import Separator
from bitsafe.patches.realigning.prompts import Labelled, batches, label
from bitsafe.patches.realigning.separators import separate
from bitsafe.patches.realigning.settings import RealignSettings
from bitsafe.patches.shared.collect import Collected
from bitsafe.patches.shared.cost import Watch
from bitsafe.patches.shared.export import changes, export
from bitsafe.patches.shared.rates import agreement, best_rate
from bitsafe.patches.shared.repair import for_training, patchable_layers

VERSION = 1

log = logging.getLogger(__name__)


def patch(job: PatchJob) -> dict[str, Any]:
    """Realign the cell block by block, write the artefact, and return facts for the manifest."""
    watch, settings = Watch(), RealignSettings.read(job.params)
    layers = patchable_layers(job, settings.quant_mode)
    found = label(job, settings)
    separators, facts = separate(job, found, settings)
    after, learned = learn(job, settings, layers, found, separators)
    export(job.artefact, job.out, after, settings.quant_mode)
    codes = settings.quant_mode == "requant_grid"
    facts |= found.facts | learned | (changes(layers, layers | after) if codes else {"codes_changed": 0.0})
    log.info("%.2f %% of the codes changed, %d blocks realigned", 100 * facts["codes_changed"], len(separators))
    return facts | watch.facts()


def learn(
    job: PatchJob,
    settings: RealignSettings,
    layers: dict[str, Layer],
    found: Labelled,
    separators: list[Separator],
) -> tuple[dict[str, Layer], dict[str, Any]]:
    """Realign at the learning rate, or at each of several; the layers that moved and what happened."""
    now, aim = Collected(None, None, [], found.validation), Aim(separators)
    if settings.refused_target == "full_precision":
        aim = Aim(separators, for_training(load_dense(job.teacher, job.dtype)[0]))

    def fit(rate: float) -> tuple[dict[str, Layer], dict[str, Any]]:
        now.model = None  # the last rate's, before another is loaded
        model, now.tokenizer = load_dense(job.artefact, job.dtype)
        now.model = for_training(model)
        learned = batches(now.tokenizer, found.rows, settings)
        return realign(now.model, layers, learned, aim, settings, rate, job.seed)

    if not isinstance(settings.lr, list):
        return fit(settings.lr)
    return best_rate(settings.lr, fit, lambda: agreement(job, now, settings))
