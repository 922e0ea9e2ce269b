"""How the codes of one layer stand for its weights: where the cell of a code lies, and which codes are nearest.

One class a kind of layer. Weights are float32 [out, n]: those that have codes, in the layer's order of inputs. A cell
is all that is rounded to one code; its centre is what the code means.
"""

from abc import ABC, abstractmethod
from dataclasses import replace

import torch
from torch import Tensor

from bitsafe.artefacts.additive import AdditiveLinear, codeword_sums
from bitsafe.artefacts.grids import AffineGrid, Grid
from bitsafe.artefacts.kinds.outliers import OutlierLinear, rounded_columns
from bitsafe.artefacts.layers import Layer, QuantizedLinear

ROWS_AT_ONCE = 2**25  # prices of codewords held at once


class Coding(ABC):
    """group: how many neighbouring weights one code stands for, so that they move together or not at all."""

    group = 1

    @abstractmethod
    def centre(self) -> Tensor:
        """What the layer's codes mean, float32 [out, n]."""

    @abstractmethod
    def uniform(self, generator: torch.Generator) -> Tensor:
        """A point anywhere in each cell, float32 [out, n]; it rounds to the layer's own code."""

    @abstractmethod
    def width(self) -> Tensor:
        """The width of each cell, float32, [out, n] or such that it broadcasts to it."""

    @abstractmethod
    def nearest(self, weight: Tensor, touched: Tensor | None = None) -> Tensor:
        """The codes of weights [out, n]; where `touched` [out, n] says no, a layer's own may be given unlooked."""

    @abstractmethod
    def decode(self, codes: Tensor) -> Tensor:
        """What codes mean, float32 [out, n]."""

    def whole(self, weight: Tensor) -> Tensor:
        """The layer's weight [out, in] from those that have codes; differentiable."""
        return weight

    def coded(self, scores: Tensor) -> Tensor:
        """One score a code from one a weight of the layer [out, in]: the mean of its weights', [out, n/group]."""
        return scores.unflatten(1, (-1, self.group)).mean(-1) if self.group > 1 else scores

    def exported(self, codes: Tensor) -> Layer:
        """The layer with other codes."""
        return replace(self.layer, codes=codes)


class OnGrid(Coding):
    """One code a weight."""

    def __init__(self, layer: QuantizedLinear | OutlierLinear) -> None:
        self.layer, self.grid = layer, layer.grid

    def centre(self) -> Tensor:
        return self.grid.dequantize(self.layer.codes)

    def uniform(self, generator: torch.Generator) -> Tensor:
        centre = self.centre()
        low, high = cells(self.grid, self.layer.codes)
        spread = low + (high - low) * torch.rand(centre.shape, generator=generator).to(centre.device)
        # an edge may round away
        return torch.where(self.grid.nearest(spread) == self.layer.codes, spread, centre)

    def width(self) -> Tensor:
        low, high = cells(self.grid, self.layer.codes)
        return high - low

    def nearest(self, weight: Tensor, touched: Tensor | None = None) -> Tensor:
        return self.grid.nearest(weight)

    def decode(self, codes: Tensor) -> Tensor:
        return self.grid.dequantize(codes)


class OnColumns(OnGrid):
    """One code a weight but in the outlier columns, whose 16-bit weights no patch moves (QUIK)."""

    def __init__(self, layer: OutlierLinear) -> None:
        super().__init__(layer)
        self.columns = rounded_columns(layer.columns, layer.shape[1])

    def whole(self, weight: Tensor) -> Tensor:
        fixed = torch.empty(self.layer.shape, device=weight.device)
        fixed[:, self.layer.columns.long()] = self.layer.kept.float()
        return fixed.index_copy(1, self.columns, weight)

    def coded(self, scores: Tensor) -> Tensor:
        return scores[:, self.columns]

    def width(self) -> Tensor:
        """One scale an output, [out, 1]."""
        return self.grid.scale.float()


