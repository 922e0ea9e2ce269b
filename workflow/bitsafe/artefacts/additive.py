"""Weights as sums of codewords (AQLM, Egiazarian et al. 2024, arXiv 2401.06118, §3.1). Only torch is needed here.

A group of g neighbouring inputs of one output is ŵ = s · Σ_m C_m[b_m]: K codebooks C_m of 2^B codewords of g numbers
each, one code b_m for each of them, one scale s an output. All layers of a model share K, B and g.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from bitsafe.artefacts.grids import bits_of
from bitsafe.artefacts.layers import Layer


@dataclass(frozen=True)
class AdditiveLinear(Layer):
    """codes: integers [out, in/g, K]. codebooks: [K, 2^B, g]. scales: [out]; both in the dtype they are stored in."""

    codes: Tensor
    codebooks: Tensor
    scales: Tensor

    @property
    def bits_a_code(self) -> int:
        return (self.codebooks.shape[1] - 1).bit_length()

    @property
    def bits(self) -> int:
        return self.codebooks.shape[0] * self.bits_a_code // self.codebooks.shape[2]

    @property
    def shape(self) -> tuple[int, int]:
        return self.codes.shape[0], self.codes.shape[1] * self.codebooks.shape[2]

    @property
    def code_values(self) -> int:
        return self.codebooks.shape[1]

    @property
    def code_bits(self) -> float:
        return self.codes.numel() * self.bits_a_code

    @property
    def extra_bits(self) -> float:
        return sum(part.numel() * bits_of(part) for part in self.side())

    def weight(self) -> Tensor:
        return decode(self.codes, self.codebooks.float(), self.scales.float())

    def side(self) -> list[Tensor]:
        return [self.codebooks, self.scales]

    def fault(self) -> str | None:
        if self.codes.shape[2] != self.codebooks.shape[0] or self.codes.shape[0] != len(self.scales):
            shapes = [tuple(part.shape) for part in (self.codes, self.codebooks, self.scales)]
            return f"codes {shapes[0]}, codebooks {shapes[1]} and scales {shapes[2]} do not belong together"
        if int(self.codes.min()) < 0 or int(self.codes.max()) >= self.codebooks.shape[1]:  # as ints: 256 is 0 in uint8
            return f"a code outside 0 … {self.codebooks.shape[1] - 1}"
        return super().fault()


def decode(codes: Tensor, codebooks: Tensor, scales: Tensor) -> Tensor:
    """The weight [out, in] of codes [out, in/g, K], codebooks [K, 2^B, g] and scales [out]."""
    return codeword_sums(codes, codebooks).flatten(1) * scales.unsqueeze(1)


def codeword_sums(codes: Tensor, codebooks: Tensor) -> Tensor:
    """Σ_m C_m[b_m] for codes [..., K]: [..., g]."""
    rows = flat_codes(codes, codebooks.shape[1])
    return F.embedding_bag(rows, codebooks.flatten(0, 1), mode="sum").unflatten(0, codes.shape[:-1])


def flat_codes(codes: Tensor, size: int) -> Tensor:
    """Codes [..., K] as rows of all K codebooks stacked: int64 [n, K]. size: codewords a codebook."""
    return codes.long().flatten(0, -2) + torch.arange(codes.shape[-1], device=codes.device) * size


def decode_gradient(codes: Tensor, codebooks: Tensor, scales: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
    """From the gradient of a decoded weight [out, in], those of its codebooks and scales."""
    sums = codeword_sums(codes, codebooks).flatten(1)
    of_groups = (gradient * scales.unsqueeze(1)).unflatten(1, (-1, codebooks.shape[2])).flatten(0, 1)
    of_rows = torch.zeros_like(codebooks).flatten(0, 1)
    for rows in flat_codes(codes, codebooks.shape[1]).unbind(1):
        of_rows.index_add_(0, rows, of_groups)
    return of_rows.view_as(codebooks), (gradient * sums).sum(1)
