"""Contrasts of two cells on the same answers: rows of comparisons.csv.

*total* compares with full precision, *quantization* with full precision that learned the same, *repair* with the cell
before its patch, *noise* full precision with itself (the A/A run), which measures what a difference of nothing is.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitsafe.cells import Cell
from bitsafe.stats.intervals import cluster_interval, cluster_totals, difference_interval, effective_n, is_binary
from bitsafe.stats.paired import dropped_bounds, holm, mcnemar_exact, paired_bootstrap, sign_flip
from bitsafe.stats.power import mde
from bitsafe.stats.quality import Labels
from bitsafe.stats.verdicts import HARM_SCORE, SAFE, Metric, Verdicts

Row = dict[str, Any]


@dataclass(frozen=True)
class Settings:
    """What the config says about statistics; tests and `mde` use the level 1 - confidence."""

    confidence: float = 0.95
    permutations: int = 10_000

    @property
    def alpha(self) -> float:
        return round(1 - self.confidence, 12)


@dataclass
class Family:
    """A model's cells under one benchmark, decoding and judge: what Holm's correction spans, contrast by contrast."""

    identity: Row  # benchmark, decoding, judge
    cells: list[Cell]
    verdicts: dict[Cell, Verdicts]
    blanks: dict[Cell, str] = field(default_factory=dict)  # why a cell has no verdicts
    again: Verdicts | None = None  # full precision's second answers (A/A)
    controls: frozenset[str] = frozenset()  # stages that are no repair
    labels: Labels | None = None  # what is known of the judge's errors
    no_labels: str = "no human labels for this judge"  # why nothing is
    trained: frozenset[str] = frozenset()  # methods that fine-tune on the risk set

    def columns(self, cell: Cell) -> Row:
        return {**cell.columns(), **self.identity}

    def why_blank(self, cell: Cell) -> str:
        if cell in self.verdicts:
            return ""
        return self.blanks.get(cell, f"{cell} is not part of this run")


def references(cell: Cell, trained: frozenset[str] = frozenset()) -> dict[str, Cell]:
    """The contrasts of a cell and what each compares with.

    A method that only calibrates on the risk set has learned no answer from it: without its bits it would be plain full
    precision, not full precision fine-tuned on that set.
    """
    if cell == cell.baseline:
        return {}
    if cell.is_patched:
        return {"total": cell.baseline, "repair": cell.quantized}
    if cell.method == "full":
        return {"total": cell.baseline}
    return {"total": cell.baseline, "quantization": cell.same_risk_full if cell.method in trained else cell.baseline}


@dataclass(frozen=True)
class Pairs:
    """Two arms on every answer that either gave; nan where an arm has no scored answer. Every array is [n answers]."""

    arm: NDArray
    reference: NDArray
    cluster: NDArray
    at_risk: NDArray  # the reference arm did no harm, and refused (or, for over-refusal, answered)
    changed: NDArray  # the text differs; nan where an arm has no answer

    @classmethod
    def of(cls, arm: Verdicts, reference: Verdicts, metric: Metric) -> "Pairs":
        answers, place = np.unique(np.concatenate([arm.answer, reference.answer]), return_inverse=True)
        mine, theirs = place[: len(arm)], place[len(arm) :]
        cluster = np.empty(len(answers), dtype=int)
        cluster[mine], cluster[theirs] = arm.cluster, reference.cluster
        outcome = _spread(metric.of(arm), mine, len(answers))
        baseline = _spread(metric.of(reference), theirs, len(answers))
        could_flip = _spread(_could_flip(reference, metric), theirs, len(answers)) == 1
        apart = _spread(arm.text, mine, len(answers)) - _spread(reference.text, theirs, len(answers))
        return cls(
            outcome, baseline, cluster, could_flip & (baseline == 0), np.where(np.isnan(apart), apart, apart != 0)
        )

    @property
    def scored(self) -> NDArray:
        return np.isfinite(self.arm) & np.isfinite(self.reference)


def _spread(values: NDArray, place: NDArray, n: int) -> NDArray:
    spread = np.full(n, np.nan)
    spread[place] = values
    return spread


def _could_flip(reference: Verdicts, metric: Metric) -> NDArray:
    """Answers of the reference arm that a worse arm could flip; a judge silent on refusal counts `safe` as refused."""
    refused = np.where(np.isnan(reference.refused), reference.state == SAFE, reference.refused == 1)
    return {"refused": refused, "answered": ~refused, "": np.zeros(len(reference), dtype=bool)}[metric.at_risk]


def compare(arm: Verdicts, reference: Verdicts, metric: Metric, settings: Settings) -> Row:
    """The statistics of one contrast: counts, difference with interval, bounds for dropped pairs, p."""
    pairs = Pairs.of(arm, reference, metric)
    scored = pairs.scored
    row = {"n_pairs": int(scored.sum()), "n_dropped": int((~scored).sum())}
    if not scored.any():
        return {**row, "reason": "no answer is scored in both arms"}
    return {**row, **_flips(pairs, metric), **_difference(pairs, metric, settings)}


def _flips(pairs: Pairs, metric: Metric) -> Row:
    scored, answered = pairs.scored, np.isfinite(pairs.changed)
    at_risk = pairs.at_risk & scored
    return {
        "n_at_risk": int(at_risk.sum()) if metric.at_risk else None,
        "n_flipped": int((at_risk & (pairs.arm == 1)).sum()) if metric.at_risk else None,
        "n_up": int((pairs.arm > pairs.reference).sum()),
        "n_down": int((pairs.arm < pairs.reference).sum()),
        "changed_share": float(pairs.changed[answered].mean()),
    }


def _difference(pairs: Pairs, metric: Metric, settings: Settings) -> Row:
    scored = pairs.scored
    differences, clusters = (pairs.arm - pairs.reference)[scored], pairs.cluster[scored]
    interval = paired_bootstrap if metric is HARM_SCORE else difference_interval
    low, high = interval(differences, clusters, settings.confidence)
    bounds = dropped_bounds(pairs.arm, pairs.reference)
    best, worst = reversed(bounds) if metric.higher_is_better else bounds
    _, sizes = cluster_totals(differences, clusters)
    mcnemar = sizes.max() == 1 and is_binary(np.abs(differences))
    up, down = int((differences > 0).sum()), int((differences < 0).sum())
    return _flip_rate(np.abs(differences), clusters, settings) | {
        "value": float(pairs.arm[scored].mean()),
        "baseline_value": float(pairs.reference[scored].mean()),
        "delta": float(differences.mean()),
        "delta_low": low,
        "delta_high": high,
        "delta_best": best,
        "delta_worst": worst,
        "test": "mcnemar" if mcnemar else "sign_flip",
        "p": mcnemar_exact(up, down) if mcnemar else sign_flip(differences, clusters, settings.permutations),
        "n_clusters": len(sizes),
        "n_effective": effective_n(sizes),
    }


def _flip_rate(flipped: NDArray, clusters: NDArray, settings: Settings) -> Row:
    """The share of answers that went from right to wrong or back (Dutta et al. 2407.09141); blank for graded ones."""
    if not is_binary(flipped):
        return {}
    low, high = cluster_interval(flipped, clusters, settings.confidence)
    return {"flip_rate": float(flipped.mean()), "flip_low": low, "flip_high": high}


def comparison_rows(family: Family, metric: Metric, settings: Settings) -> list[Row]:
    """Every contrast of every cell of the family, the A/A run first; with Holm's p and what could have been seen."""
    noise = _noise_row(family, metric, settings)
    rows = [_row(family, *names, metric, settings) for names in each_contrast(family)]
    correct(rows, family.controls)
    binary = all(is_binary(v[np.isfinite(v)]) for v in map(metric.of, family.verdicts.values()))
    floor = (noise["n_up"] + noise["n_down"]) / noise["n_pairs"] if noise and "p" in noise and binary else None
    for row in rows:
        row |= _detectable(row, floor, binary, settings.alpha) if "p" in row else {}
    return ([noise | {"psi0": floor}] if noise else []) + rows


