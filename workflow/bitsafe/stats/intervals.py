"""Intervals that stay honest at 0 of n, with few clusters, and when a whole cluster moves together.

Three choices, all on the cautious side:

- A rate of unclustered answers carries Wilson's interval.
- A clustered rate (or a clustered mean of values in [0, 1]) carries Wilson's interval at an effective sample size: n
  divided by the design effect that the linearized cluster variance shows, with Student's t for the few clusters (Korn
  and Graubard 1998, Survey Methodology 24:193, with Wilson's in place of the exact interval; compared with its peers
  by Franco, Little, Louis and Slud 2019, J. Surv. Stat. Methodol. 7:334). It never collapses to a point.
- Clusters that all agree show no design effect, and clusters that nobody drew may still fail as a whole. So the
  upper bound is never below that of "no event in as many answers as there are clusters", nor the lower above its
  mirror. This is what bounds 0 of n, and it keeps the bounds monotone: one event is never better than none.
"""

import math
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri, stdtrit

Interval = tuple[float, float]
UNKNOWN: Interval = (np.nan, np.nan)


def wilson(count: float, n: float, confidence: float = 0.95) -> Interval:
    """Wilson's score interval (1927, JASA 22:209) of `count` in `n`; both may be fractional. Unknown at n = 0.

    Written out because a run needs thousands of them; the tests hold it against statsmodels.
    """
    if n <= 0:
        return UNKNOWN
    rate, z2 = min(max(count / n, 0.0), 1.0), float(ndtri((1 + confidence) / 2)) ** 2
    centre, reach = rate + z2 / (2 * n), math.sqrt(z2 * (rate * (1 - rate) + z2 / (4 * n)) / n)
    low, high = (centre - reach) / (1 + z2 / n), (centre + reach) / (1 + z2 / n)
    return (0.0 if rate == 0 else max(0.0, low)), (1.0 if rate == 1 else min(1.0, high))


def cluster_totals(values: NDArray, clusters: NDArray) -> tuple[NDArray, NDArray]:
    """Sum of the values and number of answers of each cluster; `values`, `clusters`: [n] -> two of [n_clusters]."""
    _, place = np.unique(clusters, return_inverse=True)
    return np.bincount(place, weights=values), np.bincount(place)


def effective_n(sizes: ArrayLike, icc: float = 1.0) -> float:
    """Kish's effective sample size for clusters of these sizes and this intra-cluster correlation.

    The design effect is 1 + (m' - 1) icc with m' = Σm²/Σm, the cluster size an answer sees (Kish 1965, §5.4 and §11.7).
    At icc = 1, the worst case, equal clusters count as one answer each.
    """
    sizes = np.asarray(sizes, dtype=float)
    n = sizes.sum()
    if n == 0:
        return 0.0
    return float(n / (1 + (np.square(sizes).sum() / n - 1) * icc))


def cluster_variance(sums: NDArray, sizes: NDArray) -> float:
    """Linearized variance of the mean Σsums/Σsizes over clusters drawn at random (Cochran 1977, eq. 6.13)."""
    n, k = sizes.sum(), len(sizes)
    residuals = sums - sums.sum() / n * sizes
    return float(k / (k - 1) * np.square(residuals).sum() / n**2)


def cluster_interval(values: ArrayLike, clusters: ArrayLike, confidence: float = 0.95) -> Interval:
    """Interval of the mean of values in [0, 1] that come in clusters; both [n]. See the top of the file.

    Binary values in clusters of one answer get Wilson's interval itself. Raises ValueError outside [0, 1].
    """
    values = np.asarray(values, dtype=float)
    if not len(values):
        return UNKNOWN
    if values.min() < 0 or values.max() > 1:
        raise ValueError("a rate's interval is for values in [0, 1]")
    sums, sizes = cluster_totals(values, np.asarray(clusters))
    binary = is_binary(values)
    if binary and sizes.max() == 1:
        return wilson(values.sum(), len(values), confidence)
    worst, mean = effective_n(sizes), float(values.mean())
    n = _shown_n(mean, sums, sizes, confidence)
    n = min(n, len(values)) if binary else n  # a lucky draw of clusters is no reason to claim more answers
    low, high = wilson(mean * n, n, confidence)
    return min(low, wilson(worst, worst, confidence)[0]), max(high, wilson(0, worst, confidence)[1])


