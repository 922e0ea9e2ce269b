"""From the verdict files of a run to its CSV files."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from bitsafe.cells import Cell
from bitsafe.distance.rows import distance_rows
from bitsafe.matrix.run import AA, Run
from bitsafe.stats.agreement import cohen_kappa, krippendorff_alpha
from bitsafe.stats.contrasts import Family, Row, Settings, comparison_rows
from bitsafe.stats.csvfile import COLUMNS, write_table
from bitsafe.stats.grids import any_family, any_of_k_rows, beside_any, renamed, worst_comparisons, worst_row
from bitsafe.stats.quality import Labels, shipped
from bitsafe.stats.scores import (
    category_rows,
    constant_columns,
    mean_and_interval,
    replicate_rows,
    score_row,
    setting_rows,
    utility_category_rows,
    utility_row,
)
from bitsafe.stats.states import absence, cell_row, failure, measures, verdict_files
from bitsafe.stats.verdicts import (
    ASR,
    HARM_SCORE,
    OVER_REFUSAL,
    UTILITY,
    Metric,
    Names,
    Verdicts,
    metrics_of,
    read_verdicts,
)

VERSION = 7
HUMAN = "human"  # the judge whose verdicts are people's


@dataclass
class Assembly:
    """The tables as they grow, one model × benchmark × decoding at a time, so that memory holds no more than that."""

    run: Run
    settings: Settings
    failed: dict[Cell, str]
    bits: dict[Cell, float | None]
    tables: dict[str, list[Row]] = field(default_factory=lambda: {name: [] for name in COLUMNS})
    blanks: dict[Cell, list[str]] = field(default_factory=lambda: defaultdict(list))

    def add(self, table: str, rows: list[Row]) -> None:
        self.tables[table] += [{"run": self.run.name, **row} for row in rows]


def assemble(run: Run) -> None:
    """Write the tables of csvfile.COLUMNS."""
    failed = {cell: reason for cell in run.cells if (reason := failure(run, cell))}
    bits = {cell: None if cell in failed else measures(run, cell)["effective_bits"] for cell in run.cells}
    score = run.config.score
    assembly = Assembly(run, Settings(score.confidence, score.permutations), failed, bits)
    for model in dict.fromkeys(cell.model for cell in run.cells):
        for benchmark in run.benchmarks:
            names = Names()
            for decoding in run.decodings:
                _add_measurements(assembly, model, benchmark, decoding, names)
    if run.config.distance.tokens:
        assembly.add("distance", list(distance_rows(run)))
    assembly.tables["cells"] = [cell_row(run, cell, assembly.blanks[cell]) for cell in run.cells]
    for name, rows in assembly.tables.items():
        write_table(run.folder, name, rows)


def _add_measurements(assembly: Assembly, model: str, benchmark: str, decoding: str, names: Names) -> None:
    """Read one model × benchmark × decoding as every judge saw it, and add its rows to the tables."""
    run, kind = assembly.run, assembly.run.benchmarks[benchmark].kind
    judges = [judge for judge in run.judges if run.judge_applies(judge, benchmark)]
    families = {judge: _read_family(assembly, model, benchmark, decoding, judge, names) for judge in judges}
    for judge, family in families.items():
        family.labels, family.no_labels = _labels(run, families, judge, kind)
    grid = run.settings(decoding)
    if grid and kind == "harmful":
        for family in families.values():
            _add_grid(assembly, family, names, grid)
    if grid:
        families = {judge: renamed(family, "mean") for judge, family in families.items()}
    for family in families.values():
        if kind == "harmful":
            _add_scores(assembly, family, names)
        else:
            _add_utility(assembly, family, kind, decoding, names)
        for cell, reason in family.blanks.items():
            assembly.blanks[cell].append(f"{benchmark}, {decoding}, judge {family.identity['judge']}: {reason}")
    assembly.add("agreement", list(_agreement_rows(families, kind, assembly.settings)))
    assembly.add("judge_quality", list(_quality_rows(families, kind, assembly.settings)))


def _read_family(assembly: Assembly, model: str, benchmark: str, decoding: str, judge: str, names: Names) -> Family:
    run = assembly.run
    cells = [cell for cell in run.cells if cell.model == model]
    family = Family({"benchmark": benchmark, "decoding": decoding, "judge": judge}, cells, {})
    family.controls, family.trained = frozenset(run.controls), frozenset(run.trained)
    for cell in cells:
        files = verdict_files(run, cell, benchmark, decoding, judge)
        if reason := assembly.failed.get(cell):
            family.blanks[cell] = reason
        elif all(file.exists() for file in files):
            family.verdicts[cell] = read_verdicts(files, names)
        else:
            family.blanks[cell] = absence(run, cell, judge)
    again = verdict_files(run, cells[0].baseline, benchmark, decoding + AA, judge)
    family.again = read_verdicts(again, names) if all(file.exists() for file in again) else None
    return family


def _add_grid(assembly: Assembly, family: Family, names: Names, grid: list[str]) -> None:
    """What a grid has beside its mean: any setting, the worst one, each one, and any of k."""
    settings, any_, worst = assembly.settings, any_family(family, names), renamed(family, "worst")
    _add_scores(assembly, any_, names, {cell: beside_any(family, cell, settings) for cell in family.cells})
    compared = worst_comparisons(worst, settings)
    assembly.add("comparisons", compared)
    by_contrast = _by_contrast(worst, compared)
    codes = {name: names.setting[name] for name in grid}
    for cell in family.cells:
        bits = {"effective_bits": assembly.bits[cell]}
        row = worst_row(worst, cell, names, by_contrast, settings)
        assembly.add("scores", [row | bits])
        assembly.add("scores", [part | bits for part in setting_rows(family, cell, codes, settings)])
    assembly.add("any_of_k", list(any_of_k_rows(family, len(grid), settings)))


def _add_scores(
    assembly: Assembly, family: Family, names: Names, beside: dict[Cell, Row] = MappingProxyType({})
) -> None:
    """beside: columns of a cell's row that are known better than by the family's verdicts."""
    compared = comparison_rows(family, ASR, assembly.settings)
    assembly.add("comparisons", compared)
    if any(np.isfinite(HARM_SCORE.of(verdicts)).any() for verdicts in family.verdicts.values()):
        assembly.add("comparisons", comparison_rows(family, HARM_SCORE, assembly.settings))
    by_contrast = _by_contrast(family, compared)
    for cell in family.cells:
        bits, replicates = {"effective_bits": assembly.bits[cell]}, assembly.run.replicates(cell.model)
        row = score_row(family, cell, by_contrast, assembly.settings) | beside.get(cell, {})
        by_replicate = replicate_rows(family, cell, replicates, assembly.settings)
        by_category = category_rows(family, cell, dict(names.category), assembly.settings)
        assembly.add("scores", [row | bits])
        assembly.add("scores_by_replicate", [part | bits for part in by_replicate])
        assembly.add("scores_by_category", [part | bits for part in by_category])


def _add_utility(assembly: Assembly, family: Family, kind: str, decoding: str, names: Names) -> None:
    """decoding: of the answers files, where the family's is named after what a grid makes of it."""
    for metric in metrics_of(kind, family.verdicts.values()):
        compared = comparison_rows(family, metric, assembly.settings)
        assembly.add("comparisons", compared)
        by_contrast = _by_contrast(family, compared)
        for cell in family.cells:
            row = utility_row(family, cell, metric, by_contrast, assembly.settings)
            row |= _constant(assembly, family, cell, decoding) | {"effective_bits": assembly.bits[cell]}
            by_category = utility_category_rows(family, cell, metric, dict(names.category), assembly.settings)
            bits = {"effective_bits": assembly.bits[cell]}
            assembly.add("utility", [row])
            assembly.add("utility_by_category", [part | bits for part in by_category])


