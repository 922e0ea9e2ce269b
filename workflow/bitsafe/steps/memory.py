"""Memory that runs out while an artefact is made, told in one line."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from bitsafe.errors import UserError

TAKES_MEMORY = ("batch_size", "samples", "prompts")


@contextmanager
def within_memory(table: str, params: dict[str, Any]) -> Iterator[None]:
    """Turn an allocation that failed, on a GPU or not, into a UserError that names the parameters to lower."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise _full(
            "the GPU's memory" if isinstance(error, torch.OutOfMemoryError) else "memory", table, params
        ) from error
    except RuntimeError as error:  # how torch says it on a CPU
        if "allocate memory" not in str(error):
            raise
        raise _full("memory", table, params) from error


def _full(place: str, table: str, params: dict[str, Any]) -> UserError:
    shown = ", ".join(f"{key} (now {params[key]})" for key in TAKES_MEMORY if params.get(key))
    remedy = f"lower {shown} in workflow/tables/{table}.yaml, or " if shown else ""
    return UserError(f"{place} is full: {remedy}use a machine with more")
