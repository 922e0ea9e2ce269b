"""The transformers engine: conversations in, answers out, a batch at a time.

Rows are sorted by length and cut into batches of nearly one size; `generate` of transformers does the rest. The plan
depends on the rows alone, so a killed run goes on with the same batches, and both arms of a comparison share them.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from math import ceil
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import GenerationConfig

from bitsafe.errors import UserError
from bitsafe.files import sha256_json
from bitsafe.generate.device import place
from bitsafe.generate.prompts import prompt_ids
from bitsafe.generate.sampling import resolve, uniforms, warpers

VERSION = 1  # bump when an answer would change

DRAWN_BY = ("model_defaults", "do_sample", "temperature", "top_p", "top_k", "system_prompt")


class Answer(NamedTuple):
    index: int  # of the conversation
    text: str
    n_tokens: int  # the end token not counted
    finish: str  # stop: the model ended it; length: it was cut


def answer(
    model: Any,
    tokenizer: Any,
    conversations: Sequence[dict],
    decoding: dict[str, Any],
    max_new_tokens: int,
    batch_size: int,
    seed: int = 0,
    *,
    wanted: set[int] | None = None,
    progress: str | None = None,
) -> Iterator[list[Answer]]:
    """One list of answers a batch. conversations: {"messages", "sample"?}, each ending with the user.

    decoding: a row of decodings.yaml, or that with `plan: shuffled` for the second arm of an A/A run.
    wanted: batches without any of these indices are left out. progress: the label of a progress bar.
    Raises UserError when a prompt is too long for the model or a batch for the GPU.
    """
    ids = prompt_ids(tokenizer, conversations, decoding)
    check_room(model, conversations, ids, max_new_tokens)
    shuffled = seed if decoding.get("plan") == "shuffled" else None
    batches = plan_batches([len(row) for row in ids], batch_size, shuffled)
    if wanted is not None:
        batches = [batch for batch in batches if wanted.intersection(batch)]
    explicit = resolve(decoding, model.generation_config)
    with explicit_config(model, tokenizer, bool(decoding.get("model_defaults"))) as stops:
        for batch in track(batches, progress):
            streams = [stream(conversations[i], decoding, seed, max_new_tokens) for i in batch]
            rows = generate(model, [ids[i] for i in batch], explicit, torch.stack(streams), max_new_tokens)
            yield [finish(tokenizer, index, row, stops) for index, row in zip(batch, rows)]


def complete(
    model: Any, tokenizer: Any, conversations: Sequence[dict], *, max_new_tokens: int, batch_size: int
) -> list[str]:
    """The greedy answer to each conversation, in order: what a patch asks of teacher and student."""
    texts = [""] * len(conversations)
    for batch in answer(place(model), tokenizer, conversations, {}, max_new_tokens, batch_size):
        for one in batch:
            texts[one.index] = one.text
    return texts


def plan_batches(lengths: Sequence[int], batch_size: int, shuffled: int | None = None) -> list[list[int]]:
    """Indices of the rows of each batch: longest first (too large a batch fails at once), sizes nearly equal.

    shuffled: the seed of another plan, in random order and with batches two thirds the size: its padding differs, so
    comparing the two shows what the arithmetic of a batch does to an answer.
    """
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    if shuffled is not None:
        order.sort(key=lambda i: sha256_json([shuffled, i]))
        batch_size = max(1, batch_size * 2 // 3)
    rows, count = len(order), ceil(len(order) / batch_size)
    return [order[rows * k // count : rows * (k + 1) // count] for k in range(count)]


def stream(conversation: dict, decoding: dict[str, Any], seed: int, count: int) -> Tensor:
    """The row's random numbers [count]: of its seed, sample, decoding and words, and of nothing around it."""
    key = [seed, conversation.get("sample", 0), spoken(decoding), conversation["messages"]]
    return torch.from_numpy(uniforms(key, count))


def spoken(decoding: dict[str, Any]) -> dict[str, Any]:
    """What a decoding row says about drawing an answer, without its summary and plan."""
    said = {name: decoding.get(name) for name in DRAWN_BY}
    prefix = decoding.get("user_prefix")  # later than the others: unset, it moves no key of a stored answer and no draw
    return said if prefix is None else said | {"user_prefix": prefix}


@torch.inference_mode()
def generate(model: Any, ids: list[list[int]], decoding: dict, draws: Tensor, max_new_tokens: int) -> list[list[int]]:
    """New tokens of each row, to the end of the batch. ids: prompts; draws: uniforms [rows, max_new_tokens]."""
    width = max(len(row) for row in ids)
    pad = model.generation_config.pad_token_id
    inputs = torch.tensor([[pad] * (width - len(row)) + row for row in ids], device=model.device)
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in ids], device=model.device)
    processors = warpers(decoding, draws.to(model.device), width)
    try:
        out = model.generate(
            inputs, attention_mask=mask, max_new_tokens=max_new_tokens, do_sample=False, logits_processor=processors
        )
    except torch.OutOfMemoryError as error:
        remedy = f"lower `generate: batch_size` (now {len(ids)} rows of up to {width} + {max_new_tokens} tokens)"
        raise UserError(f"config.yaml: the GPU's memory is full: {remedy}") from error
    return out[:, width:].tolist()


def finish(tokenizer: Any, index: int, tokens: list[int], stops: set[int]) -> Answer:
    """Cut a row at its first end token and turn it into text."""
    end = next((place for place, token in enumerate(tokens) if token in stops), None)
    kept = tokens if end is None else tokens[:end]
    text = tokenizer.decode(kept, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return Answer(index, text, len(kept), "length" if end is None else "stop")


@contextmanager
def explicit_config(model: Any, tokenizer: Any, keep: bool) -> Iterator[set[int]]:
    """Within the block `generate` uses only what a decoding row says; yields the end tokens.

    transformers fills every field that a call leaves open from the model's own generation_config, for instance a
    repetition penalty. keep: leave those in (`model_defaults`), and take out only what `warpers` do themselves.
    """
    own = model.generation_config
    stops = own.eos_token_id if own.eos_token_id is not None else tokenizer.eos_token_id
    stops = list(stops) if isinstance(stops, list | tuple) else [stops]
    config = deepcopy(own) if keep else GenerationConfig()
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else stops[0]
    config.update(eos_token_id=stops, pad_token_id=pad, bos_token_id=own.bos_token_id)
    config.update(do_sample=False, temperature=None, top_p=None, top_k=None, max_length=None)
    model.generation_config = config
    try:
        yield set(stops)
    finally:
        model.generation_config = own


def check_room(model: Any, conversations: Sequence[dict], ids: list[list[int]], max_new_tokens: int) -> None:
    """UserError for the first prompt that leaves no room for the answer in the model's context."""
    room = getattr(model.config.get_text_config(), "max_position_embeddings", None) or 10**9
    for row, tokens in zip(conversations, ids):
        if len(tokens) + max_new_tokens > room:
            raise UserError(
                f"prompt {row.get('id', '?')}: {len(tokens)} tokens and {max_new_tokens} new ones exceed the model's "
                f"{room}: lower `generate: max_new_tokens` or take the prompt out"
            )


def track(batches: list, label: str | None) -> Iterator[list[int]]:
    """A progress bar on a terminal, nothing elsewhere."""
    if label is None:
        return iter(batches)
    from tqdm import tqdm

    return iter(tqdm(batches, desc=label, unit="batch", disable=None))
