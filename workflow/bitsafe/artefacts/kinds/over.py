"""Layers that hold another layer and something beside it: what the two kinds of them share."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from bitsafe.artefacts.grids import TableGrid
from bitsafe.artefacts.kinds.outliers import OutlierLinear
from bitsafe.artefacts.layers import Layer, QuantizedLinear


@dataclass(frozen=True)
class OverBase(Layer):
    """base: the layer that is held, without its adapter."""

    base: QuantizedLinear | OutlierLinear

    @property
    def bits(self) -> int:
        return self.base.bits

    @property
    def shape(self) -> tuple[int, int]:
        return self.base.shape

    def outliers(self) -> Tensor | None:
        return self.base.outliers()


def base_settings(base: QuantizedLinear | OutlierLinear) -> dict[str, Any]:
    """The kind of a layer that another holds, and that kind's settings."""
    if isinstance(base, OutlierLinear):
        return {"base": "outliers", "base_settings": {"bits": base.bits}}
    if isinstance(base.grid, TableGrid):
        return {"base": "table", "base_settings": {"block_size": base.grid.block_size}}
    return {"base": "affine", "base_settings": {"bits": base.bits}}
