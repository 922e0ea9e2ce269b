"""Conversations a chat model holds with itself: training data for a method that is given none.

LLM-QAT (Liu et al. 2023, arXiv 2305.17888, §2.1) starts from a token drawn from the vocabulary, takes the likeliest
token a few times, which sets what the text is about, and then samples. Here that text is a user's turn of the model's
own chat template, and its answer is sampled: what the model is used for.
"""

import random
from typing import Any

import torch

from bitsafe.data.messages import templated
from bitsafe.errors import CellError, UserError
from bitsafe.generate.defaults import stops_of
from bitsafe.generate.engine import answer, finish, generate
from bitsafe.generate.sampling import Knobs, resolve, uniforms

LIKELIEST = 4  # tokens after the drawn one; the paper takes 3 to 5
BATCH = 64
SAMPLED = {"do_sample": True, "temperature": 1.0}
UNREADABLE = "\ufffd"  # what a tokenizer decodes a lone byte to
_MARK = "QUESTION"


def converse(model: Any, tokenizer: Any, samples: int, tokens: int, seed: int) -> list[dict]:
    """`samples` conversations of one question and one answer of at most `tokens` each, the same for the same seed.

    Those with a blank question or answer are left out; none left is a CellError.
    """
    questions = ask(model, tokenizer, samples, tokens, seed)
    rows = [{"id": f"own{i}", "messages": [_says("user", text)]} for i, text in enumerate(questions)]
    for batch in answer(model, tokenizer, rows, SAMPLED, tokens, BATCH, seed):
        for said in batch:
            rows[said.index]["messages"].append(_says("assistant", said.text))
    spoken = [row for row in rows if all(message["content"].strip() for message in row["messages"])]
    if not spoken:
        raise CellError(f"the model said nothing in {samples} conversations of its own: it has nothing to learn from")
    return spoken


def _says(role: str, text: str) -> dict[str, str]:
    return {"role": role, "content": text}


def ask(model: Any, tokenizer: Any, samples: int, tokens: int, seed: int) -> list[str]:
    """`samples` user turns of at most `tokens` tokens that the model wrote."""
    opening, drawn = user_opening(tokenizer), first_tokens(tokenizer, samples, seed)
    likeliest, stops = min(LIKELIEST, tokens - 1), stops_of(model, tokenizer)
    questions: list[str] = []
    for start in range(0, samples, BATCH):
        texts = [[token] for token in drawn[start : start + BATCH]]
        for decoding, count in (({}, likeliest), (SAMPLED, tokens - 1 - likeliest)):
            draws = [torch.from_numpy(uniforms([seed, "question", start + i], count)) for i in range(len(texts))]
            texts = _longer(model, opening, texts, decoding, torch.stack(draws), stops)
        questions += [finish(tokenizer, i, text, stops).text for i, text in enumerate(texts)]
    return questions


def _longer(
    model: Any, opening: list[int], texts: list[list[int]], decoding: dict, draws: torch.Tensor, stops: set[int]
) -> list[list[int]]:
    """Texts and what follows them; what ended goes on too, and is cut at its first end token later."""
    knobs = Knobs.of([resolve(decoding, model.generation_config)] * len(texts))
    new = generate(model, [opening + text for text in texts], knobs, draws, stops, BATCH)
    return [text + more for text, more in zip(texts, new)]


def user_opening(tokenizer: Any) -> list[int]:
    """What the chat template puts before a user's first words."""
    text = templated(tokenizer, [_says("user", _MARK)], tokenize=False)
    if _MARK not in text:
        raise UserError("chat_template: it does not show what the user says: the model cannot write a user's turn")
    return tokenizer(text[: text.index(_MARK)], add_special_tokens=False)["input_ids"]


def first_tokens(tokenizer: Any, count: int, seed: int) -> list[int]:
    """Tokens drawn alike from the vocabulary; special and blank ones and parts of a letter are left out."""
    draw, special, found = random.Random(seed), set(tokenizer.all_special_ids), []
    while len(found) < count:
        token = draw.randrange(len(tokenizer))
        text = tokenizer.decode([token])
        if token not in special and text.strip() and UNREADABLE not in text:
            found.append(token)
    return found
