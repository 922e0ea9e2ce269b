"""Linear layers of a patched model as they were trained, before codes are made of them: to see what export costs.

It is an instrument and nothing to ship: the file holds a float32 number a weight.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bitsafe.artefacts.grids import bits_of
from bitsafe.artefacts.layers import Layer


@dataclass(frozen=True)
class TrainedLinear(Layer):
    """values: float32 [out, in]. nominal: bits of the cell. columns: outlier columns (indices), or None."""

    values: Tensor
    nominal: int
    columns: Tensor | None = None

    @property
    def bits(self) -> int:
        return self.nominal

    @property
    def shape(self) -> tuple[int, int]:
        return tuple(self.values.shape)

    @property
    def code_bits(self) -> float:
        return self.values.numel() * bits_of(self.values)

    @property
    def extra_bits(self) -> float:
        return 0

    def weight(self) -> Tensor:
        return self.values.float()

    def side(self) -> list[Tensor]:
        return [self.values]

    def outliers(self) -> Tensor | None:
        return self.columns


def settings_of(layer: TrainedLinear) -> dict[str, Any]:
    """What an artefact's config says of such layers."""
    return {"bits": layer.bits}


def stored(layer: TrainedLinear) -> dict[str, Tensor]:
    """codes: the weights themselves; columns: where there are outlier columns."""
    columns = {} if layer.columns is None else {"columns": layer.columns.to(torch.int32)}
    return {"codes": layer.values, **columns}


def restored(name: str, parts: dict[str, Tensor], settings: dict[str, Any]) -> TrainedLinear:
    """settings: `bits`, the cell's."""
    columns = parts["columns"].long() if "columns" in parts else None
    return TrainedLinear(name, parts["codes"], settings["bits"], columns)
