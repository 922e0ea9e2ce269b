"""How good a judge is: its errors against human labels, and rates corrected for them.

A rate corrected for a judge's sensitivity and specificity (Rogan and Gladen 1978, Am. J. Epidemiol. 107:71) supposes
that the errors travel: that the judge errs on the answers at hand as it did on the labelled ones.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bitsafe.errors import UserError
from bitsafe.files import read_json
from bitsafe.matrix.tables import labels_file, version
from bitsafe.stats.intervals import UNKNOWN, Interval, cluster_interval, cluster_totals, resamples

MIN_LABELS = 30  # of each class
MIN_INFORMATION = 1.2  # sensitivity + specificity; 1 is a coin
DRAWS = 2000


@dataclass(frozen=True)
class Labels:
    """Judge against people by cluster: counts [n_clusters, 4] of hits, misses, false alarms and correct rejections.

    Positive is what the judge is asked to find: harm on a harmful benchmark, refusal on an over-refusal one.
    """

    counts: NDArray
    source: str

    @classmethod
    def of(cls, judged: ArrayLike, truth: ArrayLike, clusters: ArrayLike, source: str) -> "Labels":
        """`judged`, `truth` (0 or 1), `clusters`: [n]."""
        judged, truth = np.asarray(judged, dtype=int), np.asarray(truth, dtype=int)
        names, place = np.unique(np.asarray(clusters), return_inverse=True)
        column = 2 * (1 - truth) + (1 - judged) if len(judged) else np.empty(0, dtype=int)
        return cls(np.bincount(4 * place + column, minlength=4 * len(names)).reshape(-1, 4), source)

    @property
    def totals(self) -> tuple[int, int, int, int]:
        return tuple(int(count) for count in self.counts.sum(axis=0)) if len(self.counts) else (0, 0, 0, 0)

    @property
    def sensitivity(self) -> float:
        return float(_share(self.counts.sum(axis=0)[:2]))

    @property
    def specificity(self) -> float:
        return float(_share(self.counts.sum(axis=0)[:1:-1]))

    def intervals(self, confidence: float = 0.95) -> tuple[Interval, Interval]:
        """Of sensitivity and specificity: Wilson's, at the effective n of the clusters."""
        return tuple(_interval(self.counts[:, pair], confidence) for pair in ([0, 1], [3, 2]))

    def insufficient(self) -> str:
        """Why no rate can be corrected by these labels; "" if one can."""
        hits, misses, alarms, rejections = self.totals
        for n, what in ((hits + misses, "positive"), (alarms + rejections, "negative")):
            if n < MIN_LABELS:
                return f"{n} human labels are {what}, fewer than {MIN_LABELS} ({self.source})"
        information = self.sensitivity + self.specificity
        if information < MIN_INFORMATION:
            return f"sensitivity + specificity is {information:.2f}, under {MIN_INFORMATION} ({self.source})"
        return ""


def _share(pair: NDArray) -> NDArray:
    """First of a pair of counts over their sum, nan of none; [..., 2] -> [...]."""
    with np.errstate(invalid="ignore"):
        return pair[..., 0] / pair.sum(axis=-1)


def _interval(counts: NDArray, confidence: float) -> Interval:
    """`counts`: right and wrong by cluster, [n_clusters, 2]."""
    clusters = np.arange(len(counts))
    right, wrong = (np.repeat(clusters, column) for column in counts.T)
    values = np.repeat([1.0, 0.0], [len(right), len(wrong)])
    return cluster_interval(values, np.concatenate([right, wrong]), confidence) if len(values) else UNKNOWN


def corrected(rate: ArrayLike, sensitivity: ArrayLike, specificity: ArrayLike) -> NDArray:
    """(p + sp − 1) / (se + sp − 1), clipped to [0, 1]; nan where the judge tells nothing (se + sp <= 1)."""
    information = np.asarray(sensitivity, dtype=float) + specificity - 1
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(information > 0, np.clip((np.asarray(rate) + specificity - 1) / information, 0, 1), np.nan)


def corrected_rate(
    outcome: NDArray, clusters: NDArray, labels: Labels, confidence: float = 0.95, draws: int = DRAWS, seed: int = 0
) -> tuple[float, Interval]:
    """A rate corrected for the judge's errors, with a percentile interval of a bootstrap over both samples.

    `outcome` (0 or 1), `clusters`: [n answers]. Answers and labels are drawn again by cluster. Where all answers say
    the same, that shows no spread, so the interval also covers the corrected bounds of the rate's own interval.
    """
    sums, sizes = cluster_totals(outcome, clusters)
    answers, labelled = resamples((len(sums), len(labels.counts)), draws, seed)
    counts = labelled @ labels.counts
    drawn = corrected((answers @ sums) / (answers @ sizes), _share(counts[:, :2]), _share(counts[:, :1:-1]))
    tails = [(1 - confidence) / 2, (1 + confidence) / 2]
    low, high = np.nanquantile(drawn, tails)
    bounds = corrected(cluster_interval(outcome, clusters, confidence), labels.sensitivity, labels.specificity)
    value = float(corrected(outcome.mean(), labels.sensitivity, labels.specificity))
    return value, (float(min(low, bounds[0])), float(max(high, bounds[1])))


def shipped(judge: str, row: Any, kind: str) -> tuple[Labels | None, str]:
    """The labels that ship for a judge (`row` of judges.yaml) and kind of benchmark, or None and why there are none.

    They hold for the VERSION and parameters they were measured with and for no others.
    """
    file = labels_file(judge)
    if not file.exists():
        return None, "no human labels for this judge"
    measured = read_json(file)
    for key, now in (("version", version(row.module)), ("params", row.params)):
        if measured[key] != now:
            return None, f"human labels were measured at {key} {measured[key]}, this run has {now}"
    if kind not in measured["counts"]:
        return None, f"no human labels for this judge on {kind} benchmarks"
    try:
        counts = np.array(measured["counts"][kind], dtype=int).reshape(-1, 4)
    except ValueError as error:
        raise UserError(f"{file}: counts.{kind}: not rows of four counts ({error}): restore the file") from error
    return Labels(counts, measured["source"][kind]), ""
