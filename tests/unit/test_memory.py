"""Memory that runs out in a step is one line with the parameters to lower; any other error stays what it is."""

import pytest
import torch

from bitsafe.errors import UserError
from bitsafe.steps.memory import within_memory

PARAMS = {"samples": 128, "lr": 0.1, "prompts": None}


def on_a_gpu():
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


def on_a_cpu():
    torch.empty(2**60)  # more than any machine has


@pytest.mark.parametrize(("fill", "place"), [(on_a_gpu, "the GPU's memory"), (on_a_cpu, "memory")])
def test_what_to_lower_is_named(fill, place):
    with pytest.raises(UserError) as caught, within_memory("methods", PARAMS):
        fill()
    said = f"{place} is full: lower samples (now 128) in workflow/tables/methods.yaml, or use a machine with more"
    assert str(caught.value) == said


def test_a_method_without_such_a_parameter():
    with pytest.raises(UserError, match=r"^memory is full: use a machine with more$"), within_memory("methods", {}):
        raise MemoryError


def test_other_errors_pass():
    with pytest.raises(RuntimeError, match="shapes"), within_memory("methods", PARAMS):
        raise RuntimeError("shapes do not fit")
