"""What a quantized folder holds of one linear layer, whatever its method: a weight, and how many bits it takes."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from bitsafe.artefacts.grids import Grid, bits_of


@dataclass(frozen=True)
class LowRank:
    """A LoRA adapter left beside its layer: W + scaling · B A (Hu et al. 2021, eq. 3). A: [r, in], B: [out, r]."""

    A: Tensor
    B: Tensor
    scaling: float

    @property
    def side_bits(self) -> int:
        return self.A.numel() * bits_of(self.A) + self.B.numel() * bits_of(self.B)

    def delta(self) -> Tensor:
        """What the adapter adds, float32 [out, in]."""
        return self.scaling * (self.B.float() @ self.A.float())


@dataclass(frozen=True)
class Layer(ABC):
    """One quantized layer of an artefact. `name` is its module's path."""

    name: str
    adapter: LowRank | None = field(default=None, kw_only=True)
    separable: ClassVar[bool] = False  # whether a weight can be kept in 16 bits and its neighbours' codes stay right

    @property
    @abstractmethod
    def bits(self) -> int:
        """The nominal bits of the cell it belongs to."""

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int]:
        """(out, in) of the weight."""

    @property
    @abstractmethod
    def code_bits(self) -> float:
        """Bits of all codes, each at log2 of the number of its values."""

    @property
    def code_values(self) -> int:
        """How many values each of its `codes` can take; 0: a patch cannot move them."""
        return 0

    @property
    @abstractmethod
    def extra_bits(self) -> float:
        """Bits beside the codes: scales, zero-points, tables, codebooks, outliers; the adapter is counted apart."""

    @abstractmethod
    def weight(self) -> Tensor:
        """The weight without its adapter, float32 [out, in]."""

    def side(self) -> list[Tensor]:
        """Every stored tensor that must be finite."""
        return []

    def outliers(self) -> Tensor | None:
        """Input columns (indices) kept in 16 bits, or None."""
        return None

    @property
    def numel(self) -> int:
        return self.shape[0] * self.shape[1]

    @property
    def side_bits(self) -> float:
        """Bits beside the codes, the adapter's among them."""
        return self.extra_bits + (self.adapter.side_bits if self.adapter else 0)

    def dense(self) -> Tensor:
        """The weight this layer computes with, float32 [out, in], adapter included."""
        return self.weight() if self.adapter is None else self.weight() + self.adapter.delta()

    def fault(self) -> str | None:
        """What is wrong with the stored tensors, or None."""
        side = self.side() + ([self.adapter.A, self.adapter.B] if self.adapter else [])
        if not all(torch.isfinite(part).all() for part in side):
            return "a scale or adapter is not finite"
        return None


@dataclass(frozen=True)
class QuantizedLinear(Layer):
    """One code a weight, on a grid. codes: uint8 [out, in]."""

    codes: Tensor
    grid: Grid
    separable: ClassVar[bool] = True

    @property
    def bits(self) -> int:
        return self.grid.bits

    @property
    def shape(self) -> tuple[int, int]:
        return tuple(self.codes.shape)

    @property
    def code_bits(self) -> float:
        return self.codes.numel() * self.grid.bits

    @property
    def code_values(self) -> int:
        return 2**self.grid.bits

    @property
    def extra_bits(self) -> float:
        return self.grid.side_bits

    def weight(self) -> Tensor:
        return self.grid.dequantize(self.codes)

    def side(self) -> list[Tensor]:
        return self.grid.side()

    def fault(self) -> str | None:
        if tuple(self.grid.shape) != tuple(self.codes.shape):
            return f"codes {tuple(self.codes.shape)} on a grid {tuple(self.grid.shape)}"
        return super().fault()


def moved(value: Any, device: torch.device | str) -> Any:
    """A layer, a grid or an adapter with all its tensors on `device`."""
    if isinstance(value, Tensor):
        return value.to(device)
    if is_dataclass(value):
        return replace(value, **{each.name: moved(getattr(value, each.name), device) for each in fields(value)})
    return value
