"""The codebooks of each bit-width put together: E8P at 2 bits, a second one on what it leaves at 3 and 4.

Residual rounding of QuIP# (Tseng et al. 2024, §4.3): x ≈ s₁ E8P(x / s₁) + s₂ C((x − s₁ E8P(x / s₁)) / s₂), C the
one-bit E8 codebook at 3 bits and E8P again at 4.
"""

import torch
from torch import Tensor

from bitsafe.quantizers.lattice import e8, e8p

DIMENSION = 8
BITS = (4, 3, 2)
# What a codebook of each stage is multiplied by for weights of unit variance: the least squared error on Gaussian
# samples other than those that tests/bench/distortion.py scores (`tuned` there finds them again).
SCALES = {2: (0.97,), 3: (1.02, 0.50), 4: (1.12, 0.29)}
_SECOND = {torch.uint8: e8, torch.int16: e8p}  # by the dtype of its codes


def unit_scale(bits: int) -> Tensor:
    """The scales for unit variance, float32 [stages]."""
    return torch.tensor(SCALES[bits])


def encode(x: Tensor, scale: Tensor, bits: int) -> tuple[Tensor, Tensor | None]:
    """Codes of vectors [n, 8], int16 [n], and those of what they leave: None, uint8 [n] or int16 [n].

    The first stage is the nearest point of its codebook, and the second of its own (greedy, as in the paper).
    """
    codes = e8p.nearest(x / scale[0])
    if bits == 2:
        return codes, None
    second = e8 if bits == 3 else e8p
    return codes, second.nearest((x - scale[0] * e8p.decode(codes)) / scale[1])


def decode(codes: Tensor, residual: Tensor | None, scale: Tensor) -> Tensor:
    """Codes [...] to float32 [..., 8]."""
    first = scale[0] * e8p.decode(codes)
    return first if residual is None else first + scale[1] * _SECOND[residual.dtype].decode(residual)


def bits_of_codes(residual: Tensor | None) -> int:
    """The bits per weight of codes with such a second stage."""
    return 2 if residual is None else 2 + residual.element_size()
