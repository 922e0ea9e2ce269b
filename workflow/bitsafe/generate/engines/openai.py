"""Engine `openai`: any OpenAI-compatible endpoint that serves each cell's artefact under a name of its own.

What lies behind that name is the user's word: nothing here can see whether it is the artefact.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from bitsafe.errors import UserError
from bitsafe.generate.engines import Ask, Served
from bitsafe.generate.engines.remote import Endpoint, client


def told(served: Served) -> Any:
    """The endpoint and the name asked for."""
    return ["openai", *_place(served)]


@contextmanager
def opened(served: Served) -> Iterator[Ask]:
    base_url, model = _place(served)
    variable = served.params["key"]
    if variable and not os.environ.get(variable):
        raise UserError(f"{variable}: not set: the key of {base_url} (`key: null` in the engine's row if it asks none)")
    key = os.environ[variable] if variable else "none"
    yield Endpoint(client(base_url, key), model, served.artefact, served.params["beyond"]).ask


def _place(served: Served) -> tuple[str, str]:
    """base_url and served name of this cell and replicate."""
    try:
        return served.params["base_url"].format(**served.nouns), served.params["served"].format(**served.nouns)
    except (KeyError, IndexError, ValueError) as error:
        known = ", ".join(f"{{{noun}}}" for noun in served.nouns)
        raise UserError(f"generate.engine: `base_url` or `served` of its row: {error}: known are {known}") from None
