"""Incoherence: random signs, then an orthogonal matrix of flat entries (QuIP#, Tseng et al. 2024, §3).

For n = 2^k · p, p odd, the matrix is Q = H ⊗ C: H the Hadamard matrix of order 2^k in Sylvester's form over √2^k, C
the Hartley matrix of order p, C_ij = (cos(2πij/p) + sin(2πij/p)) / √p. Both are symmetric and orthogonal, so Q is its
own inverse. C stands in for the Hadamard matrices of other orders, which need tables: it needs none, and no seed. No
entry of Q is above √(2/n), 1/√n where n is a power of two, so the paper's bound on μ holds to a factor √2.
"""

from functools import cache
from math import pi, sqrt

import torch
from torch import Tensor


def random_signs(size: int, generator: torch.Generator) -> Tensor:
    """One fair sign a coordinate: bool [size], True for minus."""
    return torch.randint(2, (size,), generator=generator).bool()


def rotate(x: Tensor, negative: Tensor) -> Tensor:
    """Q S x along the last axis, float32; S = diag(±1), minus where `negative` [n] says so."""
    return orthogonal(_flipped(x, negative))


def rotate_back(x: Tensor, negative: Tensor) -> Tensor:
    """S Q x along the last axis: the inverse of `rotate`."""
    return _flipped(orthogonal(x), negative)


def rotate_matrix(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """(Q S)_rows · x · (Q S)_columnsᵀ of a matrix [out, in]."""
    return rotate(rotate(x, columns).T, rows).T


def rotate_matrix_back(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """The inverse of `rotate_matrix`."""
    return rotate_back(rotate_back(x.T, rows).T, columns)


def orthogonal(x: Tensor) -> Tensor:
    """Q x along the last axis, float32 of the same shape."""
    size = x.shape[-1]
    odd = size // (size & -size)
    parts = x.float().reshape(-1, size // odd, odd) @ _hartley(odd).to(x.device)
    return _hadamard(parts).reshape(x.shape)


def _hadamard(x: Tensor) -> Tensor:
    """H along the middle axis of [rows, 2^k, p] by sums and differences (fast Walsh-Hadamard transform)."""
    shape, half = x.shape, 1
    while half < shape[1]:
        pairs = x.reshape(shape[0], -1, 2, half, shape[2])
        x = torch.stack([pairs[:, :, 0] + pairs[:, :, 1], pairs[:, :, 0] - pairs[:, :, 1]], dim=2)
        half *= 2
    return x.reshape(shape) / sqrt(shape[1])


@cache
def _hartley(order: int) -> Tensor:
    steps = torch.arange(order, dtype=torch.float64)
    angle = 2 * pi / order * (torch.outer(steps, steps) % order)
    return ((angle.cos() + angle.sin()) / sqrt(order)).float()


def _flipped(x: Tensor, negative: Tensor) -> Tensor:
    return torch.where(negative.to(x.device), -x, x)