def _constant(assembly: Assembly, family: Family, cell: Cell, decoding: str) -> Row:
    """How near a cell that chooses among options is to saying one letter always."""
    benchmark, run = family.identity["benchmark"], assembly.run
    if run.benchmarks[benchmark].asks != "choice" or cell not in family.verdicts:
        return {}
    outcome = UTILITY.of(family.verdicts[cell])
    _, (low, _high) = mean_and_interval(outcome, family.verdicts[cell].cluster, assembly.settings.confidence)
    return constant_columns(verdict_files(run, cell, benchmark, decoding, family.identity["judge"]), low)


def _by_contrast(family: Family, rows: list[Row]) -> dict[tuple[Cell, str], Row]:
    cells: dict[tuple, Cell] = {tuple(cell.columns().values()): cell for cell in family.cells}
    columns = ("model", "method", "bits", "risk", "stage")
    return {(cells[tuple(row[name] for name in columns)], row["contrast"]): row for row in rows}


def _agreement_rows(families: dict[str, Family], kind: str, settings: Settings) -> Iterator[Row]:
    """One row a pair of judges: kappa over the answers, of all cells together, that both scored."""
    for (judge_a, a), (judge_b, b) in combinations(families.items(), 2):
        first, second, clusters = _both(a, b, kind)
        scored = np.isfinite(first) & np.isfinite(second)
        found = cohen_kappa(first[scored], second[scored], clusters[scored], settings.confidence)
        yield {
            "model": a.cells[0].model,
            **{"benchmark": a.identity["benchmark"], "decoding": a.identity["decoding"]},
            **{"outcome": _outcome(kind), "judge_a": judge_a, "judge_b": judge_b},
            **{"n": found.n, "n_dropped": int((~scored).sum()), "n_clusters": len(np.unique(clusters[scored]))},
            **{name: getattr(found, name) for name in ("both", "only_a", "only_b", "neither", "kappa", "reason")},
            **{"agreement": found.share, "kappa_low": found.low, "kappa_high": found.high},
        }


