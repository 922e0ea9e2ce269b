"""Answers as token sequences after their prompt, and how likely a model finds them."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from bitsafe.data.messages import templated


@dataclass(frozen=True)
class Sequence:
    """Token ids of a prompt, as the chat template renders it, and of an answer."""

    prompt: list[int]
    answer: list[int]

    def __len__(self) -> int:
        return len(self.prompt) + len(self.answer)


def encode(tokenizer: Any, messages: list[dict], answer: str, max_new_tokens: int) -> Sequence:
    """Prompt and answer are tokenized apart, as in generation. An answer cut for length gets no end of turn."""
    prompt = templated(tokenizer, messages, tokenize=False, add_generation_prompt=True)
    ids = tokenizer(answer, add_special_tokens=False)["input_ids"]
    if len(ids) < max_new_tokens:
        ids = ids + tokenizer(end_of_turn(tokenizer), add_special_tokens=False)["input_ids"]
    return Sequence(tokenizer(prompt, add_special_tokens=False)["input_ids"], ids)


def end_of_turn(tokenizer: Any) -> str:
    """What the chat template writes after an answer: not every template uses the tokenizer's own end token (Gemma)."""
    turns = [{"role": "user", "content": "?"}, {"role": "assistant", "content": "\N{SECTION SIGN}"}]
    text = templated(tokenizer, turns, tokenize=False)
    return text.rpartition("\N{SECTION SIGN}")[2].strip() or tokenizer.eos_token


def answer_logprobs(model: nn.Module, sequences: list[Sequence]) -> Tensor:
    """log p(answer | prompt) of each sequence, summed over the answer's tokens, in nats: float32 [sequences]."""
    rows = [torch.tensor(s.prompt + s.answer) for s in sequences]
    ids = pad_sequence(rows, batch_first=True).to(next(model.parameters()).device)
    position = torch.arange(ids.shape[1], device=ids.device)
    lengths = torch.tensor([len(s) for s in sequences], device=ids.device).unsqueeze(1)
    starts = torch.tensor([len(s.prompt) for s in sequences], device=ids.device).unsqueeze(1)
    logits = model(input_ids=ids, attention_mask=(position < lengths).long(), use_cache=False).logits[:, :-1]
    answered = ((position >= starts) & (position < lengths))[:, 1:]
    # Only the answers' rows are raised to float32: the vocabulary makes the logits the largest tensor here.
    logprobs = -F.cross_entropy(logits[answered].float(), ids[:, 1:][answered], reduction="none")
    return torch.zeros(len(sequences), device=ids.device).index_add(0, answered.nonzero()[:, 0], logprobs)


def by_length(sequences: list[Sequence], batch_size: int) -> Iterator[list[int]]:
    """Indices in batches of similar length, so that little is padded."""
    order = sorted(range(len(sequences)), key=lambda i: len(sequences[i]))
    for first in range(0, len(order), batch_size):
        yield order[first : first + batch_size]
