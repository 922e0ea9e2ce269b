"""What answers: a module an engine, named by a row of engines.yaml and imported when an answer is missing.

Each has `told(served)`, what of the engine moves an answer (JSON, part of the key under which an answer is kept, so
that answers of two engines never stand in one file), and `opened(served)`, a context within which answers are asked.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# (conversations, decoding, max_new_tokens, batch_size, seed, *, wanted, progress) -> lists of engine.Answer
Ask = Callable[..., Iterator[list]]


@dataclass(frozen=True)
class Served:
    """The model that is asked: one replicate of a cell."""

    artefact: Path
    dtype: str
    nouns: dict[str, Any] = field(default_factory=dict)  # model, method, bits, risk, stage, replicate
    params: dict[str, Any] = field(default_factory=dict)  # of the engine's row
