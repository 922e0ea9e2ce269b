"""Engine `transformers`: the artefact as a dense model in this process, under the loop of generate/decode.py."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from bitsafe.artefacts.load import load_dense
from bitsafe.generate.device import arithmetic, place
from bitsafe.generate.engines import Ask, Served
from bitsafe.generate.options import answer


def told(served: Served) -> Any:
    """Where and in what numbers it computes."""
    return arithmetic()


@contextmanager
def opened(served: Served) -> Iterator[Ask]:
    model, tokenizer = load_dense(served.artefact, served.dtype)
    yield partial(answer, place(model), tokenizer)
