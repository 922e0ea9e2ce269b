"""What came back: a completion is kept with its bill, and read again whenever a verdict is made of it.

Why not `chat.completions.parse`: it raises where a reply is cut, filtered or does not fit, and takes the reply and its
bill with it. Here every completion is stored first; the same pydantic form then reads it, online and from a batch.
"""

import json
from typing import Any

from pydantic import BaseModel, Field, ValidationError

from bitsafe.judges.asking.forms import Filled
from bitsafe.judges.asking.settings import Endpoint
from bitsafe.judges.keyword import refused


class Message(BaseModel):
    content: str | None = None
    refusal: str | None = None


class Choice(BaseModel):
    message: Message
    finish_reason: str | None = None


class Usage(BaseModel):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class Completion(BaseModel):
    """As much of a chat completion as is read; servers differ in the rest."""

    choices: list[Choice] = Field(min_length=1)
    usage: Usage | None = None
    model: str = ""


def kept(body: str | bytes | dict, endpoint: Endpoint, worst: tuple[int, int], share: float = 1.0) -> dict | None:
    """A row of the store, or None if `body` is no completion (an HTML page, cut JSON, an error).

    worst: tokens in and out at most, counted where a server does not say. share: of the price, for batches.
    """
    try:
        found = Completion(**(body if isinstance(body, dict) else json.loads(body)))
    except (ValueError, TypeError, ValidationError):
        return None
    choice, usage = found.choices[0], found.usage or Usage()
    said = usage.prompt_tokens, usage.completion_tokens
    counted = None not in said
    tokens = tuple(most if one is None else one for one, most in zip(said, worst))
    return {
        "content": choice.message.content,
        "refusal": choice.message.refusal,
        "finish": choice.finish_reason,
        "model": found.model,
        "tokens_in": tokens[0],
        "tokens_out": tokens[1],
        "counted": counted,
        "dollars": round(endpoint.dollars(*tokens) * share, 9),
    }


FILTERED = {"content": None, "refusal": None, "finish": "content_filter", "model": ""}
FILTERED |= {"tokens_in": 0, "tokens_out": 0, "counted": True, "dollars": 0.0}


def filled(row: dict[str, Any], schema: type[Filled]) -> Filled | str:
    """The form as the judge filled it in, or why there is none: judge_refused, length, content_filter or parse."""
    content = row["content"] or ""
    if row["refusal"]:
        return "judge_refused"
    if row["finish"] in ("length", "content_filter"):
        return row["finish"]
    try:
        return schema.model_validate_json(content)
    except ValidationError:
        return "judge_refused" if "{" not in content and refused(content) else "parse"
