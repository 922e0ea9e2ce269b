"""Linear layers whose outlier input columns stay in 16 bits and whose other columns are rounded (QUIK)."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from bitsafe.artefacts.grids import AffineGrid, bits_of
from bitsafe.artefacts.kinds.table import Pack, Unpack, packed, unpacked
from bitsafe.artefacts.layers import Layer


@dataclass(frozen=True)
class OutlierLinear(Layer):
    """One code a weight of the rounded columns, one 16-bit number a weight of the k outlier columns.

    codes: uint8 [out, in − k], the rounded columns in their own order. grid: one scale a row, over those columns.
    columns: [k] ascending indices of the others. kept: [out, k], their weights. nominal: the bits of the cell, which
    the codes of a layer that the method holds at 8 bits exceed.
    """

    codes: Tensor
    grid: AffineGrid
    columns: Tensor
    kept: Tensor
    nominal: int
    separable: ClassVar[bool] = True

    @property
    def bits(self) -> int:
        return self.nominal

    @property
    def shape(self) -> tuple[int, int]:
        return self.codes.shape[0], self.codes.shape[1] + len(self.columns)

    @property
    def code_bits(self) -> float:
        return self.codes.numel() * self.grid.bits

    @property
    def code_values(self) -> int:
        return 2**self.grid.bits

    @property
    def extra_bits(self) -> float:
        kept = self.kept.numel() * bits_of(self.kept) + self.columns.numel() * bits_of(self.columns)
        return self.grid.side_bits + kept

    def weight(self) -> Tensor:
        whole = torch.empty(self.shape, device=self.codes.device)
        whole[:, rounded_columns(self.columns, self.shape[1])] = self.grid.dequantize(self.codes)
        whole[:, self.columns.long()] = self.kept.float()
        return whole

    def side(self) -> list[Tensor]:
        return [*self.grid.side(), self.kept]

    def outliers(self) -> Tensor | None:
        return self.columns.long() if len(self.columns) else None

    def fault(self) -> str | None:
        if tuple(self.grid.shape) != tuple(self.codes.shape):
            return f"codes {tuple(self.codes.shape)} on a grid {tuple(self.grid.shape)}"
        if tuple(self.kept.shape) != (self.shape[0], len(self.columns)):
            return f"{len(self.columns)} outlier columns, but weights {tuple(self.kept.shape)} for them"
        places = self.columns.tolist()
        if places != sorted(set(places)) or not all(0 <= place < self.shape[1] for place in places):
            return f"outlier columns that are not ascending indices of {self.shape[1]} inputs"
        return super().fault()


def rounded_columns(columns: Tensor, width: int) -> Tensor:
    """The indices [width − k], ascending, of the columns that are not outliers."""
    rounded = torch.ones(width, dtype=torch.bool, device=columns.device)
    rounded[columns.long()] = False
    return rounded.nonzero().flatten()


def stored(layer: OutlierLinear, pack: Pack = packed) -> dict[str, Tensor]:
    """codes: int32 words (compressed-tensors' packing) of `code_bits` each; shape: (out, in); the rest by its name."""
    return {
        "codes": pack(layer.codes, layer.grid.bits),
        "code_bits": torch.tensor(layer.grid.bits),
        "shape": torch.tensor(layer.shape),
        "scale": layer.grid.scale,
        "columns": layer.columns,
        "kept": layer.kept,
    }


def restored(name: str, parts: dict[str, Tensor], settings: dict[str, Any], unpack: Unpack = unpacked) -> OutlierLinear:
    """settings: `bits`, the cell's."""
    rows, width = parts["shape"].tolist()
    rounded, code_bits = width - len(parts["columns"]), int(parts["code_bits"])
    codes = unpack(parts["codes"], code_bits, (rows, rounded))
    grid = AffineGrid(code_bits, rounded, parts["scale"])
    return OutlierLinear(name, codes, grid, parts["columns"], parts["kept"], settings["bits"])
