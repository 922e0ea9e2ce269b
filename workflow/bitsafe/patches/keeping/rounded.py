"""A quantized cell whose weights can be put back: its layers, and what each weight was just before it was rounded."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from bitsafe.artefacts.artefact import Format, format_of, layers_of, unquantized
from bitsafe.artefacts.checkpoint import read_tensors
from bitsafe.artefacts.layers import Layer
from bitsafe.artefacts.load import as_dtype
from bitsafe.artefacts.rescaling import FILE, Rescaling, read_rescaling
from bitsafe.errors import UserError
from bitsafe.patches.base import PatchJob


@dataclass(frozen=True)
class Rounded:
    """layers: the quantized ones by name. teacher: where the source lies."""

    layers: dict[str, Layer]
    teacher: Path
    rescaling: dict[str, Rescaling]

    def weights(self) -> Iterator[tuple[str, Tensor]]:
        """Layer by layer, name and rounded weight, float32 [out, in]: the source's, as the method rescaled it."""
        source = read_tensors(self.teacher)
        for name in self.layers:
            yield name, self.rescaling.get(name, Rescaling()).of(source[f"{name}.weight"])


def read_rounded(job: PatchJob) -> Rounded:
    """The cell of a job; before any work, a UserError if its weights cannot be told or kept one by one."""
    if format_of(job.artefact) in (Format.POINTER, Format.DENSE):
        raise _refusal("its artefact is in full precision already")
    tensors = read_tensors(job.artefact)
    layers = layers_of(job.artefact, tensors)
    for layer in layers.values():
        if not layer.separable:
            raise _refusal(f"its codes stand for several weights each ({type(layer).__name__})")
        if layer.adapter:
            raise _refusal("it trained an adapter")
    rescaling, others = read_rescaling(job.artefact), unquantized(tensors, layers)
    if not rescaling and (changed := _changed(others, read_tensors(job.teacher), as_dtype(job.dtype))):
        raise _refusal(f"it changed {changed} and left no {FILE} to say what it rounded")
    return Rounded(layers, job.teacher, rescaling)


def _refusal(reason: str) -> UserError:
    return UserError(f"matrix: patches: mixed_precision cannot keep weights of this method: {reason}: leave it out")


def _changed(others: dict[str, Tensor], source: dict[str, Tensor], dtype: torch.dtype) -> str | None:
    """A tensor that is not the source's, beyond a rounding to the dtype that the method computed in, or None.

    A method that trains or rescales moves the norms, and what it rounds is then not the source's weights.
    """
    for name in sorted(others.keys() & source.keys()):
        theirs, ours = source[name], others[name].to(source[name].dtype)
        if not torch.equal(ours, theirs) and not torch.equal(ours, theirs.to(dtype).to(theirs.dtype)):
            return name
    return None
