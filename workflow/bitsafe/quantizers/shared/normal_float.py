"""NormalFloat at any bits (Dettmers et al. 2023, §3): bitsandbytes has 4, this makes 3 and 2 the same way."""

from pathlib import Path

import torch
from torch import Tensor

from bitsafe.artefacts.checkpoint import decoder_linears, read_tensors
from bitsafe.artefacts.formats.own import write_own
from bitsafe.artefacts.grids import TableGrid
from bitsafe.artefacts.layers import QuantizedLinear

BLOCK = 64


def normal_float(bits: int) -> Tensor:
    """The 2^bits levels, ascending, float32 in [−1, 1], zero among them (Dettmers et al. 2023, §3 and appendix E).

    Quantiles of N(0, 1) at even steps of probability from 1/2 outwards: 2^(bits−1) + 1 of them upwards and 2^(bits−1)
    downwards, zero counted in both and kept once; then all over the largest. The outermost probability is not in the
    paper: at 4 bits the published table has 0.9677083 = 1 − (1/15 + 1/16)/4, and here 15 and 16 become 2^bits − 1 and
    2^bits.
    """
    half, outermost = 2 ** (bits - 1), 1 - (1 / (2**bits - 1) + 1 / 2**bits) / 4
    up, down = (torch.special.ndtri(_even(outermost, count)) for count in (half, half - 1))
    levels = torch.cat([-down, torch.zeros(1, dtype=torch.float64), up]).sort().values
    return (levels / levels.max()).float()


def _even(outermost: float, count: int) -> Tensor:
    """`count` probabilities above 1/2, evenly spaced up to the outermost."""
    return 0.5 + (outermost - 0.5) * torch.arange(1, count + 1, dtype=torch.float64) / count


def table_grid(weight: Tensor, levels: Tensor, block_size: int = BLOCK) -> TableGrid:
    """The grid of a weight [out, in]: each block of `block_size`, row by row, reaches its own absolute maximum."""
    blocks = weight.detach().float().flatten().split(block_size)
    return TableGrid(levels, torch.stack([block.abs().max() for block in blocks]), block_size, tuple(weight.shape))


def save_normal_float(source: Path, out: Path, bits: int) -> None:
    """Quantize a checkpoint in bitsafe's own layout, kind `table`: blocks of 64 weights, float32 maxima. No data."""
    others, levels, layers = read_tensors(source), normal_float(bits), []
    for name in decoder_linears(source):
        weight = others.pop(f"{name}.weight")
        grid = table_grid(weight, levels)
        layers.append(QuantizedLinear(name, grid.nearest(weight), grid))
    write_own(out, source, "table", layers, others, {"block_size": BLOCK})
