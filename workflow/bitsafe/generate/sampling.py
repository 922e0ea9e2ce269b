"""Which token comes next: each row with parameters of its own, and one random number a row and step.

`torch.multinomial` draws for the whole batch at once, so an answer would depend on its neighbours. Here row i has
its own stream of uniforms u, seeded by what is asked and how, and takes the token whose interval of the cumulative
distribution holds u (inverse transform sampling). Two models asked the same way get the same u: what then differs
between their answers is the models.

Rows of the same beginning share one row of logits, which is sorted once: a temperature keeps the order, so top-k and
top-p of every row are counts of kept tokens in that one order.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from transformers import GenerationConfig

from bitsafe.files import sha256_json

HUB_TOP_K = 50  # what transformers' `generate` uses where a checkpoint samples and names no top_k
OFF = {"temperature": 1.0, "top_p": 1.0, "top_k": 0}
AT_ONCE = 2**23  # probabilities worked out together: 64 MB in float64


class Knobs(NamedTuple):
    """Parameters of each row; every tensor is [rows]. temperature 0: the most probable token; top_k 0: off."""

    temperature: Tensor
    top_p: Tensor
    top_k: Tensor

    @classmethod
    def of(cls, resolved: Sequence[dict[str, Any]], device: Any = None) -> "Knobs":
        """From resolved decodings, one a row."""
        values = [(d["temperature"], d["top_p"], d["top_k"]) if d["do_sample"] else (0.0, 1.0, 0) for d in resolved]
        columns = torch.tensor(values, dtype=torch.float64).reshape(-1, 3).to(device).unbind(1)
        return cls(columns[0], columns[1], columns[2].long())

    def at(self, rows: Tensor) -> "Knobs":
        return Knobs(*(column[rows] for column in self))


def resolve(decoding: dict[str, Any], defaults: GenerationConfig) -> dict[str, Any]:
    """do_sample, temperature, top_p and top_k of a decoding row, all explicit.

    `model_defaults`: the checkpoint's own generation_config. Otherwise what a row leaves out is off.
    """
    if decoding.get("model_defaults"):
        names = ("do_sample", "temperature", "top_p", "top_k")
        decoding = {name: getattr(defaults, name, None) for name in names}
        decoding["top_k"] = HUB_TOP_K if decoding["top_k"] is None else decoding["top_k"]
    value = {name: decoding.get(name) for name in OFF}
    if not decoding.get("do_sample") or value["temperature"] == 0:
        return {"do_sample": False, **dict.fromkeys(OFF)}
    return {"do_sample": True, **{name: off if value[name] is None else value[name] for name, off in OFF.items()}}


def uniforms(key: Any, count: int) -> np.ndarray:
    """`count` numbers in [0, 1), float64, that depend on `key` (a JSON value) only; a longer stream begins the same."""
    return np.random.Generator(np.random.Philox(key=int(sha256_json(key)[:32], 16))).random(count)


def draw(logits: Tensor, entry: Tensor, knobs: Knobs, uniforms: Tensor) -> Tensor:
    """Tokens [rows]: each row's own draw from the logits [entries, vocabulary] of its entry.

    entry: [rows], which entry each row follows; uniforms: [rows], in [0, 1).
    """
    tokens = logits.argmax(-1)[entry]
    sampled = knobs.temperature > 0
    is_cut = (knobs.top_p < 1) | (knobs.top_k > 0)
    order = Order(logits, entry[sampled & is_cut])
    for rows in ((sampled & ~is_cut).nonzero()[:, 0], (sampled & is_cut).nonzero()[:, 0]):
        for some in rows.split(max(1, AT_ONCE // logits.shape[1])) if len(rows) else ():
            tokens[some] = inverse_cdf(warped(logits, order, entry[some], knobs.at(some)), uniforms[some])
    return tokens


class Order:
    """The logits of the entries that a cut row follows, in rising order; which logit is whose is not kept."""

    def __init__(self, logits: Tensor, entries: Tensor) -> None:
        found = entries.unique()
        self.at = torch.full((len(logits),), -1, device=logits.device)
        self.at[found] = torch.arange(len(found), device=logits.device)
        self.sorted = rising(logits[found])


def rising(values: Tensor) -> Tensor:
    """Values sorted along the last dimension; numpy has a vectorized sort without the indices that torch's brings."""
    return values.sort(dim=-1).values if values.is_cuda else torch.from_numpy(np.sort(values.numpy()))


def warped(logits: Tensor, order: Order, entry: Tensor, knobs: Knobs) -> Tensor:
    """Scores [rows, vocabulary] after temperature, top-k and top-p in the order of transformers; -inf: cut off.

    Rows that are cut come with rows that are cut, and the others with theirs: they need no order.
    """
    scores = logits[entry] / knobs.temperature.to(logits)[:, None]
    if bool((knobs.top_p == 1).all()) and bool((knobs.top_k == 0).all()):
        return scores
    ordered = order.sorted[order.at[entry]]
    return scores.masked_fill_(least(logits[entry], ordered, order_dropped(ordered, knobs)), -torch.inf)


def least(logits: Tensor, ordered: Tensor, count: Tensor) -> Tensor:
    """The `count` [rows] least logits of each row, as a mask [rows, vocabulary]; of equal ones the first go first."""
    edge = ordered.gather(1, count[:, None])
    mask = logits < edge
    excess = count - torch.searchsorted(ordered, edge)[:, 0]  # of those equal to the edge, how many go
    if excess.any():
        equal = logits == edge
        mask |= equal & (equal.cumsum(-1) <= excess[:, None])
    return mask


def order_dropped(ordered: Tensor, knobs: Knobs) -> Tensor:
    """How many of the least probable tokens top-k and top-p cut off, [rows]; ordered: sorted logits [rows, vocabulary].

    Equal logits at the edge of top-k all stay, as in transformers; of those at the edge of top-p, which it leaves to an
    unstable sort, the first in the vocabulary go first.
    """
    width = ordered.shape[1]
    k = torch.where(knobs.top_k > 0, knobs.top_k, width).clamp(max=width)
    least = ordered.gather(1, (width - k)[:, None])
    dropped = torch.searchsorted(ordered, least)[:, 0]
    outside = torch.arange(width, device=ordered.device) < dropped[:, None]
    scores = (ordered / knobs.temperature.to(ordered)[:, None]).masked_fill(outside, -torch.inf)
    below = (scores.softmax(-1).cumsum(-1) <= (1 - knobs.top_p).to(ordered)[:, None]).sum(-1)
    return torch.where(knobs.top_p < 1, below.clamp(max=width - 1), dropped)


def inverse_cdf(scores: Tensor, uniforms: Tensor) -> Tensor:
    """Tokens [rows] drawn from softmax(scores [rows, vocabulary]) by uniforms [rows] in [0, 1)."""
    cumulative = scores.double().softmax(-1).cumsum(-1)
    target = uniforms.to(cumulative) * cumulative[:, -1]
    drawn = torch.searchsorted(cumulative, target[:, None], right=True)[:, 0]
    return drawn.clamp(max=scores.shape[1] - 1)
