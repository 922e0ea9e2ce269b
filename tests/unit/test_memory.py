"""Memory that runs out in a step is one line with the parameters to lower; any other error stays what it is."""

import pytest
import torch

from bitsafe.errors import UserError
from bitsafe.generate.device import place
from bitsafe.quantizers.base import TRAINED, QuantizeJob, require_memory
from bitsafe.steps.memory import within_memory

PARAMS = {"samples": 128, "lr": 0.1, "prompts": None}


def on_a_gpu():
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


def on_a_cpu():
    torch.empty(2**60)  # more than any machine has


@pytest.mark.parametrize(("fill", "where"), [(on_a_gpu, "the GPU's memory"), (on_a_cpu, "memory")])
def test_what_to_lower_is_named(fill, where):
    with pytest.raises(UserError) as caught, within_memory("methods", PARAMS):
        fill()
    said = f"{where} is full: lower samples (now 128) in workflow/tables/methods.yaml, or use a machine with more"
    assert str(caught.value) == said


def test_a_method_without_such_a_parameter():
    with pytest.raises(UserError, match=r"^memory is full: use a machine with more$"), within_memory("methods", {}):
        raise MemoryError


def test_other_errors_pass():
    with pytest.raises(RuntimeError, match="shapes"), within_memory("methods", PARAMS):
        raise RuntimeError("shapes do not fit")


class Weights(torch.nn.Module):
    """A thousand float32 weights that can say where they were sent."""

    _no_split_modules = ("Block",)

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1000))

    def to(self, device: str) -> str:
        return device


def gpus(monkeypatch, *free: int) -> list[dict]:
    """GPUs with so many bytes free; what would be allowed on each is noted."""
    import accelerate

    noted: list[dict] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(free))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda index: (free[index], free[index]))
    monkeypatch.setattr(accelerate, "infer_auto_device_map", lambda model, max_memory, **_: noted.append(max_memory))
    monkeypatch.setattr(accelerate, "dispatch_model", lambda model, places: "spread")
    return noted


def test_a_model_is_spread_where_its_training_does_not_fit_one_gpu(monkeypatch):
    noted = gpus(monkeypatch, 10_000, 10_000)  # bytes: 4,000 of weights, 16,000 in training
    assert place(Weights()) == "cuda"
    assert noted == []
    assert place(Weights(), TRAINED / 4) == "spread"
    assert noted == [{0: 2250, 1: 2250}]  # a quarter of 0.9 · 10,000 is left for weights


def test_training_that_fits_no_gpus_is_told_before_it_starts(monkeypatch):
    gpus(monkeypatch, 10_000)
    with pytest.raises(UserError, match=r"what is kept beside them take .* ask for more"):
        place(Weights(), TRAINED / 4)


def test_where_a_gpu_trains_the_machine_needs_room_for_a_copy_alone(monkeypatch, tmp_path):
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(1000, dtype=torch.bfloat16)}, tmp_path / "model.safetensors")
    monkeypatch.setattr("bitsafe.quantizers.base.free_memory", lambda: 7000)  # a copy and what is stored: 6,000 bytes
    with pytest.raises(UserError, match=r"needs 0\.0 GB at least"):
        require_memory(QuantizeJob(tmp_path, tmp_path / "out", 4), TRAINED)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    require_memory(QuantizeJob(tmp_path, tmp_path / "out", 4), TRAINED)
