"""Linear layers that a patch moves, in the place of a model's own."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bitsafe.artefacts.kinds.trained import TrainedLinear
from bitsafe.artefacts.layers import Layer, moved
from bitsafe.patches.base import Settings
from bitsafe.patches.shared.maths import Mask
from bitsafe.patches.training.position import Factored, Free, Position
from bitsafe.patches.training.rounding import Rounding, rounding_of


class LatentLinear(nn.Module):
    """y = x Wᵀ (+ the frozen adapter), W = what `rounding` makes of the position: what is trained is what is exported.

    `touched` marks every entry of the position that some update was allowed to move.
    """

    def __init__(self, quantized: Layer, bias: Tensor | None, position: Position, rounding: Rounding) -> None:
        super().__init__()
        self.quantized, self.position, self.rounding, self.bias = quantized, position, rounding, bias
        self.touched = torch.zeros_like(position(), dtype=torch.bool)
        self.patched = True

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight() if self.patched else self.quantized.weight()
        if self.quantized.adapter is not None:  # summed before it is rounded, as in the model that answers
            weight = weight + self.quantized.adapter.delta()
        return F.linear(x, weight.to(x.dtype), self.bias)

    def weight(self) -> Tensor:
        """The weight it computes with now, adapter left out, float32 [out, in], with a gradient to the position."""
        return self.rounding.weight(self.position(), self.touched)

    def hold(self, mask: Mask | None) -> None:
        """Let only what `mask` names move from now on; None: everything."""
        if mask is None:
            self.touched |= torch.tensor(True)
        else:
            self.touched |= self.position.hold(mask.spread(self.rounding.spread))

    def coded(self, scores: Tensor) -> Tensor:
        """One score for each thing that a mask chooses, from one a weight [out, in]."""
        return self.rounding.coded(scores)

    @torch.no_grad()
    def quantized_weight(self) -> Tensor:
        """`weight`, detached: the Q of Eq. 3."""
        return self.weight()

    def cell_width(self) -> Tensor:
        """The width of each weight's starting cell, float32, broadcasting to the position."""
        return self.rounding.width()

    @torch.no_grad()
    def exported(self) -> Layer:
        """The layer to write, on the CPU."""
        return moved(self.rounding.exported(self.position, self.touched), "cpu")

    @torch.no_grad()
    def unexported(self) -> TrainedLinear:
        """The layer as it was trained, before codes or adapters are made of it, on the CPU."""
        own = self.quantized
        return moved(TrainedLinear(own.name, self.weight(), own.bits, own.outliers(), adapter=own.adapter), "cpu")


def attach(model: nn.Module, quantized: dict[str, Layer], settings: Settings, seed: int = 0) -> dict[str, LatentLinear]:
    """Freeze `model` and put a LatentLinear in the place of each quantized layer; returns them by name.

    Called again on the same model it starts anew from the quantized layers.
    """
    model.requires_grad_(False)
    generator, layers = torch.Generator().manual_seed(seed), {}
    for name, layer in quantized.items():
        parent, _, child = name.rpartition(".")
        owner = model.get_submodule(parent)
        old = getattr(owner, child)
        layer = moved(layer, device_of(old))
        rounding = rounding_of(layer, settings)
        layers[name] = LatentLinear(layer, old.bias, _position(rounding, settings, generator), rounding)
        _keep_hooks(old, layers[name])
        setattr(owner, child, layers[name])
    return layers


@contextmanager
def unpatched(layers: Iterable[LatentLinear]) -> Iterator[None]:
    """Let layers compute what they did before the patch."""
    for layer in layers:
        layer.patched = False
    try:
        yield
    finally:
        for layer in layers:
            layer.patched = True


def device_of(module: nn.Module) -> torch.device:
    """Where a linear layer, or the layer that took its place, computes."""
    return next(module.parameters()).device


def _position(rounding: Rounding, settings: Settings, generator: torch.Generator) -> Position:
    start = rounding.start(generator)
    return Factored(start, settings.rank, settings.alpha, generator) if settings.rank else Free(start)


def _keep_hooks(old: nn.Module, new: nn.Module) -> None:
    """A method that rounds activations does so with hooks: the patched model must round them too."""
    for hook in old._forward_pre_hooks.values():
        new.register_forward_pre_hook(hook)
    for hook in old._forward_hooks.values():
        new.register_forward_hook(hook)
