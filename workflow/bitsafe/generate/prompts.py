"""From a conversation to prompt tokens: system prompt, prefix and chat template."""

from collections.abc import Mapping, Sequence
from typing import Any

from jinja2.exceptions import TemplateError

from bitsafe.data.messages import templated
from bitsafe.errors import UserError


def prompt_ids(tokenizer: Any, conversations: Sequence[dict], decoding: Mapping[str, Any]) -> list[list[int]]:
    """Token ids of each conversation as the decoding puts it, ready for the assistant's turn."""
    if not tokenizer.chat_template:
        raise UserError(f"{tokenizer.name_or_path}: the tokenizer has no chat template: use a chat model")
    said: dict[int, list[int]] = {}  # by the list of messages, which all samples and settings of a prompt share
    for row in conversations:
        if id(row["messages"]) not in said:
            said[id(row["messages"])] = template(tokenizer, dressed(row["messages"], decoding))
    return [said[id(row["messages"])] for row in conversations]


def dressed(messages: list[dict], decoding: Mapping[str, Any]) -> list[dict]:
    """Messages that end with the user, as a row of decodings.yaml asks them: its system prompt, its prefix."""
    *before, last = with_system(messages, decoding.get("system_prompt"))
    return [*before, last | {"content": (decoding.get("user_prefix") or "") + last["content"]}]


def with_system(messages: list[dict], system_prompt: str | None) -> list[dict]:
    """The decoding's system prompt takes the place of the row's own; None leaves the row as it is."""
    if system_prompt is None:
        return messages
    rest = messages[1:] if messages[0]["role"] == "system" else messages
    return [{"role": "system", "content": system_prompt}, *rest]


def template(tokenizer: Any, messages: list[dict]) -> list[int]:
    """Token ids of the chat template."""
    return _tokens(tokenizer, accepted(tokenizer, messages))


def accepted(tokenizer: Any, messages: list[dict]) -> list[dict]:
    """Messages as the template takes them: where it knows no system role (Gemma), its prompt opens the user's turn."""
    try:
        _tokens(tokenizer, messages)
        return messages
    except TemplateError:
        if messages[0]["role"] != "system":
            raise
        system, user, *rest = messages
        return [{"role": "user", "content": f"{system['content']}\n\n{user['content']}"}, *rest]


def _tokens(tokenizer: Any, messages: list[dict]) -> list[int]:
    return list(templated(tokenizer, messages, add_generation_prompt=True, return_dict=False))
