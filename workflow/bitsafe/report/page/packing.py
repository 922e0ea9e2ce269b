"""Data as text inside a page: gzip and base64, which the browser's own DecompressionStream reads back.

Base64 holds no `<`, so nothing in a packed block can end the element that it lies in.
"""

import base64
import gzip
import json
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

CHUNK = 250_000  # characters of text that are unpacked at once


def packed(data: bytes) -> str:
    """gzip and base64; the same bytes every time (no date in it)."""
    return base64.b64encode(gzip.compress(data, 6, mtime=0)).decode("ascii")


def packed_json(value: Any) -> str:
    """ASCII, so that a lone surrogate is an escape sequence too."""
    return packed(json.dumps(value, separators=(",", ":")).encode("ascii"))


def packed_numbers(values: Iterable[int], kind: str) -> str:
    """A column as little-endian numbers of a NumPy kind: `u1`, `u2`, `i4`."""
    return packed(np.asarray(list(values), dtype=f"<{kind}").tobytes())


def inline_json(value: Any) -> str:
    """JSON that may stand in a script element: no character of it can open or close an element."""
    text = json.dumps(value, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


class Texts:
    """Numbers for texts, each text once; neighbours are packed together, so alike texts should come one by one."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def number(self, text: str) -> int:
        return self._numbers.setdefault(text, len(self._numbers))

    def __len__(self) -> int:
        return len(self._numbers)

    def chunks(self, size: int = CHUNK) -> list[tuple[int, str]]:
        """(number of the first text, packed list of texts), a chunk about `size` characters."""
        found, waiting, first, length = [], [], 0, 0
        for number, text in enumerate(self._numbers):
            waiting.append(text)
            length += len(text)
            if length >= size:
                found.append((first, packed_json(waiting)))
                waiting, first, length = [], number + 1, 0
        return [*found, (first, packed_json(waiting))] if waiting else found


def starts(lengths: Sequence[int]) -> list[int]:
    """Where each of several arrays begins in one that holds them one after the other."""
    return np.concatenate([[0], np.cumsum(lengths, dtype=int)])[: len(lengths)].tolist()
