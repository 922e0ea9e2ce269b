"""Conversations as tokens: the tokenizer's own chat template, with what the assistant says marked for the loss."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bitsafe.data.messages import templated
from bitsafe.errors import UserError

IGNORED = -100  # the label of tokens that are no answer, torch's own


@dataclass(frozen=True)
class Example:
    """One templated conversation. labels: the token itself where an assistant says it, else IGNORED."""

    ids: list[int]
    labels: list[int]


def encode(tokenizer: Any, messages: list[dict]) -> Example:
    """Template a conversation and mark what its assistant says, end-of-turn token included.

    Works for any chat template: what a message adds is what the template of one message more adds to the text.
    """
    text, spans = _text_and_answers(tokenizer, messages)
    tokens = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    said = [any(low < stop and start < high for low, high in spans) for start, stop in tokens["offset_mapping"]]
    ids = tokens["input_ids"]
    return Example(ids, [token if answer else IGNORED for token, answer in zip(ids, said)])


def _text_and_answers(tokenizer: Any, messages: list[dict]) -> tuple[str, list[tuple[int, int]]]:
    """The templated text and the character ranges [start, stop) of its assistant turns."""
    text = templated(tokenizer, messages, tokenize=False)
    spans = []
    for count, message in enumerate(messages):
        if message["role"] == "assistant":
            before = templated(tokenizer, messages[:count], tokenize=False, add_generation_prompt=True)
            after = templated(tokenizer, messages[: count + 1], tokenize=False)
            if not (text.startswith(after) and after.startswith(before)):
                raise UserError("chat_template: an earlier turn changes when a later one is added: answers not found")
            spans.append((len(before), len(after)))
    return text, spans


def encode_all(tokenizer: Any, conversations: list[dict], max_tokens: int = 1024) -> list[Example]:
    """Every conversation, cut to `max_tokens`."""
    examples = [encode(tokenizer, row["messages"]) for row in conversations]
    return [Example(e.ids[:max_tokens], e.labels[:max_tokens]) for e in examples]


def collate(examples: list[Example], pad: int) -> dict[str, Tensor]:
    """Right-padded tensors [batch, tokens] for a causal model."""
    width = max(len(e.ids) for e in examples)
    ids = [e.ids + [pad] * (width - len(e.ids)) for e in examples]
    labels = [e.labels + [IGNORED] * (width - len(e.ids)) for e in examples]
    mask = [[1] * len(e.ids) + [0] * (width - len(e.ids)) for e in examples]
    return {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask), "labels": torch.tensor(labels)}
