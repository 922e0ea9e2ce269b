"""Rounding with feedback: block LDLQ (QuIP#, Tseng et al. 2024, §4.1; QuIP, Chee et al. 2023, §3)."""

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

from bitsafe.errors import CellError

Codes = TypeVar("Codes")


def ldlq(
    weight: Tensor, hessian: Tensor, rounding: Callable[[Tensor], tuple[Tensor, Codes]], block: int
) -> tuple[Tensor, list[Codes]]:
    """Round a weight [out, in] block after block of `block` columns; (rounded [out, in], codes of each block).

    With H = (U + I) D (U + I)ᵀ, block k is rounded to Q(W_k + (W − Ŵ)_{<k} U_{<k,k}): the feedback that makes
    tr((W − Ŵ) H (W − Ŵ)ᵀ) = tr(η D ηᵀ), η what each rounding alone leaves. rounding: [out, block] to (rounded, codes).
    """
    feedback = block_feedback(hessian, block).to(weight)
    rounded, error, codes = torch.zeros_like(weight), torch.zeros_like(weight), []
    for start in range(0, weight.shape[1], block):
        now = slice(start, start + block)
        target = weight[:, now] + error[:, :start] @ feedback[:start, now]
        rounded[:, now], found = rounding(target)
        error[:, now] = weight[:, now] - rounded[:, now]
        codes.append(found)
    return rounded, codes


def block_feedback(hessian: Tensor, block: int) -> Tensor:
    """U, strictly upper block-triangular [in, in], of the block decomposition H = (U + I) D (U + I)ᵀ; float64."""
    lower, failed = torch.linalg.cholesky_ex(hessian.double().flip(0, 1))
    if failed:
        raise CellError("a Hessian that cannot be factorized: raise params.dampening, or calibrate on more data")
    upper = lower.flip(
        0, 1
    )  # H = R Rᵀ with R upper triangular, and U + I = R times the inverses of its diagonal blocks
    feedback = torch.zeros_like(upper)
    for start in range(0, len(upper), block):
        now = slice(start, start + block)
        columns = upper[:start, now]
        feedback[:start, now] = torch.linalg.solve_triangular(upper[now, now], columns, upper=True, left=False)
    return feedback


def damped(gram: Tensor, share: float) -> Tensor:
    """The Hessian with `share` of its mean diagonal added along it, float64; the identity for inputs all zero."""
    hessian = gram.double()
    mean = hessian.diagonal().mean()
    identity = torch.eye(len(hessian), dtype=hessian.dtype, device=hessian.device)
    return hessian + share * mean * identity if mean > 0 else identity