class OnCodebooks(Coding):
    """K codes for each group of g weights, whose meaning is s · Σ_m C_m[b_m]; codebooks and scales stay (AQLM)."""

    def __init__(self, layer: AdditiveLinear) -> None:
        self.layer, self.group = layer, layer.codebooks.shape[2]
        self.books = layer.codebooks.float()
        scales = layer.scales.float()
        self.scales = torch.where(scales.abs() > 0, scales, 1.0).unsqueeze(1)  # [out, 1]
        self.norms = self.books.square().sum(-1)  # [K, 2^B]

    def centre(self) -> Tensor:
        return self.layer.weight()

    def uniform(self, generator: torch.Generator) -> Tensor:
        """Along a random direction from the centre, so far that within a ball the law would be uniform.

        The cell is taken to be what no change of a single code comes nearer to, and cut to be symmetric about its
        centre, so that a cell at the edge is not endless: {v : |v·δ| ≤ ‖δ‖²/2 for every difference δ of two codewords
        of one codebook, one of them the layer's}.
        """
        codes = self.layer.codes.flatten(0, 1)  # [groups, K]
        direction = torch.randn((len(codes), self.group), generator=generator)
        share = torch.rand((len(codes), 1), generator=generator) ** (1 / self.group)
        direction = (direction / direction.norm(dim=1, keepdim=True)).to(self.books.device)
        reach = torch.cat([self._reach(*part) for part in self._parts(codes, direction)])
        offset = (share.to(reach.device) * reach * direction).view(self.layer.shape) * self.scales
        spread, centre = self.centre() + offset, self.centre()
        kept = (self.nearest(spread) == self.layer.codes).all(-1).repeat_interleave(self.group, 1)
        return torch.where(kept, spread, centre)  # an edge may round away

    def _reach(self, codes: Tensor, direction: Tensor) -> Tensor:
        """How far the cells of codes [n, K] reach along unit vectors [n, g]: [n, 1]; 0 where nothing bounds them."""
        reach = torch.full((len(codes), 1), torch.inf, device=codes.device)
        for book, norms, own in zip(self.books, self.norms, codes.long().unbind(1), strict=True):
            along = direction @ book.T
            along = (along - along.gather(1, own[:, None])).abs()
            squares = norms + norms[own, None] - 2 * book[own] @ book.T
            bound = torch.where(along > 1e-12, squares.clamp(min=0) / (2 * along), torch.inf)
            bound.scatter_(1, own[:, None], torch.inf)
            reach = torch.minimum(reach, bound.amin(1, keepdim=True))
        return torch.where(reach.isfinite(), reach, 0.0)

    def width(self) -> Tensor:
        """That of a cube with the mean square distance that points of an output's cells have from their centres.

        On a uniform grid it is the width of a cell: there that mean square is w²/12. [out, 1]
        """
        offset = self.uniform(torch.Generator().manual_seed(0)) - self.centre()
        return offset.square().mean(1, keepdim=True).mul(12).sqrt()

    def nearest(self, weight: Tensor, touched: Tensor | None = None) -> Tensor:
        """From the layer's own codes each code in turn takes its best value, once; ties keep the old one."""
        codes = self.layer.codes.flatten(0, 1).clone()
        points = (weight.detach().float() / self.scales).reshape(-1, self.group)
        asked = None if touched is None else touched.expand(weight.shape).reshape(-1, self.group).any(1).nonzero()[:, 0]
        own, points = (codes, points) if asked is None else (codes[asked], points[asked])
        found = [self._sweep(*part) for part in self._parts(own, points)]
        new = torch.cat(found) if found else own
        if asked is None:
            codes = new
        else:
            codes[asked] = new
        return codes.view(self.layer.codes.shape)

    def _sweep(self, codes: Tensor, points: Tensor) -> Tensor:
        """codes [n, K], points [n, g]: codes [n, K] no further from them."""
        codes = codes.clone()
        rest = points - codeword_sums(codes, self.books)
        for place, (book, norms) in enumerate(zip(self.books, self.norms, strict=True)):
            own = codes[:, place].long()
            rest += book[own]
            prices = norms - 2 * rest @ book.T  # squared distances but for ‖rest‖²
            price, best = prices.min(1)
            best = torch.where(price < prices.gather(1, own[:, None])[:, 0], best, own)
            rest -= book[best]
            codes[:, place] = best.to(codes.dtype)
        return codes

    def _parts(self, *tensors: Tensor):
        rows = max(1, ROWS_AT_ONCE // self.books.shape[1])
        return zip(*(tensor.split(rows) for tensor in tensors), strict=True)

    def decode(self, codes: Tensor) -> Tensor:
        return replace(self.layer, codes=codes).weight()


CODINGS: dict[type[Layer], type[Coding]] = {
    QuantizedLinear: OnGrid,
    OutlierLinear: OnColumns,
    AdditiveLinear: OnCodebooks,
}


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
