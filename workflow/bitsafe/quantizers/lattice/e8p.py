"""The E8P codebook of QuIP# (Tseng et al. 2024, §4.2): 65536 points of E8 + 1/4 in a table of 256 rows.

A point is σ·s + c: s a row of 256 vectors of half-odd magnitudes (the absolute values of D̂8, the vectors of half-odd
integers with an even sum), σ signs that make that sum even, c = ±1/4 in every coordinate. Seven signs are free and
parity gives the eighth, so a code has 8 + 7 + 1 = 16 bits for 8 weights: row << 8 | signs of coordinates 0 … 6 << 1 |
(1 where c = −1/4). D̂8 + 1/4 and D̂8 − 1/4 are the two halves of E8 + 1/4.
"""

from functools import cache
from itertools import product

import torch
from torch import Tensor

DIMENSION, POINTS = 8, 65536
SHIFTS = (0.25, -0.25)
CHUNK = 8192  # vectors searched at a time: tables of CHUNK × 256


@cache
def magnitudes() -> Tensor:
    """The table, float32 [256, 8]: the 227 rows of |D̂8| of squared norm at most 10, then 29 of squared norm 12.

    Of the 224 rows of squared norm 12 the 56 permutations of (3 3 3 3 3 1 1 1)/2 are the flattest; every second of
    them in lexicographic order, and the last, fill the table up. The paper takes 29 of these 224 too, its own choice.
    """
    rows = [row for row in product((0.5, 1.5, 2.5), repeat=DIMENSION) if sum(x * x for x in row) <= 12]
    short = [row for row in rows if sum(x * x for x in row) <= 10]
    flat = [row for row in rows if row not in set(short) and max(row) < 2]
    return torch.tensor([*short, *flat[::2], flat[-1]])


@cache
def points() -> Tensor:
    """Every point by its code, float32 [65536, 8]."""
    code = torch.arange(POINTS)
    negative = (code[:, None] >> torch.arange(1, DIMENSION)) & 1  # [65536, 7]
    last = (negative.sum(1) + _odd()[code >> 8]) & 1  # an even sum takes as many minus signs as the sum of s is odd
    signs = 1.0 - 2.0 * torch.cat([negative, last[:, None]], dim=1)
    return signs * magnitudes()[code >> 8] + torch.tensor(SHIFTS)[code & 1][:, None]


def decode(codes: Tensor) -> Tensor:
    """int16 codes [...] to points, float32 [..., 8]."""
    return points().to(codes.device)[codes.to(torch.int64) & (POINTS - 1)]


def nearest(x: Tensor) -> Tensor:
    """The code of the nearest point of each vector [n, 8], exactly: int16 [n].

    For each row s and shift c only the best signs count. With y = x − c, ‖y − σs‖² = ‖y‖² − 2 ⟨|y|, s⟩ + ‖s‖² when
    σ = sign(y); where the parity forbids that, the cheapest sign is flipped and costs 4 min |y_i| s_i. So 512 distances
    a vector stand for 65536.
    """
    found = [_nearest(part) for part in x.float().split(CHUNK)]
    return torch.cat(found) if found else torch.empty(0, dtype=torch.int16, device=x.device)


def _nearest(x: Tensor) -> Tensor:
    table, odd = magnitudes().to(x.device), _odd().to(x.device)
    best = torch.cat([_distances(x - shift, table, odd) for shift in SHIFTS], dim=1).argmin(1)  # of [n, 512]
    shift, row = best // len(table), best % len(table)
    y = x - torch.tensor(SHIFTS, device=x.device)[shift][:, None]
    negative = (y < 0).to(torch.int64)
    cheapest = (y.abs() * table[row]).argmin(1, keepdim=True)
    flip = (negative.sum(1, keepdim=True) + odd[row][:, None]) & 1
    negative = negative.scatter_add(1, cheapest, flip) & 1
    free = (negative[:, :-1] << torch.arange(1, DIMENSION, device=x.device)).sum(1)
    return (row << 8 | free | shift).to(torch.int16)  # beyond 2^15 it wraps to a negative number of the same bits


def _distances(y: Tensor, table: Tensor, odd: Tensor) -> Tensor:
    """Squared distance of y [n, 8] to the best-signed vector of each row, [n, 256]."""
    size = y.abs()
    cost = size[:, :1] * table[:, 0]
    for i in range(1, DIMENSION):
        cost = torch.minimum(cost, size[:, i : i + 1] * table[:, i])
    wrong = ((y < 0).sum(1, keepdim=True) + odd) & 1
    norms = y.square().sum(1, keepdim=True) + table.square().sum(1)
    return norms - 2 * (size @ table.T) + 4 * wrong * cost


@cache
def _odd() -> Tensor:
    """1 where the entries of a row add up to an odd number, int64 [256]."""
    return magnitudes().sum(1).to(torch.int64) & 1
