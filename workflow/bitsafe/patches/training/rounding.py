"""What a patched layer computes with in training, and what is exported: one class a `quant_mode`.

A position is the float32 matrix that training moves, `start` where it begins. Before the first step a layer computes
what the quantized layer does; `requant_fp` alone does not, for its scales are new from the beginning.
"""

from abc import ABC, abstractmethod
from dataclasses import replace

import torch
from torch import Tensor

from bitsafe.artefacts.grids import AffineGrid, Grid, TableGrid, affine_grid, straight_through
from bitsafe.artefacts.kinds.delta import DeltaLinear
from bitsafe.artefacts.layers import Layer, LowRank, QuantizedLinear
from bitsafe.patches.base import Settings
from bitsafe.patches.training.coding import CODINGS, Coding
from bitsafe.patches.training.position import Position


class Rounding(ABC):
    """How one layer computes with weights that lie somewhere between its codes."""

    def __init__(self, quantized: Layer) -> None:
        self.quantized = quantized

    def start(self, _generator: torch.Generator) -> Tensor:
        """Where a position begins: on the weights that the codes mean."""
        return self.quantized.weight()

    @abstractmethod
    def weight(self, position: Tensor, touched: Tensor) -> Tensor:
        """The weight to compute with, float32 [out, in], with a gradient to `position`; adapters are left out.

        touched: which entries some mask has held; the others are where they began.
        """

    @abstractmethod
    def exported(self, position: Position, touched: Tensor) -> Layer:
        """The layer to write."""

    def coded(self, scores: Tensor) -> Tensor:
        """One score for each thing that a mask chooses, from one a weight [out, in]."""
        return scores

    def spread(self, chosen: Tensor) -> Tensor:
        """The reverse for a mask over them, or over its columns: over the entries of a position."""
        return chosen

    def width(self) -> Tensor:
        """The width of each weight's cell, where the codes have cells."""
        coding = CODINGS.get(type(self.quantized))
        if coding is None:
            raise ValueError(f"{type(self.quantized).__name__} has no cells to measure a learning rate in")
        return coding(self.quantized).width()


class OnCodes(Rounding):
    """`requant_grid`: codes move on the quantized model's own grid or codebooks; scales and codebooks are frozen."""

    def __init__(self, quantized: Layer, start: str = "uniform") -> None:
        super().__init__(quantized)
        self.coding: Coding = CODINGS[type(quantized)](quantized)
        self.begins = start

    def start(self, generator: torch.Generator) -> Tensor:
        """An artefact tells in which cell a weight lies, not where: in the `centre`, or `uniform` in it.

        With all in the centre, no code changes until an update has covered half a cell; then all whose gradients kept
        their sign change in the same step, a jolt that no learning rate can soften. Spread uniformly, the share of
        codes that change is proportional to the distance covered, as in stochastic rounding (Gupta et al. 2015, §3.1).
        """
        return self.coding.uniform(generator) if self.begins == "uniform" else self.coding.centre()

    def weight(self, position: Tensor, touched: Tensor) -> Tensor:
        return self.coding.whole(straight_through(position, lambda x: self._rounded(x, touched)))

    def _rounded(self, position: Tensor, touched: Tensor) -> Tensor:
        return self.coding.decode(self.coding.nearest(position, touched))

    def exported(self, position: Position, touched: Tensor) -> Layer:
        """Entries that no mask ever held keep their codes whatever rounding would say."""
        own, codes = self.quantized.codes, self.coding.nearest(position(), touched)
        held = touched.unflatten(1, (-1, self.coding.group)).any(-1)
        return self.coding.exported(torch.where(held.view(*held.shape, *[1] * (own.ndim - 2)), codes, own))

    def coded(self, scores: Tensor) -> Tensor:
        return self.coding.coded(scores)

    def spread(self, chosen: Tensor) -> Tensor:
        return chosen.repeat_interleave(self.coding.group, -1) if self.coding.group > 1 else chosen

    def width(self) -> Tensor:
        return self.coding.width()


