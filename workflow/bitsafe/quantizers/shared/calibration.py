"""What every calibrated method starts from: the model, and whole conversations in batches without padding."""

import random
import warnings
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bitsafe.artefacts.load import load_model, load_tokenizer
from bitsafe.data.chat import Example, encode_all
from bitsafe.quantizers.base import (
    QuantizeJob,
    linears,
    require_conversations,
    seed_everything,
    source_tensors,
    tensors_now,
)

BATCH, SLACK = 32, 1.1  # rows a calibration batch holds at most, and how much longer than the first they may be


@dataclass(frozen=True)
class Calibration:
    """A loaded model, what it is calibrated on, and the names of the layers to quantize with their (out, in)."""

    model: Any
    batches: list[Tensor]  # token ids [rows, tokens]
    names: dict[str, tuple[int, int]]
    source: dict[str, Tensor]
    facts: dict[str, Any]

    def others(self) -> dict[str, Tensor]:
        """The tensors that are not quantized, as the model has them now (a method may have folded scales into them)."""
        now = tensors_now(self.model, self.source)
        return {name: tensor for name, tensor in now.items() if name.removesuffix(".weight") not in self.names}


def prepare(job: QuantizeJob) -> Calibration:
    """Load the model in job.dtype and draw the calibration batches. params: samples."""
    require_conversations(job)
    names, source = linears(job), source_tensors(job)
    seed_everything(job.seed)
    model, tokenizer = load_model(job.source, job.dtype), load_tokenizer(job.source)
    batches = calibration_batches(encode_all(tokenizer, draw(job)))
    facts = calibration_facts(batches, max(width for _, width in names.values()))
    return Calibration(model, batches, names, source, facts)


def draw(job: QuantizeJob) -> list[dict]:
    """The conversations to calibrate on: params.samples of them (128, as in both papers), drawn by the job's seed."""
    count = job.params.get("samples", 128)
    rows = job.conversations
    return rows if count >= len(rows) else random.Random(job.seed).sample(rows, count)


def calibration_facts(batches: list[Tensor], width: int) -> dict[str, Any]:
    """Tokens seen, and a warning when they are fewer than the widest layer's inputs: no Hessian of full rank then."""
    tokens = sum(ids.numel() for ids in batches)
    facts = {
        "calibration_rows": sum(map(len, batches)),
        "calibration_tokens": tokens,
        "hessian_rank_bound": min(tokens, width),
    }
    if tokens < width:
        facts["warning"] = (
            f"{tokens} calibration tokens for {width} input features: the Hessian's rank is at most {tokens}; "
            "damping decides the rest: use a larger calibration set"
        )
        warnings.warn(facts["warning"], stacklevel=2)
    return facts


def calibration_batches(examples: list[Example]) -> list[Tensor]:
    """Token ids [rows, tokens], shortest first: rows of like length, cut to the shortest of their batch."""
    parts: list[list[list[int]]] = []
    for ids in sorted((e.ids for e in examples), key=len):
        if not parts or len(parts[-1]) == BATCH or len(ids) > SLACK * len(parts[-1][0]):
            parts.append([])
        parts[-1].append(ids)
    return [torch.tensor([ids[: len(rows[0])] for ids in rows]) for rows in parts]
