"""Fine-tuning through fake quantization with the straight-through gradient (Bengio et al. 2013; LLM-QAT's weight half).

Every forward pass rounds each decoder weight to its own min-max grid; the gradient passes as if it had not. The last
grid is the artefact's: what was trained is what is saved.
"""

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from bitsafe.artefacts.checkpoint import storage_dtype
from bitsafe.artefacts.formats.compressed import write_compressed
from bitsafe.artefacts.grids import affine_grid, straight_through
from bitsafe.artefacts.layers import QuantizedLinear
from bitsafe.artefacts.load import load_model, load_tokenizer
from bitsafe.data.chat import encode_all
from bitsafe.generate.device import place
from bitsafe.quantizers.base import (
    TRAINED,
    QuantizeJob,
    linears,
    require_bits,
    require_conversations,
    require_groups,
    require_params,
    seed_everything,
    source_tensors,
    tensors_now,
)
from bitsafe.quantizers.shared.training import PARAMS, Settings, body_parameters, train

VERSION = 1
BITS = (8, 4, 3, 2)
BYTES_A_WEIGHT = TRAINED


class FakeQuantize(nn.Module):
    """A parametrization: weight [out, in] to the same weight on its min-max grid."""

    def __init__(self, bits: int, group_size: int, symmetric: bool, dtype: torch.dtype) -> None:
        super().__init__()
        self.settings = (bits, group_size, symmetric, dtype)

    def forward(self, weight: Tensor) -> Tensor:
        return straight_through(weight, affine_grid(weight, *self.settings).rounded)


def quantize(job: QuantizeJob) -> dict:
    """Write a compressed-tensors artefact. params: group_size, symmetric, steps, lr, batch_size."""
    require_bits(job, BITS)
    require_params(job, ("group_size", "symmetric", *PARAMS))
    require_groups(job)
    settings = Settings.of(job.params)
    require_conversations(job)
    seed_everything(job.seed)
    source, dtype = source_tensors(job), storage_dtype(job.source)
    model, tokenizer = place(load_model(job.source, "float32"), TRAINED / 4), load_tokenizer(job.source)
    names = list(linears(job))
    attach_fake_quantization(model, names, FakeQuantize(job.bits, job.group_size, job.symmetric, dtype))
    facts = train(model, body_parameters(model), encode_all(tokenizer, job.conversations), settings, job.seed)
    model.cpu()
    layers = [trained_layer(model, name) for name in names]
    remove_fake_quantization(model, names)
    others = {name: t for name, t in tensors_now(model, source).items() if name.removesuffix(".weight") not in names}
    write_compressed(job.out, job.source, layers, others, job.group_size)
    return facts


def attach_fake_quantization(model: nn.Module, names: list[str], fake: FakeQuantize) -> None:
    """Let the named layers compute with rounded weights; their trained parameters stay full."""
    for name in names:
        parametrize.register_parametrization(model.get_submodule(name), "weight", fake)


def trained_layer(model: nn.Module, name: str) -> QuantizedLinear:
    """The codes and grid a layer computes with after training."""
    parametrization = model.get_submodule(name).parametrizations.weight
    weight = parametrization.original.detach()
    grid = affine_grid(weight, *parametrization[0].settings)
    return QuantizedLinear(name, grid.nearest(weight), grid)


def remove_fake_quantization(model: nn.Module, names: list[str]) -> None:
    for name in names:
        parametrize.remove_parametrizations(model.get_submodule(name), "weight", leave_parametrized=False)
