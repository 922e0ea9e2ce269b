"""Grids: how the integer codes of one linear layer become weights. Only torch is needed here.

A grid is frozen: its scales never move, only codes do. Codes are unsigned, 0 … 2^bits − 1, kept in uint8.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class AffineGrid:
    """Uniform levels per group of input columns: w = scale · (code − zero_point) (Jacob et al. 2018, eq. 1).

    scale: [out, in/group_size], in the dtype it is stored with. zero_point: uint8 of the same shape, or None for a
    symmetric grid, whose zero is code 2^(bits−1) and takes no room in the file.
    """

    bits: int
    group_size: int
    scale: Tensor
    zero_point: Tensor | None = None

    @property
    def symmetric(self) -> bool:
        return self.zero_point is None

    @property
    def shape(self) -> tuple[int, int]:
        return self.scale.shape[0], self.scale.shape[1] * self.group_size

    @property
    def side_bits(self) -> int:
        """Bits of scales and zero-points as they are stored."""
        zero_bits = 0 if self.zero_point is None else self.zero_point.numel() * self.bits
        return self.scale.numel() * bits_of(self.scale) + zero_bits

    def side(self) -> list[Tensor]:
        """The stored floating-point tensors."""
        return [self.scale]

    def dequantize(self, codes: Tensor) -> Tensor:
        """Codes [out, in] to float32 weights [out, in]."""
        grouped = codes.to(torch.float32).unflatten(1, (-1, self.group_size))
        return ((grouped - self._zero()) * self.scale.float().unsqueeze(-1)).flatten(1)

    def nearest(self, weight: Tensor) -> Tensor:
        """The nearest code of each weight [out, in]; what lies outside the range goes to its end."""
        grouped = weight.detach().float().unflatten(1, (-1, self.group_size))
        codes = torch.round(grouped / self.scale.float().unsqueeze(-1)) + self._zero()
        return codes.clamp_(0, 2**self.bits - 1).to(torch.uint8).flatten(1)

    def rounded(self, weight: Tensor) -> Tensor:
        """The nearest level of each weight, float32 [out, in]."""
        return self.dequantize(self.nearest(weight))

    def _zero(self) -> Tensor | float:
        return 2.0 ** (self.bits - 1) if self.zero_point is None else self.zero_point.float().unsqueeze(-1)


@dataclass(frozen=True)
class TableGrid:
    """A table of levels times one absolute maximum a block (NF4 and FP4: Dettmers et al. 2023, §3).

    levels: [2^bits] ascending or not. absmax: [n_blocks], blocks of `block_size` run over the weight row by row and
    the last may be short. shape: (out, in).
    """

    levels: Tensor
    absmax: Tensor
    block_size: int
    shape: tuple[int, int]

    @property
    def bits(self) -> int:
        return (len(self.levels) - 1).bit_length()

    @property
    def side_bits(self) -> int:
        """Bits of the block maxima and of the table, which bitsandbytes stores with every layer."""
        return self.absmax.numel() * bits_of(self.absmax) + self.levels.numel() * bits_of(self.levels)

    def side(self) -> list[Tensor]:
        """The stored floating-point tensors."""
        return [self.absmax, self.levels]

    def dequantize(self, codes: Tensor) -> Tensor:
        """Codes [out, in] to float32 weights [out, in]."""
        return self.levels.float()[codes.long()] * self._per_weight()

    def nearest(self, weight: Tensor) -> Tensor:
        """The nearest code of each weight [out, in]; an all-zero block takes the level nearest zero."""
        levels, order = self.levels.float().sort()
        absmax = self._per_weight()
        relative = torch.where(absmax > 0, weight.detach().float() / absmax, 0.0)
        return order[torch.bucketize(relative, (levels[1:] + levels[:-1]) / 2)].to(torch.uint8)

    def rounded(self, weight: Tensor) -> Tensor:
        """The nearest level of each weight, float32 [out, in]."""
        return self.dequantize(self.nearest(weight))

    def _per_weight(self) -> Tensor:
        count = self.shape[0] * self.shape[1]
        return self.absmax.float().repeat_interleave(self.block_size)[:count].view(self.shape)


Grid = AffineGrid | TableGrid


def affine_grid(
    weight: Tensor, bits: int, group_size: int, symmetric: bool = False, dtype: torch.dtype = torch.float16
) -> AffineGrid:
    """The min-max grid of a weight [out, in] (Jacob et al. 2018, §3; group-wise as in Dettmers & Zettlemoyer 2023).

    Zero is always a level, so the range is widened to hold it. group_size −1 takes the whole row. Scales are rounded to
    `dtype`, the one they are stored in, before anything is rounded with them.
    """
    group_size = weight.shape[1] if group_size == -1 else group_size
    grouped = weight.detach().float().unflatten(1, (-1, group_size))
    low, high = grouped.amin(-1).clamp(max=0), grouped.amax(-1).clamp(min=0)
    steps = 2**bits - 1
    span = 2 * torch.maximum(-low, high) if symmetric else high - low
    scale = (span / steps).to(dtype)
    scale = torch.where(scale > 0, scale, torch.finfo(dtype).eps)  # an all-zero group, or one below the dtype's reach
    if symmetric:
        return AffineGrid(bits, group_size, scale)
    zero_point = torch.round(-low / scale.float()).clamp_(0, steps).to(torch.uint8)
    return AffineGrid(bits, group_size, scale, zero_point)


def straight_through(weight: Tensor, rounded: Callable[[Tensor], Tensor]) -> Tensor:
    """What `rounded` makes of the weight, with the gradient of the identity (Bengio et al. 2013, §4)."""
    return _StraightThrough.apply(weight, rounded)


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx, weight: Tensor, rounded: Callable[[Tensor], Tensor]) -> Tensor:
        return rounded(weight)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None


def bits_of(tensor: Tensor) -> int:
    """Bits of one entry as it is stored."""
    return tensor.element_size() * 8
