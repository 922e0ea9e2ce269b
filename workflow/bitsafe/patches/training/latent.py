"""Linear layers that a patch moves, in the place of a model's own; and where in its cell a latent weight starts."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bitsafe.artefacts.grids import AffineGrid, Grid
from bitsafe.artefacts.layers import QuantizedLinear, moved
from bitsafe.patches.base import Settings
from bitsafe.patches.maths import Mask
from bitsafe.patches.training.position import Factored, Free, Position
from bitsafe.patches.training.rounding import ROUNDINGS, Rounding

Start = Literal["uniform", "centre"]


class LatentLinear(nn.Module):
    """y = x Q(position)ᵀ (+ the frozen adapter), Q = what `rounding` makes of it: what is trained is what is exported.

    A latent weight starts inside the cell of its code (`start_weights`), so before training the layer computes exactly
    what the quantized layer does. `touched` marks every entry that some update was allowed to move.
    """

    def __init__(self, quantized: QuantizedLinear, bias: Tensor | None, position: Position, rounding: Rounding) -> None:
        super().__init__()
        self.quantized, self.position, self.rounding, self.bias = quantized, position, rounding, bias
        self.touched = torch.zeros_like(quantized.codes, dtype=torch.bool)

    def forward(self, x: Tensor) -> Tensor:
        y = F.linear(x, self.rounding.weight(self.position()).to(x.dtype), self.bias)
        if self.quantized.adapter is None:
            return y
        a, b = self.quantized.adapter.A.to(x.dtype), self.quantized.adapter.B.to(x.dtype)
        return y + self.quantized.adapter.scaling * F.linear(F.linear(x, a), b)

    def hold(self, mask: Mask | None) -> None:
        """Let only what `mask` names move from now on; None: everything."""
        self.touched |= torch.tensor(True) if mask is None else self.position.hold(mask)

    @torch.no_grad()
    def quantized_weight(self) -> Tensor:
        """The weight it computes with now, adapter left out: the Q of Eq. 3, float32 [out, in]."""
        return self.rounding.weight(self.position())

    def cell_width(self) -> Tensor:
        """The width of each weight's starting cell, float32 [out, in]."""
        low, high = cells(self.quantized.grid, self.quantized.codes)
        return high - low

    @torch.no_grad()
    def exported(self) -> QuantizedLinear:
        """The layer to write, on the CPU."""
        return moved(self.rounding.exported(self.position, self.touched), "cpu")


def attach(
    model: nn.Module, quantized: dict[str, QuantizedLinear], settings: Settings, seed: int = 0
) -> dict[str, LatentLinear]:
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
        position, rounding = _position(layer, settings, generator), ROUNDINGS[settings.quant_mode](layer)
        layers[name] = LatentLinear(layer, old.bias, position, rounding)
        _keep_hooks(old, layers[name])
        setattr(owner, child, layers[name])
    return layers


def device_of(module: nn.Module) -> torch.device:
    """Where a linear layer, or the layer that took its place, computes."""
    return next(module.parameters()).device


def _position(layer: QuantizedLinear, settings: Settings, generator: torch.Generator) -> Position:
    start = start_weights(layer, settings.start, generator)
    return Factored(start, settings.rank, settings.alpha, generator) if settings.rank else Free(start)


def _keep_hooks(old: nn.Module, new: nn.Module) -> None:
    """A method that rounds activations does so with hooks: the patched model must round them too."""
    for hook in old._forward_pre_hooks.values():
        new.register_forward_pre_hook(hook)
    for hook in old._forward_hooks.values():
        new.register_forward_hook(hook)


def start_weights(quantized: QuantizedLinear, start: Start, generator: torch.Generator) -> Tensor:
    """Latent weights [out, in] that round to the layer's codes: in the `centre` of their cells, or `uniform` in them.

    An artefact tells in which cell a weight lies, not where. Put all in the centre, and no code changes until an update
    has covered half a cell; then all whose gradients kept their sign change in the same step, a jolt that no learning
    rate can soften. Spread uniformly, the share of codes that change is proportional to the distance covered, as in
    stochastic rounding (Gupta et al. 2015, §3.1).
    """
    centre = quantized.grid.dequantize(quantized.codes)
    if start == "centre":
        return centre
    low, high = cells(quantized.grid, quantized.codes)
    spread = low + (high - low) * torch.rand(centre.shape, generator=generator).to(centre.device)
    return torch.where(quantized.grid.nearest(spread) == quantized.codes, spread, centre)  # an edge may round away


def cells(grid: Grid, codes: Tensor) -> tuple[Tensor, Tensor]:
    """The weights that round to each code: (low, high), float32 [out, in]; an end cell is as wide on both sides."""
    centre = grid.dequantize(codes)
    if isinstance(grid, AffineGrid):
        half = grid.scale.float().repeat_interleave(grid.group_size, 1) / 2
        return centre - half, centre + half
    levels, order = grid.levels.float().sort()
    gaps = levels.diff()
    below, above = torch.cat([gaps[:1], gaps]) / 2, torch.cat([gaps, gaps[-1:]]) / 2
    rank = order.argsort()[codes.long()]
    absmax = grid.dequantize(order[-1].expand(codes.shape)) / levels[-1]
    return centre - below[rank] * absmax, centre + above[rank] * absmax