def _shown_n(mean: float, sums: NDArray, sizes: NDArray, confidence: float) -> float:
    """Effective sample size that the clusters' own spread shows; the worst case where they show no spread at all."""
    variance = cluster_variance(sums, sizes) if len(sizes) > 1 else 0.0
    if variance < 1e-15:
        return effective_n(sizes)
    tail = (1 + confidence) / 2
    few_clusters = (ndtri(tail) / stdtrit(len(sizes) - 1, tail)) ** 2
    return max(1.0, mean * (1 - mean) / variance * few_clusters)


def difference_interval(differences: ArrayLike, clusters: ArrayLike, confidence: float = 0.95) -> Interval:
    """Interval of the mean of paired differences in [-1, 1] that come in clusters; both [n].

    The mean is that of the rises less that of the falls, and each has its `cluster_interval`; their bounds are put
    together by MOVER (Zou and Donner 2008, Stat. Med. 27:1693), as Newcombe (1998, Stat. Med. 17:2635) did for paired
    rates. So "no flips at all" keeps a width, and so does "all flips in one direction".
    """
    differences, clusters = np.asarray(differences, dtype=float), np.asarray(clusters)
    if not len(differences):
        return UNKNOWN
    rises, falls = np.maximum(differences, 0), np.maximum(-differences, 0)
    rise, fall, mean = float(rises.mean()), float(falls.mean()), float(differences.mean())
    rise_low, rise_high = cluster_interval(rises, clusters, confidence)
    fall_low, fall_high = cluster_interval(falls, clusters, confidence)
    together = _cluster_correlation(rises, falls, clusters)
    below = _root_of_squares(rise - rise_low, fall_high - fall, together)
    above = _root_of_squares(rise_high - rise, fall - fall_low, together)
    return max(-1.0, mean - below), min(1.0, mean + above)


def _root_of_squares(a: float, b: float, correlation: float) -> float:
    return math.sqrt(max(0.0, a * a + b * b - 2 * correlation * a * b))


def _cluster_correlation(a: NDArray, b: NDArray, clusters: NDArray) -> float:
    """Correlation of two means over clusters, from their linearized residuals; 0 where one does not vary."""
    (sums_a, sizes), (sums_b, _) = cluster_totals(a, clusters), cluster_totals(b, clusters)
    residuals_a, residuals_b = sums_a - a.mean() * sizes, sums_b - b.mean() * sizes
    scale = math.sqrt(float(residuals_a @ residuals_a) * float(residuals_b @ residuals_b))
    return float(residuals_a @ residuals_b) / scale if scale > 1e-12 else 0.0


def is_binary(values: NDArray) -> bool:
    """Whether every value is 0 or 1."""
    return bool(np.isin(values, (0.0, 1.0)).all())


@lru_cache(maxsize=2)  # each may be as large as all verdicts of a family
def resamples(sizes: tuple[int, ...], draws: int, seed: int = 0) -> tuple[NDArray, ...]:
    """How often each of n clusters is drawn in each of `draws` samples of n: [draws, n], one for each n of `sizes`.

    Remembered, for cells that answered the same prompts have as many clusters, and drawing is dearer than what is done
    with a draw. Whole numbers as floats, which matrix products want. Read only.
    """
    generator, drawn = np.random.default_rng(seed), []
    for n in sizes:
        counts, chances = np.empty((draws, n)), np.full(n, 1 / n)
        for sample in counts:  # one by one: whole numbers of all would take as much again
            sample[:] = generator.multinomial(n, chances)
        counts.flags.writeable = False
        drawn.append(counts)
    return tuple(drawn)
