"""How the parameters of a row of patches.yaml become settings, and what is said where one cannot be."""

from dataclasses import fields
from difflib import get_close_matches
from typing import Any, Self, get_args, get_type_hints

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
            choices = get_args(get_type_hints(cls)[name])
            if choices and isinstance(choices[0], str) and value not in choices:
                raise UserError(f"patches: {name}: {value!r} is not one of {', '.join(choices)}")
        made = cls(**params)
        for name, holds, wanted in made.limits():
            if not holds:
                raise UserError(f"patches: {name}: {getattr(made, name)}: {wanted}")
        return made

    def limits(self) -> list[tuple[str, bool, str]]:
        """(parameter, whether its value can be, what is wanted)."""
        return []


def _closest(name: str, known: set[str]) -> str:
    close = get_close_matches(name, known, 1)
    return f"; did you mean {close[0]!r}?" if close else f"; known are {', '.join(sorted(known))}"
