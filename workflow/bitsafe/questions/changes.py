"""What differs between two runs: the same cells paired by prompt, and what was configured and made otherwise."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from bitsafe.cells import Cell
from bitsafe.matrix.recipes import data_identity, row_identity
from bitsafe.matrix.run import Run
from bitsafe.register.evidence import manifest_of
from bitsafe.stats.contrasts import Row, Settings, compare, correct
from bitsafe.stats.states import absence, failure, verdict_files
from bitsafe.stats.verdicts import ASR, Names, Verdicts, metrics_of, read_verdicts

SELECTION = {"limit", "sample", "leave_out", "per_category", "where", "duplicates"}  # which prompts, not what they are
PLACE = ("run", "results", "data_dir", "report", "release", "gate")  # of a configuration: what moves no number


@dataclass(frozen=True)
class Pair:
    """Two runs; changes are told of b against a."""

    a: Run
    b: Run

    @property
    def cells(self) -> list[Cell]:
        return [cell for cell in self.a.cells if self.b.has(cell)]

    def only(self) -> dict[str, list[Cell]]:
        return {
            "A": [cell for cell in self.a.cells if not self.b.has(cell)],
            "B": [cell for cell in self.b.cells if not self.a.has(cell)],
        }

    @property
    def settings(self) -> Settings:
        """Those of a; another coverage in b stands among the differences of the configurations."""
        return Settings(self.a.config.score.confidence, self.a.config.score.permutations)


def changed_rows(pair: Pair) -> Iterator[Row]:
    """One row a cell × benchmark × decoding × judge × metric of both runs, Holm's p within all but the cell."""
    for model in dict.fromkeys(cell.model for cell in pair.cells):
        for benchmark, decoding, judge in common(pair):
            cells = [cell for cell in pair.cells if cell.model == model]
            rows = [row for cell in cells for row in rows_of(pair, cell, benchmark, decoding, judge)]
            rows.sort(key=lambda row: row["metric"])
            for _metric, group in groupby(rows, key=lambda row: row["metric"]):
                family = list(group)
                correct(family, frozenset(pair.a.controls | pair.b.controls))
                yield from family


def common(pair: Pair) -> Iterator[tuple[str, str, str]]:
    """Benchmark, decoding and judge that both runs have."""
    for benchmark in pair.a.benchmarks:
        if benchmark not in pair.b.benchmarks:
            continue
        for decoding in (name for name in pair.a.decodings if name in pair.b.decodings):
            for judge in (name for name in pair.a.judges if name in pair.b.judges):
                if all(run.judge_applies(judge, benchmark) for run in (pair.a, pair.b)):
                    yield benchmark, decoding, judge


def rows_of(pair: Pair, cell: Cell, benchmark: str, decoding: str, judge: str) -> Iterator[Row]:
    """One row a metric; a single row with the reason where the two cannot be paired."""
    place = {**cell.columns(), "benchmark": benchmark, "decoding": decoding, "judge": judge, "contrast": "run"}
    kind = pair.a.benchmarks[benchmark].kind
    if reason := why_not_paired(pair, cell, benchmark, decoding, judge):
        yield {**place, "metric": "asr" if kind == "harmful" else kind, "reason": reason}
        return
    names = Names()
    before, after = (read(run, cell, benchmark, decoding, judge, names) for run in (pair.a, pair.b))
    for metric in [ASR] if kind == "harmful" else metrics_of(kind, (before, after)):
        yield {**place, "metric": metric.name, **compare(after, before, metric, pair.settings)}


def read(run: Run, cell: Cell, benchmark: str, decoding: str, judge: str, names: Names) -> Verdicts:
    return read_verdicts(verdict_files(run, cell, benchmark, decoding, judge), names)


def why_not_paired(pair: Pair, cell: Cell, benchmark: str, decoding: str, judge: str) -> str:
    """Why a cell's answers cannot be held side by side; "" if they can."""
    rows = [run.benchmarks[benchmark] for run in (pair.a, pair.b)]
    if rows[0].kind != rows[1].kind or what_is_asked(rows[0]) != what_is_asked(rows[1]):
        return f"{benchmark} is another set of prompts in each run"
    for name, run in (("A", pair.a), ("B", pair.b)):
        files = verdict_files(run, cell, benchmark, decoding, judge)
        if reason := failure(run, cell):
            return f"{name}: failed: {reason}"
        if not all(file.exists() for file in files):
            return f"{name}: {absence(run, cell, judge)}"
    return ""


def what_is_asked(row: Any) -> dict[str, Any]:
    return {key: value for key, value in data_identity(row).items() if key not in SELECTION}


def differences(pair: Pair) -> Iterator[tuple[str, Any, Any]]:
    """Every key that differs: of the configurations, of rows that both runs name, of cells' parameters."""
    yield from walked("", *(strip(run.config.model_dump()) for run in (pair.a, pair.b)))
    for kind, names in (("decodings", common_names(pair, "decodings")), ("judges", common_names(pair, "judges"))):
        for name in names:
            rows = [row_identity(run.tables.get(kind, name, kind)) for run in (pair.a, pair.b)]
            yield from walked(f"{kind}.{name}", *rows)
    for cell in pair.cells:
        yield from walked(f"{cell}", pair.a.params(cell), pair.b.params(cell))


def strip(config: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in config.items() if key not in PLACE}


def common_names(pair: Pair, kind: str) -> list[str]:
    return [name for name in getattr(pair.a, kind) if name in getattr(pair.b, kind)]


def walked(where: str, a: Any, b: Any) -> Iterator[tuple[str, Any, Any]]:
    """The leaves at which two values differ, with the path of keys to each."""
    if isinstance(a, dict) and isinstance(b, dict):
        for key in dict.fromkeys([*a, *b]):
            yield from walked(f"{where}.{key}".lstrip("."), a.get(key), b.get(key))
    elif a != b:
        yield where, a, b


def made_otherwise(pair: Pair) -> tuple[list[Cell], dict[str, tuple[list[str], list[str]]]]:
    """Cells whose artefacts differ by their recorded hash; and commits, hosts' machines and libraries of each run."""
    other, seen = [], {}
    for cell in pair.cells:
        hashes, made = zip(*(artefacts_of(run, cell) for run in (pair.a, pair.b)))
        other += [cell] if hashes[0] != hashes[1] else []
        for key in dict.fromkeys([*made[0], *made[1]]):
            values = seen.setdefault(key, (set(), set()))
            for side in (0, 1):
                values[side].update(made[side].get(key, set()))
    return other, {key: (sorted(a), sorted(b)) for key, (a, b) in seen.items() if a != b}


def artefacts_of(run: Run, cell: Cell) -> tuple[list[str], dict[str, set[str]]]:
    """Artefact hashes by replicate, and what their manifests say of where they were made."""
    found = [manifest_of(run.replicate_folder(cell, k)) for k in range(run.replicates(cell.model))]
    made: dict[str, set[str]] = {}
    for manifest in found:
        told = manifest.get("provenance") or {}
        for key, value in {"commit": told.get("commit"), **(told.get("libraries") or {})}.items():
            made.setdefault(key, set()).add(str(value))
    return [str(manifest.get("artefact_sha256", "")) for manifest in found], made
