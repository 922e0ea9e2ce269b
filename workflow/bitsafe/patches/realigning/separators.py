"""Which side of a line each block's outputs lie on: found in full precision, looked at in the quantized cell."""

from typing import Any

import torch
from torch import Tensor

from bitsafe.artefacts.load import load_dense
from bitsafe.patches.base import PatchJob
from bitsafe.patches.realigning.maths import Separator, fit_separator
from bitsafe.patches.realigning.prompts import Batch, Labelled, batches
from bitsafe.patches.realigning.settings import RealignSettings
from bitsafe.patches.shared.repair import for_training
from bitsafe.quantizers.shared.blocks import walk


def last_tokens(model: Any, batches: list[Batch]) -> list[Tensor]:
    """What each block says of the last token of every prompt: float32 [prompts, hidden] a block."""
    blocks = walk(model, [batch.ids for batch in batches], set(), "last tokens")
    return [torch.cat([out[:, -1].float() for out in block.outputs()]) for block in blocks]


def separate(job: PatchJob, found: Labelled, settings: RealignSettings) -> tuple[list[Separator], dict[str, Any]]:
    """A separator for each block of full precision, and facts of the validation prompts.

    separator_accuracies: the share of them on their own side, a block each. refused_logits: the mean of the refused
    ones in full precision and in the cell before the patch. Where the cell's are no lower, fine-tuning or rounding took
    the refusals by another way than Q-realign repairs.
    """
    model, tokenizer = load_dense(job.teacher, job.dtype)  # anew: whoever asked it may have spread it over GPUs
    model, learned = for_training(model), batches(tokenizer, found.rows, settings)
    refused = torch.cat([batch.refused for batch in learned])
    separators = [fit_separator(features, refused, settings.l1) for features in last_tokens(model, learned)]
    held = batches(tokenizer, found.validation, settings)
    if not any(batch.refused.any() for batch in held):
        return separators, {}
    refused = torch.cat([batch.refused for batch in held])
    full = last_tokens(model, held)
    del model  # two models are never held at once
    cell = last_tokens(for_training(load_dense(job.artefact, job.dtype)[0]), held)
    accuracies = [one.accuracy(seen, refused) for one, seen in zip(separators, full, strict=True)]
    logits = {"full_precision": mean_logits(separators, full, refused), "cell": mean_logits(separators, cell, refused)}
    return separators, {"separator_accuracies": accuracies, "refused_logits": logits}


def mean_logits(separators: list[Separator], features: list[Tensor], refused: Tensor) -> list[float]:
    """Of the refused prompts, a block each: how far on full precision's side of the line they lie."""
    return [float(one.logits(seen[refused]).mean()) for one, seen in zip(separators, features, strict=True)]
