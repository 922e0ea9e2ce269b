"""GPTQ's rounding (Frantar et al. 2022, arXiv 2210.17323, Algorithm 1): columns in turn, errors fed to later ones."""

import torch
from torch import Tensor

from bitsafe.artefacts.grids import AffineGrid
from bitsafe.errors import CellError

BLOCK = 128  # columns between two updates of all columns behind them, the paper's


def inverse_factor(gram: Tensor, damping: float, name: str) -> Tensor:
    """U [in, in], upper triangular, with Uᵀ U = (G + damping · mean diag G · I)⁻¹, float64 on the device of G.

    G [in, in]: X Xᵀ of the inputs times any positive number, which cancels. Damping also decides for inputs that
    calibration never saw: their weights are rounded to nearest.
    """
    damped = gram.double()
    damped = damped + damping * damped.diagonal().mean() * torch.eye(len(gram), dtype=damped.dtype, device=gram.device)
    lower, failed = torch.linalg.cholesky_ex(damped)
    if failed:
        raise CellError(f"{name}: no Cholesky factor of its Hessian: give params.dampening a larger value")
    return torch.linalg.cholesky(torch.cholesky_inverse(lower), upper=True)


def round_columns(weight: Tensor, factor: Tensor, grid: AffineGrid, count: int) -> tuple[Tensor, Tensor]:
    """Round the first `count` columns of a weight [out, in] to a grid of one scale a row.

    Returns their codes, uint8 [out, count], and the columns behind them as the error feedback leaves them,
    float64 [out, in − count]. factor: U of `inverse_factor`.
    """
    weight, column = weight.double().clone(), AffineGrid(grid.bits, 1, grid.scale)
    codes = torch.empty(len(weight), count, dtype=torch.uint8, device=weight.device)
    for start in range(0, count, BLOCK):
        stop = min(start + BLOCK, count)
        errors = torch.empty(len(weight), stop - start, dtype=weight.dtype, device=weight.device)
        for j in range(start, stop):
            here = weight[:, j : j + 1]
            codes[:, j : j + 1] = code = column.nearest(here)
            error = (here - column.dequantize(code)) / factor[j, j]
            weight[:, j + 1 : stop] -= error * factor[j, j + 1 : stop]
            errors[:, j - start] = error[:, 0]
        weight[:, stop:] -= errors @ factor[start:stop, stop:]
    return codes, weight[:, count:]
