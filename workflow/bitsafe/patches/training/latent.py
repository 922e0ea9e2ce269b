"""Linear layers whose codes can be trained: a float32 latent weight, rounded to its grid in every forward pass."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bitsafe.artefacts.grids import AffineGrid, Grid, straight_through
from bitsafe.artefacts.layers import QuantizedLinear

Start = Literal["uniform", "centre"]


class LatentLinear(nn.Module):
    """y = x Q(latent)ᵀ (+ the frozen adapter), Q = rounding to the grid: what is trained is what is exported.

    A latent weight starts inside the cell of its code (`start_weights`), so before training the layer computes exactly
    what the quantized layer does. `touched` marks every entry that some update was allowed to move.
    """

    def __init__(self, quantized: QuantizedLinear, bias: Tensor | None, latent: Tensor) -> None:
        super().__init__()
        self.quantized = quantized
        self.grid, self.adapter, self.start = quantized.grid, quantized.adapter, quantized.codes
        self.latent = nn.Parameter(latent, requires_grad=False)
        self.touched = torch.zeros(quantized.codes.shape, dtype=torch.bool)
        self.bias = bias

    def forward(self, x: Tensor) -> Tensor:
        y = F.linear(x, straight_through(self.latent, self.grid).to(x.dtype), self.bias)
        if self.adapter is None:
            return y
        a, b = self.adapter.A.to(x.dtype), self.adapter.B.to(x.dtype)
        return y + self.adapter.scaling * F.linear(F.linear(x, a), b)

    def quantized_weight(self) -> Tensor:
        """The weight on the grid now, adapter left out: the Q of Eq. 3, float32 [out, in]."""
        return self.grid.dequantize(self.grid.nearest(self.latent))

    def cell_width(self) -> Tensor:
        """The width of each weight's starting cell, float32 [out, in]."""
        low, high = cells(self.grid, self.start)
        return high - low

    def codes(self) -> Tensor:
        """The codes to export; entries that no mask ever held keep theirs whatever rounding would say."""
        return torch.where(self.touched, self.grid.nearest(self.latent), self.start)


def attach(
    model: nn.Module, quantized: dict[str, QuantizedLinear], start: Start = "uniform", seed: int = 0
) -> dict[str, LatentLinear]:
    """Freeze `model` and put a LatentLinear in the place of each quantized layer; returns them by name."""
    model.requires_grad_(False)
    generator, layers = torch.Generator().manual_seed(seed), {}
    for name, layer in quantized.items():
        parent, _, child = name.rpartition(".")
        owner = model.get_submodule(parent)
        old = getattr(owner, child)
        layers[name] = LatentLinear(layer, old.bias, start_weights(layer, start, generator))
        _keep_hooks(old, layers[name])
        setattr(owner, child, layers[name])
    return layers


def restart(layers: dict[str, LatentLinear], start: Start, seed: int) -> None:
    """Put the latent weights back to where `attach` put them, with no entry touched."""
    generator = torch.Generator().manual_seed(seed)
    for layer in layers.values():
        layer.latent.data.copy_(start_weights(layer.quantized, start, generator))
        layer.touched.zero_()


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
    spread = low + (high - low) * torch.rand(centre.shape, generator=generator)
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