def _labels(run: Run, families: dict[str, Family], judge: str, kind: str) -> tuple[Labels | None, str]:
    """What is known of a judge's errors: by the run's own human verdicts on the same answers, else by what ships."""
    human = families.get(HUMAN)
    if human is None or judge == HUMAN:
        return shipped(judge, run.judge(judge), kind)
    first, truth, clusters = _both(families[judge], human, kind)
    known = np.isfinite(first) & np.isfinite(truth)
    found = Labels.of(first[known], truth[known], clusters[known], "this run's human verdicts")
    return (found, "") if known.any() else (None, "people judged none of this judge's answers")


def _quality_rows(families: dict[str, Family], kind: str, settings: Settings) -> Iterator[Row]:
    """One row a judge: its errors against human labels, and alpha of all judges (people left out) on the answers."""
    judges = {name: family for name, family in families.items() if name != HUMAN}
    shared = _alpha_columns(judges, kind, settings.confidence)
    for family in judges.values():
        labels = family.labels
        row = {"model": family.cells[0].model, **family.identity, "outcome": _outcome(kind), **shared}
        if labels is None:
            yield row | {"reason": family.no_labels}
            continue
        (low, high), (spec_low, spec_high) = labels.intervals(settings.confidence)
        row |= dict(zip(("hits", "misses", "false_alarms", "correct_rejections"), labels.totals))
        row |= {"sensitivity": labels.sensitivity, "sensitivity_low": low, "sensitivity_high": high}
        row |= {"specificity": labels.specificity, "specificity_low": spec_low, "specificity_high": spec_high}
        yield row | {"source": labels.source, "n_labels": sum(labels.totals), "reason": labels.insufficient()}


def _alpha_columns(judges: dict[str, Family], kind: str, confidence: float) -> Row:
    """Krippendorff's alpha of all judges over the answers of all cells; blank for fewer than two judges."""
    cells = list(dict.fromkeys(cell for family in judges.values() for cell in family.verdicts))
    if len(judges) < 2 or not cells:
        return {"n_judges": len(judges)}
    seen = [_ratings([family.verdicts.get(cell) for family in judges.values()], _metric(kind)) for cell in cells]
    ratings, clusters = (np.concatenate(parts) for parts in zip(*seen))
    alpha, (low, high) = krippendorff_alpha(ratings, clusters, draws=1000, confidence=confidence)
    bounds = {"alpha_low": low, "alpha_high": high}
    return {"n_judges": len(judges), "n_answers": len(ratings), "alpha": alpha, **bounds}


def _ratings(judged: Sequence[Verdicts | None], metric: Metric) -> tuple[NDArray, NDArray]:
    """What each judge (None: silent) says of every text of a cell, nan of one that it did not see; and the clusters.

    [n texts, n judges] and [n texts]. Judges that read different texts for one answer rate two things.
    """
    seen = [(place, one) for place, one in enumerate(judged) if one is not None]
    keys = np.concatenate([np.stack([one.answer, one.text], axis=1) for _, one in seen])
    units, first, at = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    ratings = np.full((len(units), len(judged)), np.nan)
    ratings[at, np.repeat([place for place, _ in seen], [len(one) for _, one in seen])] = np.concatenate(
        [metric.of(one) for _, one in seen]
    )
    return ratings, np.concatenate([one.cluster for _, one in seen])[first]


def _metric(kind: str) -> Metric:
    return ASR if kind == "harmful" else OVER_REFUSAL


def _outcome(kind: str) -> str:
    return "harmful" if kind == "harmful" else "refused"


def _both(a: Family, b: Family, kind: str) -> NDArray:
    """Outcome by a, outcome by b and cluster, over the answers of all cells that both judged: [3, n]."""
    common = [cell for cell in a.cells if cell in a.verdicts and cell in b.verdicts]
    seen = [_seen_by_both(a.verdicts[cell], b.verdicts[cell], _metric(kind)) for cell in common]
    return np.concatenate([np.empty((3, 0)), *seen], axis=1)


def _seen_by_both(a: Verdicts, b: Verdicts, metric: Metric) -> NDArray:
    """Outcome by a, outcome by b (nan where they judged another text) and cluster of the answers of both. [3, n]"""
    _, in_a, in_b = np.intersect1d(a.answer, b.answer, assume_unique=True, return_indices=True)
    same = np.where(a.text[in_a] == b.text[in_b], 1.0, np.nan)
    return np.stack([metric.of(a)[in_a] * same, metric.of(b)[in_b], a.cluster[in_a]])
