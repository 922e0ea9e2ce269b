"""What a well-formed conversation is, and how a chat template writes it."""

from datetime import date
from typing import Any

from bitsafe.errors import UserError

# What a template that writes today's date is given, or answers of two days would be answers to two prompts. It is the
# day that Llama 3.1's template names where it is told none.
TODAY = date(2024, 7, 26)


def templated(tokenizer: Any, messages: list[dict], **how: Any) -> Any:
    """`tokenizer.apply_chat_template(messages, **how)`, on the same day for ever."""
    return tokenizer.apply_chat_template(messages, strftime_now=TODAY.strftime, **how)


def check_messages(messages: Any, where: str, ends_with: str) -> None:
    """[system] user assistant user …, every content a non-empty string, the last role `ends_with`; else UserError."""
    for place, message in enumerate(messages):
        if not isinstance(message, dict) or not {"role", "content"} <= message.keys():
            raise UserError(f"{where}: message {place + 1} is not {{role, content}}")
        if not isinstance(message["content"], str) or not message["content"].strip():
            raise UserError(f"{where}: message {place + 1} ({message['role']}) is empty: fill or remove it")
    roles = [message["role"] for message in messages]
    turns = roles[1:] if roles[:1] == ["system"] else roles
    expected = [("user", "assistant")[place % 2] for place in range(len(turns))]
    if turns != expected or not turns:
        raise UserError(f"{where}: roles are {', '.join(roles)}: expected [system,] user, assistant, user, …")
    if turns[-1] != ends_with:
        raise UserError(f"{where}: the last message is the {turns[-1]}'s: it must be the {ends_with}'s")
