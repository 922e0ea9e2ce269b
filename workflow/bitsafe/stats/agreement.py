"""How far judges agree beyond chance: Cohen's kappa of two, Krippendorff's alpha of many."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtrit

from bitsafe.stats.intervals import UNKNOWN, Interval, cluster_interval, resamples


@dataclass(frozen=True)
class Agreement:
    """Two judges' binary verdicts on the same answers."""

    both: int
    only_a: int
    only_b: int
    neither: int
    kappa: float
    low: float
    high: float
    reason: str = ""

    @property
    def n(self) -> int:
        return self.both + self.only_a + self.only_b + self.neither

    @property
    def share(self) -> float:
        return (self.both + self.neither) / self.n if self.n else np.nan


def kappa_of(tables: NDArray) -> NDArray:
    """Cohen's (1960) kappa of [..., 2, 2] tables of counts; nan where chance alone gives full agreement."""
    n = tables.sum(axis=(-2, -1))
    with np.errstate(invalid="ignore", divide="ignore"):
        observed = np.trace(tables, axis1=-2, axis2=-1) / n
        chance = (tables.sum(axis=-1) * tables.sum(axis=-2)).sum(axis=-1) / n**2
        return np.where(chance < 1, (observed - chance) / (1 - chance), np.nan)


def cohen_kappa(a: ArrayLike, b: ArrayLike, clusters: ArrayLike, confidence: float = 0.95) -> Agreement:
    """Kappa of two judges with a delete-one-cluster jackknife interval; `a`, `b` (0 or 1), `clusters`: [n].

    Without clusters the jackknife agrees with the usual large-sample error (Fleiss, Cohen and Everitt 1969), which
    knows no clusters. Full agreement leaves the jackknife no spread: the lower bound then is kappa at the most
    disagreement that so many clusters without any still allow.
    """
    a, b, clusters = np.asarray(a, dtype=int), np.asarray(b, dtype=int), np.asarray(clusters)
    tables = _cluster_tables(a, b, clusters)
    total = tables.sum(axis=0)
    kappa = float(kappa_of(total))
    low, high = _interval(tables, kappa, (a != b).astype(float), clusters, confidence)
    counts = (int(total[i, j]) for i, j in ((1, 1), (1, 0), (0, 1), (0, 0)))
    return Agreement(*counts, kappa, low, high, _reason(len(a), kappa, low))


def _reason(n: int, kappa: float, low: float) -> str:
    """Why kappa, or its interval, is blank."""
    if n == 0:
        return "no answer that both judges scored"
    if np.isnan(kappa):
        return "both judges give one and the same verdict throughout"
    return "no interval: too few clusters hold the rarer verdict" if np.isnan(low) else ""


def _cluster_tables(a: NDArray, b: NDArray, clusters: NDArray) -> NDArray:
    """Counts [n_clusters, 2, 2] of (verdict of a, verdict of b)."""
    names, place = np.unique(clusters, return_inverse=True)
    return np.bincount(4 * place + 2 * a + b, minlength=4 * len(names)).reshape(-1, 2, 2)


def _interval(
    tables: NDArray, kappa: float, disagree: NDArray, clusters: NDArray, confidence: float
) -> tuple[float, float]:
    total, k = tables.sum(axis=0), len(tables)
    if k < 2 or np.isnan(kappa):
        return np.nan, np.nan
    if not disagree.any():
        chance = float((total.sum(axis=0) * total.sum(axis=1)).sum() / total.sum() ** 2)
        return max(-1.0, 1 - cluster_interval(disagree, clusters, confidence)[1] / (1 - chance)), 1.0
    without = kappa_of(total - tables)
    if np.isnan(without).any():  # only one cluster holds the rarer verdict
        return np.nan, np.nan
    error = np.sqrt((k - 1) / k * np.square(without - without.mean()).sum())
    reach = float(stdtrit(k - 1, (1 + confidence) / 2) * error)
    return max(-1.0, kappa - reach), min(1.0, kappa + reach)


def krippendorff_alpha(
    ratings: ArrayLike, clusters: ArrayLike | None = None, draws: int = 0, confidence: float = 0.95
) -> tuple[float, Interval]:
    """Krippendorff's α for names (2011, "Computing Krippendorff's Alpha-Reliability"), with a bootstrap interval.

    `ratings`: [n units, n judges], nan where a judge is silent; units that fewer than two judged say nothing.
    `clusters`: of the units (default: each its own); `draws` samples of them give the interval, without any it is
    nan. α is nan where only one name was ever given.
    """
    ratings = np.asarray(ratings, dtype=float)
    names = np.unique(ratings[np.isfinite(ratings)])
    counts = (ratings[:, :, None] == names).sum(axis=1)  # [units, names]
    pairable = counts.sum(axis=1) >= 2
    counts = counts[pairable]
    clusters = np.arange(len(ratings)) if clusters is None else np.asarray(clusters)
    given = counts.sum(axis=1, keepdims=True)
    disagreement = (counts * (given - counts)).sum(axis=1) / (given[:, 0] - 1)
    found, place = np.unique(clusters[pairable], return_inverse=True)
    parts = np.stack([np.bincount(place, column, len(found)) for column in (disagreement, *counts.T)], axis=1)
    alpha = float(_alpha(parts.sum(axis=0)))
    if not draws or len(found) < 2:
        return alpha, UNKNOWN
    (counted,) = resamples((len(found),), draws)
    drawn = _alpha(counted @ parts)
    return alpha, tuple(np.nanquantile(drawn, _tails(confidence))) if np.isfinite(drawn).any() else UNKNOWN


def _tails(confidence: float) -> tuple[float, float]:
    return (1 - confidence) / 2, (1 + confidence) / 2


def _alpha(parts: NDArray) -> NDArray:
    """α of summed disagreement and name counts [..., 1 + names]."""
    counts = parts[..., 1:]
    n = counts.sum(axis=-1)
    expected = np.square(n) - np.square(counts).sum(axis=-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(expected > 0, 1 - (n - 1) * parts[..., 0] / expected, np.nan)
