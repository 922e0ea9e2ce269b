"""The one-bit codebook of QuIP# (Tseng et al. 2024, §4.3): 256 points of the E8 lattice, 8 bits for 8 weights.

The origin, the 240 shortest vectors (squared norm 2) and 15 of squared norm 4, here ±2 along an axis but the last.
It rounds what E8P leaves at 3 bits.
"""

from functools import cache
from itertools import product

import torch
from torch import Tensor

DIMENSION = 8


@cache
def points() -> Tensor:
    """Every point by its code, float32 [256, 8]."""
    whole = [row for row in product((-1.0, 0.0, 1.0), repeat=DIMENSION) if sum(map(abs, row)) == 2]
    half = [row for row in product((-0.5, 0.5), repeat=DIMENSION) if sum(row) % 2 == 0]
    axes = torch.cat([2 * torch.eye(DIMENSION), -2 * torch.eye(DIMENSION)])[:-1]
    return torch.cat([torch.zeros(1, DIMENSION), torch.tensor(whole + half), axes])


def decode(codes: Tensor) -> Tensor:
    """uint8 codes [...] to points, float32 [..., 8]."""
    return points().to(codes.device)[codes.long()]


def nearest(x: Tensor) -> Tensor:
    """The code of the nearest point of each vector [n, 8]: uint8 [n]."""
    table = points().to(x.device)
    return (x.float() @ table.T - table.square().sum(1) / 2).argmax(1).to(torch.uint8)
