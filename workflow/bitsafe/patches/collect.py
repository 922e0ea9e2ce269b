"""What a patch learns from: both models' answers to the patch set, as preference pairs and validation prompts."""

import gc
import logging
import random
from dataclasses import dataclass, field
from typing import Any

from bitsafe.artefacts.load import load_dense
from bitsafe.data.conversations import prompts_only
from bitsafe.files import sha256_file, write_jsonl
from bitsafe.judges.keyword import refused
from bitsafe.patches.base import PatchJob, Settings
from bitsafe.patches.pairs import make_pairs

log = logging.getLogger(__name__)
PAIRS, VALIDATION = "pairs.jsonl", "validation.jsonl"


@dataclass
class Collected:
    """The quantized model, dense; rows of preference pairs; validation prompts with what full precision answered."""

    model: Any
    tokenizer: Any
    pairs: list[dict]
    validation: list[dict]
    facts: dict[str, Any] = field(default_factory=dict)


def collect(job: PatchJob, settings: Settings) -> Collected:
    """Both models answer every prompt; what comes of it is stored beside the artefact, with its hash in the facts."""
    prompts = prompts_only(job.prompts)
    teacher, tokenizer = load_dense(job.teacher, job.dtype)
    winners = job.generate(teacher, tokenizer, prompts, max_new_tokens=settings.max_new_tokens)
    del teacher
    gc.collect()  # two models are never held at once
    kept = validation_rows(len(prompts), settings.validation, job.seed)
    validation = [prompts[i] | {"answer": winners[i], "refused": refused(winners[i])} for i in sorted(kept)]
    asked = [i for i in range(len(prompts)) if i not in kept]
    model, tokenizer = load_dense(job.artefact, job.dtype)
    losers = job.generate(model, tokenizer, [prompts[i] for i in asked], max_new_tokens=settings.max_new_tokens)
    pairs, counts = make_pairs([prompts[i] for i in asked], [winners[i] for i in asked], losers, refused)
    log.info("%d preference pairs of %d prompts: %s", len(pairs), len(asked), counts)
    facts = {"prompts": len(prompts), "pairs": counts, "pairs_file": PAIRS}
    facts["pairs_sha256"] = store(job, PAIRS, pairs)
    if validation:
        facts |= {"validation": len(validation), "validation_sha256": store(job, VALIDATION, validation)}
    return Collected(model, tokenizer, pairs, validation, facts)


def validation_rows(count: int, wanted: int, seed: int) -> set[int]:
    """Indices of the prompts that make no pair; at most half of them."""
    return set(random.Random(f"validation {seed}").sample(range(count), min(wanted, count // 2)))


def store(job: PatchJob, name: str, rows: list[dict]) -> str:
    file = job.out.parent / name
    write_jsonl(file, rows)
    return sha256_file(file)