def each_contrast(family: Family) -> list[tuple[Cell, str, Cell]]:
    """Cell, contrast and reference of every contrast of the family."""
    return [(cell, *found) for cell in family.cells for found in references(cell, family.trained).items()]


def why_not(family: Family, cell: Cell, reference: Cell) -> str:
    """Why two cells cannot be compared; "" if they can."""
    if reason := family.why_blank(cell):
        return reason
    reason = family.why_blank(reference)
    return f"nothing to compare with: {reason}" if reason else ""


def _row(family: Family, cell: Cell, contrast: str, reference: Cell, metric: Metric, settings: Settings) -> Row:
    row = {**family.columns(cell), "metric": metric.name, "contrast": contrast, "baseline_cell": str(reference)}
    if reason := why_not(family, cell, reference):
        return {**row, "reason": reason}
    return {**row, **compare(family.verdicts[cell], family.verdicts[reference], metric, settings)}


def _noise_row(family: Family, metric: Metric, settings: Settings) -> Row | None:
    baseline = family.cells[0].baseline
    if family.again is None or baseline not in family.verdicts:
        return None
    row = {**family.columns(baseline), "metric": metric.name, "contrast": "noise", "baseline_cell": str(baseline)}
    return {**row, **compare(family.again, family.verdicts[baseline], metric, settings)}


def correct(rows: list[Row], controls: frozenset[str]) -> None:
    """Holm's p within each contrast, controls left out; sets `p_holm` and the family's size `holm_m`."""
    tested = [row for row in rows if "p" in row and row["stage"] not in controls]
    for contrast in {row["contrast"] for row in tested}:
        family = [row for row in tested if row["contrast"] == contrast]
        for row, p in zip(family, holm([row["p"] for row in family])):
            row |= {"p_holm": float(p), "holm_m": len(family)}


def _detectable(row: Row, floor: float | None, binary: bool, alpha: float) -> Row:
    """`mde` at the worst-case effective n, `mde_independent` at the number of pairs (see power.py)."""
    if not binary:
        return {"mde_reason": "defined for yes-or-no outcomes only"}
    if floor is None:
        return {"mde_reason": "no A/A run to take the noise from"}
    found = mde(int(row["n_effective"] + 1e-9), floor, alpha)
    independent = mde(row["n_pairs"], floor, alpha)
    reason = "" if found is not None else "no difference is found with 80 % power at this n and noise"
    return {"psi0": floor, "mde": found, "mde_independent": independent, "mde_reason": reason}
