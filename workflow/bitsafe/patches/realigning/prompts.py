"""The prompts that a model is realigned on: which of them full precision refuses, and batches of one length."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bitsafe.artefacts.load import load_dense
from bitsafe.data.conversations import prompts_only
from bitsafe.errors import UserError
from bitsafe.generate.prompts import prompt_ids
from bitsafe.judges.keyword import refused
from bitsafe.patches.base import PatchJob
from bitsafe.patches.realigning.maths import class_weights
from bitsafe.patches.realigning.settings import RealignSettings
from bitsafe.patches.shared.collect import store, validation_rows

FILE = "labelled.jsonl"


@dataclass(frozen=True)
class Labelled:
    """Prompts with full precision's answers ("answer", "refused"), the validation's apart; facts for the manifest."""

    rows: list[dict]
    validation: list[dict]
    facts: dict[str, Any]


@dataclass(frozen=True)
class Batch:
    """Prompts of one length. ids: [prompts, tokens]; refused: bool [prompts]; weights: [prompts], in the loss."""

    ids: Tensor
    refused: Tensor
    weights: Tensor


def label(job: PatchJob, settings: RealignSettings) -> Labelled:
    """What full precision refuses, also stored beside the artefact; a UserError where it refuses all or nothing."""
    asked = prompts_only(job.prompts)
    model, tokenizer = load_dense(job.teacher, job.dtype)
    answers = job.generate(model, tokenizer, asked, max_new_tokens=settings.max_new_tokens)
    rows = [row | {"answer": said, "refused": refused(said)} for row, said in zip(asked, answers, strict=True)]
    kept = validation_rows(len(rows), settings.validation, job.seed)
    learned = [row for i, row in enumerate(rows) if i not in kept]
    count = sum(row["refused"] for row in learned)
    if count in (0, len(learned)):
        raise UserError(
            f"patches: q_realign: the full-precision model refused {count} of {len(learned)} prompts, and it needs "
            "refused and answered ones: name another patch_set in the models table"
        )
    facts = {"prompts": len(rows), "validation": len(kept), "refused": count, "labelled_file": FILE}
    return Labelled(learned, [rows[i] for i in sorted(kept)], facts | {"labelled_sha256": store(job, FILE, rows)})


def batches(tokenizer: Any, rows: list[dict], settings: RealignSettings) -> list[Batch]:
    """All prompts, at most `batch_size` in a batch, shortest first. Without padding a last token is a row's last."""
    ids = prompt_ids(tokenizer, rows, {})
    said_no = torch.tensor([row["refused"] for row in rows])
    weights = class_weights(said_no, settings.refused_share)
    parts: list[list[int]] = []
    for i in sorted(range(len(ids)), key=lambda i: len(ids[i])):
        if not parts or len(parts[-1]) == settings.batch_size or len(ids[i]) != len(ids[parts[-1][0]]):
            parts.append([])
        parts[-1].append(i)
    return [Batch(torch.tensor([ids[i] for i in part]), said_no[part], weights[part]) for part in parts]
