"""How the parameters of a row of patches.yaml become settings, and what is said where one cannot be."""

from dataclasses import fields
from difflib import get_close_matches
from functools import lru_cache
from typing import Any, Self, get_args, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError

from bitsafe.errors import UserError


class Parameters:
    """Base of a frozen dataclass whose fields are the parameters of a patch, by their names in the table."""

    @classmethod
    def read(cls, params: dict[str, Any]) -> Self:
        """The settings of a row; a name, a choice or a value that cannot be is a UserError that names the remedy."""
        known = {field.name for field in fields(cls)}
        for name, value in params.items():
            if name not in known:
                raise UserError(f"patches: no parameter {name!r}{_closest(name, known)}")
            _check_type(name, value, _types(cls)[name])
        made = cls(**params)
        for name, holds, wanted in made.limits():
            if not holds:
                raise UserError(f"patches: {name}: {getattr(made, name)}: {wanted}")
        return made

    def limits(self) -> list[tuple[str, bool, str]]:
        """(parameter, whether its value can be, what is wanted)."""
        return []


@lru_cache
def _types(cls: type) -> dict[str, Any]:
    return get_type_hints(cls)


@lru_cache
def _adapter(wanted: Any) -> TypeAdapter:
    return TypeAdapter(wanted, config=ConfigDict(strict=True))


def _check_type(name: str, value: Any, wanted: Any) -> None:
    """Numbers are no words, and true is no number; a whole number will do for a fraction."""
    choices = get_args(wanted)
    if choices and isinstance(choices[0], str):
        if value not in choices:
            raise UserError(f"patches: {name}: {value!r} is not one of {', '.join(choices)}")
        return
    if wanted == list[str]:  # `limits` names those there are
        return
    try:
        _adapter(wanted).validate_python(value)
    except ValidationError as error:
        raise UserError(f"patches: {name}: {value!r}: {error.errors()[0]['msg']}") from None


def _closest(name: str, known: set[str]) -> str:
    close = get_close_matches(name, known, 1)
    return f"; did you mean {close[0]!r}?" if close else f"; known are {', '.join(sorted(known))}"
