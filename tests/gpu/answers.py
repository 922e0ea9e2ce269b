"""What a model of the toy says, in tokens, what the judge `reference` makes of it, and how near a tie it was."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from bitsafe.generate.defaults import stops_of
from bitsafe.generate.engine import finish, generate
from bitsafe.generate.plan import plan_batches
from bitsafe.generate.prompts import prompt_ids
from bitsafe.generate.sampling import Knobs, resolve
from bitsafe.judges.reference import judge
from bitsafe.matrix.tables import Tables

BATCH = 256
Tokens = list[list[int]]


@dataclass(frozen=True)
class Asked:
    """The prompts of a benchmark, of a kind."""

    name: str
    kind: str
    rows: list[dict]


def greedy(model: Any, tokenizer: Any, rows: list[dict], new: int) -> Tokens:
    """The new tokens of each greedy answer, its end token included, where the model is."""
    ids, stops = prompt_ids(tokenizer, rows, {}), stops_of(model, tokenizer)
    found: Tokens = [[] for _ in rows]
    for batch in plan_batches([len(row) for row in ids], BATCH, new):
        knobs = Knobs.of([resolve({}, model.generation_config)] * len(batch))
        said = generate(model, [ids[i] for i in batch], knobs, torch.zeros(len(batch), new), stops, len(batch))
        for i, tokens in zip(batch, said):
            found[i] = tokens or []
    return found


def judged(asked: Asked, texts: Sequence[str]) -> list[dict]:
    """The verdict on each answer."""
    params = Tables().get("judges", "reference", "test-gpu").params
    return [judge(row, text, params, asked.kind) for row, text in zip(asked.rows, texts, strict=True)]


def verdicts(asked: Asked, tokens: Tokens, model: Any, tokenizer: Any) -> list[tuple]:
    """(verdict, refused, value) of each answer."""
    stops = stops_of(model, tokenizer)
    texts = [finish(tokenizer, i, row, stops).text for i, row in enumerate(tokens)]
    return [(found["verdict"], found["refused"], found["value"]) for found in judged(asked, texts)]


@torch.no_grad()
def tie(model: Any, tokenizer: Any, row: dict, one: list[int], other: list[int]) -> dict[str, Any]:
    """Where two answers to a prompt part, and how far apart the logits of their two tokens are there for `model`.

    A margin near float32's rounding is a tie: either token is as right. The spread of all logits is told beside it.
    """
    place = next((k for k, (a, b) in enumerate(zip(one, other)) if a != b), min(len(one), len(other)))
    ids = prompt_ids(tokenizer, [row], {})[0] + one[:place]
    logits = model(torch.tensor([ids], device=model.device)).logits[0, -1].double()
    said = {"id": row["id"], "place": place, "spread": float(logits.std())}
    if place >= min(len(one), len(other)):  # one answer begins like the other and goes on
        return said | {"margin": None}
    return said | {"margin": float((logits[one[place]] - logits[other[place]]).abs())}
