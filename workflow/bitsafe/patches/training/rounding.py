"""What rounding makes of a patched layer's weights in training, and what is exported: one class a `quant_mode`."""

from abc import ABC, abstractmethod
from dataclasses import replace

import torch
from torch import Tensor

from bitsafe.artefacts.grids import AffineGrid, Grid, TableGrid, affine_grid, straight_through
from bitsafe.artefacts.layers import LowRank, QuantizedLinear
from bitsafe.patches.training.position import Position


class Rounding(ABC):
    """How one layer computes with weights that lie somewhere between its codes."""

    def __init__(self, quantized: QuantizedLinear) -> None:
        self.quantized = quantized

    @abstractmethod
    def weight(self, position: Tensor) -> Tensor:
        """The weight to compute with, float32 [out, in], with a gradient to `position`; adapters are left out."""

    @abstractmethod
    def exported(self, position: Position, touched: Tensor) -> QuantizedLinear:
        """The layer to write; touched: which weights some mask ever held."""


class OnOwnGrid(Rounding):
    """`requant_grid`: codes move on the quantized model's own grid, whose scales are frozen."""

    def weight(self, position: Tensor) -> Tensor:
        return straight_through(position, self.quantized.grid)

    def exported(self, position: Position, touched: Tensor) -> QuantizedLinear:
        """Entries that no mask ever held keep their codes whatever rounding would say."""
        codes = torch.where(touched, self.quantized.grid.nearest(position()), self.quantized.codes)
        return replace(self.quantized, codes=codes)


class OnNewGrid(Rounding):
    """`requant_fp`: the moved weights are quantized anew, scales and all; codes outside the masks may change too."""

    def weight(self, position: Tensor) -> Tensor:
        return straight_through(position, refitted(self.quantized.grid, position))

    def exported(self, position: Position, touched: Tensor) -> QuantizedLinear:
        weight = position()
        grid = refitted(self.quantized.grid, weight)
        return replace(self.quantized, codes=grid.nearest(weight), grid=grid)


class Unrounded(Rounding):
    """`adapter`: the codes stay, and what moved stays beside them as a low-rank adapter in 16 bits."""

    def weight(self, position: Tensor) -> Tensor:
        return position

    def exported(self, position: Position, touched: Tensor) -> QuantizedLinear:
        """A cell with an adapter of its own (QLoRA) gets both as one, of the sum of their ranks."""
        own = self.quantized.adapter
        if own is None:
            return replace(self.quantized, adapter=LowRank(position.A.half(), position.B.half(), position.scaling))
        b = position.B * (position.scaling / own.scaling)
        both = torch.cat([own.A, position.A.to(own.A)]), torch.cat([own.B, b.to(own.B)], dim=1)
        return replace(self.quantized, adapter=LowRank(*both, own.scaling))


ROUNDINGS: dict[str, type[Rounding]] = {"requant_grid": OnOwnGrid, "requant_fp": OnNewGrid, "adapter": Unrounded}


def refitted(grid: Grid, weight: Tensor) -> Grid:
    """A grid of the same kind whose scales fit `weight` [out, in] (the largest magnitude, or the extremes)."""
    weight = weight.detach().float()
    if isinstance(grid, AffineGrid):
        return affine_grid(weight, grid.bits, grid.group_size, grid.symmetric, grid.scale.dtype)
    blocks = weight.flatten().split(grid.block_size)
    absmax = torch.stack([block.abs().max() for block in blocks]).to(grid.absmax.dtype)
    return TableGrid(grid.levels, absmax, grid.block_size, grid.shape)
