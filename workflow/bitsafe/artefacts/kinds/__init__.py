"""Layers that only bitsafe's own layout can hold: one kind a module (bitsafe.artefacts.formats.own)."""

from importlib import import_module
from typing import Any

from bitsafe.errors import CellError


def kind_of(name: str) -> Any:
    """The module of a kind; an unknown one is a CellError."""
    try:
        return import_module(f"bitsafe.artefacts.kinds.{name}")
    except ModuleNotFoundError:
        raise CellError(
            f"quantization_config.kind: {name!r}: no such kind of layer in bitsafe.artefacts.kinds"
        ) from None
