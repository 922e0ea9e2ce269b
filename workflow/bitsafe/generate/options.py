"""Questions with options: the probability of each option's letter at the next token, in one forward pass, no sampling.

A letter counts as the model may write it after the words that open its turn: with a space before it, or without, if
that is one token; the two are added up. The decoding's system prompt and prefix are part of the prompt; what else it
says moves nothing, so every decoding and sample has the same answer.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bitsafe.errors import UserError
from bitsafe.generate import engine
from bitsafe.generate.decode import next_logits
from bitsafe.generate.plan import plan_batches, wanted_only
from bitsafe.generate.prompts import prompt_ids

VERSION = 2  # bump when a choice would change


class Choice(NamedTuple):
    index: int  # of the conversation
    text: str  # the likeliest letter, the first of several; nothing where the logits are no numbers
    n_tokens: int
    finish: str
    options: dict[str, float]  # natural log of each letter's probability among all tokens; {} where there is none


def answer(model: Any, tokenizer: Any, conversations: Sequence[dict], *arguments: Any, **named: Any) -> Iterator[list]:
    """`engine.answer`, or for rows with `choices` the same by `choose`. A benchmark has such rows alone, or none."""
    ask = choose if conversations[0].get("choices") else engine.answer
    return ask(model, tokenizer, conversations, *arguments, **named)


def choose(
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
) -> Iterator[list[Choice]]:
    """One list of choices a batch; arguments as of `engine.answer`. conversations: {"messages", "choices", "opens"}.

    Of conversations with the same messages (samples, settings of a grid) the first alone has a choice.
    """
    ids = opened_prompts(tokenizer, conversations, decoding)
    engine.check_room(model, conversations, ids, 1)
    tokens = {key: letter_tokens(tokenizer, *key) for key in letters_of(conversations)}
    shuffled = seed if decoding.get("plan") == "shuffled" else None
    distinct = {id(row["messages"]): place for place, row in reversed(list(enumerate(conversations)))}
    places = sorted(distinct.values())  # the first of each question: samples and settings share its choice
    planned = plan_batches([len(ids[place]) for place in places], batch_size, shuffled=shuffled)
    batches = [[places[k] for k in batch] for batch in planned]
    for batch in engine.track(wanted_only(batches, wanted), progress):
        scores = next_log_probabilities(model, [ids[i] for i in batch])
        found = [{key[1]: tokens[key] for key in letters_of([conversations[i]])} for i in batch]
        yield [chosen(*each) for each in zip(batch, found, scores)]


def opened_prompts(tokenizer: Any, conversations: Sequence[dict], decoding: dict[str, Any]) -> list[list[int]]:
    """Token ids of each prompt, the words that open the assistant's turn included."""
    prompts = prompt_ids(tokenizer, conversations, decoding)
    opens = [tokenizer(row["opens"], add_special_tokens=False)["input_ids"] for row in conversations]
    return [[*prompt, *words] for prompt, words in zip(prompts, opens)]


def letters_of(conversations: Sequence[dict]) -> list[tuple[str, str]]:
    """Opening words and letter of every option, each pair once, in order."""
    return list(dict.fromkeys((row["opens"], letter) for row in conversations for letter in row["choices"]))


def letter_tokens(tokenizer: Any, opens: str, letter: str) -> list[int]:
    """The tokens that write a letter after `opens`, with a space before it and without; UserError if none does."""
    before = tokenizer(opens, add_special_tokens=False)["input_ids"]
    found = set()
    for form in (f" {letter}", letter):
        ids = tokenizer(opens + form, add_special_tokens=False)["input_ids"]
        if ids[:-1] == before:
            found.add(ids[-1])
    if not found:
        raise UserError(
            f"{tokenizer.name_or_path}: no one token writes {letter!r} after {opens!r}: leave such sets out"
        )
    return sorted(found)


def next_log_probabilities(model: Any, ids: list[list[int]]) -> Tensor:
    """log p of every token to come next [rows, vocabulary], float32 on the CPU."""
    try:
        return next_logits(model, ids).log_softmax(-1).cpu()
    except torch.OutOfMemoryError as error:
        remedy = f"lower `generate: batch_size` (now {len(ids)} prompts of up to {max(map(len, ids))} tokens)"
        raise UserError(f"config.yaml: the GPU's memory is full: {remedy}") from error


def chosen(index: int, tokens: dict[str, list[int]], scores: Tensor) -> Choice:
    """The likeliest letter of `tokens`, its keys in order, by the log-probabilities of all tokens [vocabulary]."""
    options = {letter: round(float(scores[ids].logsumexp(0)), 6) for letter, ids in tokens.items()}
    if any(value != value for value in options.values()):
        return Choice(index, "", 0, "choice", {})
    return Choice(index, max(options, key=options.__getitem__), 0, "choice", options)


def asked_by(item: dict, decoding: dict[str, Any], seed: int) -> list:
    """What moves a choice besides the messages and the batch plan: part of the key under which it is kept."""
    put = [decoding.get("system_prompt"), decoding.get("user_prefix")]
    return ["options", VERSION, item["choices"], item["opens"], put, seed if decoding.get("plan") else None]
