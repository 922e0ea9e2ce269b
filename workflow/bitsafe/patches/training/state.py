"""A training that a kill interrupted, taken up after its last saved step: one safetensors file, written whole."""

import json
import time
from pathlib import Path
from typing import Protocol

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from bitsafe.files import write_bytes

EVERY_SECONDS = 120.0  # how much work a kill may cost; saving a 7B model's state takes longer than a step


class Stateful(Protocol):
    """Something whose tensors and numbers are all that its next step depends on."""

    def state(self) -> tuple[dict[str, Tensor], dict]: ...

    def restore(self, tensors: dict[str, Tensor], numbers: dict) -> None: ...


class Saved:
    """The state file of one training. key: a hash of all it depends on; a file with another key is not taken up."""

    def __init__(self, file: Path, key: str, every: float = EVERY_SECONDS) -> None:
        self.file, self.key, self.every, self.last = file, key, every, time.monotonic()

    def resume(self, training: Stateful) -> bool:
        """Take up what was saved; False where there is nothing, or something else."""
        if not self.file.exists():
            return False
        with safe_open(self.file, framework="pt") as opened:
            about = json.loads(opened.metadata()["bitsafe"])
            if about["key"] != self.key:
                return False
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        training.restore(tensors, about["numbers"])
        return True

    def save_in_time(self, training: Stateful) -> None:
        """Save, where the last time is long enough ago."""
        if time.monotonic() - self.last >= self.every:
            self.save(training)

    def save(self, training: Stateful) -> None:
        tensors, numbers = training.state()
        about = {"bitsafe": json.dumps({"key": self.key, "numbers": numbers})}
        whole = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        write_bytes(self.file, save(whole, metadata=about))
        self.last = time.monotonic()


def named(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}{name}": tensor for name, tensor in tensors.items()}


def under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose names begin with `prefix`, without it."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def into(parameter: Tensor, saved: Tensor) -> None:
    with torch.no_grad():
        parameter.copy_(saved)