class DenseTwin(OnCodes):
    """`requant_grid`, rounded at export alone: training adds what has moved to the weights that the codes mean.

    A uniform start is then a dither: codes change with a probability in proportion to the distance moved, and the
    exported weights equal the trained ones on average (Schuchman 1964).
    """

    def start(self, generator: torch.Generator) -> Tensor:
        self.offset = super().start(generator) - self.coding.centre()
        return self.coding.centre() + self.offset

    def weight(self, position: Tensor, touched: Tensor) -> Tensor:
        return self.coding.whole(position - self.offset)


class OnNewGrid(Rounding):
    """`requant_fp`: the moved weights are quantized anew, scales and all; codes outside the masks may change too."""

    def weight(self, position: Tensor, touched: Tensor) -> Tensor:
        return straight_through(position, refitted(self.quantized.grid, position).rounded)

    def exported(self, position: Position, touched: Tensor) -> QuantizedLinear:
        weight = position()
        grid = refitted(self.quantized.grid, weight)
        return replace(self.quantized, codes=grid.nearest(weight), grid=grid)


class Beside(Rounding):
    """`delta_quant`: Q⁰ + Quant(M ⊙ Δ), Eq. 2 to the letter: the codes stay, the update has codes and scales too.

    Quant is the cell's own format. Only entries that some mask has held are stored.
    """

    def weight(self, position: Tensor, touched: Tensor) -> Tensor:
        base = self.quantized.weight()
        return base + straight_through(position - base, lambda delta: self._layer(delta, touched).weight())

    def exported(self, position: Position, touched: Tensor) -> Layer:
        touched = touched.expand(self.quantized.shape)
        delta = self._layer(position() - self.quantized.weight(), touched)
        bare = replace(self.quantized, adapter=None)
        return DeltaLinear(self.quantized.name, bare, touched, delta, adapter=self.quantized.adapter)

    def _layer(self, delta: Tensor, touched: Tensor) -> QuantizedLinear:
        delta = torch.where(touched, delta, 0.0)
        own = self.quantized
        if isinstance(own, QuantizedLinear):
            grid = refitted(own.grid, delta)
        else:  # outlier columns are no groups of a grid: one scale a row, as theirs
            grid = affine_grid(delta, own.bits, -1, symmetric=True)
        return QuantizedLinear(own.name, grid.nearest(delta), grid)


class Unrounded(Rounding):
    """`adapter`: the codes stay, and what moved stays beside them as a low-rank adapter in 16 bits."""

    def weight(self, position: Tensor, touched: Tensor) -> Tensor:
        return position

    def exported(self, position: Position, touched: Tensor) -> Layer:
        """A cell with an adapter of its own (QLoRA) gets both as one, of the sum of their ranks."""
        own = self.quantized.adapter
        if own is None:
            return replace(self.quantized, adapter=LowRank(position.A.half(), position.B.half(), position.scaling))
        b = position.B * (position.scaling / own.scaling)
        both = torch.cat([own.A, position.A.to(own.A)]), torch.cat([own.B, b.to(own.B)], dim=1)
        return replace(self.quantized, adapter=LowRank(*both, own.scaling))


def rounding_of(layer: Layer, settings: Settings) -> Rounding:
    """How a patch with these settings rounds this layer."""
    if settings.quant_mode == "requant_grid":
        return (OnCodes if settings.rounded == "in_training" else DenseTwin)(layer, settings.start)
    return {"requant_fp": OnNewGrid, "delta_quant": Beside, "adapter": Unrounded}[settings.quant_mode](layer)


def refitted(grid: Grid, weight: Tensor) -> Grid:
    """A grid of the same kind whose scales fit `weight` [out, in] (the largest magnitude, or the extremes)."""
    weight = weight.detach().float()
    if isinstance(grid, AffineGrid):
        return affine_grid(weight, grid.bits, grid.group_size, grid.symmetric, grid.scale.dtype)
    magnitudes = weight.abs().flatten()
    rest = -len(magnitudes) % grid.block_size  # the last block may be short
    blocks = torch.nn.functional.pad(magnitudes, (0, rest)).view(-1, grid.block_size)
    return TableGrid(grid.levels, blocks.amax(1).to(grid.absmax.dtype), grid.block_size, grid.shape)
