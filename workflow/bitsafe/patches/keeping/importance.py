"""How much each weight matters: by SNIP on refusals, or, for comparison, by its size or by chance."""

import gc
import logging
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from bitsafe.artefacts.load import load_dense
from bitsafe.data.conversations import prompts_only
from bitsafe.errors import UserError
from bitsafe.files import sha256_file, write_jsonl
from bitsafe.judges.keyword import refused
from bitsafe.patches.base import PatchJob
from bitsafe.patches.keeping.rounded import Rounded
from bitsafe.patches.keeping.settings import KeepSettings
from bitsafe.patches.shared.cost import Counting
from bitsafe.patches.shared.repair import for_training
from bitsafe.patches.training.sequences import encode
from bitsafe.patches.training.snip import score_weights

log = logging.getLogger(__name__)
# importance of every weight of every layer, float32 [out, in], and facts for the manifest
Importance = tuple[dict[str, Tensor], dict[str, Any]]


def by_refusals(job: PatchJob, settings: KeepSettings, cell: Rounded) -> Importance:
    """E_x |W ⊙ ∂L(x)/∂W| of the full-precision model on its own answers (Eq. 3, with W for Q as in §5.1).

    Rescaling a layer's inputs and outputs, as AWQ does, leaves W ⊙ ∂L/∂W as it is: no score has to be carried over.
    """
    began = time.monotonic()
    model, tokenizer = load_dense(job.teacher, job.dtype)
    rows, facts = answers(job, settings, model, tokenizer)
    sequences = [encode(tokenizer, row["messages"], row["answer"], settings.max_new_tokens) for row in rows]
    answered = time.monotonic()
    model = for_training(model).requires_grad_(False)
    layers = {name: model.get_submodule(name) for name in cell.layers}
    with Counting() as counted:
        scores = score_weights(model, layers, sequences, settings.batch_size)
    facts |= {"answer_seconds": answered - began, "score_seconds": time.monotonic() - answered}
    facts["flops"] = float(counted.flops)
    del model, layers
    gc.collect()  # the model's memory is needed for the layers that are written
    return {name: score.cpu() for name, score in scores.items()}, facts


def answers(job: PatchJob, settings: KeepSettings, model: Any, tokenizer: Any) -> tuple[list[dict], dict[str, Any]]:
    """The full-precision answers to score, also stored beside the artefact; none at all is a UserError."""
    prompts = prompts_only(job.prompts)
    texts = job.generate(model, tokenizer, prompts, max_new_tokens=settings.max_new_tokens)
    rows = [
        {"id": prompt["id"], "messages": prompt["messages"], "answer": text, "refused": refused(text)}
        for prompt, text in zip(prompts, texts, strict=True)
    ]
    refusals = sum(row["refused"] for row in rows)
    chosen = [row for row in rows if row["refused"] or settings.score_on == "all"][: settings.snip_examples]
    if not chosen:
        raise UserError(
            f"patches: score_on: the full-precision model refused none of {len(rows)} prompts, so there is nothing to "
            "score: name another patch_set in the models table, or say `score_on: all`"
        )
    file = job.out.parent / "scored.jsonl"
    write_jsonl(file, chosen)
    log.info("%d of %d answers are refusals, %d answers are scored", refusals, len(rows), len(chosen))
    facts = {"prompts": len(rows), "refusals": refusals, "scored": len(chosen)}
    return chosen, facts | {"scored_file": file.name, "scored_sha256": sha256_file(file)}


def by_magnitude(job: PatchJob, settings: KeepSettings, cell: Rounded) -> Importance:
    """|W|, as it was rounded."""
    return {name: weight.abs() for name, weight in cell.weights()}, {}


def by_chance(job: PatchJob, settings: KeepSettings, cell: Rounded) -> Importance:
    """Drawn by the job's seed."""
    generator = torch.Generator().manual_seed(job.seed)
    return {name: torch.rand(layer.shape, generator=generator) for name, layer in cell.layers.items()}, {}


CRITERIA: dict[str, Callable[[PatchJob, KeepSettings, Rounded], Importance]] = {
    "snip": by_refusals,
    "magnitude": by_magnitude,
    "random": by_chance,
}
