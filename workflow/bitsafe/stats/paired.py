"""Two arms on the same prompts: exact tests of their difference, the bounds of what was dropped, and Holm's correction.

Every test is two-sided and conditional on the pairs at hand: under the null the two arms of a cluster could be swapped.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import binom

from bitsafe.stats.intervals import Interval, cluster_totals, difference_interval, resamples

ENUMERATED = 14  # clusters with a difference up to which all 2^k swaps of real-valued sums are tried
ROUNDING = 1e-9  # sums closer than this count as tied
CHUNK = 1_000


def mcnemar_exact(n_up: int, n_down: int) -> float:
    """Exact McNemar p of `n_up` pairs that rose and `n_down` that fell (McNemar 1947): a sign test of the flips."""
    return min(1.0, 2 * float(binom.cdf(min(n_up, n_down), n_up + n_down, 0.5)))


def sign_flip(differences: ArrayLike, clusters: ArrayLike, permutations: int = 10_000, seed: int = 0) -> float:
    """Two-sided p of the mean paired difference when each cluster's arms may be swapped as a whole.

    `differences`, `clusters`: [n]. Whole-number sums (flips) get the exact distribution, whatever their number: with
    clusters of one answer this is exact McNemar. Real-valued sums are enumerated up to 2^14 swaps; beyond,
    `permutations` swaps are drawn with a fixed seed and the observed arrangement counts as one of them (Phipson and
    Smyth 2010).
    """
    sums, _ = cluster_totals(np.asarray(differences, dtype=float), np.asarray(clusters))
    sums = sums[np.abs(sums) > ROUNDING]
    if not len(sums):
        return 1.0
    if np.abs(sums - np.rint(sums)).max() < ROUNDING:
        return _exact(np.rint(np.abs(sums)).astype(int), abs(round(sums.sum())))
    if len(sums) <= ENUMERATED:
        swaps = 1 - 2 * ((np.arange(2 ** len(sums))[:, None] >> np.arange(len(sums))) & 1)
        return _extreme(swaps, sums) / len(swaps)
    return (1 + _drawn(sums, permutations, seed)) / (1 + permutations)


def _exact(sizes: NDArray, observed: int) -> float:
    """P(|Σ ± sizes| >= observed) over random signs: the distribution of the sum of the sizes that are swapped."""
    chances = np.ones(1)
    for size, count in zip(*np.unique(sizes, return_counts=True)):
        longer = np.zeros(len(chances) + size * count)
        for swapped, chance in enumerate(binom.pmf(np.arange(count + 1), count, 0.5)):
            longer[size * swapped : size * swapped + len(chances)] += chance * chances
        chances = longer
    total = len(chances) - 1
    return min(1.0, float(chances[np.abs(total - 2 * np.arange(total + 1)) >= observed].sum()))


def _extreme(swaps: NDArray, sums: NDArray) -> int:
    """How many arrangements (rows of ±1) lie at least as far from zero as the observed one."""
    return int((np.abs(swaps @ sums) >= abs(sums.sum()) - ROUNDING).sum())


def _drawn(sums: NDArray, permutations: int, seed: int) -> int:
    draw, extreme = np.random.default_rng(seed), 0
    for start in range(0, permutations, CHUNK):
        rows = min(CHUNK, permutations - start)
        extreme += _extreme(1.0 - 2 * draw.integers(0, 2, (rows, len(sums)), dtype=np.int8), sums)
    return extreme


def paired_bootstrap(
    differences: ArrayLike, clusters: ArrayLike, confidence: float = 0.95, draws: int = 2_000, seed: int = 0
) -> Interval:
    """Percentile interval of the mean paired difference of graded scores, drawn again by cluster; both [n].

    Clusters that all differ alike leave a bootstrap no spread; they get `difference_interval`.
    """
    differences, clusters = np.asarray(differences, dtype=float), np.asarray(clusters)
    sums, sizes = cluster_totals(differences, clusters)
    if len(sums) < 2 or np.ptp(sums / sizes) < ROUNDING:
        return difference_interval(differences, clusters, confidence)
    (drawn,) = resamples((len(sums),), draws, seed)
    low, high = np.quantile((drawn @ sums) / (drawn @ sizes), [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def dropped_bounds(outcome: ArrayLike, reference: ArrayLike) -> tuple[float, float]:
    """Least and greatest mean difference over all pairs when each missing value (nan) may be anything in [0, 1].

    `outcome`, `reference`: [n], values in [0, 1] or nan. Unknown (nan) without pairs.
    """
    outcome, reference = np.asarray(outcome, dtype=float), np.asarray(reference, dtype=float)
    if not len(outcome):
        return np.nan, np.nan
    least = np.nan_to_num(outcome, nan=0.0) - np.nan_to_num(reference, nan=1.0)
    greatest = np.nan_to_num(outcome, nan=1.0) - np.nan_to_num(reference, nan=0.0)
    return float(least.mean()), float(greatest.mean())


def holm(p: ArrayLike) -> NDArray:
    """Holm's adjusted p of one family (1979, Scand. J. Stat. 6:65): [m] -> [m], in the order given.

    Written out because statsmodels' `multipletests` collects garbage at every call; the tests hold it against that.
    """
    p = np.asarray(p, dtype=float)
    order = np.argsort(p)
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(stepped, 1)
    return adjusted
