"""distortion: mean squared error of each weight codec on 2^20 unit Gaussian samples, beside the limit 4^−R.

R counts all bits of a layer of 2^20 weights: codes, scales, zero-points, tables, codebooks. What is tuned or learned
comes from other samples than those scored. QuIP#'s rotations make weights Gaussian; their signs (n + m bits for n × m
weights) are no part of a codec. Goals for E8P: 0.092, 0.0305 and 0.0090 at 2, 3 and 4 bits.
"""

import math
from collections.abc import Iterator

import torch
from tests.bench.additive import additive
from torch import Tensor

from bitsafe.artefacts.grids import TableGrid, affine_grid
from bitsafe.quantizers.lattice.codec import decode, encode, unit_scale

SAMPLES, SCORED_SEED, TUNING_SEED = 2**20, 2026, 7
BITS = (2, 3, 4)
Scored = tuple[str, int, Tensor, float, dict]  # codec, nominal bits, reconstruction [SAMPLES], side bits, extra keys


def run() -> list[dict]:
    samples, other = gaussian(SCORED_SEED, SAMPLES), gaussian(TUNING_SEED, 2**18)
    limits = {bits: lloyd_max(bits)[1] for bits in BITS}
    return [row(samples, *scored, limits) for scored in codecs(samples, other)]


def codecs(samples: Tensor, other: Tensor) -> Iterator[Scored]:
    """Every codec's reconstruction of `samples`; `other` is what it may learn from. E8P leads, the headline first."""
    for bits in BITS:
        scale = unit_scale(bits)
        found = decode(*encode(samples.view(-1, 8), scale, bits), scale)
        best = [round(float(part), 4) for part in tuned(bits, other)]
        yield "e8p", bits, found.flatten(), 32 * len(scale), {"scale": scale.tolist(), "tuned_again": best}
    for bits in BITS:
        levels, expected = lloyd_max(bits)
        yield "lloyd_max", bits, on_table(samples, levels, SAMPLES), 32 * (1 + len(levels)), {"expected": expected}
    for bits in BITS:
        weight = samples.view(1024, 1024)
        grid = affine_grid(weight, bits, 64)
        yield "rtn_asym_g64", bits, grid.dequantize(grid.nearest(weight)).flatten(), grid.side_bits, {}
    for bits in BITS:
        levels = normal_float(bits)
        side = 32 * (SAMPLES // 64 + len(levels))
        yield f"nf{bits}_g64", bits, on_table(samples, levels, 64), side, {}
    for books, entries, group in ((2, 16, 4), (2, 256, 8), (3, 256, 8), (4, 256, 8)):
        found = additive(other.view(-1, group), samples.view(-1, group), books, entries)
        width = entries.bit_length() - 1
        side = 16 * books * entries * group  # codebooks in 16 bits
        yield f"additive_{books}x{width}g{group}", books * width // group, found.flatten(), side, {}


def row(samples: Tensor, codec: str, bits: int, found: Tensor, side: float, extra: dict, limits: dict) -> dict:
    errors = (samples - found).square().view(-1, 64).mean(1).double()
    ours, rate = float(errors.mean()), bits + side / SAMPLES
    limit = 4.0**-rate
    return {
        "name": f"distortion of {codec} at {bits} bits",
        "ours": ours,
        "peer": limit,
        "peer_name": "the rate-distortion limit 4^-R",
        "ratio": ours / limit,
        "unit": "mean squared error",
        "n": SAMPLES,
        "spread": float(errors.std() / math.sqrt(len(errors))),  # standard error of the mean
        "method": codec,
        "bits": bits,
        "rate": rate,
        "lloyd_max": limits[bits],
        "over_lloyd_max": ours / limits[bits],
    } | extra


def gaussian(seed: int, count: int) -> Tensor:
    return torch.randn(count, generator=torch.Generator().manual_seed(seed))


def tuned(bits: int, other: Tensor) -> Tensor:
    """The scales of least error on samples, one stage after the other, from 1 and a share of it for the second."""
    x, scale = other.view(-1, 8)[:8192], torch.tensor([1.0, {3: 0.45, 4: 0.33}.get(bits, 0.0)][: 1 + (bits > 2)])
    for width in (0.15, 0.15, 0.03):
        for stage in range(len(scale)):
            tries = [_with(scale, stage, 1 + width * step / 3) for step in range(-3, 4)]
            scale = min(tries, key=lambda s: float((x - decode(*encode(x, s, bits), s)).square().mean()))
    return scale


def _with(scale: Tensor, stage: int, factor: float) -> Tensor:
    changed = scale.clone()
    changed[stage] *= factor
    return changed


def lloyd_max(bits: int) -> tuple[Tensor, float]:
    """Levels of the best scalar quantizer of a unit Gaussian, and its expected error (Lloyd 1982, Max 1960).

    Levels are the means of their cells and edges lie half-way between levels; the expected error is then
    1 − Σ P(cell) level².
    """
    levels = torch.special.ndtri((torch.arange(2**bits, dtype=torch.float64) + 0.5) / 2**bits)
    for _ in range(2000):
        edges = torch.nn.functional.pad((levels[1:] + levels[:-1]) / 2, (1, 1), value=torch.inf)
        edges[0] = -torch.inf
        density = torch.exp(-edges.square() / 2) / math.sqrt(2 * math.pi)
        mass = torch.special.ndtr(edges).diff()
        levels = -density.diff() / mass
    return levels.float(), float(1 - (mass * levels.square()).sum())


def normal_float(bits: int) -> Tensor:
    """The NormalFloat levels (Dettmers et al. 2023, §3 and appendix E): Gaussian quantiles over ±1, zero among them."""
    half = 2 ** (bits - 1)
    end = 1 - (1 / (4 * half) + 1 / (4 * half - 2)) / 2
    quantiles = [torch.special.ndtri(torch.linspace(0.5, end, n + 1, dtype=torch.float64)) for n in (half, half - 1)]
    levels = torch.cat([-quantiles[1][1:].flip(0), quantiles[0]])
    return (levels / levels.max()).float()


def on_table(samples: Tensor, levels: Tensor, block: int) -> Tensor:
    """Samples on levels times their block's absolute maximum; one block of all of them takes the levels as they are."""
    whole = block == len(samples)
    absmax = torch.ones(1) if whole else samples.view(-1, block).abs().amax(1)
    grid = TableGrid(levels, absmax, block, (1, len(samples)))
    return grid.dequantize(grid.nearest(samples.view(1, -1))).flatten()
