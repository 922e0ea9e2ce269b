"""The proof an artefact must pass right after it is saved, before anything is generated with it."""

import math
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bitsafe.artefacts import closeness
from bitsafe.artefacts.artefact import Format, format_of, pointer_is_stale, read_layers
from bitsafe.artefacts.checkpoint import decoder_linears, read_tensors
from bitsafe.artefacts.layers import Layer
from bitsafe.artefacts.load import load_dense
from bitsafe.artefacts.sizes import measure
from bitsafe.data.chat import IGNORED, Example, collate, encode
from bitsafe.errors import CellError, UserError

ROWS, TOKENS, BATCH = 8, 128, 8  # what the short forward pass reads
LIMITS = {"logit_error": "logit_error", "perplexity": "perplexity_ratio", "effective_bits": "effective_bits"}
PROBES = [  # read where a cell has no data of its own
    ("What is the capital of France?", "The capital of France is Paris."),
    ("How do I make tea?", "Boil water, pour it over the leaves, and wait three minutes."),
    ("Write one sentence about the sea.", "The sea is wide, and its colour changes with the sky."),
    ("What colour is a lemon?", "A ripe lemon is yellow."),
]


def prove(
    artefact: Path,
    source: Path,
    limits: dict[str, float],
    conversations: list[dict],
    *,
    bits: int,
    dtype: str = "float32",
) -> dict[str, Any]:
    """Reload an artefact and compare it with its source; returns the facts, raises CellError outside `limits`.

    limits: at most `logit_error` (relative, see below), `perplexity` (ratio to the source's) and `effective_bits`.
    conversations: the first few are read; answers count for the perplexity, whole prompts where there are none.
    """
    if unknown := sorted(set(limits) - set(LIMITS)):
        raise UserError(f"workflow/tables/methods.yaml: limits.{unknown[0]}: unknown; known: {', '.join(LIMITS)}")
    layers = read_layers(artefact)
    names = list(decoder_linears(source))
    _require_layers(artefact, names, layers, bits)
    facts = asdict(measure(artefact, source, names, layers)) | {"quantized_layers": len(layers)}
    if layers:
        facts |= _near(artefact, layers, source, bits)
    facts |= _compare(artefact, source, conversations, dtype)
    for name, limit in limits.items():
        if not facts[LIMITS[name]] <= limit:
            raise CellError(f"{artefact}: {LIMITS[name]} is {facts[LIMITS[name]]:.4g}, the limit is {limit:g}")
    return facts


def _require_layers(artefact: Path, names: list[str], layers: dict[str, Layer], bits: int) -> None:
    if bits == 16:
        if layers:
            raise CellError(f"{artefact}: quantized, where full precision was asked for")
        if format_of(artefact) is Format.POINTER and pointer_is_stale(artefact):
            raise CellError(f"{artefact}: the checkpoint it points to has changed: make this cell again")
        return
    if missing := sorted(set(names) - set(layers)):
        raise CellError(
            f"{artefact}: {len(missing)} of {len(names)} layers are not quantized: {', '.join(missing[:3])}"
        )
    if surplus := sorted(set(layers) - set(names)):
        raise CellError(f"{artefact}: {surplus[0]} is quantized, but no decoder layer of the source")
    if wrong := [layer for layer in layers.values() if layer.bits != bits]:
        raise CellError(f"{artefact}: {wrong[0].name} has {wrong[0].bits} bits, {bits} were asked for")


def _near(artefact: Path, layers: dict[str, Layer], source: Path, bits: int) -> dict[str, Any]:
    name, error = closeness.worst_layer(layers, read_tensors(source))
    if error > closeness.LIMITS[bits]:
        raise CellError(
            f"{artefact}: {name}: weight_error is {error:.3g}, the limit at {bits} bits is {closeness.LIMITS[bits]:g}: "
            "its weights are not those of the source"
        )
    return {"weight_error": error, "weight_error_layer": name}


def _compare(artefact: Path, source: Path, conversations: list[dict], dtype: str) -> dict[str, float]:
    reference, tokenizer = load_dense(source, dtype)
    batches = list(_proof_batches(tokenizer, conversations))
    expected = [_logits(reference, batch) for batch in batches]
    del reference
    model, _ = load_dense(artefact, dtype)
    found = [_logits(model, batch) for batch in batches]
    if not all(torch.isfinite(logits).all() for logits in found):
        raise CellError(f"{artefact}: its logits are not finite")
    ours, theirs = (perplexity(logits, batches) for logits in (found, expected))
    return {
        "logit_error": logit_error(found, expected),
        "perplexity": ours,
        "perplexity_source": theirs,
        "perplexity_ratio": ours / theirs,
        "proof_tokens": sum(int(batch["attention_mask"].sum()) for batch in batches),
    }


def logit_error(found: list[Tensor], expected: list[Tensor]) -> float:
    """‖ẑ − z‖ / ‖z‖ over logits, one [tokens, vocab] a batch, each row centred: what softmax cannot see is left out."""
    wrong = total = 0.0
    for ours, theirs in zip(found, expected):
        ours, theirs = (logits.float() - logits.float().mean(dim=-1, keepdim=True) for logits in (ours, theirs))
        wrong += float((ours - theirs).square().sum())
        total += float(theirs.square().sum())
    return math.sqrt(wrong / total)


def perplexity(logits: list[Tensor], batches: list[dict[str, Tensor]]) -> float:
    """exp of the mean cross-entropy of the labelled tokens, in nats. logits: one [tokens, vocab] a batch."""
    total, count = 0.0, 0
    for rows, batch in zip(logits, batches):
        labels = batch["labels"].roll(-1, dims=1)
        labels[:, -1] = IGNORED
        labels = labels[batch["attention_mask"].bool()]
        total += float(torch.nn.functional.cross_entropy(rows.float(), labels, ignore_index=IGNORED, reduction="sum"))
        count += int((labels != IGNORED).sum())
    return math.exp(min(total / max(count, 1), 700.0))  # the last float before infinity


@torch.no_grad()
def _logits(model: Any, batch: dict[str, Tensor]) -> Tensor:
    """Logits of the real tokens of a batch, [tokens, vocab]."""
    output = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], use_cache=False)
    return output.logits[batch["attention_mask"].bool()]


def _proof_batches(tokenizer: Any, conversations: list[dict]) -> Iterator[dict[str, Tensor]]:
    probes = [[{"role": "user", "content": q}, {"role": "assistant", "content": a}] for q, a in PROBES]
    rows = [row["messages"] for row in conversations[:ROWS]] or probes
    examples = sorted((_example(tokenizer, messages) for messages in rows), key=lambda e: len(e.ids))
    for start in range(0, len(examples), BATCH):
        yield collate(examples[start : start + BATCH], pad=0)


def _example(tokenizer: Any, messages: list[dict]) -> Example:
    whole = encode(tokenizer, messages)
    labels = whole.ids if all(label == IGNORED for label in whole.labels[:TOKENS]) else whole.labels
    return Example(whole.ids[:TOKENS], labels[:TOKENS])
