"""The transformers engine: conversations in, answers out, a batch at a time.

Rows are sorted by length and cut into batches that need the same room, which the loop of `decode.py` answers. The plan
depends on the rows alone, so a killed run goes on with the same batches, and both arms of a comparison share them.
"""

from collections.abc import Iterator, Sequence
from math import ceil
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bitsafe.errors import UserError
from bitsafe.generate.decode import Decoding
from bitsafe.generate.defaults import processors_of, stops_of
from bitsafe.generate.device import place
from bitsafe.generate.grid import settings_of
from bitsafe.generate.plan import SHARED, plan_batches, wanted_only
from bitsafe.generate.prompts import prompt_ids
from bitsafe.generate.sampling import Knobs, resolve, uniforms

VERSION = 3  # bump when an answer would change

DRAWN_BY = ("model_defaults", "do_sample", "temperature", "top_p", "top_k", "system_prompt")
LATER = ("user_prefix", "setting")  # said only where set: unset, they move no key of a stored answer and no draw


class Answer(NamedTuple):
    index: int  # of the conversation
    text: str
    n_tokens: int  # the end token not counted
    finish: str  # stop: the model ended it; length: it was cut; see also store.UNANSWERED


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
    """One list of answers a batch. conversations: {"messages", "sample"?, "setting"?}, each ending with the user.

    decoding: a row of decodings.yaml, or that with `plan: shuffled` for the second arm of an A/A run; of a grid, each
    conversation names its setting. batch_size: of the longest rows, what the cache has room for. wanted: batches
    without any of these indices are left out. progress: the label of a progress bar.
    Raises UserError when a prompt is too long for the model or a batch for the GPU.
    """
    ids = prompt_ids(tokenizer, conversations, decoding)
    check_room(model, conversations, ids, max_new_tokens)
    asked = each_setting(conversations, decoding)
    shuffled = seed if decoding.get("plan") == "shuffled" else None
    shared = SHARED if decoding.get("grid") else 1
    stops = stops_of(model, tokenizer)
    processors = processors_of(model.generation_config, stops, model.device) if decoding.get("model_defaults") else None
    batches = plan_batches([len(row) for row in ids], batch_size * shared, max_new_tokens, shuffled)
    for batch in track(wanted_only(batches, wanted), progress):
        knobs = Knobs.of([resolve(asked[i], model.generation_config) for i in batch])
        draws = torch.stack([stream(conversations[i], asked[i], seed, max_new_tokens) for i in batch])
        rows = generate(model, [ids[i] for i in batch], knobs, draws, stops, ceil(len(batch) / shared), processors)
        yield [finish(tokenizer, index, row, stops) for index, row in zip(batch, rows)]


def each_setting(conversations: Sequence[dict], decoding: dict[str, Any]) -> list[dict[str, Any]]:
    """How each conversation is drawn: the decoding, or the setting of its grid that the conversation names."""
    settings = settings_of(decoding)
    return [settings[row["setting"]] if settings else decoding for row in conversations]


def complete(
    model: Any, tokenizer: Any, conversations: Sequence[dict], *, max_new_tokens: int, batch_size: int
) -> list[str]:
    """The greedy answer to each conversation, in order: what a patch asks of teacher and student."""
    texts = [""] * len(conversations)
    for batch in answer(place(model), tokenizer, conversations, {}, max_new_tokens, batch_size):
        for one in batch:
            texts[one.index] = one.text
    return texts


def stream(conversation: dict, decoding: dict[str, Any], seed: int, count: int) -> Tensor:
    """The row's random numbers [count]: of its seed, sample, decoding and words, and of nothing around it."""
    return torch.from_numpy(uniforms(stream_key(conversation, decoding, seed), count))


def stream_key(conversation: dict, decoding: dict[str, Any], seed: int) -> list:
    return [seed, conversation.get("sample", 0), spoken(decoding), conversation["messages"]]


def spoken(decoding: dict[str, Any]) -> dict[str, Any]:
    """What a decoding row says about drawing an answer, without its summary and plan."""
    said = {name: decoding.get(name) for name in DRAWN_BY}
    return said | {name: decoding[name] for name in LATER if decoding.get(name) is not None}


def generate(
    model: Any,
    ids: list[list[int]],
    knobs: Knobs,
    draws: Tensor,
    stops: set[int],
    entries: int,
    processors: Any = None,
) -> list[list[int] | None]:
    """New tokens of each row, the end token included; see `Decoding`."""
    try:
        return Decoding(model, ids, knobs, draws, stops, entries, processors).run()
    except torch.OutOfMemoryError as error:
        longest, new = max(map(len, ids)), draws.shape[1]
        remedy = f"lower `generate: batch_size` (now {entries} answers of up to {longest} + {new} tokens)"
        raise UserError(f"config.yaml: the GPU's memory is full: {remedy}") from error


def finish(tokenizer: Any, index: int, tokens: list[int] | None, stops: set[int]) -> Answer:
    """Cut a row at its first end token and turn it into text."""
    if tokens is None:
        return Answer(index, "", 0, "no_numbers")
    end = next((place for place, token in enumerate(tokens) if token in stops), None)
    kept = tokens if end is None else tokens[:end]
    text = tokenizer.decode(kept, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return Answer(index, text, len(kept), "length" if end is None else "stop")


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
